//! H3: no method has less noise in its gradient, at the same θ.

use anyhow::Result;

use super::{Evidence, Finding, Noise, Outcome, RivalRow};
use crate::experiment::study::estimates::{ALPHA, Difference, holm_of};
use crate::experiment::study::scores::QSTAR;

pub(super) const RULE: &str = "Statistic: tr Cov(g)/‖E g‖² of one update at the same θ, the other method's over that of qstar, \
    geometric mean over seeds, paired t of the logarithms, Holm over methods and θ. Supported where the ratio lies above 1 \
    against every method at every θ (p < 0.05). Refuted where it lies below 1 against some method at some θ (p < 0.05). Else \
    undecided.";

const STATISTIC: &str = "gradient noise, the other's over that of qstar";

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let of_qstar: Vec<&Noise> = evidence.noise.iter().filter(|noise| noise.method == QSTAR).collect();
    if of_qstar.is_empty() {
        return Ok(Finding::unknown(STATISTIC, 0, "gradient noise at one θ was not measured here: see `gradient_noise`"));
    }
    let mut found: Vec<(&Noise, Option<Difference>)> = Vec::new();
    for qstar in &of_qstar {
        let rivals = evidence.noise.iter().filter(|noise| noise.theta == qstar.theta && noise.method != QSTAR);
        found.extend(rivals.map(|rival| (rival, Difference::of(&rival.log, &qstar.log))));
    }
    let seeds = of_qstar.iter().map(|noise| noise.log.len()).min().unwrap_or_default();
    if found.is_empty() {
        return Ok(Finding::unknown(STATISTIC, seeds, "there is no other method's noise at the same θ"));
    }
    let p: Vec<Option<f64>> = found.iter().map(|(_, found)| found.and_then(|found| found.p_paired)).collect();
    let p_holm = holm_of(&p)?;
    let tests = found.len();
    let row = |((rival, found), (p, p_holm)): (&(&Noise, Option<Difference>), (&Option<f64>, &Option<f64>))| {
        let certain = p_holm.is_some_and(|p| p < ALPHA);
        let better = match found {
            Some(found) if certain && found.estimate.value > 0.0 => "qstar",
            Some(found) if certain && found.estimate.value < 0.0 => "rival",
            _ => "not distinguished",
        };
        let ratio = found.map(|found| found.estimate.exp());
        RivalRow {
            hypothesis: "H3".to_owned(),
            statistic: STATISTIC.to_owned(),
            theta: Some(rival.theta.clone()),
            rival: rival.method.clone(),
            value: ratio.map(|ratio| ratio.value),
            low: ratio.and_then(|ratio| ratio.low),
            high: ratio.and_then(|ratio| ratio.high),
            seeds: found.map_or(0, |found| found.seeds as i64),
            p: *p,
            p_holm: *p_holm,
            detectable: found.and_then(|found| found.detectable(tests)).map(f64::exp),
            better: better.to_owned(),
        }
    };
    let rows: Vec<RivalRow> = found.iter().zip(p.iter().zip(&p_holm)).map(row).collect();
    let beaten: Vec<&RivalRow> = rows.iter().filter(|row| row.better == "rival").collect();
    let won = rows.iter().filter(|row| row.better == "qstar").count();
    let verdict = if won == rows.len() {
        Outcome::Supported
    } else if !beaten.is_empty() {
        Outcome::Refuted
    } else {
        Outcome::Undecided
    };
    let at = |row: &&RivalRow| format!("{} at {}", row.rival, row.theta.as_deref().unwrap_or_default());
    let unknown = found.iter().filter(|(noise, found)| found.is_none() || noise.log.len() < noise.seeds).count();
    let mut why = format!("of {} comparisons the noise of qstar is smaller for certain in {won}", rows.len());
    if !beaten.is_empty() {
        why += &format!(", larger in {}: {}", beaten.len(), beaten.iter().map(at).collect::<Vec<_>>().join(", "));
    }
    if unknown > 0 {
        why += &format!("; in {unknown} some signal is too small to be measured: more steps");
    }
    if seeds < 2 {
        why = "one seed has no interval".to_owned();
    }
    let closest = rows.iter().filter(|row| row.value.is_some()).min_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap()));
    let mut finding = Finding { verdict, ..Finding::unknown(STATISTIC, seeds, why) };
    if let Some(closest) = closest {
        finding.against = Some(at(&closest));
        (finding.value, finding.low, finding.high) = (closest.value, closest.low, closest.high);
        (finding.p_holm, finding.detectable) = (closest.p_holm, closest.detectable);
    }
    finding.rivals = rows;
    Ok(finding)
}
