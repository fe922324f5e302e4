//! When speculation pays: tokens a round, and what a round costs.
//!
//! Leviathan et al. 2022 (arXiv:2211.17192), theorem 3.8 and corollary 3.9, where every place accepts with the same
//! probability, independently; with several candidates the first place of a round has another one than the later ones, at
//! which most often a single chain is left.

use super::Gamma;

/// The probabilities with which a drafted token is accepted: at the first place of a round, and at each later one that is
/// tested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Acceptance {
    pub first: f64,
    pub later: f64,
}

impl Acceptance {
    /// The same at all places.
    pub const fn equal(acceptance: f64) -> Self {
        Self { first: acceptance, later: acceptance }
    }

    /// The probability that at least `n` of the drafted tokens are accepted, where as many were drafted.
    pub fn at_least(&self, n: usize) -> f64 {
        if n == 0 { 1.0 } else { self.first * self.later.powi(n as i32 - 1) }
    }

    /// Tokens that a round of γ drafted ones is expected to give: (1 − a^(γ+1)) / (1 − a) where all places accept with
    /// probability a.
    ///
    /// ```
    /// use qstar::rollout::speculative::formula::Acceptance;
    /// assert!((Acceptance::equal(0.5).expected_tokens(2) - 1.75).abs() < 1e-15);
    /// assert_eq!(Acceptance::equal(1.0).expected_tokens(5), 6.0);
    /// ```
    pub fn expected_tokens(&self, gamma: usize) -> f64 {
        (0..=gamma).map(|n| self.at_least(n)).sum()
    }
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
    /// One reading of the verifying models, and what every one of its γ + 1 tokens adds to it.
    pub verify: f64,
    pub token: f64,
}

impl Costs {
    /// A round of γ drafted tokens; of none it is a token of the standard sampler.
    pub fn round(&self, gamma: usize) -> f64 {
        match gamma {
            0 => self.standard,
            _ => (gamma + self.further) as f64 * self.draft + self.verify + (gamma + 1) as f64 * self.token,
        }
    }

    /// The first round, in which what the prompts' last tokens give is known already.
    pub fn first_round(&self, gamma: usize) -> f64 {
        match gamma {
            0 => 0.0,
            _ => self.round(gamma) - self.further as f64 * self.draft - self.token,
        }
    }

    /// Standard cost a token over the cost of a token with speculation.
    ///
    /// ```
    /// use qstar::rollout::speculative::formula::{Acceptance, Costs};
    /// // The policy drafts for q*, a target of the same cost reads two tokens as fast as one.
    /// let costs = Costs { standard: 2.0, draft: 1.0, further: 1, verify: 1.0, token: 0.0 };
    /// assert!((costs.speedup(Acceptance::equal(0.9), 1) - 1.9 * 2.0 / 3.0).abs() < 1e-12);
    /// ```
    pub fn speedup(&self, acceptance: Acceptance, gamma: usize) -> f64 {
        acceptance.expected_tokens(gamma) * self.standard / self.round(gamma)
    }

    /// The γ from 0 to `most` of the largest speed-up: 0 where speculation does not pay.
    pub fn best_gamma(&self, acceptance: Acceptance, most: usize) -> usize {
        let better = |best: usize, gamma: usize| {
            if self.speedup(acceptance, gamma) > self.speedup(acceptance, best) { gamma } else { best }
        };
        (0..=most).fold(0, better)
    }

    /// The least acceptance, the same at all places, at which some γ from 1 to `most` is as fast as the standard sampler;
    /// none where not even 1 is enough, or where a token of the standard sampler, a token of the draft or a reading costs
    /// nothing or less.
    pub fn break_even(&self, most: usize) -> Option<f64> {
        let costs = [self.standard, self.draft, self.verify + self.token];
        if !costs.iter().all(|cost| *cost > 0.0) {
            return None;
        }
        let best = |acceptance: f64| {
            let speedups = (1..=most).map(|gamma| self.speedup(Acceptance::equal(acceptance), gamma));
            speedups.fold(0.0, f64::max)
        };
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

    /// γ up to `most` chosen by these costs.
    pub fn adaptive(&self, most: usize) -> Gamma {
        // In units of a reading of one token, and never nothing or less where a measurement is as small as its error.
        let unit = |cost: f64| cost / (self.verify + self.token).max(f64::MIN_POSITIVE);
        let draft_cost = unit(self.draft).clamp(1e-6, 1e3);
        Gamma::Adaptive { most, draft_cost, token_cost: unit(self.token).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_of_one_cost_gain_at_most_1_38() {
        // Standard: both models a token. Speculative: γ + 1 of the policy, one reading of the target.
        let costs = Costs { standard: 2.0, draft: 1.0, further: 1, verify: 1.0, token: 0.0 };
        let best = costs.best_gamma(Acceptance::equal(0.9), 20);
        assert_eq!(best, 3);
        assert!((costs.speedup(Acceptance::equal(0.9), best) - 1.3756).abs() < 1e-4);
    }

    #[test]
    fn break_even_is_where_the_best_gamma_gains_nothing() {
        let costs = Costs { standard: 1.2, draft: 0.2, further: 1, verify: 1.1, token: 0.01 };
        let even = costs.break_even(10).unwrap();
        let best = (1..=10).map(|gamma| costs.speedup(Acceptance::equal(even), gamma)).fold(0.0, f64::max);
        assert!((best - 1.0).abs() < 1e-9);
        assert_eq!(costs.best_gamma(Acceptance::equal(even - 0.01), 10), 0);
        assert!(costs.best_gamma(Acceptance::equal(even + 0.01), 10) > 0);
        assert_eq!(Costs { verify: 50.0, ..costs }.break_even(10), None);
        // Costs as noise may measure them.
        for draft in [0.0, -0.1, f64::NAN] {
            assert_eq!(Costs { draft, ..costs }.break_even(10), None);
        }
        assert_eq!(Costs { verify: -0.1, token: 0.1, ..costs }.break_even(10), None);
        assert_eq!(Costs { standard: 0.0, ..costs }.break_even(10), None);
    }

    #[test]
    fn the_adaptive_choice_is_that_of_the_costs() {
        // The standard sampler reads as the verifying models do, and the policy as the draft.
        for (draft, verify, token) in [(0.2, 0.5, 0.5), (0.1, 1.0, 0.02), (0.9, 1.0, 0.1), (0.05, 0.2, 0.9)] {
            let costs = Costs { standard: draft + verify + token, draft, further: 1, verify, token };
            let adaptive = costs.adaptive(10);
            // 300 of 400 were accepted, as what comes before all tests assumes.
            let chosen = adaptive.next(400, 300, 1, 10);
            assert_eq!(chosen, costs.best_gamma(Acceptance::equal(0.75), 10), "{costs:?}");
            assert_eq!(adaptive.next(400, 300, 1, 0), 0);
        }
    }

    #[test]
    fn first_and_later_places_multiply() {
        let acceptance = Acceptance { first: 0.9, later: 0.5 };
        assert!((acceptance.expected_tokens(2) - (1.0 + 0.9 + 0.45)).abs() < 1e-15);
    }
}
