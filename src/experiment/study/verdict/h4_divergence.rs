//! H4: what q* gains it does not buy with the largest, nor lose by the smallest, distance from the initial policy.

use std::cmp::Ordering;

use anyhow::Result;

use super::{Evidence, Finding, Outcome, RivalRow, corrected};
use crate::experiment::study::estimates::{ALPHA, Difference, Estimate, values};

pub(super) const RULE: &str = "Statistic: KL(π_θ‖π_init) of a held-out response of qstar at the end, in nats, with Student's \
    interval over seeds; differences from the other methods in KL and in reward by paired t over seeds, Holm over the methods \
    (p < 0.05 is for certain). Supported where for certain some method ends farther from π_init than qstar and some method nearer, \
    and none has for certain both more reward and less KL. Refuted where qstar for certain ends farther than all others, or \
    nearer than all others, or where some method has for certain both more reward and less KL. Else undecided.";

const STATISTIC: &str = "KL(π_θ‖π_init) of a held-out response of qstar, nats";
const KL: &str = "KL to π_init, the other's less that of qstar";
const REWARD: &str = "held-out reward, the other's less that of qstar";

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let qstar = evidence.qstar;
    let own = Estimate::student(&values(&qstar.kl));
    let names: Vec<&str> = evidence.rivals().map(|rival| rival.method.as_str()).collect();
    if names.is_empty() {
        return Ok(Finding::unknown(STATISTIC, qstar.kl.len(), "there is no other method here"));
    }
    let kl: Vec<_> = evidence.rivals().map(|rival| Difference::of(&rival.kl, &qstar.kl)).collect();
    let reward: Vec<_> = evidence.rivals().map(|rival| Difference::of(&rival.after, &qstar.after)).collect();
    let (kl, reward) = (rows(KL, &names, &kl, None)?, rows(REWARD, &names, &reward, Some(Ordering::Less))?);
    let farther = kl.iter().filter(|row| is_certain(row) && row.value > Some(0.0)).count();
    let nearer = kl.iter().filter(|row| is_certain(row) && row.value < Some(0.0)).count();
    let dominates = |(kl, reward): &(&RivalRow, &RivalRow)| {
        is_certain(kl) && kl.value < Some(0.0) && is_certain(reward) && reward.value > Some(0.0)
    };
    let dominating: Vec<&str> = kl.iter().zip(&reward).filter(dominates).map(|(row, _)| row.rival.as_str()).collect();
    let verdict = if !dominating.is_empty() || farther == names.len() || nearer == names.len() {
        Outcome::Refuted
    } else if farther > 0 && nearer > 0 {
        Outcome::Supported
    } else {
        Outcome::Undecided
    };
    let mut why =
        format!("of {} methods {farther} end farther from π_init than qstar for certain, {nearer} nearer", names.len());
    if !dominating.is_empty() {
        why += &format!("; {} with more reward and less KL", dominating.join(", "));
    }
    if qstar.kl.len() < 2 {
        why = "one seed has no interval".to_owned();
    }
    let detectable = kl.iter().filter_map(|row| row.detectable).max_by(f64::total_cmp);
    Ok(Finding {
        against: dominating.first().map(|name| (*name).to_owned()),
        value: own.map(|own| own.value),
        low: own.and_then(|own| own.low),
        high: own.and_then(|own| own.high),
        detectable,
        verdict,
        rivals: kl.into_iter().chain(reward).collect(),
        ..Finding::unknown(STATISTIC, qstar.kl.len(), why)
    })
}

fn is_certain(row: &RivalRow) -> bool {
    row.p_holm.is_some_and(|p| p < ALPHA)
}

fn rows(
    statistic: &str,
    names: &[&str],
    found: &[Option<Difference>],
    favours_qstar: Option<Ordering>,
) -> Result<Vec<RivalRow>> {
    let p_holm = corrected(found)?;
    let row = |at: usize| {
        let test = (p_holm[at], names.len());
        RivalRow::paired(("H4", statistic, names[at]), found[at].as_ref(), test, favours_qstar)
    };
    Ok((0..names.len()).map(row).collect())
}
