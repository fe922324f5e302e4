//! The verdict on the five hypotheses: supported, refuted or undecided, each by a rule that is stated beside it.
//!
//! The rules are constants of this code, written before the runs that they judge. Where there is one seed, or a number that
//! a rule needs was not measured, the verdict is `undecided`, and says why.

mod h1_balance;
mod h2_convergence;
mod h3_noise;
mod h4_divergence;
mod h5_exploration;
mod words;

use std::cmp::Ordering;

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::estimates::{ALPHA, Difference, holm_of};
use super::frames::{Arm, Comparison, Labels, arms_of_noise, comparisons, labelled};
use super::level_of;
use super::scores::{QSTAR, Scored};
use crate::record::record;

pub(super) use h1_balance::NEAR_1;
pub use words::in_words;

record! {
    /// One hypothesis at one place.
    pub struct HypothesisRow {
        /// `H1` to `H5`, and what it says.
        pub hypothesis: String,
        pub claim: String,
        /// What `value` is; of several methods or θ, `against` is the one that decides.
        pub statistic: String,
        pub against: Option<String>,
        pub value: Option<f64>,
        /// Of 95%.
        pub low: Option<f64>,
        pub high: Option<f64>,
        pub seeds: i64,
        /// The p-value after Holm's correction, where the rule asks for one.
        pub p_holm: Option<f64>,
        /// The true effect that a paired t-test of so many seeds would have found with a probability of 0.8 at Holm's
        /// strictest level, in the unit of the value: of a ratio the factor.
        pub detectable: Option<f64>,
        /// By which rule, in words, and what it came to: `supported`, `refuted`, `undecided`.
        pub rule: String,
        pub verdict: String,
        pub why: String,
    }
}

record! {
    /// `qstar` against one other method: what the verdicts on H2 to H5 are made of.
    pub struct RivalRow {
        pub hypothesis: String,
        pub statistic: String,
        /// Where θ was, for H3.
        pub theta: Option<String>,
        pub rival: String,
        pub value: Option<f64>,
        /// Of 95%: Student's over the pairs of seeds, and the bootstrap's over runs for a ratio of samples.
        pub low: Option<f64>,
        pub high: Option<f64>,
        pub seeds: i64,
        pub p: Option<f64>,
        pub p_holm: Option<f64>,
        pub detectable: Option<f64>,
        /// Who is better for certain: `qstar`, `rival`, or `not distinguished`.
        pub better: String,
    }
}

impl RivalRow {
    /// A difference over pairs of seeds, one of so many `tests` that were corrected together. `favours_qstar`: where it is
    /// above zero, below, or at neither.
    fn paired(
        (hypothesis, statistic, rival): (&str, &str, &str),
        found: Option<&Difference>,
        (p_holm, tests): (Option<f64>, usize),
        favours_qstar: Option<Ordering>,
    ) -> Self {
        let certain = p_holm.is_some_and(|p| p < ALPHA);
        let side = found.filter(|_| certain).and_then(|found| found.estimate.value.partial_cmp(&0.0));
        let better = match (side, favours_qstar) {
            (Some(side), Some(favours)) if side == favours => "qstar",
            (Some(side), Some(favours)) if side == favours.reverse() => "rival",
            _ => "not distinguished",
        };
        Self {
            hypothesis: hypothesis.to_owned(),
            statistic: statistic.to_owned(),
            theta: None,
            rival: rival.to_owned(),
            value: found.map(|found| found.estimate.value),
            low: found.and_then(|found| found.estimate.low),
            high: found.and_then(|found| found.estimate.high),
            seeds: found.map_or(0, |found| found.seeds as i64),
            p: found.and_then(|found| found.p_paired),
            p_holm,
            detectable: found.and_then(|found| found.detectable(tests)),
            better: better.to_owned(),
        }
    }
}

/// What a hypothesis came to.
struct Finding {
    statistic: &'static str,
    against: Option<String>,
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    seeds: usize,
    p_holm: Option<f64>,
    detectable: Option<f64>,
    verdict: Outcome,
    why: String,
    rivals: Vec<RivalRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Supported,
    Refuted,
    Undecided,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Supported => "supported",
            Outcome::Refuted => "refuted",
            Outcome::Undecided => "undecided",
        }
    }
}

impl Finding {
    /// With the numbers of the comparison that decides: of those that speak for the verdict, else of all, the one that is the
    /// least in favour of `qstar`, which has the smallest value.
    fn decided_by(self, rows: &[RivalRow], name: impl Fn(&RivalRow) -> String) -> Self {
        // A smaller value may be a less certain one, on which no verdict rests.
        let better = match self.verdict {
            Outcome::Supported => "qstar",
            Outcome::Refuted => "rival",
            Outcome::Undecided => "not distinguished",
        };
        let least = |speaks: &dyn Fn(&RivalRow) -> bool| {
            let known = rows.iter().filter(|row| speaks(row)).filter_map(|row| Some((row, row.value?)));
            known.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let decides = least(&|row| row.better == better).or_else(|| least(&|_| true));
        let Some((row, value)) = decides else { return self };
        let RivalRow { low, high, p_holm, detectable, .. } = *row;
        Self { against: Some(name(row)), value: Some(value), low, high, p_holm, detectable, ..self }
    }

    /// Where the rule cannot be asked.
    fn unknown(statistic: &'static str, seeds: usize, why: impl Into<String>) -> Self {
        Self {
            statistic,
            against: None,
            value: None,
            low: None,
            high: None,
            seeds,
            p_holm: None,
            detectable: None,
            verdict: Outcome::Undecided,
            why: why.into(),
            rivals: Vec::new(),
        }
    }
}

/// All that the hypotheses are judged by, at one place.
struct Evidence<'a> {
    comparison: &'a Comparison,
    scored: &'a [Scored],
    qstar: &'a Scored,
    level: Option<f64>,
    /// Gradient noise at this place, an arm a θ and method.
    noise: &'a [Noise],
}

impl Evidence<'_> {
    fn rivals(&self) -> impl Iterator<Item = &Scored> {
        self.scored.iter().filter(|scored| scored.method != QSTAR)
    }
}

/// Holm's correction of the paired tests.
fn corrected(found: &[Option<Difference>]) -> Result<Vec<Option<f64>>> {
    holm_of(&found.iter().map(|found| found.and_then(|found| found.p_paired)).collect::<Vec<_>>())
}

/// ln(tr Cov(g)/‖E g‖²) of one method at one θ, by seed; seeds without an estimate are left out.
struct Noise {
    theta: String,
    method: String,
    log: Vec<(i64, f64)>,
    /// Seeds that were drawn.
    seeds: usize,
}

struct Hypothesis {
    name: &'static str,
    claim: &'static str,
    rule: &'static str,
    judge: fn(&Evidence) -> Result<Finding>,
}

const HYPOTHESES: [Hypothesis; 5] = [
    Hypothesis { name: "H1", claim: "ESS_p ≈ ESS_t at q*", rule: h1_balance::RULE, judge: h1_balance::judge },
    Hypothesis { name: "H2", claim: "q* converges fastest", rule: h2_convergence::RULE, judge: h2_convergence::judge },
    Hypothesis {
        name: "H3",
        claim: "q* has the smallest gradient noise",
        rule: h3_noise::RULE,
        judge: h3_noise::judge,
    },
    Hypothesis {
        name: "H4",
        claim: "q* stays at a moderate KL from the initial policy",
        rule: h4_divergence::RULE,
        judge: h4_divergence::judge,
    },
    Hypothesis {
        name: "H5",
        claim: "no method improves on q* both in exploration and in stability",
        rule: h5_exploration::RULE,
        judge: h5_exploration::judge,
    },
];

/// The verdict: a row a place and hypothesis. `noise` is a frame of [`gradient_noise`](super::gradient_noise), `levels` as for
/// [`main_table`](super::main_table).
///
/// # Errors
/// As [`main_table`](super::main_table); a frame of noise without its columns.
pub fn verdict(
    evaluations: &DataFrame,
    samples: &DataFrame,
    steps: &DataFrame,
    noise: Option<&DataFrame>,
    levels: &[(&str, f64)],
) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    over_places((evaluations, samples, steps), noise, levels, |comparison, hypothesis, finding| {
        labels.push(Labels::of_place(&comparison.place));
        rows.push(HypothesisRow {
            hypothesis: hypothesis.name.to_owned(),
            claim: hypothesis.claim.to_owned(),
            statistic: finding.statistic.to_owned(),
            against: finding.against,
            value: finding.value,
            low: finding.low,
            high: finding.high,
            seeds: finding.seeds as i64,
            p_holm: finding.p_holm,
            detectable: finding.detectable,
            rule: hypothesis.rule.to_owned(),
            verdict: finding.verdict.name().to_owned(),
            why: finding.why,
        });
    })?;
    labelled(&HypothesisRow::frame(&rows)?, &labels)
}

/// What the verdicts are made of: a row a place, hypothesis, statistic and other method (and θ).
///
/// # Errors
/// As [`verdict`].
pub fn rivals(
    evaluations: &DataFrame,
    samples: &DataFrame,
    steps: &DataFrame,
    noise: Option<&DataFrame>,
    levels: &[(&str, f64)],
) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    over_places((evaluations, samples, steps), noise, levels, |comparison, _, finding| {
        labels.extend(finding.rivals.iter().map(|_| Labels::of_place(&comparison.place)));
        rows.extend(finding.rivals);
    })?;
    labelled(&RivalRow::frame(&rows)?, &labels)
}

fn over_places(
    (evaluations, samples, steps): (&DataFrame, &DataFrame, &DataFrame),
    noise: Option<&DataFrame>,
    levels: &[(&str, f64)],
    mut take: impl FnMut(&Comparison, &Hypothesis, Finding),
) -> Result<()> {
    let noise = noise.map(arms_of_noise).transpose().context("the frame of gradient noise")?.unwrap_or_default();
    for comparison in comparisons(evaluations, samples, steps)? {
        let scored = Scored::all(&comparison)?;
        let level = level_of(levels, &comparison.place.task)?;
        let here: Vec<&(String, Arm)> =
            noise.iter().filter(|(_, arm)| arm.place.agrees_with(&comparison.place)).collect();
        let here: Vec<Noise> = here.into_iter().map(Noise::of).collect::<Result<_>>()?;
        for hypothesis in &HYPOTHESES {
            let finding = match scored.iter().find(|scored| scored.method == QSTAR) {
                None => Finding::unknown("none", 0, "there are no runs of qstar here"),
                Some(qstar) => {
                    let evidence = Evidence { comparison: &comparison, scored: &scored, qstar, level, noise: &here };
                    (hypothesis.judge)(&evidence)
                        .with_context(|| format!("{} on {}", hypothesis.name, comparison.place.in_words()))?
                }
            };
            take(&comparison, hypothesis, finding);
        }
    }
    Ok(())
}

impl Noise {
    fn of((theta, arm): &(String, Arm)) -> Result<Self> {
        let mut log = Vec::new();
        for run in &arm.runs {
            let noise = run.series("noise")?.first().copied().flatten();
            log.extend(noise.filter(|noise| *noise > 0.0 && noise.is_finite()).map(|noise| (run.seed, noise.ln())));
        }
        Ok(Self { theta: theta.clone(), method: arm.method.clone(), log, seeds: arm.runs.len() })
    }
}
