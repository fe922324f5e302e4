//! Training: one step, whole runs, and the supervised training that checkpoints come from.

mod adamw;
mod checkpoint;
mod evaluate;
mod gradient;
mod run;
mod sequences;
mod step;
mod supervised;

pub use adamw::{AdamW, AdamWConfig};
pub use evaluate::{Evaluation, evaluate};
pub use gradient::Gradient;
pub use run::{Models, Run, RunConfig, RunSpec};
pub use sequences::Sequences;
pub use step::{StepConfig, Trainer};
pub use supervised::{Supervised, train_supervised};
