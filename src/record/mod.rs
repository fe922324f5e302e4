//! What a run writes down, and how it is read back as polars frames.

mod compare;
mod frame;
pub mod frames;
mod gather;
mod label;
mod rows;
mod store;

pub use compare::{Compared, compare};
pub use frame::{Cell, stack, with_labels};
pub(crate) use frame::{described, record};
pub use gather::gather;
pub use label::Label;
pub use rows::{EvaluationRow, PlanRow, SampleRow, StepRow};
pub use store::{Kind, RunFolder, evaluations, samples, steps};
