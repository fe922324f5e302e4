//! What the parts of sampling cost on this machine.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{BatchCosts, Draft, Gamma, PerRow, Speculation};
use crate::models::Network;
use crate::progress::Progress;
use crate::rollout::{Proposal, Sampler};
use crate::target::Target;

/// γ with which readings are timed: what lies between is taken as straight.
const GAMMAS: [usize; 3] = [1, 4, 10];

/// Times steps of the standard sampler and rounds of speculation for `k` responses to each prompt and for fewer of them, turn
/// by turn, and fits straight lines to the medians of what was seen: in the rows, and for a reading in its tokens too. γ of
/// `speculation` is not looked at. Nothing ends a response here, so that rows stay.
///
/// # Errors
/// No prompts, no turns, or less than two tokens a response; those of [`Sampler::speculate`].
#[allow(clippy::too_many_arguments)]
pub fn measure_costs(
    sampler: &Sampler,
    policy: &Network,
    target: Option<&dyn Target>,
    draft: Draft,
    speculation: &Speculation,
    prompts: &[Vec<u32>],
    k: usize,
    turns: usize,
) -> Result<BatchCosts> {
    ensure!(
        !prompts.is_empty() && k > 0 && turns > 0,
        "costs are measured on a prompt, a response and a turn at least"
    );
    let tokens = sampler.max_response_tokens;
    ensure!(tokens >= 2, "costs are measured on responses of two tokens at least: max_response_tokens is {tokens}");
    let most = prompts.len() * k;
    let mut sizes = vec![1, most.div_ceil(2), most];
    sizes.dedup();
    let mut timed = Timed::default();
    let progress = Progress::new("measuring costs", (turns * sizes.len() * (1 + GAMMAS.len())) as u64);
    // The first turn warms up.
    for turn in 0..=turns {
        let bare =
            Sampler { stop_tokens: &[], stop_strings: None, step: turn as u64, progress: None, ..sampler.clone() };
        for &rows in &sizes {
            let (prompts, k) = if rows == most {
                (prompts.to_vec(), k)
            } else {
                (prompts.iter().cycle().take(rows).cloned().collect(), 1)
            };
            let mut now = Timed::default();
            now.standard(&bare, policy, target, &prompts, k)?;
            for gamma in GAMMAS {
                let speculation = Speculation { gamma: Gamma::Fixed(gamma), ..*speculation };
                let speculated = bare.speculate(policy, target, draft, &speculation, &prompts, k)?;
                if rows == most {
                    now.prompts_speculative.push(speculated.counts.seconds_prompts);
                }
                // The last rounds have no room for as many. The first one has the prompts' logits and reads a token less.
                let whole = speculated.rounds.iter().enumerate().filter(|(_, round)| round.least == gamma);
                for (number, round) in whole {
                    let pass = round.seconds_draft / round.draft_passes.max(1) as f64;
                    now.draft.entry(round.rows).or_default().push(pass);
                    let read = gamma + usize::from(number > 0);
                    now.verify.entry((round.rows, read)).or_default().push(round.seconds_verify);
                }
                let further = matches!(draft, Draft::Policy) && sampler.proposal != Proposal::Target;
                now.further = usize::from(further);
            }
            if turn > 0 {
                timed.add(now, rows == most);
                progress.inc(1 + GAMMAS.len() as u64);
            }
        }
    }
    progress.finish();
    timed.fit()
}

/// Seconds by what was done.
#[derive(Default)]
struct Timed {
    prompts: Vec<f64>,
    prompts_speculative: Vec<f64>,
    /// By rows.
    standard: BTreeMap<usize, Vec<f64>>,
    draft: BTreeMap<usize, Vec<f64>>,
    /// By rows and tokens of each.
    verify: BTreeMap<(usize, usize), Vec<f64>>,
    further: usize,
}

impl Timed {
    fn standard(
        &mut self,
        sampler: &Sampler,
        policy: &Network,
        target: Option<&dyn Target>,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<()> {
        let time = |tokens: usize| -> Result<f64> {
            let start = Instant::now();
            Sampler { max_response_tokens: tokens, ..sampler.clone() }.rollout(policy, target, prompts, k)?;
            Ok(start.elapsed().as_secs_f64())
        };
        let (first, all) = (time(1)?, time(sampler.max_response_tokens)?);
        self.prompts.push(first);
        let step = (all - first).max(0.0) / (sampler.max_response_tokens - 1) as f64;
        self.standard.entry(prompts.len() * k).or_default().push(step);
        Ok(())
    }

    fn add(&mut self, now: Self, whole: bool) {
        // The prompts of a part of the batch are other prompts.
        if whole {
            self.prompts.extend(now.prompts);
        }
        self.prompts_speculative.extend(now.prompts_speculative);
        now.standard.into_iter().for_each(|(at, seconds)| self.standard.entry(at).or_default().extend(seconds));
        now.draft.into_iter().for_each(|(at, seconds)| self.draft.entry(at).or_default().extend(seconds));
        now.verify.into_iter().for_each(|(at, seconds)| self.verify.entry(at).or_default().extend(seconds));
        self.further = now.further;
    }

    fn fit(self) -> Result<BatchCosts> {
        let by_rows = |seconds: BTreeMap<usize, Vec<f64>>| {
            let points = seconds.into_iter().map(|(rows, seconds)| ([1.0, rows as f64], seconds));
            least_squares(points).map(|[fixed, row]| PerRow { fixed, row })
        };
        let points = self.verify.into_iter().map(|((rows, tokens), seconds)| {
            let (rows, tokens) = (rows as f64, tokens as f64);
            ([1.0, rows, tokens, rows * tokens], seconds)
        });
        let [fixed, row, token_fixed, token_row] = least_squares(points)?;
        Ok(BatchCosts {
            prompts: median(self.prompts),
            prompts_speculative: median(self.prompts_speculative),
            standard: by_rows(self.standard)?,
            draft: by_rows(self.draft)?,
            further: self.further,
            verify: PerRow { fixed, row },
            token: PerRow { fixed: token_fixed, row: token_row },
        })
    }
}

/// The coefficients of the least sum of squared relative errors; a point counts by the root of how often it was seen. Where
/// the points do not tell two coefficients apart (all have one row), they share.
fn least_squares<const N: usize>(points: impl Iterator<Item = ([f64; N], Vec<f64>)>) -> Result<[f64; N]> {
    let mut normal = [[0.0; N]; N];
    let mut right = [0.0; N];
    let mut seen = false;
    for (x, seconds) in points.filter(|(_, seconds)| !seconds.is_empty()) {
        seen = true;
        let weight = (seconds.len() as f64).sqrt();
        let y = median(seconds).max(1e-9);
        for i in 0..N {
            right[i] += weight * x[i] / y;
            for j in 0..N {
                normal[i][j] += weight * x[i] * x[j] / (y * y);
            }
        }
    }
    ensure!(seen, "nothing was timed: responses are too short for a whole round of speculation");
    // A touch of ridge, in the unit of each coefficient, for what cannot be told apart.
    for (i, row) in normal.iter_mut().enumerate() {
        row[i] *= 1.0 + 1e-9;
    }
    for i in 0..N {
        for j in i + 1..N {
            let factor = normal[j][i] / normal[i][i];
            let above = normal[i];
            normal[j].iter_mut().zip(above).for_each(|(x, above)| *x -= factor * above);
            right[j] -= factor * right[i];
        }
    }
    let mut solution = [0.0; N];
    for i in (0..N).rev() {
        let known: f64 = (i + 1..N).map(|j| normal[i][j] * solution[j]).sum();
        solution[i] = (right[i] - known) / normal[i][i];
    }
    Ok(solution)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_through_outliers() {
        let point = |rows: f64, tokens: f64| {
            let y = 3.0 + 0.5 * rows + 0.25 * tokens + 0.125 * rows * tokens;
            // Half of the turns and less were disturbed.
            ([1.0, rows, tokens, rows * tokens], vec![y, 40.0 * y, y])
        };
        let points = [1.0, 4.0, 8.0].into_iter().flat_map(|rows| [2.0, 5.0, 11.0].map(|tokens| point(rows, tokens)));
        let found = least_squares(points).unwrap();
        for (found, true_one) in found.iter().zip([3.0, 0.5, 0.25, 0.125]) {
            assert!((found - true_one).abs() < 1e-6, "{found} for {true_one}");
        }
        // One number of rows: what is fixed cannot be told from what a row adds, the sum can.
        let [fixed, row] = least_squares([([1.0, 2.0], vec![6.0])].into_iter()).unwrap();
        assert!((fixed + 2.0 * row - 6.0).abs() < 1e-6);
        assert!(least_squares::<2>(std::iter::empty()).is_err());
    }
}
