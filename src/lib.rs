//! From which distribution should RLHF draw its responses?

pub mod display;
pub mod notebook;
pub mod prelude;
pub mod progress;
