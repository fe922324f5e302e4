//! What a policy is asked to do: prompts, demonstrations, preference pairs and the true reward.
//!
//! A prompt is named by `(split, index)` alone: it needs no storage, and two machines see the same data.

pub mod code;
pub mod data;
pub mod dialogue;
pub mod micro;
pub mod questions;
pub mod stories;
pub mod summary;
pub mod text;
pub mod translation;

use anyhow::Result;
use tokenizers::Tokenizer;

/// Which prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    Train = 0,
    /// What results are reported on: nothing that is trained on.
    Test = 1,
    /// What settings are chosen on: no prompt that is trained on, and none of the test split.
    Validation = 2,
}

/// One prompt of a task. `(split, index)` identifies it: the task finds its hidden truth by them.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub split: Split,
    pub index: u64,
    /// The family within the task, for tables (for example `"translation"`).
    pub family: &'static str,
    pub text: String,
    /// The token ids that the policy reads, the marker after which it answers included.
    pub tokens: Vec<u32>,
}

/// How good the demonstrations of a task are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quality {
    /// Every demonstration has full reward.
    Clean,
    /// Good and flawed ones mixed: what π_init learns from.
    Mixed,
}

/// Two responses to one prompt, the first drawn as the better one (Bradley-Terry).
/// Both are token ids and end with the end-of-sequence token unless they were cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
}

/// A task whose true reward is known.
pub trait Task: Send + Sync {
    /// The task's name, as in a run's spec and folder.
    fn name(&self) -> &'static str;

    fn tokenizer(&self) -> &Tokenizer;

    /// All that decides prompts, answers and rewards, for the names of runs. For a task that is generated, its name.
    fn identity(&self) -> String {
        self.name().to_string()
    }

    /// The tokens that end a response. The first one is the one that demonstrations end with.
    fn stop_tokens(&self) -> &[u32];

    /// Strings that end a response as well, where the task has them.
    fn stop_strings(&self) -> &[String] {
        &[]
    }

    /// The number of tokens after which a response is cut, the end-of-sequence token included.
    fn max_response_tokens(&self) -> usize;

    /// The number of different prompts of a split, where it is finite: prompt `size + i` is prompt i again, in another order.
    fn size(&self, _split: Split) -> Option<u64> {
        None
    }

    /// Prompt `index` of a split. Every `u64` is a valid index.
    fn prompt(&self, split: Split, index: u64) -> Prompt;

    /// The true rewards in [0, 1] of responses (token ids; the stop token that ended one, if any, included), all at once: a
    /// reward model scores them in batches, programs run side by side. A response without a stop token was cut.
    ///
    /// # Errors
    /// What computes them failed.
    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> Result<Vec<f64>>;

    /// Demonstration `draw` for a prompt (token ids, the stop token last unless it was cut), where the task has so many.
    fn demonstration(&self, _prompt: &Prompt, _draw: u64) -> Option<Vec<u32>> {
        None
    }

    /// Preference pair `draw` for a prompt, where the task has so many.
    fn preference(&self, _prompt: &Prompt, _draw: u64) -> Option<Preference> {
        None
    }
}
