//! All sequences of a few tokens, as a tree of their prefixes.

use anyhow::{Result, ensure};

/// More sequences than this are no longer summed in a moment.
const MOST_SEQUENCES: usize = 4096;

/// All sequences of at most `length` tokens.
///
/// Prefixes are numbered from the empty one, 0, shorter ones before longer ones; sequences in the order in which they
/// end. With an end token the last token of the vocabulary ends a sequence, and it belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    vocabulary: usize,
    /// What each token leads to from each prefix.
    next: Vec<Vec<Next>>,
    paths: Vec<Vec<Step>>,
}

/// What a prefix and one more token make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A longer prefix, by its number.
    Prefix(usize),
    /// A whole sequence, by its number.
    End(usize),
}

/// One token of a sequence, and the prefix that it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub prefix: usize,
    pub token: usize,
}

impl Tree {
    /// # Errors
    /// Less than two tokens, no length, or more than 4096 sequences.
    ///
    /// ```
    /// use qstar::experiment::exact::Tree;
    /// assert_eq!(Tree::new(4, 3, false)?.paths().len(), 64);
    /// // The end alone; one token and the end, twice; two tokens and any third, four times.
    /// assert_eq!(Tree::new(3, 3, true)?.paths().len(), 1 + 2 + 4 * 3);
    /// # anyhow::Ok(())
    /// ```
    pub fn new(vocabulary: usize, length: usize, end_token: bool) -> Result<Self> {
        ensure!(vocabulary >= 2, "one token leaves nothing to choose");
        ensure!(length >= 1, "a sequence has at least one token");
        let longest = u32::try_from(length).ok().and_then(|length| vocabulary.checked_pow(length));
        ensure!(
            longest.is_some_and(|count| count <= MOST_SEQUENCES),
            "{vocabulary} tokens at {length} places make more than {MOST_SEQUENCES} sequences: take fewer"
        );
        let mut tree = Self { vocabulary, next: Vec::new(), paths: Vec::new() };
        let mut prefixes: Vec<Vec<Step>> = vec![Vec::new()];
        // The list grows while it is walked through.
        while let Some(path) = prefixes.get(tree.next.len()).cloned() {
            let prefix = tree.next.len();
            let lead = |token| {
                let longer: Vec<Step> = path.iter().copied().chain([Step { prefix, token }]).collect();
                if longer.len() == length || (end_token && token == vocabulary - 1) {
                    tree.paths.push(longer);
                    Next::End(tree.paths.len() - 1)
                } else {
                    prefixes.push(longer);
                    Next::Prefix(prefixes.len() - 1)
                }
            };
            let next = (0..vocabulary).map(lead).collect();
            tree.next.push(next);
        }
        Ok(tree)
    }

    /// The number V of tokens.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The number of prefixes to which a token can be added.
    pub fn prefixes(&self) -> usize {
        self.next.len()
    }

    /// What each token leads to from a prefix.
    pub fn next(&self, prefix: usize) -> &[Next] {
        &self.next[prefix]
    }

    /// The steps of every sequence.
    pub fn paths(&self) -> &[Vec<Step>] {
        &self.paths
    }
}
