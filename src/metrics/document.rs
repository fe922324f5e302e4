//! What metrics of generated text compare.

use anyhow::{Result, ensure};

use crate::machine::in_parallel;

/// A generated text beside the texts that it should resemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What names it in a table and in an error.
    pub id: String,
    pub prediction: String,
    /// At least one.
    pub references: Vec<String>,
}

impl Document {
    /// # Errors
    /// There is no reference.
    pub(super) fn references(&self) -> Result<&[String]> {
        ensure!(!self.references.is_empty(), "document {}: there is no reference to compare with", self.id);
        Ok(&self.references)
    }
}

/// Documents that one worker takes at a time: large enough that what it learns of words pays.
const CHUNK: usize = 128;

/// Scores every document on `workers` threads, in their order. `scorer` makes what a worker keeps between the documents
/// of one chunk.
pub(super) fn score_all<S, R: Send>(
    documents: &[Document],
    workers: usize,
    scorer: impl Fn() -> S + Sync,
    score: impl Fn(&mut S, &Document) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let of_chunk = |chunk: &[Document]| {
        let mut scorer = scorer();
        chunk.iter().map(|document| score(&mut scorer, document)).collect::<Result<Vec<R>>>()
    };
    let chunks: Vec<&[Document]> = documents.chunks(CHUNK).collect();
    let workers = workers.min(chunks.len());
    Ok(in_parallel(workers, chunks, of_chunk)?.into_iter().flatten().collect())
}
