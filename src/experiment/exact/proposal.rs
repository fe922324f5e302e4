//! The distributions that responses are drawn from: mixtures token by token, and of whole sequences.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::setting::Setting;
use super::tabular::Tabular;
use super::{kl, log_ess};
use crate::mixture::{Pair, Rule};
use crate::record::record;

/// What is mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The next token, after every prefix anew, with an α of its own: what can be drawn from a language model.
    Token,
    /// Whole sequences, with one α. Only an enumeration can draw from it; here as the table of its conditionals.
    Sequence,
}

impl Unit {
    pub const BOTH: [Unit; 2] = [Unit::Token, Unit::Sequence];

    /// Its name in frames.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Token => "token",
            Unit::Sequence => "sequence",
        }
    }
}

/// Every rule under the name of the study's method that draws by it. `reinforce` draws on-policy, `off_policy` from the
/// target; [`Rule::SnrMax`] has the policy as reference.
pub const RULES: [(&str, Rule); 7] = [
    ("off_policy", Rule::Fixed(0.0)),
    ("reinforce", Rule::Fixed(1.0)),
    ("uniform", Rule::Fixed(0.5)),
    ("entropy", Rule::Entropy),
    ("qstar", Rule::Q_STAR),
    ("ess_balance", Rule::EssBalance),
    ("snr_max", Rule::SnrMax),
];

/// A distribution q over sequences between policy and target, and the α that made it.
#[derive(Debug, Clone)]
pub struct TabularProposal {
    pub unit: Unit,
    /// α of every prefix, or the one of whole sequences.
    pub alphas: Vec<f64>,
    pub q: Tabular,
}

/// α over the tokens that q draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alphas {
    pub mean: f64,
    pub min: f64,
    pub max: f64,
}

impl TabularProposal {
    /// The mixture by `rule` of the setting's policy and target.
    ///
    /// # Errors
    /// A fixed α that is not in \[0, 1\].
    ///
    /// ```
    /// use qstar::experiment::exact::{TabularProposal, Setting, Tree, Unit};
    /// use qstar::mixture::Rule;
    ///
    /// let setting = Setting::new(&Tree::new(3, 3, false)?, 0, 0.1)?.with_gap("far", 2.0);
    /// let q = TabularProposal::new(&setting, Unit::Sequence, &Rule::Q_STAR)?;
    /// assert_eq!(q.alphas.len(), 1);
    /// # anyhow::Ok(())
    /// ```
    pub fn new(setting: &Setting, unit: Unit, rule: &Rule) -> Result<Self> {
        let (tree, policy, target) = (&setting.tree, &setting.policy, &setting.target);
        if unit == Unit::Sequence {
            let pair = Pair::from_log_probs(&policy.of_sequences(tree), &target.of_sequences(tree))?;
            let alpha = pair.solve(rule)?.alpha;
            return Ok(Self { unit, alphas: vec![alpha], q: Tabular::from_sequences(tree, &pair.log_q(alpha)) });
        }
        let (mut alphas, mut rows) = (Vec::new(), Vec::new());
        for prefix in 0..tree.prefixes() {
            let pair = Pair::from_log_probs(policy.row(prefix), target.row(prefix))?;
            let alpha = pair.solve(rule)?.alpha;
            alphas.push(alpha);
            rows.push(pair.log_q(alpha));
        }
        Ok(Self { unit, alphas, q: Tabular::from_logits(rows) })
    }

    /// α as the drawn tokens have it: its mean over them, and the least and the greatest of all prefixes.
    pub fn alpha(&self, setting: &Setting) -> Alphas {
        let min = self.alphas.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.alphas.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // One α, or the same everywhere: its mean is itself and not a sum's rounding.
        if min == max {
            return Alphas { mean: min, min, max };
        }
        let reached = self.q.of_prefixes(&setting.tree);
        let (mut sum, mut mass) = (0.0, 0.0);
        for (alpha, reached) in self.alphas.iter().zip(reached) {
            sum += alpha * reached.exp();
            mass += reached.exp();
        }
        Alphas { mean: sum / mass, min, max }
    }
}

record! {
    /// One rule applied to tokens and to whole sequences. Divergences and ESS are those of whole sequences.
    pub struct UnitRow {
        pub pair: String,
        pub seed: i64,
        pub rule: String,
        /// The α of whole sequences.
        pub sequence_alpha: f64,
        /// The α of tokens, over the tokens that the product of the per-prefix mixtures draws.
        pub token_alpha_mean: f64,
        pub token_alpha_min: f64,
        pub token_alpha_max: f64,
        /// Between the mixture of sequences and the product of the per-prefix mixtures, nats.
        pub kl_sequence_token: f64,
        pub kl_token_sequence: f64,
        /// To policy and target, nats.
        pub sequence_kl_p: f64,
        pub sequence_kl_t: f64,
        pub token_kl_p: f64,
        pub token_kl_t: f64,
        /// Effective sample sizes, shares of the draws.
        pub sequence_ess_p: f64,
        pub sequence_ess_t: f64,
        pub token_ess_p: f64,
        pub token_ess_t: f64,
    }
}

/// A row for every pair and rule of [`RULES`]: how far the product of per-prefix mixtures is from the mixture of whole
/// sequences.
///
/// # Errors
/// None for settings made by [`Setting`]'s functions.
///
/// ```
/// use qstar::experiment::exact::{Setting, Tree, units};
/// let pairs = Setting::new(&Tree::new(3, 3, false)?, 0, 0.1)?.pairs()?;
/// assert_eq!(units(&pairs)?.height(), 6 * 7);
/// # anyhow::Ok(())
/// ```
pub fn units(settings: &[Setting]) -> Result<DataFrame> {
    let row = |setting: &Setting, name: &str, rule: &Rule| {
        let [token, sequence] = [Unit::Token, Unit::Sequence].map(|unit| TabularProposal::new(setting, unit, rule));
        let (token, sequence) = (token?, sequence?);
        let [p, t, by_token, by_sequence] =
            [&setting.policy, &setting.target, &token.q, &sequence.q].map(|table| table.of_sequences(&setting.tree));
        let alpha = token.alpha(setting);
        anyhow::Ok(UnitRow {
            pair: setting.name.clone(),
            seed: setting.seed as i64,
            rule: name.to_owned(),
            sequence_alpha: sequence.alphas[0],
            token_alpha_mean: alpha.mean,
            token_alpha_min: alpha.min,
            token_alpha_max: alpha.max,
            kl_sequence_token: kl(&by_sequence, &by_token),
            kl_token_sequence: kl(&by_token, &by_sequence),
            sequence_kl_p: kl(&by_sequence, &p),
            sequence_kl_t: kl(&by_sequence, &t),
            token_kl_p: kl(&by_token, &p),
            token_kl_t: kl(&by_token, &t),
            sequence_ess_p: log_ess(&p, &by_sequence).exp(),
            sequence_ess_t: log_ess(&t, &by_sequence).exp(),
            token_ess_p: log_ess(&p, &by_token).exp(),
            token_ess_t: log_ess(&t, &by_token).exp(),
        })
    };
    let all = settings.iter().flat_map(|setting| RULES.iter().map(move |(name, rule)| (setting, name, rule)));
    UnitRow::frame(&all.map(|(setting, name, rule)| row(setting, name, rule)).collect::<Result<Vec<_>>>()?)
}
