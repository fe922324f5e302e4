//! qstar measures from which distribution RLHF should draw its responses.

pub mod mixture;
pub mod models;
pub mod nn;
pub mod seed;
pub mod simd;
pub mod method;
pub mod rollout;
pub mod tasks;
