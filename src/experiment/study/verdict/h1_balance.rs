//! H1: the samples of q* are worth as much for the policy as for the target.

use anyhow::Result;

use super::{Evidence, Finding, Outcome};
use crate::experiment::study::estimates::{Estimate, detectable_sd, mean_of, values};
use crate::metrics::sd;

pub(super) const RULE: &str = "Statistic: the geometric mean over steps of ESS_p/ESS_t of a token, with Student's interval over \
    seeds. Supported where the interval lies within [0.9, 1.1] and more than half of the single ratios do. Refuted where the \
    interval lies outside of [0.9, 1.1]. Else undecided.";

const STATISTIC: &str = "geometric mean of ESS_p/ESS_t";
/// The hypothesis' own bounds.
pub(in crate::experiment::study) const NEAR_1: (f64, f64) = (0.9, 1.1);

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let logs = values(&evidence.qstar.log_ess_ratio);
    if logs.is_empty() {
        return Ok(Finding::unknown(STATISTIC, 0, "no step has an ESS_p/ESS_t"));
    }
    let Some(ratio) = Estimate::geometric(&logs) else {
        return Ok(Finding::unknown(
            STATISTIC,
            logs.len(),
            "an effective sample size is 0: the ratio has no logarithm",
        ));
    };
    let near = mean_of(&values(&evidence.qstar.ess_near_1)).unwrap_or_default();
    let verdict = if ratio.within(NEAR_1.0, NEAR_1.1) && near > 0.5 {
        Outcome::Supported
    } else if ratio.above(NEAR_1.1) || ratio.below(NEAR_1.0) {
        Outcome::Refuted
    } else {
        Outcome::Undecided
    };
    let why = format!(
        "the geometric mean is {}, and {:.1}% of the single ratios lie within [0.9, 1.1]",
        ratio.in_words(),
        100.0 * near
    );
    let detectable = detectable_sd(logs.len(), 1).map(|effect| (effect * sd(&logs)).exp());
    Ok(Finding {
        value: Some(ratio.value),
        low: ratio.low,
        high: ratio.high,
        detectable,
        verdict,
        ..Finding::unknown(STATISTIC, logs.len(), why)
    })
}
