//! Readers of the community's data sets, under the hub's file names and schemas.
//!
//! A reader gives [`Records`]: those that are as the schema says, and the numbers of those that are not.

pub mod apps;
pub mod hh_rlhf;
pub mod humaneval;
pub mod mbpp;
pub mod nq_open;
mod records;
pub mod tldr;
pub mod wmt;

pub use records::{Malformed, Record, Records, name_of, read_json_lines, read_parquet};
