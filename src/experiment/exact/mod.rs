//! The exact world: sequences so few that every mean is a sum over all of them. The gradient ∇J, the mean and the
//! variance of every estimator of it, and the proposals that responses are drawn from are all exact.
//!
//! α weights the policy. Divergences are in nats. "Relative" is always to ∇J: norms to ‖∇J‖, squares to ‖∇J‖², with
//! respect to the logits of the policy's table.
//!
//! Only the product of the raw weights over the whole sequence leaves the mean at ∇J ([`crate::method::Level`]). The
//! smaller variance of other weights is bought with a bias, and a variance without its bias flatters them.

mod estimator;
mod proposal;
mod setting;
mod tabular;
mod tree;
mod variance;
mod verdict;

pub use estimator::{Baseline, Estimate, Estimator};
pub use proposal::{Alphas, RULES, TabularProposal, Unit, UnitRow, units};
pub use setting::Setting;
pub use tabular::Tabular;
pub use tree::{Next, Step, Tree};
pub use variance::{VarianceRow, treated, variances};
pub use verdict::{VerdictRow, VerdictTableRow, verdict, verdict_table};

use super::derivation::{kl, log_ess, log_sum_exp};
