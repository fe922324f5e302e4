//! Numbers about numbers: what a table or a figure says of many runs.

mod calibration;
mod proportion;
mod statistics;

pub use calibration::{ReliabilityBin, calibration_error, reliability};
pub use proportion::{wilson_interval, wilson_interval_of_population};
pub use statistics::{Interval, Welch, bootstrap_gain, mean, sd, t_interval, welch_t};
