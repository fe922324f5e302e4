//! Plans of experiments: which task, methods and seeds, at which scale; and the frames of the derivation and of the exact world.

pub mod derivation;
pub mod exact;
mod folders;
mod plan;
mod preset;
pub mod report;
mod search;
mod world;

pub use folders::Folders;
pub use plan::{Plan, Results, Tuned};
pub use preset::{Preset, Size};
pub use search::{Search, TrialRow, Trials};
pub use world::{Made, World, make_micro};
