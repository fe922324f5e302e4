//! Stories: continue a story's first sentence so that two given words appear and the story ends.
//!
//! The policy is the LLaMA of 260 thousand parameters that llama2.c's author trained on TinyStories
//! (Eldan, Li 2023, arXiv:2305.07759). Everything else comes from that model's own stories: their first
//! sentences are the prompts, and a first sentence with the story's last ones behind it is a
//! demonstration of a short story that ends.
//!
//! ```text
//! prompt         happy, tree: Once upon a time, there was a little girl named Lily.
//! demonstration   They played under the tree and were happy.<s>
//! ```
//!
//! True reward: 0.3 for each of the two words in the continuation, and 0.4 if the story ends.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use tokenizers::Tokenizer;

use super::{Prompt, Split, Task};
use crate::models::Network;
use crate::rollout::{Proposal, Sampler};
use crate::seed::{self, Purpose};

/// `<s>` begins a story, and the model ends its stories with it too; `</s>` counts as an end as well.
const BOS: u32 = 1;
const STOP: [u32; 2] = [1, 2];

const MAX_RESPONSE_TOKENS: usize = 48;
const MAX_PROMPT_TOKENS: usize = 48;

const WORD_REWARD: f64 = 0.3;
const END_REWARD: f64 = 0.4;

/// One opening in so many is for the test split.
const HELD_OUT: usize = 8;

/// Words that the model's stories use often.
const WORDS: [&str; 40] = [
    "ball", "bear", "bed", "big", "bird", "book", "box", "car", "cat", "dad", "dog", "fish", "flower", "food", "friend",
    "friends", "fun", "game", "good", "happy", "help", "home", "house", "hugged", "laughed", "learned", "love", "mom",
    "new", "nice", "park", "play", "played", "sad", "share", "smiled", "together", "toy", "tree", "water",
];

/// The task, built from a corpus of stories.
pub struct Stories {
    tokenizer: Tokenizer,
    /// First sentences, each once.
    train: Vec<String>,
    test: Vec<String>,
    demonstrations: Vec<Demonstration>,
}

/// A training opening with a short ending that holds two of the words.
struct Demonstration {
    prompt: Vec<u32>,
    response: Vec<u32>,
}

/// Draws `count` whole stories of at most `max_tokens` tokens from the model, as text.
/// Stories that did not end are left out.
pub fn write_stories(model: &Network, tokenizer: &Tokenizer, count: usize, max_tokens: usize) -> Result<Vec<String>> {
    const BATCH: usize = 64;
    let mut stories = Vec::new();
    for batch in 0..count.div_ceil(BATCH) {
        let sampler = Sampler {
            proposal: Proposal::Policy,
            stop_tokens: &STOP,
            max_response_tokens: max_tokens,
            seed: batch as u64,
            purpose: Purpose::Demonstrations,
            step: 0,
        };
        for response in sampler.draw(model, None, &[vec![BOS]], BATCH)? {
            let tokens = response.tokens();
            if response.ended {
                stories.push(decode(tokenizer, &tokens[..tokens.len() - 1])?);
            }
        }
    }
    Ok(stories)
}

impl Stories {
    /// # Errors
    /// Too few stories to train and to test with.
    pub fn new(tokenizer: Tokenizer, stories: &[String]) -> Result<Self> {
        let mut task = Self { tokenizer, train: Vec::new(), test: Vec::new(), demonstrations: Vec::new() };
        let mut seen = std::collections::HashSet::new();
        for (number, story) in stories.iter().enumerate() {
            let sentences: Vec<&str> = story.split_inclusive(['.', '!', '?']).map(str::trim).filter(|s| s.len() > 1).collect();
            let [opening, rest @ ..] = &sentences[..] else { continue };
            if !opening.ends_with('.') || opening.contains('\n') || task.prompt_tokens("together", "friends", opening)?.len() > MAX_PROMPT_TOKENS {
                continue;
            }
            // Stories that begin alike fall into one split.
            let digest = opening.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
            if digest.is_multiple_of(HELD_OUT) {
                if seen.insert(opening.to_string()) {
                    task.test.push(opening.to_string());
                }
                continue;
            }
            if seen.insert(opening.to_string()) {
                task.train.push(opening.to_string());
            }
            task.demonstrations.extend(task.demonstration(number, opening, rest)?);
        }
        ensure!(
            task.train.len() >= 32 && task.test.len() >= 8 && !task.demonstrations.is_empty(),
            "{} stories give {} openings to train on, {} to test with and {} demonstrations: too few",
            stories.len(),
            task.train.len(),
            task.test.len(),
            task.demonstrations.len()
        );
        Ok(task)
    }

    /// The ending of a story as the continuation of its opening, for two words that it holds.
    fn demonstration(&self, number: usize, opening: &str, rest: &[&str]) -> Result<Option<Demonstration>> {
        for take in [3, 2, 1] {
            let Some(ending) = rest.len().checked_sub(take).map(|from| rest[from..].join(" ")) else { continue };
            let mut response = self.encode(&ending)?;
            response.push(BOS);
            let mut words: Vec<&str> = WORDS.into_iter().filter(|w| contains(&ending, w) && !contains(opening, w)).collect();
            if response.len() > MAX_RESPONSE_TOKENS || words.len() < 2 {
                continue;
            }
            let mut rng = seed::rng(0, Purpose::Demonstrations, 1, number as u64);
            let first = words.remove(rng.random_range(0..words.len()));
            let second = words[rng.random_range(0..words.len())];
            return Ok(Some(Demonstration { prompt: self.prompt_tokens(first, second, opening)?, response }));
        }
        Ok(None)
    }

    /// Demonstration i as (prompt, response); they are gone through again and again.
    pub fn demonstration_at(&self, i: u64) -> (Vec<u32>, Vec<u32>) {
        let demonstration = &self.demonstrations[i as usize % self.demonstrations.len()];
        (demonstration.prompt.clone(), demonstration.response.clone())
    }

    /// (training openings, test openings, demonstrations).
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.train.len(), self.test.len(), self.demonstrations.len())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn prompt_tokens(&self, first: &str, second: &str, opening: &str) -> Result<Vec<u32>> {
        let mut tokens = vec![BOS];
        tokens.extend(self.encode(&prompt_text(first, second, opening))?);
        Ok(tokens)
    }

    /// The words and the opening of a prompt.
    fn parts(&self, split: Split, index: u64) -> (&'static str, &'static str, &str) {
        let (openings, stream) = match split {
            Split::Train => (&self.train, 0),
            Split::Test => (&self.test, 1),
        };
        let mut rng = seed::rng(stream, Purpose::Prompts, 0, index);
        let opening = &openings[rng.random_range(0..openings.len())];
        let mut word = || loop {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            if !contains(opening, word) {
                return word;
            }
        };
        let first = word();
        let second = std::iter::repeat_with(word).find(|w| *w != first).expect("an endless iterator");
        (first, second, opening)
    }
}

impl Task for Stories {
    fn name(&self) -> &'static str {
        "stories"
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn stop_tokens(&self) -> &[u32] {
        &STOP
    }

    fn max_response_tokens(&self) -> usize {
        MAX_RESPONSE_TOKENS
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        let (first, second, opening) = self.parts(split, index);
        let text = prompt_text(first, second, opening);
        let tokens = self.prompt_tokens(first, second, opening).expect("the opening was encoded before");
        Prompt { split, index, family: "stories", text, tokens }
    }

    fn reward(&self, prompt: &Prompt, response: &[u32]) -> f64 {
        let (first, second, _) = self.parts(prompt.split, prompt.index);
        let (words, ended) = match response {
            [words @ .., end] if STOP.contains(end) => (words, true),
            words => (words, false),
        };
        let text = decode(&self.tokenizer, words).unwrap_or_default();
        let found = [first, second].into_iter().filter(|word| contains(&text, word)).count();
        WORD_REWARD * found as f64 + END_REWARD * f64::from(u8::from(ended))
    }
}

fn prompt_text(first: &str, second: &str, opening: &str) -> String {
    format!("{first}, {second}: {opening}")
}

/// Whether `word` stands in the text as a whole word, in any case.
fn contains(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|w| w.eq_ignore_ascii_case(word))
}

fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
    tokenizer.decode(tokens, true).map_err(|e| anyhow::anyhow!("{e}")).context("a story's tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_as_whole_words_only() {
        assert!(contains("She had a Cat.", "cat"));
        assert!(!contains("A caterpillar sat.", "cat"));
    }
}
