//! Plans of experiments: which task, methods and seeds, at which scale; targets, and the remedies against their cost;
//! the frames of the derivation and of the exact world; reward models from HH-RLHF's pairs.

pub mod derivation;
pub mod exact;
mod folders;
pub mod hh_rewards;
mod plan;
mod preset;
pub mod remedies;
pub mod report;
mod search;
mod targets;
mod world;

pub use folders::Folders;
pub use plan::{Plan, Results, Tuned};
pub use preset::{Preset, Size};
pub use remedies::{DraftRow, RemedyRow};
pub use search::{Search, TrialRow, Trials};
pub use targets::{HELD_OUT_PAIRS, LearnedReward, TargetRow, measure_targets};
pub use world::{Made, World, make_micro};
