//! The geometric mixture of a policy and a target: numbers in, numbers out.
//!
//! For one context, with policy p, target t and `d = log p − log t`, the mixture at exponent α is
//!
//! ```text
//! K(α) = log Σ p^α t^(1−α)        q_α = p^α t^(1−α) / exp K(α)
//! K'(α) = E_q[d]                  K''(α) = Var_q[d]
//! KL(q‖p) = −(1−α) K'(α) − K(α)   KL(q‖t) = α K'(α) − K(α)
//! ```
//!
//! α always weights the policy. q* is the mixture at the root of K', the Chernoff point
//! (Nielsen 2011, arXiv:1102.2684; 2022, arXiv:2207.03745), where both divergences equal −K.
//!
//! ```
//! use qstar::mixture::{Pair, Rule};
//! let pair = Pair::from_log_probs(&[0.9f64.ln(), 0.1f64.ln()], &[0.4f64.ln(), 0.6f64.ln()])?;
//! let q = pair.solve(&Rule::Q_STAR)?;
//! assert!((q.alpha - 0.4603839139).abs() < 1e-10);
//! assert!((q.kl_p - q.kl_t).abs() < 1e-12);
//! # anyhow::Ok(())
//! ```
//!
//! How α is found (`split`, `head`, `tail`, `solve`): one pass over both rows sums them at α = 0 and at α = 1, which
//! normalises them and gives K, K' and K'' at both ends; the search begins at the minimum of the quintic that has
//! these six numbers, and takes a pass more for every evaluation of K'. The few outcomes that hold much of the mass are
//! summed in f64, the many others in f32 vectors.

mod batch;
#[cfg(feature = "cuda")]
pub mod cuda;
mod distribution;
mod draw;
mod exp2;
mod head;
mod pair;
mod quintic;
mod rule;
mod snr;
mod softmax;
mod solve;
mod split;
mod support;
mod table;
mod tail;
mod truncation;

pub use batch::{Batch, alphas_of_rows, solve_batch, solve_rows};
pub use distribution::{Distribution, distribution, distribution_softmax};
pub use draw::{Drawn, Temperature, draw, draw_rows, draw_truncated};
pub use pair::{Moments, Pair};
pub use rule::{Rule, Solver, Start};
pub use softmax::{DrawnSoftmax, draw_softmax, draw_softmax_rows, draw_softmax_truncated, log_prob};
pub use solve::{Solution, Status};
pub use truncation::Truncation;
