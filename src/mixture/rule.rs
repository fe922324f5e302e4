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
    /// The α in \[0, 1\] with the largest signal-to-noise ratio of the policy gradient's first term
    /// ([`super::snr`]). Where the ratio is the same for every α, the α of q*, and [`super::Status::Flat`].
    SnrMax,
}

/// How the root of K' is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// To the root of the quintic that has K, K' and K'' of both ends of the bracket, and again on the smaller
    /// bracket, until α is known to rounding.
    Hermite(Start),
    /// Newton's steps, with bisection where a step would leave the bracket, until α is known to rounding.
    Newton(Start),
    /// So many halvings of \[0, 1\], at most 100: the error of α is at most 2^−(rounds + 1).
    Bisection(u32),
}

/// Where the search for the root of K' begins. `benches/RESULTS.md` has the evaluations that each one takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The root of the quintic through both ends of \[0, 1\]. Normalising the rows gives their moments for nothing.
    Ends,
    /// The entropy rule's α.
    Entropy,
    /// An α that is already there, the last token's say.
    At(f64),
    /// The α that pairs of like entropies and KL(p‖t) had, from a table made at first use.
    Table,
}

impl Rule {
    /// q*: KL symmetry to rounding.
    pub const Q_STAR: Rule = Rule::KlSymmetry(Solver::Hermite(Start::Ends));
}
