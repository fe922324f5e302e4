//! A task of real texts: prompts from a data set, demonstrations and preference pairs where it has them, and rewards of
//! texts.
//!
//! Each of [`dialogue`](super::dialogue), [`summary`](super::summary), [`translation`](super::translation) and
//! [`questions`](super::questions) makes [`Example`]s from its records and says how a text is rewarded.

mod example;
mod pools;
mod writing;

use anyhow::{Context, Result, anyhow, ensure};
use rand::Rng;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{Preference, Prompt, Split, Task};
use crate::metrics::Document;
use crate::models::{ChatTemplate, Encoded, Vocabulary};
use crate::rollout::StopStrings;
use crate::seed::{self, Purpose};
use example::Written;
pub use example::{Example, Keep, PromptText};
pub use pools::Pools;
use writing::Writing;

/// The rewards in [0, 1] of texts that answer examples' prompts, computed together.
pub type Rewards = Box<dyn Fn(&[(&Example, &str)]) -> Result<Vec<f64>> + Send + Sync>;

/// The most tokens of a prompt and of a response, the end-of-sequence token included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub prompt_tokens: usize,
    pub response_tokens: usize,
}

/// What a data set makes of a task.
pub struct TextData {
    pub name: &'static str,
    pub pools: Pools,
    /// Each ends a response, and no text is rewarded from there on.
    pub stop_strings: Vec<String>,
    /// None where the reward is learned and no model was named.
    pub rewards: Option<Rewards>,
    /// What decides the rewards beside the examples: a formula's name, a model's digest.
    pub rewarded_by: String,
}

/// Real texts as a policy reads and writes them.
pub struct TextTask {
    data: TextData,
    writing: Writing,
    limits: Limits,
    identity: String,
}

/// Texts beside their examples' demonstrations, as metrics compare them; white space at the ends does not count.
pub(super) fn documents(texts: &[(&Example, &str)]) -> Vec<Document> {
    let document = |(example, text): &(&Example, &str)| Document {
        id: format!("{} {}", example.family, example.record),
        prediction: text.trim().to_string(),
        references: example.demonstrations.iter().map(|text| text.trim().to_string()).collect(),
    };
    texts.iter().map(document).collect()
}

impl TextTask {
    /// Examples whose prompts do not fit even when all that may be cut is cut are left out, and counted in the notes.
    ///
    /// # Errors
    /// A vocabulary without a token that ends a text; a split in which no prompt fits.
    pub fn new(data: TextData, vocabulary: Vocabulary, limits: Limits) -> Result<Self> {
        Self::build(data, Writing::new(vocabulary, None)?, limits)
    }

    /// Prompts are what the policy's chat template makes of messages: of a dialogue's turns, of other prompts as one
    /// message of the user. Answers end with the token that ends the template's turns, if that is one of the
    /// vocabulary's end tokens. Rewards still see the data set's own text. A dialogue whose last turn is the
    /// assistant's does not fit.
    ///
    /// # Errors
    /// Those of [`TextTask::new`]; a template that refuses a prompt or does not write an answer behind it.
    pub fn chat(data: TextData, vocabulary: Vocabulary, template: ChatTemplate, limits: Limits) -> Result<Self> {
        Self::build(data, Writing::new(vocabulary, Some(template))?, limits)
    }

    fn build(mut data: TextData, writing: Writing, limits: Limits) -> Result<Self> {
        let vocabulary = &writing.vocabulary;
        ensure!(
            !vocabulary.end_tokens.is_empty(),
            "{}: the policy's vocabulary has no end-of-sequence token",
            data.name
        );
        ensure!(limits.response_tokens > 0, "{}: a response needs a token", data.name);
        data.pools.keep_fitting(|example| {
            if !writing.asks(&example.prompt) {
                return Ok(false);
            }
            let prompt = writing.prompt(&example.prompt, limits.prompt_tokens)?;
            // Answers are encoded when they are asked for, where nobody could be told.
            let pair = example.pair.iter().flat_map(|(chosen, rejected)| [chosen, rejected]);
            for answer in example.demonstrations.iter().chain(pair) {
                writing.answer(&prompt, answer)?;
            }
            Ok(prompt.tokens.len() <= limits.prompt_tokens)
        })?;
        let mut key = Sha256::new();
        key.update(format!("{} {limits:?} {:?} {}", data.name, data.stop_strings, data.rewarded_by));
        key.update(format!("{:?}", vocabulary.end_tokens));
        let tokenizer = vocabulary.tokenizer.to_string(false).map_err(|e| anyhow!("{e}"))?;
        key.update(tokenizer);
        key.update(writing.identity().unwrap_or_default());
        for (pool, examples) in [&data.pools.train, &data.pools.validation, &data.pools.test].into_iter().enumerate() {
            examples.iter().for_each(|example| key.update(format!("{pool} {example:?}")));
        }
        let hash: String = key.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let identity = format!("{}-{hash}", data.name);
        Ok(Self { data, writing, limits, identity })
    }

    /// How many examples there are, and what was left out on the way.
    pub fn notes(&self) -> &[String] {
        &self.data.pools.notes
    }

    pub fn pools(&self) -> &Pools {
        &self.data.pools
    }

    /// The example of prompt `index`: each pool is gone through in an order of its own for every round. The order of the
    /// test and validation pools stays.
    pub fn example(&self, split: Split, index: u64) -> &Example {
        let pool = self.pool(split);
        let n = pool.len() as u64;
        let (round, place) = (index / n, index % n);
        if split != Split::Train {
            return &pool[place as usize];
        }
        // x ↦ a·x + b is a permutation of 0..n where a and n have no common divisor.
        let mut rng = seed::rng(0, Purpose::Prompts, 1, round);
        let mut a = rng.random_range(0..n) | 1;
        while gcd(a, n) != 1 {
            a += 1;
        }
        let b = rng.random_range(0..n);
        &pool[((u128::from(a) * u128::from(place) + u128::from(b)) % u128::from(n)) as usize]
    }

    fn pool(&self, split: Split) -> &[Example] {
        match split {
            Split::Train => &self.data.pools.train,
            Split::Validation => &self.data.pools.validation,
            Split::Test => &self.data.pools.test,
        }
    }

    /// The cut text of a prompt and its tokens.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub fn fit(&self, prompt: &PromptText) -> Result<(String, Vec<u32>)> {
        let written = self.writing.prompt(prompt, self.limits.prompt_tokens)?;
        Ok((written.text, written.tokens))
    }

    /// The text of a response, up to the token or the string that ends it.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn text(&self, response: &[u32]) -> Result<String> {
        let end = response.iter().position(|token| self.writing.vocabulary.end_tokens.contains(token));
        let tokens = &response[..end.unwrap_or(response.len())];
        StopStrings::new(&self.writing.vocabulary.tokenizer, self.data.stop_strings.clone())?.text(tokens)
    }

    /// A prompt with one of its example's answers, as supervised training reads them. Trained are the answer and, in a chat,
    /// what the assistant said before, if the template writes it there as it was said. None where the example has no such
    /// answer.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub fn demonstrated(&self, prompt: &Prompt, draw: u64) -> Result<Option<Encoded>> {
        let example = self.example(prompt.split, prompt.index);
        let Some(text) = example.demonstrations.get(draw as usize) else { return Ok(None) };
        let alone = || anyhow::Ok(Some((prompt.tokens.clone(), self.answer(prompt, text)?).into()));
        if !self.writing.is_chat() {
            return alone();
        }
        let Ok(mut chat) = self.writing.conversation(&self.written(prompt)?, text) else { return alone() };
        let most = prompt.tokens.len() + self.limits.response_tokens;
        chat.tokens.truncate(most);
        chat.trained.truncate(most);
        Ok(Some(chat))
    }

    fn written(&self, prompt: &Prompt) -> Result<Written> {
        match self.writing.is_chat() {
            false => Ok(Written { text: prompt.text.clone(), tokens: prompt.tokens.clone(), messages: Vec::new() }),
            true => {
                let example = self.example(prompt.split, prompt.index);
                self.writing.prompt(&example.prompt, self.limits.prompt_tokens)
            }
        }
    }

    /// The tokens of an answer behind a prompt, with the end if it fits.
    fn answer(&self, prompt: &Prompt, text: &str) -> Result<Vec<u32>> {
        let written = self.written(prompt)?;
        let mut tokens = self.writing.answer(&written, text)?;
        tokens.push(self.writing.vocabulary.end_tokens[0]);
        tokens.truncate(self.limits.response_tokens);
        Ok(tokens)
    }
}

impl Task for TextTask {
    fn name(&self) -> &'static str {
        self.data.name
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.writing.vocabulary.tokenizer
    }

    fn stop_tokens(&self) -> &[u32] {
        &self.writing.vocabulary.end_tokens
    }

    fn stop_strings(&self) -> &[String] {
        &self.data.stop_strings
    }

    fn max_response_tokens(&self) -> usize {
        self.limits.response_tokens
    }

    fn size(&self, split: Split) -> Option<u64> {
        Some(self.pool(split).len() as u64)
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        let example = self.example(split, index);
        let (text, tokens) = self.fit(&example.prompt).expect("every prompt was encoded when the task was made");
        Prompt { split, index, family: example.family, text, tokens }
    }

    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> Result<Vec<f64>> {
        let examples = responses.iter().map(|(prompt, _)| self.example(prompt.split, prompt.index));
        let text = |(example, (_, response)): (&Example, &(&Prompt, &[u32]))| -> Result<String> {
            Ok(self.writing.rewarded(example, self.text(response)?))
        };
        let texts: Vec<String> = examples.clone().zip(responses).map(text).collect::<Result<_>>()?;
        let pairs: Vec<(&Example, &str)> = examples.zip(texts.iter().map(String::as_str)).collect();
        let rewards = self.data.rewards.as_ref().with_context(|| format!("{}: there is no reward", self.name()))?;
        let rewards = rewards(&pairs)?;
        ensure!(rewards.len() == pairs.len(), "{}: {} rewards of {} texts", self.name(), rewards.len(), pairs.len());
        match rewards.iter().position(|reward| !(0.0..=1.0).contains(reward)) {
            Some(bad) => Err(anyhow!("a reward of {} is not in [0, 1]: {:?}", rewards[bad], pairs[bad].1)),
            None => Ok(rewards),
        }
        .with_context(|| format!("rewards of {}", self.name()))
    }

    /// The example's answers in their order; there are no more than it has.
    fn demonstration(&self, prompt: &Prompt, draw: u64) -> Option<Vec<u32>> {
        let text = self.example(prompt.split, prompt.index).demonstrations.get(draw as usize)?;
        self.answer(prompt, text).ok()
    }

    /// The example's pair, once.
    fn preference(&self, prompt: &Prompt, draw: u64) -> Option<Preference> {
        let (chosen, rejected) = self.example(prompt.split, prompt.index).pair.as_ref().filter(|_| draw == 0)?;
        let pair =
            Preference { chosen: self.answer(prompt, chosen).ok()?, rejected: self.answer(prompt, rejected).ok()? };
        // Cut at the limit, two answers can become one.
        (pair.chosen != pair.rejected).then_some(pair)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
