//! How often one system is preferred to another, when every pair is judged in both orders.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::{Interval, wilson_interval};

/// Which system a judge prefers: the system, whichever place it was shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    A,
    B,
    Tie,
}

impl FromStr for Verdict {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "a" | "A" => Ok(Self::A),
            "b" | "B" => Ok(Self::B),
            "tie" => Ok(Self::Tie),
            other => bail!("unknown verdict {other:?}; there are a, b, tie"),
        }
    }
}

/// What was said of one pair of texts. `None` where the judge gave no verdict that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgment {
    /// When the text of A was shown first.
    pub a_first: Option<Verdict>,
    /// When the text of B was shown first.
    pub b_first: Option<Verdict>,
}

/// What a judgment says of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Win,
    Loss,
    /// A tie in both orders.
    Tie,
    /// The two orders disagree: counted as a tie.
    Inconsistent,
    /// One of the two verdicts is missing: not counted.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Outcome::Win => "win",
            Outcome::Loss => "loss",
            Outcome::Tie => "tie",
            Outcome::Inconsistent => "inconsistent",
            Outcome::Failed => "failed",
        })
    }
}

impl Judgment {
    /// A system wins if it is preferred in both orders (L. Zheng et al., arXiv:2306.05685, section 3.4).
    pub fn outcome(&self) -> Outcome {
        match (self.a_first, self.b_first) {
            (None, _) | (_, None) => Outcome::Failed,
            (Some(Verdict::A), Some(Verdict::A)) => Outcome::Win,
            (Some(Verdict::B), Some(Verdict::B)) => Outcome::Loss,
            (Some(Verdict::Tie), Some(Verdict::Tie)) => Outcome::Tie,
            _ => Outcome::Inconsistent,
        }
    }

    /// Whether the text that was shown first, or the one shown second, won both times.
    fn place(&self) -> Option<Place> {
        match (self.a_first, self.b_first) {
            (Some(Verdict::A), Some(Verdict::B)) => Some(Place::First),
            (Some(Verdict::B), Some(Verdict::A)) => Some(Place::Second),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    First,
    Second,
}

/// How often A is preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WinRate {
    /// Wins and half the ties, over all pairs that were judged; with Wilson's interval.
    pub rate: Interval,
    pub wins: usize,
    pub losses: usize,
    /// Inconsistent ones among them.
    pub ties: usize,
    /// Pairs whose two orders disagree.
    pub inconsistent: usize,
    /// Of the inconsistent ones, those in which the text shown first won both times.
    pub first_place: usize,
    /// The same of the text shown second.
    pub second_place: usize,
    /// Pairs that lack a verdict: not in the rate.
    pub failed: usize,
}

/// Counts judgments.
///
/// # Errors
/// No pair with two verdicts, or a confidence that is not strictly between 0 and 1.
///
/// ```
/// # use qstar::metrics::{Judgment, Verdict::*, win_rate};
/// let judged = [(A, A), (B, B), (A, A), (A, B)].map(|(a, b)| Judgment { a_first: Some(a), b_first: Some(b) });
/// let rate = win_rate(&judged, 0.95)?;
/// assert_eq!((rate.rate.mean, rate.wins, rate.ties, rate.first_place), (0.625, 2, 1, 1));
/// # anyhow::Ok(())
/// ```
pub fn win_rate(judgments: &[Judgment], confidence: f64) -> Result<WinRate> {
    let count = |outcome| judgments.iter().filter(|judgment| judgment.outcome() == outcome).count();
    let at = |place| judgments.iter().filter(|judgment| judgment.place() == Some(place)).count();
    let (wins, losses) = (count(Outcome::Win), count(Outcome::Loss));
    let inconsistent = count(Outcome::Inconsistent);
    let ties = count(Outcome::Tie) + inconsistent;
    let judged = wins + losses + ties;
    ensure!(
        judged > 0,
        "a win rate of no judged pairs: of {} pairs none has a verdict in both orders",
        judgments.len()
    );
    Ok(WinRate {
        rate: wilson_interval(wins as f64 + 0.5 * ties as f64, judged, confidence)?,
        wins,
        losses,
        ties,
        inconsistent,
        first_place: at(Place::First),
        second_place: at(Place::Second),
        failed: judgments.len() - judged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_verdicts_has_its_outcome() {
        use Verdict::*;
        let judgments: Vec<Judgment> = [Some(A), Some(B), Some(Tie), None]
            .into_iter()
            .flat_map(|a_first| [Some(A), Some(B), Some(Tie), None].map(|b_first| Judgment { a_first, b_first }))
            .collect();
        let rate = win_rate(&judgments, 0.95).unwrap();
        assert_eq!((rate.wins, rate.losses, rate.ties, rate.inconsistent, rate.failed), (1, 1, 7, 6, 7));
        assert_eq!((rate.first_place, rate.second_place), (1, 1));
        assert_eq!(rate.rate.mean, 0.5);
        // Changing the names of the systems changes sides and nothing else.
        let swap = |verdict: Option<Verdict>| {
            verdict.map(|v| match v {
                A => B,
                B => A,
                Tie => Tie,
            })
        };
        let swapped: Vec<Judgment> =
            judgments[..7].iter().map(|j| Judgment { a_first: swap(j.b_first), b_first: swap(j.a_first) }).collect();
        let (before, after) = (win_rate(&judgments[..7], 0.9).unwrap(), win_rate(&swapped, 0.9).unwrap());
        assert!((before.rate.mean + after.rate.mean - 1.0).abs() < 1e-15);
        assert!((before.rate.low + after.rate.high - 1.0).abs() < 1e-12);
        assert_eq!(
            (before.wins, before.inconsistent, before.first_place),
            (after.losses, after.inconsistent, after.first_place)
        );
    }

    #[test]
    fn nothing_judged_is_refused() {
        let failed = [Judgment { a_first: Some(Verdict::A), b_first: None }];
        let error = win_rate(&failed, 0.95).unwrap_err().to_string();
        assert!(error.contains("of 1 pairs none has a verdict in both orders"), "{error}");
        assert!(win_rate(&[], 0.95).is_err() && "c".parse::<Verdict>().is_err());
    }
}
