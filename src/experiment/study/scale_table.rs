//! Table 3: does the advantage of q\* change with the size of the policy, the family of tasks, the number of samples?

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::estimates::{BOOTSTRAP_SEED, BySeed, Difference, Estimate, RESAMPLES, mean_of, values};
use super::frames::{Comparison, Labels, MethodRuns, comparisons, labelled};
use super::rules_table::Alphas;
use super::scores::{QSTAR, REINFORCE, Responses, Scored, families};
use crate::metrics::{bootstrap_gain, mean};
use crate::record::record;

record! {
    /// `qstar` against `reinforce`, which differs from it in the proposal alone, and against the best other method.
    /// Intervals are of 95% by the crossed bootstrap over seeds and prompts, p-values of the paired t-test over seeds; one
    /// seed has neither.
    pub struct ScaleRow {
        /// The family of prompts, or `all`.
        pub family: String,
        /// How many samples each run had drawn, at most: its last evaluation before counts. A run that ended before is left
        /// out. `at_end`: the last evaluation of every run instead, and here the mean of `qstar`'s samples.
        pub samples: f64,
        pub at_end: bool,
        pub seeds: i64,
        /// Held-out reward of `qstar`.
        pub reward: f64,
        pub over_reinforce: Option<f64>,
        pub over_reinforce_low: Option<f64>,
        pub over_reinforce_high: Option<f64>,
        pub p_reinforce: Option<f64>,
        /// The method with the highest mean reward in this very row, `qstar` aside: chosen by the numbers that it is judged
        /// by, it looks a little better than it is.
        pub best_other: Option<String>,
        pub over_best: Option<f64>,
        pub over_best_low: Option<f64>,
        pub over_best_high: Option<f64>,
        pub p_best: Option<f64>,
        /// α\* up to here: mean over steps and seeds, standard deviation over tokens. The steps do not tell families apart:
        /// null in their rows.
        pub alpha_mean: Option<f64>,
        pub alpha_sd: Option<f64>,
    }
}

/// Table 3: a row a place with `qstar`, a family and a number of samples, those of `at` and the end.
///
/// # Errors
/// As [`main_table`](super::main_table); a number of samples that is not positive; runs on different held-out prompts.
pub fn scale_table(evaluations: &DataFrame, samples: &DataFrame, steps: &DataFrame, at: &[f64]) -> Result<DataFrame> {
    for count in at {
        ensure!(*count > 0.0 && count.is_finite(), "an advantage after {count} samples");
    }
    let counts: Vec<Option<f64>> = at.iter().copied().map(Some).chain([None]).collect();
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let Some(qstar) = comparison.method(QSTAR) else { continue };
        let names = families(&Scored::all(&comparison)?);
        // Of one family there is nothing to tell apart.
        let names = if names.len() > 1 { names } else { Vec::new() };
        for &count in &counts {
            let found = Found::at(&comparison, count).with_context(|| comparison.place.in_words())?;
            for family in [None].into_iter().chain(names.iter().map(Some)) {
                if let Some(row) = found.row(qstar, family.map(String::as_str), count)? {
                    labels.push(Labels::of_place(&comparison.place));
                    rows.push(row);
                }
            }
        }
    }
    labelled(&ScaleRow::frame(&rows)?, &labels)
}

/// The responses of every method after so many samples.
struct Found {
    methods: Vec<(String, Vec<(i64, Responses)>)>,
    /// Mean samples of `qstar` there.
    samples: f64,
}

impl Found {
    fn at(comparison: &Comparison, count: Option<f64>) -> Result<Self> {
        let mut samples = 0.0;
        let mut methods = Vec::new();
        for runs in &comparison.methods {
            let (mut responses, mut reached) = (Vec::new(), Vec::new());
            for evaluations in &runs.evaluations {
                let (step, spent) = (evaluations.all("step")?, evaluations.all("samples")?);
                let last = spent.len() - 1;
                let row = match count {
                    None => Some(last),
                    Some(count) if spent[last] < count => None,
                    Some(count) => spent.iter().rposition(|spent| *spent <= count),
                };
                let held = runs.samples.iter().find(|run| run.seed == evaluations.seed);
                let Some((row, held)) = row.zip(held) else { continue };
                responses.push((held.seed, Responses::at(held, step[row])?));
                reached.push(spent[row]);
            }
            if runs.method == QSTAR {
                samples = mean_of(&reached).unwrap_or_default();
            }
            methods.push((runs.method.clone(), responses));
        }
        Ok(Self { methods, samples })
    }

    fn row(&self, qstar: &MethodRuns, family: Option<&str>, count: Option<f64>) -> Result<Option<ScaleRow>> {
        let of_family = |responses: &[(i64, Responses)]| -> Vec<(i64, Responses)> {
            let kept =
                |responses: &Responses| family.map_or_else(|| responses.clone(), |name| responses.of_family(name));
            responses.iter().map(|(seed, responses)| (*seed, kept(responses))).collect()
        };
        let methods: Vec<(&str, Vec<(i64, Responses)>)> =
            self.methods.iter().map(|(name, responses)| (name.as_str(), of_family(responses))).collect();
        let find = |name: &str| methods.iter().find(|(known, _)| *known == name).map(|(_, responses)| responses);
        let Some(own) = find(QSTAR).filter(|own| own.iter().any(|(_, responses)| !responses.index.is_empty())) else {
            return Ok(None);
        };
        let mean_reward = |responses: &[(i64, Responses)]| mean_of(&values(&by_seed(responses)));
        let others = methods.iter().filter(|(name, _)| *name != QSTAR);
        let best = others
            .filter_map(|(name, responses)| Some((*name, responses, mean_reward(responses)?)))
            .max_by(|a, b| a.2.total_cmp(&b.2));
        let over_reinforce = find(REINFORCE).map(|other| Advantage::of(own, other)).transpose()?.flatten();
        let over_best = best.map(|(_, responses, _)| Advantage::of(own, responses)).transpose()?.flatten();
        let alphas = match family {
            None => Alphas::of_steps(&qstar.steps, count.unwrap_or(f64::INFINITY))?,
            Some(_) => None,
        };
        Ok(Some(ScaleRow {
            family: family.unwrap_or("all").to_owned(),
            samples: count.unwrap_or(self.samples),
            at_end: count.is_none(),
            seeds: own.len() as i64,
            reward: mean_reward(own).unwrap_or(f64::NAN),
            over_reinforce: over_reinforce.as_ref().map(|over| over.estimate.value),
            over_reinforce_low: over_reinforce.as_ref().and_then(|over| over.estimate.low),
            over_reinforce_high: over_reinforce.as_ref().and_then(|over| over.estimate.high),
            p_reinforce: over_reinforce.and_then(|over| over.p),
            best_other: best.map(|(name, ..)| name.to_owned()),
            over_best: over_best.as_ref().map(|over| over.estimate.value),
            over_best_low: over_best.as_ref().and_then(|over| over.estimate.low),
            over_best_high: over_best.as_ref().and_then(|over| over.estimate.high),
            p_best: over_best.and_then(|over| over.p),
            alpha_mean: alphas.as_ref().and_then(|alphas| mean_of(&alphas.means)),
            alpha_sd: alphas.map(|alphas| alphas.sd),
        }))
    }
}

/// One method's reward less another's, over the seeds of both.
struct Advantage {
    estimate: Estimate,
    p: Option<f64>,
}

impl Advantage {
    fn of(own: &[(i64, Responses)], other: &[(i64, Responses)]) -> Result<Option<Self>> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (seed, own) in own {
            let Some((_, theirs)) = other.iter().find(|(known, _)| known == seed) else { continue };
            own.check_prompts(theirs, "two methods")?;
            before.push(theirs.reward.clone());
            after.push(own.reward.clone());
        }
        if before.is_empty() {
            return Ok(None);
        }
        let interval = bootstrap_gain(&before, &after, RESAMPLES, BOOTSTRAP_SEED)?;
        let p = Difference::of(&by_seed(own), &by_seed(other)).and_then(|difference| difference.p_paired);
        Ok(Some(Self { estimate: Estimate::of(interval, before.len()), p }))
    }
}

/// Mean reward a seed.
fn by_seed(responses: &[(i64, Responses)]) -> BySeed {
    let some = responses.iter().filter(|(_, responses)| !responses.reward.is_empty());
    some.map(|(seed, responses)| (*seed, mean(&responses.reward))).collect()
}
