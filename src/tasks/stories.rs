//! Stories: continue a story's first sentence so that three given words appear and the story ends.
//!
//! The policy is the LLaMA of 260 thousand parameters that llama2.c's author trained on TinyStories
//! (Eldan, Li 2023, arXiv:2305.07759). Everything else comes from that model's own stories: their first
//! sentences are the prompts, and a few sentences from anywhere behind them, with an end, are the
//! demonstrations of short stories that hold the words that were asked for.
//!
//! ```text
//! prompt         happy, play, park: Once upon a time, there was a little girl named Lily.
//! demonstration  They went to the park to play. Lily was very happy.<s>
//! ```
//!
//! True reward: 0.2 for each of the three words in the continuation, and 0.4 if the story ends.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::SliceRandom;
use tokenizers::Tokenizer;

use super::{Preference, Prompt, Split, Task};
use crate::models::Network;
use crate::rollout::{Proposal, Sampler};
use crate::seed::{self, Purpose};

/// `<s>` begins a story, and the model ends its stories with it too; `</s>` counts as an end as well.
const BOS: u32 = 1;
const STOP: [u32; 2] = [1, 2];

const MAX_RESPONSE_TOKENS: usize = 48;
const MAX_PROMPT_TOKENS: usize = 48;

/// Words that a prompt asks for.
const ASKED: usize = 3;
const WORD_REWARD: f64 = 0.2;
const END_REWARD: f64 = 0.4;

/// Of the preferences.
const PREFERENCE_TEMPERATURE: f64 = 0.2;

/// One opening in so many is for the test split.
const HELD_OUT: u32 = 8;

/// Words that the model's stories use often.
const WORDS: [&str; 20] = [
    "big", "day", "found", "friend", "friends", "fun", "good", "happy", "help", "house", "loved", "mom", "park",
    "play", "played", "sad", "saw", "together", "toys", "very",
];

/// The task, built from a corpus of stories.
pub struct Stories {
    tokenizer: Tokenizer,
    /// First sentences, each once.
    train: Vec<String>,
    test: Vec<String>,
    demonstrations: Vec<Demonstration>,
    /// What follows the first sentence of a training story, cut at the longest response.
    continuations: Vec<Vec<u32>>,
}

/// A training opening with a few sentences that hold the words that its prompt asks for.
struct Demonstration {
    prompt: Vec<u32>,
    response: Vec<u32>,
}

/// Draws stories of at most `max_tokens` tokens from the model, as text: batch number `batch` of `size`.
pub fn write_stories(
    model: &Network,
    tokenizer: &Tokenizer,
    batch: u64,
    size: usize,
    max_tokens: usize,
) -> Result<Vec<String>> {
    let sampler = Sampler {
        proposal: Proposal::Policy,
        stop_tokens: &STOP,
        max_response_tokens: max_tokens,
        seed: batch,
        purpose: Purpose::Demonstrations,
        step: 0,
        ..Default::default()
    };
    let responses = sampler.draw(model, None, &[vec![BOS]], size)?;
    responses.iter().map(|response| decode(tokenizer, &response.tokens())).collect()
}

impl Stories {
    /// # Errors
    /// Too few stories to train and to test with.
    pub fn new(tokenizer: Tokenizer, stories: &[String]) -> Result<Self> {
        let mut task = Self {
            tokenizer,
            train: Vec::new(),
            test: Vec::new(),
            demonstrations: Vec::new(),
            continuations: Vec::new(),
        };
        let mut seen = std::collections::HashSet::new();
        for (number, story) in stories.iter().enumerate() {
            let sentences: Vec<&str> = story.split_inclusive(['.', '!', '?']).map(str::trim).collect();
            let [opening, rest @ ..] = &sentences[..] else { continue };
            let longest = task.prompt_tokens(&["together", "friends", "played"], opening)?.len();
            if !opening.ends_with('.') || opening.contains('\n') || longest > MAX_PROMPT_TOKENS {
                continue;
            }
            // Stories that begin alike fall into one split (FNV-1a of the opening).
            let digest =
                opening.bytes().fold(0x811c_9dc5u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let held_out = digest.is_multiple_of(HELD_OUT);
            if seen.insert(opening.to_string()) {
                let openings = if held_out { &mut task.test } else { &mut task.train };
                openings.push(opening.to_string());
            }
            if !held_out {
                task.add_demonstrations(number as u64, opening, rest)?;
                let mut continuation = task.encode(&rest.join(" "))?;
                if continuation.len() >= MAX_RESPONSE_TOKENS {
                    continuation.truncate(MAX_RESPONSE_TOKENS);
                    task.continuations.push(continuation);
                }
            }
        }
        ensure!(
            task.train.len() >= 32
                && task.test.len() >= 8
                && task.demonstrations.len() >= 8
                && task.continuations.len() >= 8,
            "{} stories give {} openings to train on, {} to test with and {} demonstrations: too few",
            stories.len(),
            task.train.len(),
            task.test.len(),
            task.demonstrations.len()
        );
        Ok(task)
    }

    /// Every few sentences in a row that hold enough of the words, asked for three of them.
    fn add_demonstrations(&mut self, number: u64, opening: &str, rest: &[&str]) -> Result<()> {
        let mut rng = seed::rng(0, Purpose::Demonstrations, 1, number);
        for take in 1..=3 {
            for sentences in rest.windows(take) {
                let text = sentences.join(" ");
                let whole = sentences.iter().all(|s| s.len() > 1 && s.ends_with(['.', '!', '?']));
                let mut words: Vec<&str> =
                    WORDS.into_iter().filter(|w| contains(&text, w) && !contains(opening, w)).collect();
                if !whole || words.len() < ASKED {
                    continue;
                }
                let mut response = self.encode(&text)?;
                response.push(BOS);
                if response.len() > MAX_RESPONSE_TOKENS {
                    continue;
                }
                words.shuffle(&mut rng);
                let prompt = self.prompt_tokens(&words[..ASKED], opening)?;
                self.demonstrations.push(Demonstration { prompt, response });
            }
        }
        Ok(())
    }

    /// Demonstration i as (prompt, response), drawn from all of them.
    pub fn demonstration_at(&self, i: u64) -> (Vec<u32>, Vec<u32>) {
        let place = seed::rng(0, Purpose::Demonstrations, 2, i).random_range(0..self.demonstrations.len());
        let demonstration = &self.demonstrations[place];
        (demonstration.prompt.clone(), demonstration.response.clone())
    }

    fn reward(&self, prompt: &Prompt, response: &[u32]) -> f64 {
        let (asked, _) = self.parts(prompt.split, prompt.index);
        let (words, ended) = match response {
            [words @ .., end] if STOP.contains(end) => (words, true),
            words => (words, false),
        };
        let text = decode(&self.tokenizer, words).unwrap_or_default();
        let found = asked.into_iter().filter(|word| contains(&text, word)).count();
        WORD_REWARD * found as f64 + END_REWARD * f64::from(u8::from(ended))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn prompt_tokens(&self, words: &[&str], opening: &str) -> Result<Vec<u32>> {
        let mut tokens = vec![BOS];
        tokens.extend(self.encode(&prompt_text(words, opening))?);
        Ok(tokens)
    }

    /// The words that a prompt asks for, none of them in its opening, and the opening.
    fn parts(&self, split: Split, index: u64) -> (Vec<&'static str>, &str) {
        let (openings, stream) = match split {
            Split::Train => (&self.train, 0),
            Split::Test => (&self.test, 1),
            Split::Validation => (&self.train, 2),
        };
        let mut rng = seed::rng(stream, Purpose::Prompts, 0, index);
        let opening = &openings[rng.random_range(0..openings.len())];
        let mut words: Vec<&str> = WORDS.into_iter().filter(|word| !contains(opening, word)).collect();
        words.shuffle(&mut rng);
        words.truncate(ASKED);
        (words, opening)
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
        let (words, opening) = self.parts(split, index);
        let text = prompt_text(&words, opening);
        let tokens = self.prompt_tokens(&words, opening).expect("the opening was encoded before");
        Prompt { split, index, family: "stories", text, tokens }
    }

    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> Result<Vec<f64>> {
        Ok(responses.iter().map(|(prompt, response)| self.reward(prompt, response)).collect())
    }

    /// Two continuations of other stories, one preferred with probability σ((r(a) − r(b)) / 0.2) (Bradley-Terry). Each is,
    /// with even odds, a short one that ends (of four, the one with the most of the words) or one that was cut.
    fn preference(&self, prompt: &Prompt, draw: u64) -> Option<Preference> {
        let stream = match prompt.split {
            Split::Train => 0,
            Split::Test => 1,
            Split::Validation => 2,
        };
        let mut rng = seed::rng(stream, Purpose::Preferences, prompt.index, draw);
        let mut side = || {
            if rng.random_bool(0.5) {
                return self.continuations[rng.random_range(0..self.continuations.len())].clone();
            }
            let mut some = || &self.demonstrations[rng.random_range(0..self.demonstrations.len())].response;
            let four: [&Vec<u32>; 4] = std::array::from_fn(|_| some());
            // The first one of the best: max_by takes the last.
            let best = four.into_iter().rev().max_by(|a, b| self.reward(prompt, a).total_cmp(&self.reward(prompt, b)));
            best.cloned().unwrap_or_default()
        };
        let a = side();
        let mut b = side();
        while a == b {
            b = side();
        }
        let margin = (self.reward(prompt, &a) - self.reward(prompt, &b)) / PREFERENCE_TEMPERATURE;
        let a_is_chosen = rng.random_bool(1.0 / (1.0 + (-margin).exp()));
        let (chosen, rejected) = if a_is_chosen { (a, b) } else { (b, a) };
        Some(Preference { chosen, rejected })
    }
}

fn prompt_text(words: &[&str], opening: &str) -> String {
    format!("{}: {opening}", words.join(", "))
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
