//! A model or target that reads along with a response that may turn back.

use anyhow::Result;

use crate::target::Contexts;

/// Contexts with tokens that are kept and were not read yet.
pub(super) struct Reader<'a> {
    contexts: Box<dyn Contexts + 'a>,
    /// Of every row.
    pending: Vec<Vec<u32>>,
    /// The logits behind the prompts, before anything else is read.
    first: Vec<Vec<f32>>,
    /// How many pending tokens were read with the last drafts.
    read: Vec<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(contexts: Box<dyn Contexts + 'a>, rows: usize) -> Self {
        let first = (0..rows).map(|row| contexts.row(row).to_vec()).collect();
        Self { contexts, pending: vec![Vec::new(); rows], first, read: vec![0; rows] }
    }

    pub fn contexts(&self) -> &dyn Contexts {
        &*self.contexts
    }

    /// Reads what is pending, and `drafts` behind it, in one pass. Whether there was anything to read.
    pub fn read(&mut self, drafts: &[Vec<u32>]) -> Result<bool> {
        let tokens: Vec<Vec<u32>> =
            self.pending.iter().zip(drafts).map(|(pending, drafts)| [&pending[..], drafts].concat()).collect();
        self.read = self.pending.iter_mut().map(|pending| std::mem::take(pending).len()).collect();
        self.go_on(&tokens)
    }

    /// Reads further tokens behind what was read; [`at`](Self::at) knows nothing of them.
    pub fn go_on(&mut self, tokens: &[Vec<u32>]) -> Result<bool> {
        let any = tokens.iter().any(|tokens| !tokens.is_empty());
        if any {
            self.contexts.feed(&tokens.iter().map(|tokens| &tokens[..]).collect::<Vec<_>>())?;
        }
        Ok(any)
    }

    /// The logits before drafted token j of a row, after [`read`](Self::read).
    pub fn at(&self, row: usize, j: usize) -> &[f32] {
        match (self.read[row] + j).checked_sub(1) {
            Some(behind) => self.contexts.row_behind(row, behind),
            None => &self.first[row],
        }
    }

    /// Goes back by so many tokens of every row; what is then `pending` is read next, behind what was not read yet.
    pub fn turn(&mut self, back: &[usize], pending: Vec<Vec<u32>>) {
        self.contexts.retract(back);
        self.pending.iter_mut().zip(pending).for_each(|(left, more)| left.extend(more));
    }

    /// The rows at `places`, in that order; a row may be left out or repeated.
    pub fn keep(&mut self, places: &[usize]) {
        self.contexts.keep(places);
        self.pending = places.iter().map(|&place| self.pending[place].clone()).collect();
        // Behind the first round all rows have something pending.
        self.first = Vec::new();
    }
}
