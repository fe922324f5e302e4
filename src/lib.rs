//! From which distribution should RLHF draw its responses?

pub mod display;
pub mod method;
pub mod mixture;
pub mod models;
pub mod nn;
pub mod notebook;
pub mod prelude;
pub mod progress;
pub mod rollout;
pub mod seed;
pub mod simd;
pub mod tasks;
