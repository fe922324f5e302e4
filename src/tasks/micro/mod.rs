//! The embedded world: a generated task whose true reward is known.
//!
//! Five families mirror the five tasks of the study, each small enough for a policy of a few hundred
//! thousand parameters: a polite [`reply`] (dialogue), a [`summary`], a program ([`code`]), a
//! [`translation`] and [`questions`] about a context. Prompt `index` belongs to the family
//! `index % 5`. All of it is drawn by ChaCha8 from `(seed, split, index)`.
//!
//! A problem is held out by its *combination* (what is asked, without its surface: see each family):
//! one in eight combinations is for [`Split::Test`], and no training prompt ever holds one.

pub mod code;
mod flaws;
mod lexicon;
mod overlap;
pub mod questions;
pub mod reply;
pub mod summary;
pub mod translation;

use anyhow::Result;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{Preference, Prompt, Quality, Split, Task};
pub use lexicon::{EOS, PAD};
use lexicon::{Lexicon, Word};

/// The most words of an answer.
pub const MAX_WORDS: usize = 11;
/// The most tokens of a response: `MAX_WORDS` and the end-of-sequence token.
pub const MAX_RESPONSE_TOKENS: usize = MAX_WORDS + 1;
/// The most tokens of a prompt, the family's marker and the answer's marker included.
pub const MAX_PROMPT_TOKENS: usize = 26;
/// How many of the mixed demonstrations are clean.
pub const CLEAN_SHARE: f64 = 0.375;
/// τ of the preferences: a is chosen over b with probability σ((r(a) − r(b)) / τ).
pub const PREFERENCE_TEMPERATURE: f64 = 0.2;
/// What a response that was cut keeps of its reward.
pub const CUT_FACTOR: f64 = 0.5;

/// "qstar-01" in ASCII. Another seed draws other prompts; the split of the combinations stays.
const SEED: u64 = 0x7173_7461_722d_3031;
/// One combination in so many is held out for the test split.
const HELD_OUT: u64 = 8;

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Reply,
    Summary,
    Code,
    Translation,
    Questions,
}

impl Family {
    /// In the order in which the indices of prompts go round.
    pub const ALL: [Family; 5] = [Self::Reply, Self::Summary, Self::Code, Self::Translation, Self::Questions];

    /// The family of prompt `index`, the same in both splits.
    pub fn of(index: u64) -> Self {
        Self::ALL[(index % Self::ALL.len() as u64) as usize]
    }

    /// The family's name, which is the first word of its prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Summary => "summary",
            Self::Code => "code",
            Self::Translation => "translation",
            Self::Questions => "questions",
        }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> Box<dyn Problem> {
        match self {
            Self::Reply => Box::new(reply::Problem::draw(rng)),
            Self::Summary => Box::new(summary::Problem::draw(rng)),
            Self::Code => Box::new(code::Problem::draw(rng)),
            Self::Translation => Box::new(translation::Problem::draw(rng)),
            Self::Questions => Box::new(questions::Problem::draw(rng)),
        }
    }
}

/// A problem with its hidden truth. The words it gives are words of the lexicon.
trait Problem {
    /// What stands between the family's marker and the answer's marker.
    fn question(&self) -> Vec<Word>;

    /// An answer of full reward, one of several where there are several.
    fn clean(&self, rng: &mut ChaCha8Rng) -> Vec<Word>;

    /// An answer with flaws that are typical for the family, graded from slight to useless.
    /// Now and then it is right all the same.
    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word>;

    /// The true reward in [0, 1] of an answer, of any words and any length; 1 if it is clean.
    fn reward(&self, words: &[&str]) -> f64;

    /// The words that name the combination: what train and test never share.
    fn combination(&self) -> Vec<Word>;
}

/// The embedded task. Building it takes about a millisecond; it holds nothing but the vocabulary.
pub struct MicroWorld {
    lexicon: Lexicon,
}

/// What a generator is for: each purpose has draws of its own, so that one changes no other.
#[derive(Clone, Copy)]
enum Purpose {
    Prompt,
    Clean,
    Mixed,
    Preference,
}

impl MicroWorld {
    /// Errors if the lexicon is not a vocabulary (a word that occurs twice).
    pub fn new() -> Result<Self> {
        Ok(Self { lexicon: Lexicon::new()? })
    }

    /// The number of tokens, the special ones included.
    pub fn vocab_size(&self) -> usize {
        self.lexicon.len()
    }

    /// Demonstration `draw` for a prompt: token ids, the end-of-sequence token last.
    pub fn demonstration(&self, prompt: &Prompt, quality: Quality, draw: u64) -> Vec<u32> {
        let problem = problem(prompt.split, prompt.index);
        let words = match quality {
            Quality::Clean => problem.clean(&mut generator(Purpose::Clean, prompt.split, prompt.index, draw)),
            Quality::Mixed => {
                let rng = &mut generator(Purpose::Mixed, prompt.split, prompt.index, draw);
                mixed(problem.as_ref(), rng)
            }
        };
        self.response(&words)
    }

    /// Pair `draw` for a prompt: two mixed demonstrations, a chosen over b with probability
    /// σ((r(a) − r(b)) / τ) at τ = [`PREFERENCE_TEMPERATURE`] (Bradley-Terry).
    ///
    /// The second one is drawn again while it equals the first: a pair of equals teaches nothing.
    pub fn preference(&self, prompt: &Prompt, draw: u64) -> Preference {
        let problem = problem(prompt.split, prompt.index);
        let rng = &mut generator(Purpose::Preference, prompt.split, prompt.index, draw);
        let a = mixed(problem.as_ref(), rng);
        let mut b = mixed(problem.as_ref(), rng);
        while a == b {
            b = mixed(problem.as_ref(), rng);
        }
        let margin = (problem.reward(&a) - problem.reward(&b)) / PREFERENCE_TEMPERATURE;
        let a_is_chosen = rng.random_bool(1.0 / (1.0 + (-margin).exp()));
        let (chosen, rejected) = if a_is_chosen { (a, b) } else { (b, a) };
        Preference { chosen: self.response(&chosen), rejected: self.response(&rejected) }
    }

    /// The true reward of one response. One that was cut keeps [`CUT_FACTOR`] of its reward. A special token before the end
    /// counts as a wrong word.
    pub fn reward(&self, prompt: &Prompt, response: &[u32]) -> f64 {
        let (ids, factor) = match response {
            [ids @ .., EOS] => (ids, 1.0),
            ids => (ids, CUT_FACTOR),
        };
        let words: Vec<&str> = ids.iter().map(|&id| self.lexicon.word(id)).collect();
        factor * problem(prompt.split, prompt.index).reward(&words)
    }

    /// The hash of what the prompt asks for. No two prompts of different splits share it.
    pub fn combination(&self, prompt: &Prompt) -> u64 {
        let problem = problem(prompt.split, prompt.index);
        combination(Family::of(prompt.index), problem.as_ref())
    }

    fn response(&self, words: &[Word]) -> Vec<u32> {
        let mut ids = self.lexicon.ids(words);
        ids.push(EOS);
        ids
    }
}

impl Task for MicroWorld {
    fn name(&self) -> &'static str {
        "micro"
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.lexicon.tokenizer()
    }

    fn stop_tokens(&self) -> &[u32] {
        &[EOS]
    }

    fn max_response_tokens(&self) -> usize {
        MAX_RESPONSE_TOKENS
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        let family = Family::of(index).name();
        let mut words = vec![family];
        words.extend(problem(split, index).question());
        words.push(lexicon::ANSWER);
        let tokens = self.lexicon.ids(&words);
        Prompt { split, index, family, text: words.join(" "), tokens }
    }

    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> Result<Vec<f64>> {
        Ok(responses.iter().map(|(prompt, response)| self.reward(prompt, response)).collect())
    }

    /// A clean one.
    fn demonstration(&self, prompt: &Prompt, draw: u64) -> Option<Vec<u32>> {
        Some(self.demonstration(prompt, Quality::Clean, draw))
    }

    fn preference(&self, prompt: &Prompt, draw: u64) -> Option<Preference> {
        Some(self.preference(prompt, draw))
    }
}

/// The problem of a prompt: draws until its combination belongs to the split.
fn problem(split: Split, index: u64) -> Box<dyn Problem> {
    let family = Family::of(index);
    let rng = &mut generator(Purpose::Prompt, split, index, 0);
    loop {
        let problem = family.draw(rng);
        let held_out = combination(family, problem.as_ref()).is_multiple_of(HELD_OUT);
        if held_out == (split == Split::Test) {
            return problem;
        }
    }
}

fn mixed(problem: &dyn Problem, rng: &mut ChaCha8Rng) -> Vec<Word> {
    if rng.random_bool(CLEAN_SHARE) { problem.clean(rng) } else { problem.flawed(rng) }
}

/// The first eight bytes of the SHA-256 of the family and the words of the combination: the split
/// must be the same on every machine, which the standard library's hash does not promise.
fn combination(family: Family, problem: &dyn Problem) -> u64 {
    let text = format!("{} {}", family.name(), problem.combination().join(" "));
    let digest = Sha256::digest(text);
    u64::from_le_bytes(std::array::from_fn(|byte| digest[byte]))
}

/// The draws of one purpose for one prompt. `draw` selects a stream of its own.
fn generator(purpose: Purpose, split: Split, index: u64, draw: u64) -> ChaCha8Rng {
    let mut seed = [0; 32];
    for (part, value) in seed.chunks_exact_mut(8).zip([SEED, purpose as u64, split as u64, index]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(draw);
    rng
}

/// `count` different items of a slice, in random order.
fn distinct<T: Copy>(items: &[T], count: usize, rng: &mut ChaCha8Rng) -> Vec<T> {
    let mut items = items.to_vec();
    let (chosen, _) = items.partial_shuffle(rng, count);
    chosen.to_vec()
}
