//! How far a plan is.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::Plan;
use crate::record::{PlanRow, record};

record! {
    /// The runs of one method at one setting.
    pub struct StatusRow {
        /// Of π_init.
        pub parameters: i64,
        pub target: String,
        pub method: String,
        /// `common`, `trials` of the search for the method's own setting, or `tuned`.
        pub setting: String,
        pub runs: i64,
        pub done: i64,
        /// Runs that a process is working on now.
        pub at_work: i64,
        /// Steps of all these runs, and those whose rows are written.
        pub steps: i64,
        pub steps_done: i64,
    }
}

impl Plan {
    /// A row for the runs of each method and setting.
    ///
    /// # Errors
    /// A run's folder that cannot be read.
    pub fn status(&self) -> Result<DataFrame> {
        let mut all: Vec<StatusRow> = Vec::new();
        for PlanRow { parameters, target, method, setting, steps, steps_done, at_work, done, .. } in self.rows()? {
            let setting = if setting.starts_with("trial-") { "trials".to_string() } else { setting };
            let known = all.iter().position(|row| {
                (row.parameters, &row.target, &row.method, &row.setting) == (parameters, &target, &method, &setting)
            });
            let at = known.unwrap_or_else(|| {
                let empty = StatusRow {
                    runs: 0,
                    done: 0,
                    at_work: 0,
                    steps: 0,
                    steps_done: 0,
                    parameters,
                    target,
                    method,
                    setting,
                };
                all.push(empty);
                all.len() - 1
            });
            let row = &mut all[at];
            row.runs += 1;
            row.done += i64::from(done);
            row.at_work += i64::from(at_work);
            row.steps += steps;
            // A run may end before its last step.
            row.steps_done += if done { steps } else { steps_done };
        }
        StatusRow::frame(&all)
    }
}
