//! Table 2: the rules that choose α, beside each other.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::estimates::{Estimate, mean_of, values};
use super::frames::{Labels, MethodRuns, OneRun, comparisons, labelled};
use super::level_of;
use super::main_table::Against;
use super::scores::{Fewer, ON_POLICY, SFT, Scored, win_rate};
use crate::metrics::mean;
use crate::record::record;

record! {
    /// A rule for α, by the runs of the method that follows it. Means are over steps, then over seeds; intervals are of
    /// 95% over seeds, and one seed has none.
    pub struct RuleRow {
        pub seeds: i64,
        /// α of a token: mean, and standard deviation over the tokens of all steps.
        pub alpha_mean: f64,
        pub alpha_mean_low: Option<f64>,
        pub alpha_mean_high: Option<f64>,
        pub alpha_sd: f64,
        /// The share of tokens at which the rule had no regular root.
        pub alpha_irregular: Option<f64>,
        pub ess_p: Option<f64>,
        pub ess_t: Option<f64>,
        /// ESS_p/ESS_t: geometric mean; share of single ratios in \[0.9, 1.1\].
        pub ess_ratio: Option<f64>,
        pub ess_ratio_low: Option<f64>,
        pub ess_ratio_high: Option<f64>,
        pub ess_near_1: Option<f64>,
        /// KL(q‖π_θ) and KL(q‖π_t) a token.
        pub q_kl_p: Option<f64>,
        pub q_kl_t: Option<f64>,
        /// Of one microbatch's gradient, at the θ that each method's own training visits: for one θ see
        /// [`gradient_noise`](super::gradient_noise).
        pub gradient_variance: Option<f64>,
        /// Held-out reward, its gain, the win rate against `sft`, the sample efficiency relative to `on_policy`, as in
        /// [`MainRow`](super::MainRow).
        pub reward: f64,
        pub reward_low: Option<f64>,
        pub reward_high: Option<f64>,
        pub gain: f64,
        pub gain_low: Option<f64>,
        pub gain_high: Option<f64>,
        pub win_rate: Option<f64>,
        pub win_rate_low: Option<f64>,
        pub win_rate_high: Option<f64>,
        pub efficiency: Option<f64>,
        pub efficiency_low: Option<f64>,
        pub efficiency_high: Option<f64>,
        pub efficiency_reading: Option<String>,
        /// The last reward of `qstar` less that of the rule; corrected over the rules of this table.
        pub qstar_minus: Option<f64>,
        pub qstar_minus_low: Option<f64>,
        pub qstar_minus_high: Option<f64>,
        pub p_paired: Option<f64>,
        pub p_paired_holm: Option<f64>,
        pub p_welch: Option<f64>,
        pub p_welch_holm: Option<f64>,
        pub detectable: Option<f64>,
    }
}

/// Table 2: a row for every method that draws from a mixture, whatever its rule, its rounds or its temperature.
///
/// # Errors
/// As [`main_table`](super::main_table).
pub fn rules_table(
    evaluations: &DataFrame,
    samples: &DataFrame,
    steps: &DataFrame,
    levels: &[(&str, f64)],
) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let level = level_of(levels, &comparison.place.task)?;
        let scored = Scored::all(&comparison)?;
        let mut mixing = Vec::new();
        for runs in &comparison.methods {
            if let Some(alphas) = Alphas::of(runs)? {
                mixing.push((runs, alphas));
            }
        }
        let rules: Vec<Scored> = mixing
            .iter()
            .filter_map(|(runs, _)| scored.iter().find(|scored| scored.method == runs.method).cloned())
            .collect();
        let against = Against::of(&rules)?;
        for (((runs, alphas), own), against) in mixing.iter().zip(&rules).zip(&against) {
            let others = Others::of(own, &scored, level)?;
            labels.push(Labels::of_method(&comparison.place, &runs.method));
            rows.push(row(runs, alphas, own, &others, against)?);
        }
    }
    labelled(&RuleRow::frame(&rows)?, &labels)
}

/// What is measured against methods that need no mixture.
struct Others {
    win: Option<Estimate>,
    fewer: Option<Fewer>,
}

impl Others {
    fn of(own: &Scored, scored: &[Scored], level: Option<f64>) -> Result<Self> {
        let find = |name: &str| scored.iter().find(|scored| scored.method == name);
        let win = find(SFT).map(|sft| win_rate(own, sft)).transpose()?.flatten();
        let fewer = level.zip(find(ON_POLICY)).map(|(level, base)| Fewer::of(base, own, level)).transpose()?;
        Ok(Self { win, fewer })
    }
}

fn row(runs: &MethodRuns, alphas: &Alphas, own: &Scored, others: &Others, against: &Against) -> Result<RuleRow> {
    let of = |name: &str| over_runs(&runs.steps, name);
    let (alpha, ess) = (Estimate::student(&alphas.means), own.ess_ratio());
    let (reward, gain) = (Estimate::student(&values(&own.after)), own.gain()?);
    let ratio = others.fewer.as_ref().and_then(|fewer| fewer.ratio);
    let estimate = against.difference.map(|difference| difference.estimate);
    Ok(RuleRow {
        seeds: own.after.len() as i64,
        alpha_mean: mean(&alphas.means),
        alpha_mean_low: alpha.and_then(|alpha| alpha.low),
        alpha_mean_high: alpha.and_then(|alpha| alpha.high),
        alpha_sd: alphas.sd,
        alpha_irregular: of("alpha_irregular")?,
        ess_p: of("ess_p")?,
        ess_t: of("ess_t")?,
        ess_ratio: ess.map(|ess| ess.value),
        ess_ratio_low: ess.and_then(|ess| ess.low),
        ess_ratio_high: ess.and_then(|ess| ess.high),
        ess_near_1: mean_of(&values(&own.ess_near_1)),
        q_kl_p: of("q_kl_p")?,
        q_kl_t: of("q_kl_t")?,
        gradient_variance: of("gradient_variance")?,
        reward: mean(&values(&own.after)),
        reward_low: reward.and_then(|reward| reward.low),
        reward_high: reward.and_then(|reward| reward.high),
        gain: gain.value,
        gain_low: gain.low,
        gain_high: gain.high,
        win_rate: others.win.map(|win| win.value),
        win_rate_low: others.win.and_then(|win| win.low),
        win_rate_high: others.win.and_then(|win| win.high),
        efficiency: ratio.map(|ratio| ratio.value),
        efficiency_low: ratio.and_then(|ratio| ratio.low),
        efficiency_high: ratio.and_then(|ratio| ratio.high),
        efficiency_reading: others.fewer.as_ref().and_then(|fewer| fewer.reading).map(str::to_owned),
        qstar_minus: estimate.map(|estimate| estimate.value),
        qstar_minus_low: estimate.and_then(|estimate| estimate.low),
        qstar_minus_high: estimate.and_then(|estimate| estimate.high),
        p_paired: against.difference.and_then(|difference| difference.p_paired),
        p_paired_holm: against.p_paired_holm,
        p_welch: against.difference.and_then(|difference| difference.p_welch),
        p_welch_holm: against.p_welch_holm,
        detectable: against.detectable,
    })
}

/// α of a method that has one.
pub(super) struct Alphas {
    /// Mean over the steps of each seed.
    pub means: Vec<f64>,
    /// Over the tokens of all steps of all seeds; every step weighs the same.
    pub sd: f64,
}

impl Alphas {
    /// None where the steps have no α.
    pub fn of(runs: &MethodRuns) -> Result<Option<Self>> {
        Self::of_steps(&runs.steps, f64::INFINITY)
    }

    /// Of the steps up to so many samples.
    pub fn of_steps(runs: &[OneRun], samples: f64) -> Result<Option<Self>> {
        let (mut means, mut centres, mut squares) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs {
            let (alpha, sd) = (run.series("alpha_mean")?, run.series("alpha_sd")?);
            let at = run.all("samples")?;
            let mut of_run = Vec::new();
            for ((alpha, sd), at) in alpha.into_iter().zip(sd).zip(at) {
                if let Some(alpha) = alpha.filter(|_| at <= samples) {
                    of_run.push(alpha);
                    squares.push(sd.filter(|sd| sd.is_finite()).unwrap_or(0.0).powi(2));
                }
            }
            means.extend(mean_of(&of_run));
            centres.extend(of_run);
        }
        let Some(centre) = mean_of(&centres) else { return Ok(None) };
        let between = mean(&centres.iter().map(|alpha| (alpha - centre).powi(2)).collect::<Vec<_>>());
        Ok(Some(Self { means, sd: (mean(&squares) + between).sqrt() }))
    }
}

/// The mean over seeds of the mean over steps; none where no step has the number.
pub(super) fn over_runs(runs: &[OneRun], name: &str) -> Result<Option<f64>> {
    let of_runs: Vec<Option<f64>> = runs.iter().map(|run| Ok(mean_of(&run.some(name)?))).collect::<Result<_>>()?;
    Ok(mean_of(&of_runs.into_iter().flatten().collect::<Vec<_>>()))
}
