//! Numbers about numbers: what a table or a figure says of many runs.

mod statistics;

pub use statistics::{Interval, Welch, bootstrap_gain, mean, sd, t_interval, welch_t};
