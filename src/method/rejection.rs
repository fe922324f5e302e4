//! Rejection sampling of responses: from the policy to the distribution that KL-regularised RL aims at.

use serde::{Deserialize, Serialize};

/// Accepts a response y of the policy with probability π_t(y)/(M π_θ(y)), for π_t ∝ π_init exp(r/β)
/// (Liu et al. 2023, arXiv:2309.06657).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    pub beta: f64,
    pub bound: Bound,
}

/// What M is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// exp(r_max/β), from the reward's known bound 1: what is accepted is distributed as π_t wherever π_θ ≥ π_init
    /// exp((r − 1)/β). Elsewhere the probability is cut at 1: π_t wants more of what the policy hardly draws.
    Reward,
    /// The largest ratio among the responses to one prompt, of which the best one is then always accepted. Biased: with k
    /// responses what is accepted lies between the policy and π_t, and a policy that learns from it round after
    /// round goes beyond π_t, to the response of the largest ratio alone.
    BatchMax,
}

/// The largest reward that a task gives.
const LARGEST_REWARD: f64 = 1.0;

impl Rejection {
    /// The logarithms of the probabilities with which k responses to each prompt are accepted, one prompt after the other,
    /// from their rewards and their log-probabilities, those of whole responses.
    pub fn log_acceptance(&self, rewards: &[f64], log_p: &[f64], log_init: &[f64], k: usize) -> Vec<f64> {
        let ratios: Vec<f64> =
            rewards.iter().zip(log_p.iter().zip(log_init)).map(|(r, (p, init))| init - p + r / self.beta).collect();
        let of_group = |group: &[f64]| -> Vec<f64> {
            let bound = match self.bound {
                Bound::Reward => LARGEST_REWARD / self.beta,
                Bound::BatchMax => group.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            group.iter().map(|ratio| (ratio - bound).min(0.0)).collect()
        };
        ratios.chunks(k.max(1)).flat_map(of_group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_is_the_tilted_distribution() {
        // Three responses; the policy has moved away from π_init, not beyond the bound.
        let (p, init, rewards) = ([0.5f64, 0.3, 0.2], [0.4f64, 0.4, 0.2], [1.0, 0.5, 0.0]);
        let rejection = Rejection { beta: 0.8, bound: Bound::Reward };
        let logs = |x: [f64; 3]| x.map(f64::ln);
        let accepted = rejection.log_acceptance(&rewards, &logs(p), &logs(init), 1);
        let mass: Vec<f64> = accepted.iter().zip(p).map(|(a, p)| p * a.exp()).collect();
        let tilted: Vec<f64> = rewards.iter().zip(init).map(|(r, init): (&f64, f64)| init * (r / 0.8).exp()).collect();
        let (mass_sum, tilted_sum) = (mass.iter().sum::<f64>(), tilted.iter().sum::<f64>());
        for (mass, tilted) in mass.iter().zip(tilted) {
            assert!((mass / mass_sum - tilted / tilted_sum).abs() < 1e-12);
        }
        // Where the policy draws too little of what π_t wants, the probability is 1.
        assert_eq!(rejection.log_acceptance(&[1.0], &[-3.0], &[-1.0], 1), [0.0]);
    }

    #[test]
    fn the_largest_of_a_group_is_always_accepted() {
        let rejection = Rejection { beta: 0.5, bound: Bound::BatchMax };
        let found = rejection.log_acceptance(&[0.2, 0.7, 0.1, 0.1], &[-1.0; 4], &[-1.0; 4], 2);
        let expected = [-1.0, 0.0, 0.0, 0.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }
}
