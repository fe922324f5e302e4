//! Which run a row comes from.

use anyhow::Result;
use polars::prelude::{Column, DataFrame};

/// The columns in front of the rows of many runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub task: String,
    /// Of π_init.
    pub parameters: i64,
    /// The definition of π_t.
    pub target: String,
    pub method: String,
    /// `common` for the setting that all methods share, `tuned` for the one that was found for each.
    pub setting: String,
    pub seed: i64,
}

impl Label {
    pub const COLUMNS: [&str; 6] = ["task", "parameters", "target", "method", "setting", "seed"];

    /// The value of a column, as text.
    pub fn get(&self, column: &str) -> Option<String> {
        Some(match column {
            "task" => self.task.clone(),
            "parameters" => self.parameters.to_string(),
            "target" => self.target.clone(),
            "method" => self.method.clone(),
            "setting" => self.setting.clone(),
            "seed" => self.seed.to_string(),
            _ => return None,
        })
    }

    /// The frame with the label's columns in front.
    pub fn before(&self, frame: &DataFrame) -> Result<DataFrame> {
        let height = frame.height();
        let text = |name: &str, value: &str| Column::new(name.into(), vec![value; height]);
        let number = |name: &str, value: i64| Column::new(name.into(), vec![value; height]);
        let mut columns = vec![
            text("task", &self.task),
            number("parameters", self.parameters),
            text("target", &self.target),
            text("method", &self.method),
            text("setting", &self.setting),
            number("seed", self.seed),
        ];
        columns.extend(frame.columns().iter().cloned());
        Ok(DataFrame::new(height, columns)?)
    }
}
