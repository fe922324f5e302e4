//! Which of the drafted tokens are kept: pure functions of probabilities and of a source of choices.

use std::borrow::Cow;

use anyhow::{Result, ensure};

use crate::mixture::Distribution;

/// The distributions at one place of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// What is to be drawn from.
    pub q: Distribution,
    /// What the drafted token came from; none behind the last one.
    pub draft: Option<Vec<f64>>,
}

/// What became of the drafted chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The chain whose first tokens were accepted, and how many of them.
    pub chain: usize,
    pub accepted: usize,
    /// Places at which drafted tokens were tested.
    pub tested: usize,
    /// The token behind the accepted ones; none where an accepted one ended the response.
    pub last: Option<u32>,
}

/// Goes along the drafted `chains`, all of the same number of tokens.
///
/// `at(chain, j)` gives the distributions before token j of a chain, `choose` an index drawn with the given
/// probabilities, and `keep(chain, j, token, q)` is told of every token that is kept, in order, and of what it is a draw of;
/// whether it ends the response is its answer.
///
/// # Errors
/// Those of `at` and `keep`; a drafted token that its distribution does not have.
pub fn verify(
    chains: &[Vec<u32>],
    mut at: impl FnMut(usize, usize) -> Result<Place>,
    mut choose: impl FnMut(&[f64]) -> usize,
    mut keep: impl FnMut(usize, usize, u32, &Distribution) -> Result<bool>,
) -> Result<Verified> {
    let mut alive: Vec<usize> = (0..chains.len()).collect();
    let mut accepted = 0;
    loop {
        let chain = alive[0];
        let Place { q: whole, draft } = at(chain, accepted)?;
        let Some(draft) = draft.filter(|_| accepted < chains[chain].len()) else {
            let last = choose(&whole.probabilities) as u32;
            keep(chain, accepted, last, &whole)?;
            return Ok(Verified { chain, accepted, tested: accepted, last: Some(last) });
        };
        let mut found = None;
        // What is left of q after rejections; all of it before the first.
        let mut q = Cow::Borrowed(&whole.probabilities);
        for &candidate in &alive {
            let token = chains[candidate][accepted] as usize;
            ensure!(draft[token] > 0.0, "token {token} was drafted, and its distribution gives it no mass");
            let acceptance = (q[token] / draft[token]).min(1.0);
            if acceptance == 1.0 || choose(&[acceptance, 1.0 - acceptance]) == 0 {
                found = Some(token as u32);
                break;
            }
            residual(q.to_mut(), &draft);
        }
        let tested = accepted + 1;
        let Some(token) = found else {
            let last = choose(&q) as u32;
            keep(chain, accepted, last, &whole)?;
            return Ok(Verified { chain, accepted, tested, last: Some(last) });
        };
        alive.retain(|&chain| chains[chain][accepted] == token);
        let ended = keep(alive[0], accepted, token, &whole)?;
        accepted += 1;
        if ended {
            return Ok(Verified { chain: alive[0], accepted, tested, last: None });
        }
    }
}

/// q ← (q − d)⁺ / Σ (q − d)⁺, the law of a token after a rejection. Where rounding alone led to the rejection, q is d, and
/// stays.
pub fn residual(q: &mut [f64], draft: &[f64]) {
    let sum: f64 = q.iter().zip(draft).map(|(q, d)| (q - d).max(0.0)).sum();
    if sum > 0.0 {
        q.iter_mut().zip(draft).for_each(|(q, d)| *q = (*q - d).max(0.0) / sum);
    }
}

/// The index at which cumulated probabilities pass `uniform` in [0, 1). Rounding at the very end falls back to the last one
/// that has mass.
pub(super) fn invert(probabilities: &[f64], uniform: f64) -> usize {
    let mut left = uniform * probabilities.iter().sum::<f64>();
    let mut last = 0;
    for (index, &probability) in probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        last = index;
        left -= probability;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_drawn_in_proportion() {
        let p = [0.25, 0.0, 0.5, 0.25];
        let drawn: Vec<usize> = [0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999].iter().map(|u| invert(&p, *u)).collect();
        assert_eq!(drawn, [0, 0, 2, 2, 3, 3]);
        assert_eq!(invert(&[0.5, 0.5 - 1e-17, 0.0], 1.0 - 1e-16), 1);
    }

    #[test]
    fn a_residual_is_what_the_draft_did_not_cover() {
        let mut q = [0.5, 0.3, 0.2];
        residual(&mut q, &[0.2, 0.6, 0.2]);
        assert_eq!(q, [1.0, 0.0, 0.0]);
        let mut q = [0.5, 0.5];
        residual(&mut q, &[0.5, 0.5]);
        assert_eq!(q, [0.5, 0.5]);
    }
}
