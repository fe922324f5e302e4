//! Ablation 3: which target suits which family of tasks?

use std::collections::BTreeSet;

use anyhow::Result;
use polars::prelude::DataFrame;

use super::estimates::{ALPHA, BOOTSTRAP_SEED, BySeed, Difference, Estimate, RESAMPLES, holm_of, values};
use super::frames::{Labels, Place, comparisons, labelled};
use super::scores::{Answers, Scored};
use crate::metrics::{bootstrap_gain, mean};
use crate::record::record;

record! {
    /// What a method gained with one target on the held-out prompts of one family.
    pub struct TargetGainRow {
        /// The family of prompts, or `all`.
        pub family: String,
        pub seeds: i64,
        pub reward_before: f64,
        pub gain: f64,
        /// Of 95%, by the crossed bootstrap over seeds and prompts; one seed has none.
        pub gain_low: Option<f64>,
        pub gain_high: Option<f64>,
        /// Of the target with the highest gain, by how much it exceeds this one over the seeds of both, with the p-value of
        /// the paired t-test after Holm's correction over all pairs of targets. Null for that target itself.
        pub best_minus: Option<f64>,
        pub p_best_holm: Option<f64>,
        /// `best`: above every other target for certain; `below the best`: for certain; `not distinguished`: the highest
        /// gain, or one that is not below it for certain; `only one`: nothing to compare.
        pub standing: String,
    }
}

/// The table of targets: a row for every method, target and family. A target is marked as best only where its gain is above
/// that of every other by the paired t-test over seeds, p < 0.05 after Holm over all pairs.
///
/// # Errors
/// As [`main_table`](super::main_table).
pub fn target_table(evaluations: &DataFrame, samples: &DataFrame, steps: &DataFrame) -> Result<DataFrame> {
    let mut groups: Vec<Group> = Vec::new();
    for comparison in comparisons(evaluations, samples, steps)? {
        for scored in Scored::all(&comparison)? {
            let place = Place { target: None, ..comparison.place.clone() };
            let member = (comparison.place.clone(), scored.answers);
            match groups.iter_mut().find(|group| group.place == place && group.method == scored.method) {
                Some(group) => group.targets.push(member),
                None => groups.push(Group { place, method: scored.method, targets: vec![member] }),
            }
        }
    }
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for group in &groups {
        let families: BTreeSet<&String> =
            group.targets.iter().flat_map(|(_, runs)| runs).flat_map(|answers| &answers.last.family).collect();
        let names: Vec<Option<&String>> = match families.len() {
            0 | 1 => vec![None],
            _ => [None].into_iter().chain(families.into_iter().map(Some)).collect(),
        };
        for family in names {
            for (place, row) in group.rows(family.map(String::as_str))? {
                labels.push(Labels::of_method(place, &group.method));
                rows.push(row);
            }
        }
    }
    labelled(&TargetGainRow::frame(&rows)?, &labels)
}

/// One method's runs with every target.
struct Group {
    place: Place,
    method: String,
    targets: Vec<(Place, Vec<Answers>)>,
}

/// The rewards \[seed\]\[prompt\] of one target in one family, and the gains of the seeds.
struct Gains {
    before: Vec<Vec<f64>>,
    after: Vec<Vec<f64>>,
    by_seed: BySeed,
}

impl Gains {
    fn of(runs: &[Answers], family: Option<&str>, method: &str) -> Result<Option<Self>> {
        let mut gains = Self { before: Vec::new(), after: Vec::new(), by_seed: Vec::new() };
        for answers in runs {
            answers.first.check_prompts(&answers.last, method)?;
            let (first, last) = match family {
                Some(name) => (answers.first.of_family(name), answers.last.of_family(name)),
                None => (answers.first.clone(), answers.last.clone()),
            };
            if !first.reward.is_empty() {
                gains.by_seed.push((answers.seed, mean(&last.reward) - mean(&first.reward)));
                gains.before.push(first.reward);
                gains.after.push(last.reward);
            }
        }
        Ok((!gains.by_seed.is_empty()).then_some(gains))
    }

    fn mean(&self) -> f64 {
        mean(&values(&self.by_seed))
    }
}

impl Group {
    fn rows(&self, family: Option<&str>) -> Result<Vec<(&Place, TargetGainRow)>> {
        let mut found: Vec<(&Place, Gains)> = Vec::new();
        for (place, runs) in &self.targets {
            found.extend(Gains::of(runs, family, &self.method)?.map(|gains| (place, gains)));
        }
        let Some(best) = (0..found.len()).max_by(|a, b| found[*a].1.mean().total_cmp(&found[*b].1.mean())) else {
            return Ok(Vec::new());
        };
        let pairs: Vec<(usize, usize)> =
            (0..found.len()).flat_map(|a| (a + 1..found.len()).map(move |b| (a, b))).collect();
        let p = |(a, b): &(usize, usize)| {
            Difference::of(&found[*a].1.by_seed, &found[*b].1.by_seed).and_then(|difference| difference.p_paired)
        };
        let p = holm_of(&pairs.iter().map(p).collect::<Vec<_>>())?;
        let against_best = |at: usize| {
            let pair = (at.min(best), at.max(best));
            pairs.iter().position(|known| *known == pair).and_then(|place| p[place])
        };
        let certain = |at: usize| against_best(at).is_some_and(|p| p < ALPHA);
        let alone = (0..found.len()).filter(|at| *at != best).all(certain);
        let mut rows = Vec::new();
        for (at, (place, gains)) in found.iter().enumerate() {
            let interval = bootstrap_gain(&gains.before, &gains.after, RESAMPLES, BOOTSTRAP_SEED)?;
            let gain = Estimate::of(interval, gains.by_seed.len());
            let below = Difference::of(&found[best].1.by_seed, &gains.by_seed).filter(|_| at != best);
            let standing = match (found.len(), at == best) {
                (1, _) => "only one",
                (_, true) if alone => "best",
                (_, false) if certain(at) => "below the best",
                _ => "not distinguished",
            };
            rows.push((
                *place,
                TargetGainRow {
                    family: family.unwrap_or("all").to_owned(),
                    seeds: gains.by_seed.len() as i64,
                    reward_before: mean(&gains.before.iter().map(|prompts| mean(prompts)).collect::<Vec<_>>()),
                    gain: gain.value,
                    gain_low: gain.low,
                    gain_high: gain.high,
                    best_minus: below.map(|below| below.estimate.value),
                    p_best_holm: if at == best { None } else { against_best(at) },
                    standing: standing.to_owned(),
                },
            ));
        }
        Ok(rows)
    }
}
