//! H2: no method learns faster.

use std::cmp::Ordering;

use anyhow::Result;

use super::{Evidence, Finding, Outcome, RivalRow, corrected};
use crate::experiment::study::estimates::Difference;
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
    let names: Vec<&str> = evidence.rivals().map(|rival| rival.method.as_str()).collect();
    if names.is_empty() {
        return Ok(Finding::unknown(STATISTIC, seeds, "there is no other method here"));
    }
    let areas: Vec<Option<Difference>> =
        evidence.rivals().map(|rival| Difference::of(&own, &rival.areas(range))).collect();
    let p_holm = corrected(&areas)?;
    let row = |at: usize| {
        let test = (p_holm[at], names.len());
        RivalRow::paired(("H2", STATISTIC, names[at]), areas[at].as_ref(), test, Some(Ordering::Greater))
    };
    let rows: Vec<RivalRow> = (0..names.len()).map(row).collect();
    let samples = samples(evidence)?;
    let slower: Vec<&RivalRow> = samples.iter().filter(|row| row.better == "rival").collect();
    let all = rows.iter().all(|row| row.better == "qstar");
    let beaten: Vec<&RivalRow> = rows.iter().filter(|row| row.better == "rival").collect();
    let verdict = match (all && slower.is_empty(), beaten.is_empty()) {
        (true, _) => Outcome::Supported,
        (_, false) => Outcome::Refuted,
        _ => Outcome::Undecided,
    };
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
    let finding = Finding { verdict, ..Finding::unknown(STATISTIC, seeds, why) };
    let finding = finding.decided_by(&rows, |row| row.rival.clone());
    Ok(Finding { rivals: rows.into_iter().chain(samples).collect(), ..finding })
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
