//! A target over whole responses: of n that the policy drew, the better ones.

use anyhow::{Result, ensure};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::mixture::{Pair, Rule, Solution};

/// Over n responses of the policy to one prompt, p is 1/n each and t = softmax(r/β); responses are picked from the mixture
/// q of the two, with the weight p/q = 1/(n q_i).
///
/// Over all draws and picks, the weighted mean of f over the picked ones has the mean E_p\[f\], as draws from the policy
/// have, for every rule: what changes is the variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestOfN {
    pub n: usize,
    /// The temperature of the target.
    pub beta: f64,
    pub rule: Rule,
}

/// What was picked for one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Picks {
    /// (which of the n, log of its weight 1/(n q)); one may be picked more than once.
    pub picks: Vec<(usize, f64)>,
    /// α and the diagnostics of q, over the n responses.
    pub solution: Solution,
}

impl BestOfN {
    /// Picks k of the n responses with these rewards, independently.
    ///
    /// # Errors
    /// Another number of rewards than n, a reward that is not finite, β that is not positive.
    pub fn pick(&self, rewards: &[f64], k: usize, rng: &mut impl Rng) -> Result<Picks> {
        ensure!(rewards.len() == self.n && self.n > 0, "{} rewards are not those of best of {}", rewards.len(), self.n);
        ensure!(rewards.iter().all(|r| r.is_finite()), "a reward is not finite: {rewards:?}");
        ensure!(self.beta > 0.0, "the temperature of best of n must be positive: {}", self.beta);
        let t: Vec<f64> = rewards.iter().map(|r| r / self.beta).collect();
        let pair = Pair::from_logits_f64(&vec![0.0; self.n], &t)?;
        let solution = pair.solve(&self.rule)?;
        let log_q = pair.log_q(solution.alpha);
        let log_n = (self.n as f64).ln();
        let pick = |_| {
            let mut left: f64 = rng.random();
            // Rounding at the very end falls back to the last one that has mass.
            let mut picked = 0;
            for (i, log_q) in log_q.iter().enumerate().filter(|(_, log_q)| log_q.is_finite()) {
                picked = i;
                left -= log_q.exp();
                if left < 0.0 {
                    break;
                }
            }
            (picked, -log_n - log_q[picked])
        };
        Ok(Picks { picks: (0..k).map(pick).collect(), solution })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, rng};

    #[test]
    fn weighted_picks_have_the_mean_of_the_draws() {
        let best = BestOfN { n: 4, beta: 0.3, rule: Rule::Q_STAR };
        let rewards = [0.1, 0.9, 0.4, 0.4];
        let mut rng = rng(1, Purpose::Rollout, 0, 0);
        let picks = best.pick(&rewards, 100_000, &mut rng).unwrap().picks;
        let share = |i: usize| picks.iter().filter(|(picked, _)| *picked == i).count() as f64 / 1e5;
        let weighted: f64 = picks.iter().map(|(i, log_w)| log_w.exp() * rewards[*i]).sum::<f64>() / 1e5;
        assert!((weighted - 0.45).abs() < 0.005, "{weighted}");
        assert!(share(1) > 0.4 && (share(2) - share(3)).abs() < 0.01, "the best is picked most often");
        // By hand, for Fixed(1/2): q is proportional to exp(r/2β).
        let best = BestOfN { rule: Rule::Fixed(0.5), ..best };
        let picks = best.pick(&rewards, 50, &mut rng).unwrap();
        let mass = rewards.map(|r: f64| (r / 0.6).exp());
        for (i, log_w) in picks.picks {
            let q = mass[i] / mass.iter().sum::<f64>();
            assert!((log_w.exp() - 1.0 / (4.0 * q)).abs() < 1e-9);
        }
    }

    #[test]
    fn equal_rewards_make_every_weight_1() {
        let best = BestOfN { n: 3, beta: 0.3, rule: Rule::Q_STAR };
        let picks = best.pick(&[0.5; 3], 9, &mut rng(1, Purpose::Rollout, 0, 0)).unwrap();
        assert!(picks.picks.iter().all(|(_, log_w)| log_w.abs() < 1e-12) && picks.solution.alpha == 0.5);
        assert!(best.pick(&[0.5; 2], 9, &mut rng(1, Purpose::Rollout, 0, 0)).is_err());
    }
}
