//! google-research-datasets/mbpp: small programs from a description in a sentence (Austin et al. 2021, arXiv:2108.07732).

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::humaneval::is_name;
use super::records::not_empty;
use super::{Records, read_parquet};
use crate::sandbox::{Check, Program};

/// The hub's repository, and the files of its splits: examples for prompts, test, validation, training.
pub const REPOSITORY: &str = "google-research-datasets/mbpp";
pub const PROMPT: &str = "full/prompt-00000-of-00001.parquet";
pub const TEST: &str = "full/test-00000-of-00001.parquet";
pub const VALIDATION: &str = "full/validation-00000-of-00001.parquet";
pub const TRAIN: &str = "full/train-00000-of-00001.parquet";

/// A program to be written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    pub task_id: i64,
    pub text: String,
    /// A solution.
    pub code: String,
    pub test_list: Vec<String>,
    /// Runs before the tests; mostly empty.
    pub test_setup_code: String,
    /// Harder ones, which few problems have and no score counts.
    pub challenge_test_list: Vec<String>,
}

impl Problem {
    /// The paper's prompt without examples. Its tests name the function.
    pub fn prompt(&self) -> String {
        format!(
            "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}\n[BEGIN]\n",
            self.text.trim(),
            self.test_list.join("\n")
        )
    }

    /// A whole program and the tests. They see what the solution imports, and of the program what the solution defines.
    pub fn program(&self, code: &str) -> Program {
        let imports: Vec<&str> =
            self.code.lines().filter(|line| line.starts_with("import ") || line.starts_with("from ")).collect();
        let mut tests = vec![self.test_setup_code.clone()];
        tests.extend(self.test_list.iter().cloned());
        let check = Check::Tests { setup: imports.join("\n"), names: definitions(&self.code), tests };
        Program { code: code.to_string(), check }
    }
}

/// The problems of a file.
///
/// # Errors
/// Those of [`read_parquet`].
pub fn read(path: &Path) -> Result<Records<Problem>> {
    let check = |problem: Problem| {
        not_empty("text", &problem.text)?;
        not_empty("code", &problem.code)?;
        ensure!(!problem.test_list.is_empty(), "the field test_list holds no test");
        ensure!(!definitions(&problem.code).is_empty(), "the field code defines no function");
        Ok(problem)
    };
    read_parquet(path)?.map(check).some()
}

/// The functions and classes that Python code defines at its outermost level, where a definition begins its line.
fn definitions(code: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = ["def ", "class ", "async def "].iter().find_map(|word| line.strip_prefix(word))?;
        let end = rest.find(['(', ':', ' ']).unwrap_or(rest.len());
        Some(rest[..end].to_string()).filter(|name| is_name(name))
    };
    code.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::definitions;

    #[test]
    fn definitions_are_found() {
        let code = "import re\r\nclass Pair(object):\r\n  def inner(self): pass\r\ndef f (a):\r\n    return a\nclass B:\n  x = 1\nasync def g(): 0\nundef = 1\ndef (x";
        assert_eq!(definitions(code), ["Pair", "f", "B", "g"]);
    }
}
