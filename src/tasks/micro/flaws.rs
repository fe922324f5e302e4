//! How a demonstration goes wrong, for the families whose answer is a short list of words.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::MAX_WORDS;
use super::lexicon::Word;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flaw {
    /// A word is missing.
    Drop,
    /// A word of the pool stands in the place of a word.
    Replace,
    /// A word is said twice.
    Repeat,
    /// Two neighbours change places.
    Swap,
    /// One to three words of the pool follow the answer.
    Babble,
    /// The answer ends early, after at least one word.
    Stop,
}

/// Applies one flaw, drawn from `flaws`, to an answer. The answer keeps at least one word and has at
/// most `MAX_WORDS`. A flaw may leave it as it was (two equal words swapped).
pub(super) fn spoil(words: &mut Vec<Word>, flaws: &[Flaw], pool: &[Word], rng: &mut ChaCha8Rng) {
    let place = rng.random_range(0..words.len());
    let single = words.len() == 1;
    match pick(flaws, rng) {
        // What would leave nothing, or has no neighbour, becomes a wrong word.
        Flaw::Drop | Flaw::Swap | Flaw::Stop if single => words[0] = pick(pool, rng),
        Flaw::Drop => {
            words.remove(place);
        }
        Flaw::Replace => words[place] = pick(pool, rng),
        Flaw::Repeat => words.insert(place, words[place]),
        Flaw::Swap => {
            let left = place.min(words.len() - 2);
            words.swap(left, left + 1);
        }
        Flaw::Babble => {
            for _ in 0..rng.random_range(1..=3) {
                words.push(pick(pool, rng));
            }
        }
        Flaw::Stop => words.truncate(place.max(1)),
    }
    words.truncate(MAX_WORDS);
}

/// One item, each as likely as the others.
///
/// # Panics
/// If there is none.
pub(super) fn pick<T: Copy>(items: &[T], rng: &mut ChaCha8Rng) -> T {
    *items.choose(rng).expect("a choice among at least one")
}
