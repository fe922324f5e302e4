//! The table variance(method, α).

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;
use rayon::prelude::*;

use super::estimator::{Baseline, Estimator};
use super::proposal::{RULES, TabularProposal, Unit};
use super::setting::Setting;
use super::{kl, log_ess};
use crate::method::{Level, Treatment, Weight};
use crate::mixture::Rule;
use crate::record::record;

/// Below this norm ∇J is rounding.
const NO_GRADIENT: f64 = 1e-10;

record! {
    /// One estimator with responses from one proposal.
    pub struct VarianceRow {
        pub pair: String,
        pub seed: i64,
        /// What is mixed: `token` or `sequence`.
        pub unit: String,
        /// The name of a rule, or `fixed` for a point of the grid.
        pub rule: String,
        /// α; of a rule over tokens, its mean over the tokens that q draws.
        pub alpha: f64,
        pub level: String,
        pub treatment: String,
        pub baseline: String,
        /// Responses of one estimate.
        pub k: i64,
        /// ‖E g − ∇J‖/‖∇J‖.
        pub bias: f64,
        /// tr Cov(g)/‖∇J‖².
        pub variance: f64,
        /// E‖g − ∇J‖²/‖∇J‖²: the variance plus the square of the bias.
        pub mse: f64,
        /// tr Cov(g)/‖E g‖²: the variance next to the estimator's own mean, whatever that is the gradient of.
        pub noise_to_signal: f64,
        /// 1/Σ p²/q over sequences, a share of the draws.
        pub ess_sequence: f64,
        /// KL(q‖p) and KL(q‖t) over sequences.
        pub kl_p: f64,
        pub kl_t: f64,
        /// ‖∇J‖.
        pub gradient_norm: f64,
    }
}

/// The weights of a treatment at every level: token, prefix, sequence. Where there is no weight there is no level, and
/// one is enough.
///
/// ```
/// use qstar::experiment::exact::treated;
/// use qstar::method::Treatment;
/// assert_eq!(treated(&[Treatment::None, Treatment::Raw, Treatment::CLIPPED]).len(), 1 + 3 + 3);
/// ```
pub fn treated(treatments: &[Treatment]) -> Vec<Weight> {
    let levels = |treatment: &Treatment| match treatment {
        Treatment::None => vec![Weight::NONE],
        treatment => {
            [Level::Token, Level::Prefix, Level::Sequence].map(|level| Weight { level, treatment: *treatment }).to_vec()
        }
    };
    treatments.iter().flat_map(levels).collect()
}

/// A row for every pair, every proposal of this unit (each rule of [`RULES`], and each α of the grid) and every weight:
/// bias and variance of REINFORCE with k responses and this baseline. All rows of one pair estimate one ∇J.
///
/// # Errors
/// A pair whose ∇J is zero, to which nothing is relative; an α that is not in \[0, 1\]; as [`Estimator::estimate`].
///
/// ```
/// use qstar::experiment::exact::{Baseline, Setting, Tree, Unit, treated, variances};
/// use qstar::method::Treatment;
///
/// let pair = Setting::new(&Tree::new(3, 3, false)?, 0, 0.1)?.with_gap("medium", 1.0);
/// let weights = treated(&[Treatment::Raw]);
/// let frame = variances(&[pair], Unit::Token, &[0.0, 0.5, 1.0], &weights, Baseline::LeaveOneOut, 4)?;
/// assert_eq!(frame.height(), (7 + 3) * 3);
/// # anyhow::Ok(())
/// ```
pub fn variances(
    settings: &[Setting],
    unit: Unit,
    alphas: &[f64],
    weights: &[Weight],
    baseline: Baseline,
    k: usize,
) -> Result<DataFrame> {
    let rules: Vec<(&str, Rule)> =
        RULES.into_iter().chain(alphas.iter().map(|alpha| ("fixed", Rule::Fixed(*alpha)))).collect();
    let all: Vec<_> = settings.iter().flat_map(|setting| rules.iter().map(move |rule| (setting, rule))).collect();
    let rows = all.par_iter().map(|(setting, (name, rule))| {
        let proposal = TabularProposal::new(setting, unit, rule)?;
        let estimators = weights.iter().map(|weight| Estimator { weight: *weight, baseline, k });
        estimators.map(|estimator| measure(setting, name, &proposal, estimator)).collect::<Result<Vec<_>>>()
    });
    VarianceRow::frame(&rows.collect::<Result<Vec<_>>>()?.concat())
}

fn measure(setting: &Setting, rule: &str, proposal: &TabularProposal, estimator: Estimator) -> Result<VarianceRow> {
    let exact = setting.gradient();
    let square = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let scale = square(&mut exact.iter().copied());
    ensure!(
        scale.sqrt() > NO_GRADIENT,
        "the policy of `{}` (seed {}) is where ∇J is zero, and nothing can be relative to it: take another policy",
        setting.name,
        setting.seed
    );
    let estimate = estimator.estimate(setting, &proposal.q)?;
    let wrong = square(&mut estimate.mean.iter().zip(&exact).map(|(a, b)| a - b));
    let [p, t, q] = [&setting.policy, &setting.target, &proposal.q].map(|table| table.of_sequences(&setting.tree));
    Ok(VarianceRow {
        pair: setting.name.clone(),
        seed: setting.seed as i64,
        unit: proposal.unit.name().to_owned(),
        rule: rule.to_owned(),
        alpha: proposal.alpha(setting).mean,
        level: level(estimator.weight).to_owned(),
        treatment: treatment(estimator.weight).to_owned(),
        baseline: estimator.baseline.name().to_owned(),
        k: estimator.k as i64,
        bias: (wrong / scale).sqrt(),
        variance: estimate.variance / scale,
        mse: (estimate.variance + wrong) / scale,
        noise_to_signal: estimate.variance / square(&mut estimate.mean.iter().copied()),
        ess_sequence: log_ess(&p, &q).exp(),
        kl_p: kl(&q, &p),
        kl_t: kl(&q, &t),
        gradient_norm: scale.sqrt(),
    })
}

fn level(weight: Weight) -> &'static str {
    match (weight.treatment, weight.level) {
        (Treatment::None, _) => "none",
        (_, Level::Token) => "token",
        (_, Level::Prefix) => "prefix",
        (_, Level::Sequence) => "sequence",
    }
}

fn treatment(weight: Weight) -> &'static str {
    match weight.treatment {
        Treatment::None => "none",
        Treatment::Raw => "raw",
        Treatment::Clipped { .. } => "clipped",
        Treatment::Normalized { .. } => "normalized",
        Treatment::Truncated { .. } => "truncated",
    }
}
