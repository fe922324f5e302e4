//! Plans of experiments: which task, methods and seeds, at which scale.

mod plan;
mod preset;
mod world;

pub use plan::{Plan, Results};
pub use preset::{Preset, Size};
pub use world::{Made, World, make_micro};
