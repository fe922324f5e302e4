//! What a policy is asked to do: prompts, demonstrations, preference pairs and the true reward.
//!
//! A task generates everything from `(split, index)`, so that a prompt needs no storage and two
//! machines see the same data.

pub mod data;
pub mod micro;
pub mod stories;

use tokenizers::Tokenizer;

/// Which prompts: `Test` prompts hold combinations that no `Train` prompt holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    Train,
    Test,
}

/// One prompt of a task. `(split, index)` identifies it: the task rebuilds its hidden truth from them.
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
/// Both are token ids and end with the end-of-sequence token.
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

    /// The tokens that end a response. The first one is the one that demonstrations end with.
    fn stop_tokens(&self) -> &[u32];

    /// The number of tokens after which a response is cut, the end-of-sequence token included.
    fn max_response_tokens(&self) -> usize;

    /// Prompt `index` of a split. Every `u64` is a valid index.
    fn prompt(&self, split: Split, index: u64) -> Prompt;

    /// The true reward in [0, 1] of a response (token ids; the stop token that ended it, if any, included).
    /// A response without a stop token was cut.
    fn reward(&self, prompt: &Prompt, response: &[u32]) -> f64;

    /// Demonstration `draw` for a prompt (token ids, the stop token last), where the task has demonstrations.
    fn demonstration(&self, _prompt: &Prompt, _draw: u64) -> Option<Vec<u32>> {
        None
    }

    /// Preference pair `draw` for a prompt, where the task has preferences.
    fn preference(&self, _prompt: &Prompt, _draw: u64) -> Option<Preference> {
        None
    }
}
