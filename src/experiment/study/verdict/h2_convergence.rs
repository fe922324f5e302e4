//! H2: no method learns faster.

use anyhow::Result;

use super::{Evidence, Finding, Outcome, RivalRow};
use crate::experiment::study::estimates::{ALPHA, Difference, holm_of};
use crate::experiment::study::scores::{Fewer, common_range};

pub(super) const RULE: &str = "Statistic: the area under the learning curve over the samples that all methods have in common, \
    qstar less the other method, paired t over seeds, Holm over the methods; and the samples to the level that was fixed ahead, \
    the other's over those of qstar. Supported where the area is larger than that of every other method (p < 0.05) and no ratio \
    of samples lies below 1 for certain (its bootstrap interval). Refuted where the area is smaller than that of some method \
    (p < 0.05). Else undecided.";

const STATISTIC: &str = "area under the learning curve, qstar less the other";
const SAMPLES: &str = "samples to the level, the other's over those of qstar";

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let range = common_range(evidence.scored);
    let own = evidence.qstar.areas(range);
    let seeds = evidence.qstar.after.len();
    let areas: Vec<(&str, Option<Difference>)> =
        evidence.rivals().map(|rival| (rival.method.as_str(), Difference::of(&own, &rival.areas(range)))).collect();
    if areas.is_empty() {
        return Ok(Finding::unknown(STATISTIC, seeds, "there is no other method here"));
    }
    let p: Vec<Option<f64>> = areas.iter().map(|(_, found)| found.and_then(|found| found.p_paired)).collect();
    let p_holm = holm_of(&p)?;
    let mut rows: Vec<RivalRow> = Vec::new();
    for ((rival, found), (p, p_holm)) in areas.iter().zip(p.iter().zip(&p_holm)) {
        let certain = p_holm.is_some_and(|p| p < ALPHA);
        rows.push(RivalRow {
            hypothesis: "H2".to_owned(),
            statistic: STATISTIC.to_owned(),
            theta: None,
            rival: (*rival).to_owned(),
            value: found.map(|found| found.estimate.value),
            low: found.and_then(|found| found.estimate.low),
            high: found.and_then(|found| found.estimate.high),
            seeds: found.map_or(0, |found| found.seeds as i64),
            p: *p,
            p_holm: *p_holm,
            detectable: found.and_then(|found| found.detectable(areas.len())),
            better: match found {
                Some(found) if certain && found.estimate.value > 0.0 => "qstar",
                Some(found) if certain && found.estimate.value < 0.0 => "rival",
                _ => "not distinguished",
            }
            .to_owned(),
        });
    }
    let samples = samples(evidence)?;
    let slower: Vec<&RivalRow> = samples.iter().filter(|row| row.better == "rival").collect();
    let all = rows.iter().all(|row| row.better == "qstar");
    let beaten: Vec<&RivalRow> = rows.iter().filter(|row| row.better == "rival").collect();
    let verdict = match (all && slower.is_empty(), beaten.is_empty()) {
        (true, _) => Outcome::Supported,
        (_, false) => Outcome::Refuted,
        _ => Outcome::Undecided,
    };
    let closest = rows.iter().filter(|row| row.value.is_some()).min_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap()));
    let list = |rows: &[&RivalRow]| rows.iter().map(|row| row.rival.as_str()).collect::<Vec<_>>().join(", ");
    let won: Vec<&RivalRow> = rows.iter().filter(|row| row.better == "qstar").collect();
    let mut why = format!("of {} areas that of qstar is larger for certain than {}", rows.len(), won.len());
    if !beaten.is_empty() {
        why += &format!(", smaller than that of {}", list(&beaten));
    }
    match evidence.level {
        None => why += "; no level was fixed ahead",
        Some(level) if slower.is_empty() => why += &format!("; no method reached {level:.4} earlier for certain"),
        Some(level) => why += &format!("; {} reached {level:.4} earlier by the bootstrap", list(&slower)),
    }
    if seeds < 2 {
        why = "one seed has no interval".to_owned();
    }
    let mut finding = Finding { verdict, ..Finding::unknown(STATISTIC, seeds, why) };
    if let Some(closest) = closest {
        finding.against = Some(closest.rival.clone());
        (finding.value, finding.low, finding.high) = (closest.value, closest.low, closest.high);
        (finding.p_holm, finding.detectable) = (closest.p_holm, closest.detectable);
    }
    finding.rivals = rows.into_iter().chain(samples).collect();
    Ok(finding)
}

/// Samples to the level; nothing where none was fixed ahead.
fn samples(evidence: &Evidence) -> Result<Vec<RivalRow>> {
    let Some(level) = evidence.level else { return Ok(Vec::new()) };
    let row = |rival| {
        let fewer = Fewer::of(rival, evidence.qstar, level)?;
        let ratio = fewer.ratio;
        // A ratio that is a lower bound of the true one proves no slowness, an upper bound no speed.
        let reading = fewer.reading.unwrap_or("not reached");
        let better = match ratio {
            Some(ratio) if ratio.above(1.0) && ["exact", "at least"].contains(&reading) => "qstar",
            Some(ratio) if ratio.below(1.0) && ["exact", "at most"].contains(&reading) => "rival",
            _ => "not distinguished",
        };
        Ok(RivalRow {
            hypothesis: "H2".to_owned(),
            statistic: format!("{SAMPLES} ({reading})"),
            theta: None,
            rival: rival.method.clone(),
            value: ratio.map(|ratio| ratio.value),
            low: ratio.and_then(|ratio| ratio.low),
            high: ratio.and_then(|ratio| ratio.high),
            seeds: rival.after.len().min(evidence.qstar.after.len()) as i64,
            p: None,
            p_holm: None,
            detectable: None,
            better: better.to_owned(),
        })
    };
    evidence.rivals().map(row).collect()
}
