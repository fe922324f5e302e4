//! Questions: a fact to be found in a context.
//!
//! ```text
//! prompt   questions ann likes red bus ; bob sells soup ; cleo sells old drum ; ? cleo sells =>
//! clean    old drum
//! ```
//!
//! Three or four facts `NAME RELATION [adjective] THING ;` of different names; relations may recur. The reward is the F1 of the words against the thing that was
//! asked for. Combination: the fact that was asked for.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::distinct;
use super::flaws::{Flaw, pick, spoil};
use super::lexicon::{ADJECTIVES, NAMES, NOUNS, VERBS, Word};
use super::overlap::word_f1;

/// The relations are the first verbs.
const RELATIONS: usize = 4;
const FLAWS: [Flaw; 4] = [Flaw::Drop, Flaw::Replace, Flaw::Repeat, Flaw::Babble];

/// One context with the place of the fact that is asked for.
#[derive(Debug)]
pub(super) struct Problem {
    facts: Vec<Fact>,
    asked: usize,
}

#[derive(Debug)]
struct Fact {
    name: Word,
    relation: Word,
    /// An adjective and a noun, or a noun alone.
    thing: Vec<Word>,
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let count = rng.random_range(3..=4);
        let names = distinct(&NAMES, count, rng);
        let nouns = distinct(&NOUNS, count, rng);
        let facts = names
            .into_iter()
            .zip(nouns)
            .map(|(name, noun)| {
                let relation = pick(&VERBS[..RELATIONS], rng).0;
                let adjective = rng.random_bool(0.6).then(|| pick(&ADJECTIVES, rng).0);
                Fact {
                    name,
                    relation,
                    thing: adjective.into_iter().chain([noun.0]).collect(),
                }
            })
            .collect();
        Self {
            facts,
            asked: rng.random_range(0..count),
        }
    }

    fn asked(&self) -> &Fact {
        &self.facts[self.asked]
    }

    /// A fact that was not asked for.
    fn other(&self, rng: &mut ChaCha8Rng) -> &Fact {
        let step = rng.random_range(1..self.facts.len());
        &self.facts[(self.asked + step) % self.facts.len()]
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for fact in &self.facts {
            words.extend([fact.name, fact.relation]);
            words.extend(&fact.thing);
            words.push(";");
        }
        words.extend(["?", self.asked().name, self.asked().relation]);
        words
    }

    fn clean(&self, _: &mut ChaCha8Rng) -> Vec<Word> {
        self.asked().thing.clone()
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let (asked, other) = (self.asked(), self.other(rng));
        match rng.random_range(0..10) {
            0..3 => other.thing.clone(),
            // The answer in a whole sentence, and sometimes in the wrong one.
            3 => [&[asked.name, asked.relation], asked.thing.as_slice()].concat(),
            4 => [&[other.name, other.relation], other.thing.as_slice()].concat(),
            // Two answers at once.
            5 => [asked.thing.as_slice(), &other.thing].concat(),
            _ => {
                let mut words = asked.thing.clone();
                for _ in 0..rng.random_range(1..=3) {
                    spoil(&mut words, &FLAWS, &self.question(), rng);
                }
                words
            }
        }
    }

    fn reward(&self, words: &[&str]) -> f64 {
        word_f1(words, &self.asked().thing)
    }

    fn combination(&self) -> Vec<Word> {
        let asked = self.asked();
        [&[asked.name, asked.relation], asked.thing.as_slice()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;

    #[test]
    fn literals() {
        let fact = |name, relation, thing: &[Word]| Fact {
            name,
            relation,
            thing: thing.to_vec(),
        };
        let problem = Problem {
            facts: vec![
                fact("ann", "likes", &["red", "bus"]),
                fact("bob", "sells", &["soup"]),
                fact("cleo", "sells", &["old", "drum"]),
            ],
            asked: 2,
        };
        assert_eq!(
            problem.question().join(" "),
            "ann likes red bus ; bob sells soup ; cleo sells old drum ; ? cleo sells"
        );
        for (answer, reward) in [
            ("old drum", 1.0),
            ("drum", 2.0 / 3.0),
            ("red drum", 0.5),
            ("cleo sells old drum", 2.0 / 3.0),
            ("red bus", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = answer.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{answer}");
        }
    }
}
