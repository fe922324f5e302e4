//! The formula for a batch: rows leave it one by one, and it runs until its slowest row ends.

use std::collections::BTreeMap;

use super::formula::{Acceptance, Costs};

/// Seconds of one piece of work for a number of rows: `fixed` + `row` · rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerRow {
    pub fixed: f64,
    pub row: f64,
}

impl PerRow {
    pub fn at(&self, rows: f64) -> f64 {
        self.fixed + self.row * rows
    }
}

/// What the parts of sampling cost, in seconds; [`measure_costs`](super::measure_costs) gives it. Rows are responses, whatever
/// the number of their chains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchCosts {
    /// Reading the prompts, without and with speculation.
    pub prompts: f64,
    pub prompts_speculative: f64,
    /// A step of the standard sampler.
    pub standard: PerRow,
    /// A pass of the draft.
    pub draft: PerRow,
    /// As of [`Costs`].
    pub further: usize,
    /// A reading of the verifying models, and what a token more of every row adds.
    pub verify: PerRow,
    pub token: PerRow,
}

impl BatchCosts {
    /// The costs of a batch of so many rows.
    pub fn at(&self, rows: f64) -> Costs {
        Costs {
            standard: self.standard.at(rows),
            draft: self.draft.at(rows),
            further: self.further,
            verify: self.verify.at(rows),
            token: self.token.at(rows),
        }
    }

    /// Seconds of the standard sampler for responses of these lengths, in tokens.
    pub fn standard_seconds(&self, lengths: &[usize]) -> f64 {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let going = |step: usize| lengths.iter().filter(|&&length| length > step).count() as f64;
        // What the first tokens are drawn from is known behind the prompts.
        self.prompts + (1..longest).map(|step| self.standard.at(going(step))).sum::<f64>()
    }

    /// Seconds that rounds of γ drafted tokens are expected to take for responses of these lengths, in tokens.
    pub fn speculative_seconds(&self, lengths: &[usize], acceptance: Acceptance, gamma: usize) -> f64 {
        if gamma == 0 {
            return self.standard_seconds(lengths);
        }
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        lengths.iter().for_each(|&length| *counts.entry(length).or_insert(0) += 1);
        let rows: Vec<(f64, Vec<Vec<f64>>)> =
            counts.iter().map(|(&length, &count)| (count as f64, drafted(length, acceptance, gamma))).collect();
        let rounds = rows.iter().map(|(_, rounds)| rounds.len()).max().unwrap_or(0);
        let at = |round: usize| {
            let shares = || rows.iter().filter_map(|(count, rounds)| Some((count, rounds.get(round)?)));
            let going: f64 = shares().map(|(count, shares)| count * shares.iter().sum::<f64>()).sum();
            // The probability that no row drafts `from` tokens or more.
            let below = |from: usize| -> f64 {
                shares()
                    .map(|(count, shares)| (1.0 - shares[from..].iter().sum::<f64>()).max(0.0).powf(*count))
                    .product()
            };
            let any = 1.0 - below(0);
            if any <= 0.0 {
                return 0.0;
            }
            let costs = self.at(going / any);
            let cost = |drafted| if round == 0 { costs.first_round(drafted) } else { costs.round(drafted) };
            // All wait for the row that drafts most.
            let most = |drafted: usize| (if drafted == gamma { 1.0 } else { below(drafted + 1) }) - below(drafted);
            (0..=gamma).map(|drafted| most(drafted) * cost(drafted)).sum()
        };
        self.prompts_speculative + (0..rounds).map(at).sum::<f64>()
    }

    /// How many times faster than the standard sampler a batch with responses of these lengths is expected to be.
    pub fn speedup(&self, lengths: &[usize], acceptance: Acceptance, gamma: usize) -> f64 {
        self.standard_seconds(lengths) / self.speculative_seconds(lengths, acceptance, gamma)
    }
}

/// For round 0, 1, ... of a response of `length` tokens: the probabilities that it still goes on and 0, 1, ..., γ tokens are
/// drafted for it.
fn drafted(length: usize, acceptance: Acceptance, gamma: usize) -> Vec<Vec<f64>> {
    // By the tokens that are left.
    let mut left = vec![0.0; length + 1];
    left[length] = 1.0;
    let mut rounds = Vec::new();
    while 1.0 - left[0] >= 1e-12 {
        let mut now = vec![0.0; gamma + 1];
        let mut next = vec![0.0; length + 1];
        next[0] = left[0];
        for (tokens, &share) in left.iter().enumerate().skip(1).filter(|(_, share)| **share > 0.0) {
            // The last token is never a drafted one.
            let drafted = gamma.min(tokens - 1);
            now[drafted] += share;
            for accepted in 0..=drafted {
                let more = if accepted == drafted { 0.0 } else { acceptance.at_least(accepted + 1) };
                next[tokens - accepted - 1] += share * (acceptance.at_least(accepted) - more);
            }
        }
        rounds.push(now);
        left = next;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: BatchCosts = BatchCosts {
        prompts: 0.5,
        prompts_speculative: 0.75,
        standard: PerRow { fixed: 2.0, row: 0.5 },
        draft: PerRow { fixed: 0.5, row: 0.0 },
        further: 1,
        verify: PerRow { fixed: 1.0, row: 0.0 },
        token: PerRow { fixed: 0.0, row: 0.0 },
    };

    #[test]
    fn rows_leave_the_standard_batch_one_by_one() {
        // Steps with 2, 1 and 1 rows behind the first tokens.
        assert!((COSTS.standard_seconds(&[2, 4]) - (0.5 + 3.0 + 2.5 + 2.5)).abs() < 1e-12);
    }

    /// How likely it is to go on before every round.
    fn going(length: usize, acceptance: Acceptance, gamma: usize) -> Vec<f64> {
        drafted(length, acceptance, gamma).iter().map(|shares| shares.iter().sum()).collect()
    }

    #[test]
    fn a_sure_draft_takes_whole_rounds() {
        // 12 tokens in rounds of 4. The prompts' logits save one pass of the first.
        assert_eq!(going(12, Acceptance::equal(1.0), 3), [1.0; 3]);
        let round = 4.0 * 0.5 + 1.0;
        let seconds = COSTS.speculative_seconds(&[12; 5], Acceptance::equal(1.0), 3);
        assert!((seconds - (0.75 + 3.0 * round - 0.5)).abs() < 1e-9);
        assert_eq!(going(5, Acceptance::equal(0.0), 3), [1.0; 5]);
    }

    #[test]
    fn nothing_is_drafted_for_which_there_is_no_room() {
        // A round of 10 and the token behind it, then one more token without any draft.
        let costs = BatchCosts { token: PerRow { fixed: 0.25, row: 0.0 }, ..COSTS };
        let seconds = costs.speculative_seconds(&[12], Acceptance::equal(1.0), 10);
        assert!((seconds - (0.75 + (10.0 * 0.5 + 1.0 + 10.0 * 0.25) + 2.5)).abs() < 1e-9, "{seconds}");
        // With nothing accepted what is drafted goes with the room: 3, 2, 1 and 0 tokens.
        let shares = drafted(4, Acceptance::equal(0.0), 10);
        let most: Vec<usize> = shares.iter().map(|shares| shares.iter().position(|x| *x == 1.0).unwrap()).collect();
        assert_eq!(most, [3, 2, 1, 0]);
        let seconds = costs.speculative_seconds(&[4], Acceptance::equal(0.0), 10);
        let rounds = (3.0 * 0.5 + 1.0 + 3.0 * 0.25) + (3.0 * 0.5 + 1.0 + 3.0 * 0.25) + (2.0 * 0.5 + 1.0 + 2.0 * 0.25);
        assert!((seconds - (0.75 + rounds + 2.5)).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn rounds_of_a_long_response_are_those_of_the_formula() {
        let acceptance = Acceptance { first: 0.8, later: 0.6 };
        let rounds: f64 = going(4_000, acceptance, 4).iter().sum();
        assert!((rounds * acceptance.expected_tokens(4) / 4_000.0 - 1.0).abs() < 1e-3, "{rounds}");
    }

    #[test]
    fn a_batch_waits_for_its_slowest_row() {
        let acceptance = Acceptance::equal(0.5);
        let of = |rows: usize| COSTS.speculative_seconds(&vec![20; rows], acceptance, 3);
        // The costs of a round do not depend on the rows here: what grows is the number of rounds.
        assert!(of(1) < of(4) && of(4) < of(64) && of(64) < 0.75 + 20.0 * 3.0);
    }
}
