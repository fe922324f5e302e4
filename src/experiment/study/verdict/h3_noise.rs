//! H3: no method has less noise in its gradient, at the same θ.

use std::cmp::Ordering;

use anyhow::Result;

use super::{Evidence, Finding, Noise, Outcome, RivalRow, corrected};
use crate::experiment::study::estimates::Difference;
use crate::experiment::study::scores::QSTAR;

pub(super) const RULE: &str = "Statistic: tr Cov(g)/‖E g‖² of one update at the same θ, the other method's over that of qstar, \
    geometric mean over seeds, paired t of the logarithms, Holm over methods and θ. Supported where the ratio lies above 1 \
    against every method at every θ (p < 0.05). Refuted where it lies below 1 against some method at some θ (p < 0.05). Else \
    undecided. What has a seed in which no signal was found is not the better one for certain.";

const STATISTIC: &str = "gradient noise, the other's over that of qstar";

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let of_qstar: Vec<&Noise> = evidence.noise.iter().filter(|noise| noise.method == QSTAR).collect();
    if of_qstar.is_empty() {
        return Ok(Finding::unknown(
            STATISTIC,
            0,
            "gradient noise at one θ was not measured here: see `gradient_noise`",
        ));
    }
    let mut pairs: Vec<(&Noise, &Noise)> = Vec::new();
    for qstar in &of_qstar {
        let rivals = evidence.noise.iter().filter(|noise| noise.theta == qstar.theta && noise.method != QSTAR);
        pairs.extend(rivals.map(|rival| (rival, *qstar)));
    }
    let seeds = of_qstar.iter().map(|noise| noise.log.len()).min().unwrap_or_default();
    if pairs.is_empty() {
        return Ok(Finding::unknown(STATISTIC, seeds, "there is no other method's noise at the same θ"));
    }
    let found: Vec<Option<Difference>> =
        pairs.iter().map(|(rival, qstar)| Difference::of(&rival.log, &qstar.log)).collect();
    let p_holm = corrected(&found)?;
    let whole = |noise: &Noise| noise.log.len() == noise.seeds;
    let row = |at: usize| {
        let (test, rival) = ((p_holm[at], pairs.len()), pairs[at].0);
        let about = ("H3", STATISTIC, rival.method.as_str());
        let row = RivalRow::paired(about, found[at].as_ref(), test, Some(Ordering::Greater));
        // A seed without a signal is left out, and was the noisiest: what it belongs to looks better than it is.
        let flattered = if row.better == "qstar" { pairs[at].1 } else { rival };
        let better = if whole(flattered) { row.better } else { "not distinguished".to_owned() };
        // From logarithms to ratios.
        let [value, low, high, detectable] = [row.value, row.low, row.high, row.detectable].map(|x| x.map(f64::exp));
        RivalRow { theta: Some(rival.theta.clone()), value, low, high, detectable, better, ..row }
    };
    let rows: Vec<RivalRow> = (0..pairs.len()).map(row).collect();
    let beaten: Vec<&RivalRow> = rows.iter().filter(|row| row.better == "rival").collect();
    let won = rows.iter().filter(|row| row.better == "qstar").count();
    let verdict = if won == rows.len() {
        Outcome::Supported
    } else if !beaten.is_empty() {
        Outcome::Refuted
    } else {
        Outcome::Undecided
    };
    let at = |row: &RivalRow| format!("{} at {}", row.rival, row.theta.as_deref().unwrap_or_default());
    let unknown = pairs.iter().filter(|(rival, qstar)| !whole(rival) || !whole(qstar)).count();
    let mut why = format!("of {} comparisons the noise of qstar is smaller for certain in {won}", rows.len());
    if !beaten.is_empty() {
        why += &format!(
            ", larger in {}: {}",
            beaten.len(),
            beaten.iter().map(|row| at(row)).collect::<Vec<_>>().join(", ")
        );
    }
    if unknown > 0 {
        why += &format!("; in {unknown} some signal is too small to be measured: more steps");
    }
    if seeds < 2 {
        why = "one seed has no interval".to_owned();
    }
    let finding = Finding { verdict, ..Finding::unknown(STATISTIC, seeds, why) };
    Ok(Finding { rivals: rows.clone(), ..finding.decided_by(&rows, at) })
}
