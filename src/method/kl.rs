//! Estimators of KL(π_θ‖π_init) from drawn tokens (Schulman 2020, http://joschu.net/blog/kl-approx.html).

use serde::{Deserialize, Serialize};

/// An estimator from one token y drawn from π_θ, with ρ = π_init(y)/π_θ(y).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// −log ρ: unbiased, of either sign.
    K1,
    /// (log ρ)²/2: biased, never negative, and its gradient is unbiased for the KL's.
    K2,
    /// ρ − 1 − log ρ: unbiased, never negative, and its gradient is that of the *other* KL, KL(π_init‖π_θ).
    K3,
}

impl KlEstimator {
    pub const ALL: [KlEstimator; 3] = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3];

    /// The estimate in nats.
    pub fn of(self, log_prob: f64, log_prob_init: f64) -> f64 {
        let log_ratio = log_prob_init - log_prob;
        match self {
            KlEstimator::K1 => -log_ratio,
            KlEstimator::K2 => log_ratio * log_ratio / 2.0,
            KlEstimator::K3 => log_ratio.exp_m1() - log_ratio,
        }
    }

    /// Its derivative by `log_prob`.
    pub fn derivative(self, log_prob: f64, log_prob_init: f64) -> f64 {
        let log_ratio = log_prob_init - log_prob;
        match self {
            KlEstimator::K1 => 1.0,
            KlEstimator::K2 => -log_ratio,
            KlEstimator::K3 => -log_ratio.exp_m1(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By enumeration of four tokens.
    #[test]
    fn k1_and_k3_have_the_divergence_as_mean_and_k2_has_its_gradient() {
        let normalised = |x: [f64; 4]| {
            let z = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            x.map(|x| x - z)
        };
        let (p, init) = (normalised([0.3, -1.0, 2.0, 0.1]), normalised([1.0, 0.0, 0.5, -0.7]));
        let mean = |f: &dyn Fn(usize) -> f64| (0..4).map(|i| p[i].exp() * f(i)).sum::<f64>();
        let exact = mean(&|i| p[i] - init[i]);
        let k = |estimator: KlEstimator| mean(&|i| estimator.of(p[i], init[i]));
        assert!((k(KlEstimator::K1) - exact).abs() < 1e-15 && (k(KlEstimator::K3) - exact).abs() < 1e-15);
        assert!((k(KlEstimator::K2) - exact).abs() > 0.01);
        // By logit j: d log p_i = [i = j] − p_j. The divergence's own gradient is Σ p_i (log p_i/init_i) d log p_i.
        for j in 0..4 {
            let score = |i: usize| f64::from(u8::from(i == j)) - p[j].exp();
            let of = |estimator: KlEstimator| mean(&|i| estimator.derivative(p[i], init[i]) * score(i));
            let exact = mean(&|i| (p[i] - init[i]) * score(i));
            assert!((of(KlEstimator::K2) - exact).abs() < 1e-15);
            assert!((of(KlEstimator::K3) - (p[j].exp() - init[j].exp())).abs() < 1e-15, "the gradient of the reverse");
            assert!(of(KlEstimator::K1).abs() < 1e-15, "and none at all");
        }
    }
}
