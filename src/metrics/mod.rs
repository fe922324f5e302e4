//! Numbers about numbers: what a table or a figure says of many runs.

mod bertscore;
mod calibration;
mod proportion;
mod statistics;

pub use bertscore::{Baseline, BertScore, BertScorer, TokenWeights};
pub use calibration::{ReliabilityBin, calibration_error, reliability};
pub use proportion::wilson_interval;
pub use statistics::{Interval, Welch, bootstrap_gain, mean, sd, t_interval, welch_t};
