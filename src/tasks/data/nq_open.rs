//! google-research-datasets/nq_open: questions that people typed into a search engine, with the answers that count
//! (Lee et al. 2019, arXiv:1906.00300; Kwiatkowski et al. 2019, doi:10.1162/tacl_a_00276).

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::records::not_empty;
use super::{Records, read_parquet};

/// The hub's repository, and the files of its splits. There is no test split: results are given on the validation split.
pub const REPOSITORY: &str = "google-research-datasets/nq_open";
pub const TRAIN: &str = "nq_open/train-00000-of-00001.parquet";
pub const VALIDATION: &str = "nq_open/validation-00000-of-00001.parquet";

/// A question and its answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    pub question: String,
    /// Each is right.
    pub answer: Vec<String>,
}

/// The questions of a file.
///
/// # Errors
/// Those of [`read_parquet`].
pub fn read(path: &Path) -> Result<Records<Question>> {
    let check = |question: Question| {
        not_empty("question", &question.question)?;
        ensure!(!question.answer.is_empty(), "the field answer holds no answer");
        for answer in &question.answer {
            not_empty("answer", answer)?;
        }
        Ok(question)
    };
    read_parquet(path)?.map(check).some()
}
