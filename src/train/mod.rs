//! Training: one step, whole runs, the supervised training that checkpoints come from, and that of reward models.

mod adamw;
mod bradley_terry;
mod checkpoint;
mod diagnostics;
mod evaluate;
mod gradient;
mod run;
mod schedule;
mod sequences;
mod step;
mod supervised;

pub use adamw::{AdamW, AdamWConfig};
pub use bradley_terry::{BradleyTerry, RewardStepRow, train_reward_model};
pub use evaluate::{Evaluation, evaluate};
pub use gradient::Gradient;
pub use run::{ALGORITHM, Models, Run, RunConfig, RunSpec};
pub use sequences::Sequences;
pub use step::{StepConfig, Trainer};
pub use supervised::{Supervised, train_supervised};
