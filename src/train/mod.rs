//! Training: one step, whole runs, the supervised training that checkpoints come from, that of reward models, and those of
//! targets.

mod adamw;
mod batch;
mod bradley_terry;
mod budget;
mod checkpoint;
mod conditional;
mod diagnostics;
mod distill;
mod drawn;
mod evaluate;
mod gradient;
mod prefix_values;
mod run;
mod schedule;
mod sequences;
mod shaping;
mod step;
mod supervised;
mod update;

pub use adamw::{AdamW, AdamWConfig};
pub use batch::{Batch, Learned, Sample};
pub use bradley_terry::{BradleyTerry, RewardStepRow, train_response_classifier, train_reward_model};
pub use budget::{Budget, Spent};
pub use conditional::{Conditional, Keep, TrainedConditional, train_conditional};
pub use distill::{Distillation, DistillationStepRow, Distilled, distill};
pub use drawn::TrainingReward;
pub use evaluate::{Evaluation, evaluate};
pub use gradient::Gradient;
pub use prefix_values::{PrefixStepRow, PrefixTraining, TrainedValues, train_prefix_values};
pub use run::{ALGORITHM, HeldOut, InStep, Models, Run, RunConfig, RunSpec, Trained};
pub use schedule::Schedule;
pub use sequences::{Sequences, numbers};
pub use shaping::{KlControl, Shaping};
pub use step::{StepConfig, Trainer};
pub use supervised::{Supervised, train_supervised};
pub use update::Update;
