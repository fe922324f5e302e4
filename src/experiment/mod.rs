//! Plans of experiments: which task, methods and seeds, at which scale; targets, and the remedies against their cost;
//! the frames of the derivation and of the exact world; the study's tables and its verdict; reward models from HH-RLHF's pairs.

mod cache;
mod comparison;
pub mod derivation;
pub mod exact;
mod experiments;
mod folders;
pub mod hh_rewards;
mod named_target;
mod plan;
mod preset;
pub mod remedies;
pub mod report;
mod results;
mod scratch;
mod search;
mod status;
pub mod study;
mod targets;
mod text_world;
mod world;

pub use comparison::{AggregateRow, Curves, EfficiencyCurveRow, EfficiencyRow, ImprovementRow, ProfileRow};
pub use experiments::Experiment;
pub use folders::Folders;
pub use named_target::TargetName;
pub use plan::{Arm, Job, Part, Plan};
pub use preset::{LongSize, Policy, Preset, SearchSize};
pub use remedies::{DraftRow, RemedyRow};
pub use results::Results;
pub use scratch::{MadePolicy, Scratch};
pub use search::{Search, TrialRow};
pub use status::StatusRow;
pub use targets::{HELD_OUT_PAIRS, LearnedReward, TargetRow, measure_targets};
pub use text_world::{Precision, TEXT_TASKS, TextExpert, TextModels, TextSources, text_data};
pub use world::{Made, World, make_micro};
