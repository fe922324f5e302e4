//! Training: one step, whole runs, the supervised training that checkpoints come from, and that of reward models.

mod adamw;
mod batch;
mod bradley_terry;
mod budget;
mod checkpoint;
mod diagnostics;
mod evaluate;
mod gradient;
mod run;
mod schedule;
mod sequences;
mod shaping;
mod step;
mod supervised;
mod update;

pub use adamw::{AdamW, AdamWConfig};
pub use batch::{Batch, Learned, Sample};
pub use bradley_terry::{BradleyTerry, RewardStepRow, train_reward_model};
pub use budget::{Budget, Spent};
pub use evaluate::{Evaluation, evaluate};
pub use gradient::Gradient;
pub use run::{ALGORITHM, HeldOut, Models, Run, RunConfig, RunSpec};
pub use schedule::Schedule;
pub use sequences::{Sequences, numbers};
pub use shaping::{KlControl, Shaping};
pub use step::{StepConfig, Trainer};
pub use supervised::{Supervised, train_supervised};
pub use update::Update;
