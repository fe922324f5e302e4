//! Questions: a fact to be found in a context.
//!
//! ```text
//! prompt   questions ann bus ; bob soup ; cleo drum ; ? cleo =>
//! clean    cleo drum
//! ```
//!
//! Three facts `NAME THING ;` of different names; the answer is the fact that was asked for, as a whole
//! sentence. The reward is the F1 of its words. Combination: the names with their things, and the question.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::distinct;
use super::flaws::{Flaw, spoil};
use super::lexicon::{NAMES, NOUNS, Word};
use super::overlap::word_f1;

const FACTS: usize = 3;
const FLAWS: [Flaw; 4] = [Flaw::Drop, Flaw::Replace, Flaw::Repeat, Flaw::Babble];

/// One context with the place of the fact that is asked for.
#[derive(Debug)]
pub(super) struct Problem {
    /// Each a name and a thing.
    facts: Vec<[Word; 2]>,
    asked: usize,
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let names = distinct(&NAMES, FACTS, rng);
        let things = distinct(&NOUNS, FACTS, rng);
        let facts = names.into_iter().zip(things).map(|(name, thing)| [name, thing.0]).collect();
        Self { facts, asked: rng.random_range(0..FACTS) }
    }

    fn answer(&self) -> [Word; 2] {
        self.facts[self.asked]
    }

    /// A fact that was not asked for.
    fn other(&self, rng: &mut ChaCha8Rng) -> [Word; 2] {
        self.facts[(self.asked + rng.random_range(1..FACTS)) % FACTS]
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for [name, thing] in &self.facts {
            words.extend([name, thing, ";"]);
        }
        words.extend(["?", self.answer()[0]]);
        words
    }

    fn clean(&self, _: &mut ChaCha8Rng) -> Vec<Word> {
        self.answer().to_vec()
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let ([name, thing], other) = (self.answer(), self.other(rng));
        match rng.random_range(0..10) {
            // Another's thing, and another's whole fact.
            0..3 => vec![name, other[1]],
            3..5 => other.to_vec(),
            // Two answers at once.
            5 => vec![name, thing, other[0], other[1]],
            _ => {
                let mut words = vec![name, thing];
                for _ in 0..rng.random_range(1..=3) {
                    spoil(&mut words, &FLAWS, &self.question(), rng);
                }
                words
            }
        }
    }

    fn reward(&self, words: &[&str]) -> f64 {
        word_f1(words, &self.answer())
    }

    fn combination(&self) -> Vec<Word> {
        self.question()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;

    #[test]
    fn literals() {
        let problem = Problem { facts: vec![["ann", "bus"], ["bob", "soup"], ["cleo", "drum"]], asked: 2 };
        assert_eq!(problem.question().join(" "), "ann bus ; bob soup ; cleo drum ; ? cleo");
        for (answer, reward) in [
            ("cleo drum", 1.0),
            ("cleo", 2.0 / 3.0),
            ("cleo bus", 0.5),
            ("cleo drum bus", 0.8),
            ("ann bus", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = answer.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{answer}");
        }
    }
}
