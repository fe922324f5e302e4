//! When speculation pays: tokens a round, and what a round costs.
//!
//! Leviathan et al. 2022 (arXiv:2211.17192), theorem 3.8 and corollary 3.9, where every place accepts with the same
//! probability a, independently.

/// Tokens that a round of γ drafted ones is expected to give: (1 − a^(γ+1)) / (1 − a).
///
/// ```
/// use qstar::rollout::speculative::formula::expected_tokens;
/// assert!((expected_tokens(0.5, 2) - 1.75).abs() < 1e-15);
/// assert_eq!(expected_tokens(1.0, 5), 6.0);
/// ```
pub fn expected_tokens(acceptance: f64, gamma: usize) -> f64 {
    (0..=gamma as i32).map(|n| acceptance.powi(n)).sum()
}

/// What the parts of sampling cost, in any one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A token of the standard sampler.
    pub standard: f64,
    /// One token of the draft.
    pub draft: f64,
    /// Drafted tokens that the draft reads in a round beside γ: 1 where the policy drafts, whose logits behind the last
    /// drafted token are part of q, else 0.
    pub further: usize,
    /// One reading of the verifying models.
    pub verify: f64,
}

impl Costs {
    /// Standard cost a token over the cost of a token with speculation.
    ///
    /// ```
    /// use qstar::rollout::speculative::formula::Costs;
    /// // The policy drafts for q*, a target of the same cost reads two tokens as fast as one.
    /// let costs = Costs { standard: 2.0, draft: 1.0, further: 1, verify: 1.0 };
    /// assert!((costs.speedup(0.9, 1) - 1.9 * 2.0 / 3.0).abs() < 1e-12);
    /// ```
    pub fn speedup(&self, acceptance: f64, gamma: usize) -> f64 {
        let round = (gamma + self.further) as f64 * self.draft + self.verify;
        expected_tokens(acceptance, gamma) * self.standard / round
    }

    /// The γ from 1 to `most` of the largest speed-up.
    pub fn best_gamma(&self, acceptance: f64, most: usize) -> usize {
        let better = |best: usize, gamma: usize| {
            if self.speedup(acceptance, gamma) > self.speedup(acceptance, best) { gamma } else { best }
        };
        (1..=most).fold(1, better)
    }

    /// The least acceptance at which some γ up to `most` is as fast as the standard sampler; none where not even 1 is
    /// enough.
    pub fn break_even(&self, most: usize) -> Option<f64> {
        let best = |acceptance: f64| self.speedup(acceptance, self.best_gamma(acceptance, most));
        if best(1.0) < 1.0 {
            return None;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if best(middle) < 1.0 { low = middle } else { high = middle }
        }
        Some(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_of_one_cost_gain_at_most_1_38() {
        // Standard: both models a token. Speculative: γ + 1 of the policy, one reading of the target.
        let costs = Costs { standard: 2.0, draft: 1.0, further: 1, verify: 1.0 };
        let best = costs.best_gamma(0.9, 20);
        assert_eq!(best, 3);
        assert!((costs.speedup(0.9, best) - 1.3756).abs() < 1e-4);
    }

    #[test]
    fn break_even_is_where_the_best_gamma_gains_nothing() {
        let costs = Costs { standard: 1.2, draft: 0.2, further: 1, verify: 1.1 };
        let even = costs.break_even(10).unwrap();
        assert!((costs.speedup(even, costs.best_gamma(even, 10)) - 1.0).abs() < 1e-9);
        assert_eq!(Costs { verify: 50.0, ..costs }.break_even(10), None);
    }
}
