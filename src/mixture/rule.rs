//! The rules by which α is chosen.

use serde::{Deserialize, Serialize};

/// How α is chosen for one context. α weights the policy: 1 is the policy, 0 the target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The same α everywhere.
    Fixed(f64),
    /// α = H(p) / (H(p) + H(t)); 1/2 where both entropies are zero.
    Entropy,
    /// The α at which KL(q‖p) = KL(q‖t): the root of K', the Chernoff point. This is q*.
    KlSymmetry(Solver),
    /// The α at which ESS_p(q) = ESS_t(q): the root of K(2−α) − K(−α).
    EssBalance,
}

/// How the root of K' is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// Newton's steps, bisection where a step would leave the bracket; to machine precision.
    Newton,
    /// So many halvings of [0, 1]: the error of α is at most 2^−(rounds + 1).
    Bisection(u32),
}

impl Rule {
    /// q*: KL symmetry to machine precision.
    pub const Q_STAR: Rule = Rule::KlSymmetry(Solver::Newton);
}
