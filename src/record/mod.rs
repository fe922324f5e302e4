//! What a run writes down, and how it is read back as polars frames.

mod frame;
mod gather;
mod label;
mod rows;
mod store;

pub(crate) use frame::record;
pub use frame::{Cell, stack, with_labels};
pub use gather::gather;
pub use label::Label;
pub use rows::{EvaluationRow, PlanRow, SampleRow, StepRow};
pub use store::{Kind, RunFolder, evaluations, samples, steps};
