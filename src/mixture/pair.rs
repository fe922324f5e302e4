//! A pair of distributions over one support, and the function K with its derivatives.

use anyhow::{Result, ensure};

use super::Rule;
use super::snr::Snr;
use super::solve::Solution;
use super::split::Split;

/// How far from 1 the sum of a row of probabilities may lie before it is an error.
const NORMALISATION: f64 = 1e-3;

/// Policy p and target t over the same V outcomes.
///
/// q has mass only on the joint support, the outcomes with mass on both sides.
#[derive(Debug, Clone)]
pub struct Pair {
    rows: Rows,
    split: Split,
    /// log-probabilities of the reference distribution of [`Rule::SnrMax`].
    log_ref: Option<Vec<f64>>,
}

#[derive(Debug, Clone)]
enum Rows {
    F32([Vec<f32>; 2]),
    F64([Vec<f64>; 2]),
}

/// K and its first two derivatives at one α.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    /// K(α) = log Σ p^α t^(1−α), in nats.
    pub k: f64,
    /// K'(α) = E_q[log p − log t].
    pub k1: f64,
    /// K''(α) = Var_q[log p − log t].
    pub k2: f64,
}

impl Pair {
    /// A pair from two rows of log-probabilities (natural logarithm; −∞ is zero mass).
    ///
    /// # Errors
    /// Rows of different or zero length, a NaN or +∞, a row that does not sum to 1 within 1e-3,
    /// and disjoint supports. A row within that bound is renormalised.
    pub fn from_log_probs(log_p: &[f64], log_t: &[f64]) -> Result<Self> {
        let pair = Self::from_logits_f64(log_p, log_t)?;
        let reference = pair.split.reference;
        for (name, log_total) in [
            ("policy", log_p[reference] - pair.split.reference_delta + pair.split.log_z_p),
            ("target", log_t[reference] + pair.split.log_z_t),
        ] {
            let total = log_total.exp();
            ensure!(
                (total - 1.0).abs() <= NORMALISATION,
                "the {name} row sums to {total} and not to 1 within {NORMALISATION}: give log-probabilities, or use from_logits"
            );
        }
        Ok(pair)
    }

    /// A pair from two rows of logits, which are normalised here. What is computed is exact to f32: α to 1e-6
    /// where log p − log t has a standard deviation of 0.1 or more, q to 1e-6 in total variation.
    ///
    /// # Errors
    /// As [`Pair::from_log_probs`], but any finite row is a valid one.
    pub fn from_logits(policy: &[f32], target: &[f32]) -> Result<Self> {
        let mut split = Split::default();
        split.fill_f32(policy, target)?;
        Ok(Self { rows: Rows::F32([policy.to_vec(), target.to_vec()]), split, log_ref: None })
    }

    /// As [`Pair::from_logits`], in f64 throughout: α to 1e-10.
    ///
    /// # Errors
    /// As [`Pair::from_logits`].
    pub fn from_logits_f64(policy: &[f64], target: &[f64]) -> Result<Self> {
        let mut split = Split::default();
        split.fill_f64(policy, target)?;
        Ok(Self { rows: Rows::F64([policy.to_vec(), target.to_vec()]), split, log_ref: None })
    }

    /// The same pair with another reference distribution for [`Rule::SnrMax`] than the policy itself.
    ///
    /// # Errors
    /// A row of another length, or that is not of finite log-probabilities.
    pub fn with_reference(mut self, log_ref: &[f64]) -> Result<Self> {
        ensure!(
            log_ref.len() == self.size(),
            "the reference row has {} outcomes, the pair {}",
            log_ref.len(),
            self.size()
        );
        ensure!(log_ref.iter().all(|x| x.is_finite()), "the reference row has a log-probability that is not finite");
        self.log_ref = Some(log_ref.to_vec());
        Ok(self)
    }

    /// The number V of outcomes.
    pub fn size(&self) -> usize {
        self.split.size
    }

    /// K(α), K'(α) and K''(α). α may lie outside of [0, 1]: ESS needs K(2−α) and K(−α).
    pub fn moments(&self, alpha: f64) -> Moments {
        self.split.moments(&self.split.weigh(1.0, alpha))
    }

    /// log q_α for all V outcomes (−∞ outside the joint support).
    pub fn log_q(&self, alpha: f64) -> Vec<f64> {
        let log_w = self.split.weigh(1.0, alpha).log_w;
        (0..self.size())
            .map(|i| {
                let (y, delta) = self.relative(i);
                if self.joint(i) { y + alpha * delta - log_w } else { f64::NEG_INFINITY }
            })
            .collect()
    }

    /// log p and log t of one outcome (−∞ where a side has no mass).
    pub fn log_probs_of(&self, outcome: usize) -> (f64, f64) {
        let split = &self.split;
        let of = |row: usize| match &self.rows {
            Rows::F32(rows) => f64::from(rows[row][outcome]) - f64::from(rows[row][split.reference]),
            Rows::F64(rows) => rows[row][outcome] - rows[row][split.reference],
        };
        (of(0) + split.reference_delta - split.log_z_p, of(1) - split.log_z_t)
    }

    /// Chooses α by `rule` and computes every diagnostic of q_α.
    ///
    /// # Errors
    /// A fixed α that is not in [0, 1].
    pub fn solve(&self, rule: &Rule) -> Result<Solution> {
        let root = match rule {
            Rule::SnrMax => self.snr_of_rows().root(&self.split)?,
            _ => self.split.root(rule)?,
        };
        Ok(self.split.diagnose(root, 1.0).0)
    }

    /// |Φ₁| / √Φ₂ at α, what [`Rule::SnrMax`] maximises; over the joint support.
    pub fn snr(&self, alpha: f64) -> f64 {
        self.snr_of_rows().ratio(alpha)
    }

    fn snr_of_rows(&self) -> Snr {
        let log_ref = self.log_ref.as_deref();
        match &self.rows {
            Rows::F32([policy, target]) => Snr::of(&self.split, policy, target, log_ref),
            Rows::F64([policy, target]) => Snr::of(&self.split, policy, target, log_ref),
        }
    }

    fn joint(&self, outcome: usize) -> bool {
        match &self.rows {
            Rows::F32([policy, target]) => self.split.joint(policy, target, outcome),
            Rows::F64([policy, target]) => self.split.joint(policy, target, outcome),
        }
    }

    fn relative(&self, outcome: usize) -> (f64, f64) {
        match &self.rows {
            Rows::F32([policy, target]) => self.split.relative(policy, target, outcome),
            Rows::F64([policy, target]) => self.split.relative(policy, target, outcome),
        }
    }
}
