//! openai/openai_humaneval: functions to be completed from their signature and description (Chen et al. 2021,
//! arXiv:2107.03374).

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::records::not_empty;
use super::{Records, read_parquet};
use crate::sandbox::{Check, Program};

/// The hub's repository, and the file of its one split.
pub const REPOSITORY: &str = "openai/openai_humaneval";
pub const TEST: &str = "openai_humaneval/test-00000-of-00001.parquet";

/// A function to be completed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// For example `HumanEval/0`.
    pub task_id: String,
    /// Imports, helpers, the signature and its description: Python as it stands.
    pub prompt: String,
    pub canonical_solution: String,
    /// Defines `check(candidate)`.
    pub test: String,
    /// The function's name.
    pub entry_point: String,
}

impl Problem {
    /// The prompt with a completion, and its tests. They see what the prompt defines, and of the program the one function.
    pub fn program(&self, completion: &str) -> Program {
        let check = Check::Tests {
            setup: self.prompt.clone(),
            names: vec![self.entry_point.clone()],
            tests: vec![self.test.clone(), format!("check({})", self.entry_point)],
        };
        Program { code: format!("{}{completion}", self.prompt), check }
    }
}

/// The problems of a file.
///
/// # Errors
/// Those of [`read_parquet`].
pub fn read(path: &Path) -> Result<Records<Problem>> {
    let check = |problem: Problem| {
        for (field, text) in [("prompt", &problem.prompt), ("test", &problem.test)] {
            not_empty(field, text)?;
        }
        ensure!(problem.test.contains("def check("), "the field test does not define check");
        ensure!(
            is_name(&problem.entry_point),
            "the field entry_point is {:?}, no name of a function",
            problem.entry_point
        );
        Ok(problem)
    };
    read_parquet(path)?.map(check).some()
}

/// Whether a text is a name of Python's: it stands alone in the tests.
pub(super) fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c == '_' || c.is_alphanumeric())
}
