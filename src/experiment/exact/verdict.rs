//! H3 in the exact world: is the variance smallest where q* draws?

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use crate::metrics::t_interval;
use crate::record::record;

/// The columns of [`super::VarianceRow`] that are judged, each for itself.
const MEASURES: [&str; 3] = ["variance", "noise_to_signal", "mse"];
/// Relative differences below this are none.
const EQUAL: f64 = 1e-9;

record! {
    /// One measure of one pair with one weight, over all rules.
    pub struct VerdictRow {
        pub pair: String,
        pub seed: i64,
        pub unit: String,
        pub level: String,
        pub treatment: String,
        pub baseline: String,
        pub k: i64,
        pub measure: String,
        /// The rule with the smallest value, of equal ones the first of [`super::RULES`]; `all equal` where no two differ.
        pub lowest: String,
        /// One more than the rules with a smaller value than q*; rules that come to one proposal count as several.
        pub qstar_rank: i64,
        pub rules: i64,
        /// The value of q* over that of draws from the policy, and over the smallest of all rules.
        pub to_on_policy: f64,
        pub to_lowest: f64,
        /// The best α of the grid, and its value over that of draws from the policy; null without a grid.
        pub best_alpha: Option<f64>,
        pub best_to_on_policy: Option<f64>,
    }
}

record! {
    /// The verdict rows of one pair, over the seeds of its world.
    pub struct VerdictTableRow {
        pub pair: String,
        pub unit: String,
        pub level: String,
        pub treatment: String,
        pub baseline: String,
        pub k: i64,
        pub measure: String,
        pub worlds: i64,
        /// The share of worlds in which no rule is below q* and not all are equal, and in which q* is below on-policy.
        pub qstar_lowest: f64,
        pub qstar_below_on_policy: f64,
        pub mean_rank: f64,
        /// Geometric mean of q* over on-policy, and its 95 % t-interval over the worlds (null for one world).
        pub to_on_policy: f64,
        pub to_on_policy_low: Option<f64>,
        pub to_on_policy_high: Option<f64>,
        /// The rule that is lowest in most worlds, and in which share of them.
        pub most_often_lowest: String,
        pub most_often_share: f64,
        /// The mean of the best α of the grid; null without a grid.
        pub best_alpha: Option<f64>,
    }
}

/// A row for every pair, weight and measure of a frame of [`super::variances`]: which rule is lowest, and where q* is.
///
/// # Errors
/// A frame without these columns, or without the rows of `qstar` or `reinforce` for some pair and weight.
///
/// ```
/// use qstar::experiment::exact::{Baseline, Setting, Tree, Unit, treated, variances, verdict};
/// use qstar::method::Treatment;
///
/// let pair = Setting::new(&Tree::new(3, 3, false)?, 0, 0.1)?.with_gap("medium", 1.0);
/// let weights = treated(&[Treatment::Raw]);
/// let frame = variances(&[pair], Unit::Token, &[], &weights, Baseline::LeaveOneOut, 4)?;
/// // Three levels, three measures.
/// assert_eq!(verdict(&frame)?.height(), 9);
/// # anyhow::Ok(())
/// ```
pub fn verdict(variances: &DataFrame) -> Result<DataFrame> {
    let [pairs, units, levels, treatments, baselines, rules] =
        ["pair", "unit", "level", "treatment", "baseline", "rule"].map(|name| texts(variances, name));
    let (pairs, units, levels, treatments, baselines) = (pairs?, units?, levels?, treatments?, baselines?);
    let (seeds, ks, rules) = (integers(variances, "seed")?, integers(variances, "k")?, rules?);
    let alphas = numbers(variances, "alpha")?;
    let groups = grouped((0..variances.height()).map(|i| {
        (
            pairs[i].clone(),
            seeds[i],
            units[i].clone(),
            levels[i].clone(),
            treatments[i].clone(),
            baselines[i].clone(),
            ks[i],
        )
    }));
    let mut rows = Vec::new();
    for measure in MEASURES {
        let values = numbers(variances, measure)?;
        for ((pair, seed, unit, level, treatment, baseline, k), members) in &groups {
            let (grid, named): (Vec<usize>, Vec<usize>) = members.iter().partition(|i| rules[**i] == "fixed");
            let of = |rule: &str| {
                let found = named.iter().find(|i| rules[**i] == rule);
                found.map(|i| values[*i]).with_context(|| {
                    format!("no row of `{rule}` for {pair}, {level}, {treatment}: pass the frame of exact::variances")
                })
            };
            let (star, on_policy) = (of("qstar")?, of("reinforce")?);
            let least_value = least(&named, &values).map(|i| values[i]).context("a group has rows")?;
            let below = |a: f64, b: f64| a < b * (1.0 - EQUAL);
            // Rules that come to one proposal, as SnrMax to the policy, differ by rounding: the first stands for them.
            let lowest: Vec<usize> = named.iter().copied().filter(|i| !below(least_value, values[*i])).collect();
            let best = least(&grid, &values);
            rows.push(VerdictRow {
                pair: pair.clone(),
                seed: *seed,
                unit: unit.clone(),
                level: level.clone(),
                treatment: treatment.clone(),
                baseline: baseline.clone(),
                k: *k,
                measure: measure.to_owned(),
                lowest: if lowest.len() == named.len() { "all equal".to_owned() } else { rules[lowest[0]].clone() },
                qstar_rank: 1 + named.iter().filter(|i| below(values[**i], star)).count() as i64,
                rules: named.len() as i64,
                to_on_policy: star / on_policy,
                to_lowest: star / least_value,
                best_alpha: best.map(|i| alphas[i]),
                best_to_on_policy: best.map(|i| values[i] / on_policy),
            });
        }
    }
    VerdictRow::frame(&rows)
}

/// The rows of [`verdict`] gathered over seeds.
///
/// # Errors
/// A frame without these columns or without rows.
///
/// ```
/// use qstar::experiment::exact::{Baseline, Setting, Tree, Unit, treated, variances, verdict, verdict_table};
/// use qstar::method::Treatment;
///
/// let tree = Tree::new(3, 3, false)?;
/// let pair = |seed| anyhow::Ok(Setting::new(&tree, seed, 0.1)?.with_gap("medium", 1.0));
/// let pairs = (0..5).map(pair).collect::<anyhow::Result<Vec<_>>>()?;
/// let frame = variances(&pairs, Unit::Token, &[], &treated(&[Treatment::Raw]), Baseline::LeaveOneOut, 4)?;
/// let table = verdict_table(&verdict(&frame)?)?;
/// assert_eq!(table.column("worlds")?.i64()?.get(0), Some(5));
/// # anyhow::Ok(())
/// ```
pub fn verdict_table(verdict: &DataFrame) -> Result<DataFrame> {
    ensure!(verdict.height() > 0, "no verdicts to gather: pass the frame of exact::verdict");
    let [pairs, units, levels, treatments, baselines, measures, lowest] =
        ["pair", "unit", "level", "treatment", "baseline", "measure", "lowest"].map(|name| texts(verdict, name));
    let (pairs, units, levels, treatments) = (pairs?, units?, levels?, treatments?);
    let (baselines, measures, lowest) = (baselines?, measures?, lowest?);
    let (ks, ranks) = (integers(verdict, "k")?, integers(verdict, "qstar_rank")?);
    let (ratios, best) = (numbers(verdict, "to_on_policy")?, verdict.column("best_alpha")?.f64()?);
    let groups = grouped((0..verdict.height()).map(|i| {
        let measure = measures[i].clone();
        (
            pairs[i].clone(),
            units[i].clone(),
            levels[i].clone(),
            treatments[i].clone(),
            baselines[i].clone(),
            ks[i],
            measure,
        )
    }));
    let row = |((pair, unit, level, treatment, baseline, k, measure), members): (_, Vec<usize>)| {
        let share =
            |of: &dyn Fn(usize) -> bool| members.iter().filter(|i| of(**i)).count() as f64 / members.len() as f64;
        let logs: Vec<f64> = members.iter().map(|i| ratios[*i].ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let interval = if logs.len() > 1 { Some(t_interval(&logs, 0.95)?) } else { None };
        let winners = grouped(members.iter().map(|i| lowest[*i].clone()));
        // Of rules that are lowest equally often, the first.
        let winner = winners.iter().rev().max_by_key(|(_, worlds)| worlds.len()).context("a group has rows")?;
        let best: Option<Vec<f64>> = members.iter().map(|i| best.get(*i)).collect();
        Ok(VerdictTableRow {
            pair,
            unit,
            level,
            treatment,
            baseline,
            k,
            measure,
            worlds: members.len() as i64,
            qstar_lowest: share(&|i| ranks[i] == 1 && lowest[i] != "all equal"),
            qstar_below_on_policy: share(&|i| ratios[i] < 1.0 - EQUAL),
            mean_rank: members.iter().map(|i| ranks[*i] as f64).sum::<f64>() / members.len() as f64,
            to_on_policy: mean.exp(),
            to_on_policy_low: interval.map(|interval| interval.low.exp()),
            to_on_policy_high: interval.map(|interval| interval.high.exp()),
            most_often_lowest: winner.0.clone(),
            most_often_share: winner.1.len() as f64 / members.len() as f64,
            best_alpha: best.map(|best| best.iter().sum::<f64>() / best.len() as f64),
        })
    };
    VerdictTableRow::frame(&groups.into_iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// The rows of every key, in the order in which keys appear.
fn grouped<K: PartialEq>(keys: impl Iterator<Item = K>) -> Vec<(K, Vec<usize>)> {
    let mut groups: Vec<(K, Vec<usize>)> = Vec::new();
    for (row, key) in keys.enumerate() {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups
}

fn least(rows: &[usize], values: &[f64]) -> Option<usize> {
    rows.iter().copied().min_by(|a, b| values[*a].total_cmp(&values[*b]))
}

fn texts(frame: &DataFrame, name: &str) -> Result<Vec<String>> {
    let column = frame.column(name)?.str()?;
    let texts: Option<Vec<String>> = column.iter().map(|text| text.map(str::to_owned)).collect();
    texts.with_context(|| format!("column `{name}` has a null"))
}

fn integers(frame: &DataFrame, name: &str) -> Result<Vec<i64>> {
    let integers: Option<Vec<i64>> = frame.column(name)?.i64()?.iter().collect();
    integers.with_context(|| format!("column `{name}` has a null"))
}

fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    let numbers: Option<Vec<f64>> = frame.column(name)?.f64()?.iter().collect();
    numbers.with_context(|| format!("column `{name}` has a null"))
}
