//! From which distribution should RLHF draw its responses?

pub mod display;
pub mod experiment;
pub mod machine;
pub mod method;
pub mod metrics;
pub mod mixture;
pub mod models;
pub mod nn;
pub mod notebook;
pub mod plot;
pub mod prelude;
pub mod progress;
pub mod record;
pub mod rollout;
pub mod seed;
pub mod simd;
pub mod tasks;
pub mod train;
