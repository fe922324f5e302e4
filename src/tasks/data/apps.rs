//! codeparrot/apps: problems of programming contests, with tests by standard input and output or by calls of a function
//! (Hendrycks et al. 2021, arXiv:2105.09938).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::humaneval::is_name;
use super::records::not_empty;
use super::{Records, read_json_lines};
use crate::sandbox::{Check, Program};

/// The hub's repository, and the files of its splits.
pub const REPOSITORY: &str = "codeparrot/apps";
pub const TRAIN: &str = "train.jsonl";
pub const TEST: &str = "test.jsonl";

/// A problem of a contest.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub problem_id: i64,
    pub question: String,
    /// Many problems have several, some none.
    pub solutions: Vec<String>,
    /// Some problems have no tests.
    pub check: Option<Check>,
    /// `introductory`, `interview` or `competition`.
    pub difficulty: String,
    pub url: String,
    /// What a function's answer begins with; mostly empty.
    pub starter_code: String,
}

impl Problem {
    /// The paper's prompt: what stands before the question, the question, and what stands behind it: what the answer begins
    /// with, its form, and the marker.
    pub fn prompt(&self) -> [String; 3] {
        let by_call = matches!(self.check, Some(Check::Calls { .. })) || !self.starter_code.is_empty();
        let form = if by_call { "Use Call-Based format" } else { "Use Standard Input format" };
        let starter = if self.starter_code.is_empty() { String::new() } else { format!("{}\n", self.starter_code) };
        ["\nQUESTION:\n".to_string(), self.question.clone(), format!("\n{starter}\n{form}\n\nANSWER:\n")]
    }

    /// A whole program and the problem's tests; `None` if it has none.
    pub fn program(&self, code: &str) -> Option<Program> {
        Some(Program { code: code.to_string(), check: self.check.clone()? })
    }
}

/// The problems of a file.
///
/// # Errors
/// Those of [`read_json_lines`].
pub fn read(path: &Path) -> Result<Records<Problem>> {
    read_json_lines(path)?.map(problem).some()
}

/// A line of the file. Two of its fields are JSON as text.
#[derive(Deserialize)]
struct Line {
    #[serde(alias = "id")]
    problem_id: i64,
    question: String,
    solutions: String,
    input_output: String,
    difficulty: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    starter_code: String,
}

#[derive(Deserialize)]
struct Cases {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    fn_name: Option<String>,
}

fn problem(line: Line) -> Result<Problem> {
    not_empty("question", &line.question)?;
    let solutions = match line.solutions.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).context("the field solutions")?,
    };
    let check = match line.input_output.trim() {
        "" => None,
        text => check(text).context("the field input_output")?,
    };
    Ok(Problem {
        problem_id: line.problem_id,
        question: line.question,
        solutions,
        check,
        difficulty: line.difficulty,
        url: line.url,
        starter_code: line.starter_code,
    })
}

fn check(text: &str) -> Result<Option<Check>> {
    let cases: Cases = serde_json::from_str(text)?;
    let (inputs, outputs) = (cases.inputs.len(), cases.outputs.len());
    ensure!(inputs == outputs, "{inputs} inputs and {outputs} outputs");
    if inputs == 0 {
        return Ok(None);
    }
    if let Some(function) = cases.fn_name {
        ensure!(is_name(&function), "fn_name is {function:?}, no name of a function");
        ensure!(cases.inputs.iter().all(Value::is_array), "an input of {function} is no list of arguments");
        return Ok(Some(Check::Calls { function, cases: text.to_string() }));
    }
    let cases = cases.inputs.iter().zip(&cases.outputs).map(|(input, output)| Ok((lines(input)?, lines(output)?)));
    Ok(Some(Check::Output { cases: cases.collect::<Result<_>>()? }))
}

/// A text, or its lines as a list.
fn lines(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            Ok(lines.context("an input or output is a list, but not of lines")?.join("\n"))
        }
        other => bail!("an input or output is neither a text nor a list of lines: {other}"),
    }
}
