//! Numbers about numbers: what a table or a figure says of many runs.

mod calibration;
mod proportion;
mod statistics;

pub use calibration::{ReliabilityBin, calibration_error, reliability};
pub use proportion::wilson_interval;
pub use statistics::*;
