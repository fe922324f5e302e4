//! What is done to rewards before they become returns, and to β.

use serde::{Deserialize, Serialize};

/// The treatment of rewards, in the order of the fields. By default nothing is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shaping {
    /// Subtracted for each token of the response.
    pub length_penalty: f64,
    /// Subtracted where the response was cut at the limit.
    pub cut_penalty: f64,
    /// Whether the running mean of all rewards so far is subtracted and the rest divided by their standard deviation.
    pub normalize: bool,
    /// The most that a reward may lie from 0 after that.
    pub clip: Option<f64>,
}

/// Count, mean and sum of squared distances of the rewards so far (Welford 1962).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Moments {
    pub count: f64,
    pub mean: f64,
    pub squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let from_old = x - self.mean;
        self.mean += from_old / self.count;
        self.squares += from_old * (x - self.mean);
    }

    fn sd(&self) -> f64 {
        (self.squares / (self.count - 1.0).max(1.0)).sqrt()
    }
}

impl Shaping {
    /// Shapes the rewards of one step: (reward, tokens, whether it ended by itself) of every response. `moments` are
    /// brought up to date with them first.
    pub(super) fn shape(&self, rewards: &[(f64, usize, bool)], moments: &mut Moments) -> Vec<f64> {
        let penalised = |&(reward, tokens, ended): &(f64, usize, bool)| {
            reward - self.length_penalty * tokens as f64 - if ended { 0.0 } else { self.cut_penalty }
        };
        let mut shaped: Vec<f64> = rewards.iter().map(penalised).collect();
        if self.normalize {
            shaped.iter().for_each(|&x| moments.add(x));
            // Rewards that are all the same have no spread to divide by.
            let sd = if moments.sd() > 1e-8 { moments.sd() } else { 1.0 };
            shaped.iter_mut().for_each(|x| *x = (*x - moments.mean) / sd);
        }
        if let Some(clip) = self.clip {
            shaped.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
        }
        shaped
    }
}

/// How β of E\[r\] − β·KL(π_θ‖π_init) moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlControl {
    #[default]
    Fixed,
    /// Towards the β at which the divergence of a response is `target` nats, by at most a fifth of itself in `horizon`
    /// responses (Ziegler et al. 2019, arXiv:1909.08593). The divergence is that of the drawn responses: of draws from
    /// another proposal than the policy it is no KL(π_θ‖π_init).
    Adaptive { target: f64, horizon: f64 },
}

impl KlControl {
    /// β after a step of `responses` responses with the divergence `kl`.
    pub(super) fn next(self, beta: f64, kl: Option<f64>, responses: usize) -> f64 {
        match (self, kl) {
            (KlControl::Adaptive { target, horizon }, Some(kl)) => {
                let error = (kl / target - 1.0).clamp(-0.2, 0.2);
                beta * (1.0 + error * responses as f64 / horizon)
            }
            _ => beta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_does_what_it_says() {
        let rewards = [(1.0, 4, true), (0.5, 2, false)];
        let of = |shaping: Shaping| shaping.shape(&rewards, &mut Moments::default());
        assert_eq!(of(Shaping::default()), [1.0, 0.5]);
        assert_eq!(of(Shaping { length_penalty: 0.25, ..Default::default() }), [0.0, 0.0]);
        assert_eq!(of(Shaping { cut_penalty: 0.25, ..Default::default() }), [1.0, 0.25]);
        assert_eq!(of(Shaping { clip: Some(0.7), ..Default::default() }), [0.7, 0.5]);
        let normalised = of(Shaping { normalize: true, ..Default::default() });
        assert!((normalised[0] - 0.5f64.sqrt()).abs() < 1e-12 && (normalised[0] + normalised[1]).abs() < 1e-12);
    }

    #[test]
    fn moments_run_over_the_steps() {
        let shaping = Shaping { normalize: true, ..Default::default() };
        let mut moments = Moments::default();
        shaping.shape(&[(1.0, 1, true), (2.0, 1, true)], &mut moments);
        let shaped = shaping.shape(&[(6.0, 1, true)], &mut moments);
        // Mean 3, sample variance 7.
        assert!((shaped[0] - 3.0 / 7f64.sqrt()).abs() < 1e-12, "{shaped:?}");
        assert_eq!(shaping.shape(&[(0.5, 1, true)], &mut Moments::default()), [0.0], "one reward has no spread");
    }

    #[test]
    fn the_controller_moves_towards_its_target() {
        let control = KlControl::Adaptive { target: 6.0, horizon: 640.0 };
        assert!((control.next(0.1, Some(12.0), 64) - 0.1 * 1.02).abs() < 1e-15);
        assert!((control.next(0.1, Some(5.4), 64) - 0.1 * 0.99).abs() < 1e-15);
        assert_eq!(control.next(0.1, None, 64), 0.1);
        assert_eq!(KlControl::Fixed.next(0.1, Some(12.0), 64), 0.1);
    }
}
