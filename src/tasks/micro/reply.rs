//! Dialogue: a polite and useful reply that keeps off the forbidden words.
//!
//! ```text
//! prompt   reply ann asks about food and travel without soup bus =>
//! clean    hello ann try the bread and the ferry thanks
//! ```
//!
//! Each topic has three useful words and the forbidden ones are among them, so that the reply must
//! choose. It greets and names the person first, holds one allowed useful word a topic, in any
//! order, and ends with thanks. Combination: the topics and the forbidden words, as sets.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::flaws::pick;
use super::lexicon::{GREETINGS, NAMES, NOUNS, THANKS, TOPICS, Word};
use super::{MAX_WORDS, distinct};

/// What the parts of a reply are worth, in hundredths. The topics share theirs equally.
const GREETING: i32 = 10;
const NAME: i32 = 10;
const ALL_TOPICS: i32 = 60;
const CLOSING: i32 = 20;
/// What a forbidden word and a superfluous one cost, each time.
const FORBIDDEN: i32 = 40;
const SUPERFLUOUS: i32 = 10;

/// One request for advice.
#[derive(Debug)]
pub(super) struct Problem {
    name: Word,
    /// One or two topics with their useful words.
    topics: Vec<(Word, [Word; 3])>,
    /// One or two useful words; every topic keeps at least one that is allowed.
    forbidden: Vec<Word>,
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let count = if rng.random_bool(0.2) { 1 } else { 2 };
        let topics = distinct(&TOPICS, count, rng);
        let useful: Vec<Word> = topics.iter().flat_map(|topic| topic.1).collect();
        let forbidden = distinct(&useful, rng.random_range(1..=2), rng);
        Self { name: pick(&NAMES, rng), topics, forbidden }
    }

    fn is_forbidden(&self, word: &str) -> bool {
        self.forbidden.contains(&word)
    }

    fn allowed(&self, useful: &[Word]) -> Vec<Word> {
        useful.iter().copied().filter(|word| !self.is_forbidden(word)).collect()
    }

    /// "try the A and the B", or less if there are fewer useful words.
    fn advice(useful: &[Word]) -> Vec<Word> {
        let mut words = Vec::new();
        for (place, word) in useful.iter().enumerate() {
            words.extend([if place == 0 { "try" } else { "and" }, "the", *word]);
        }
        words
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        let mut words = vec![self.name, "asks", "about", self.topics[0].0];
        for topic in &self.topics[1..] {
            words.extend(["and", topic.0]);
        }
        words.push("without");
        words.extend(&self.forbidden);
        words
    }

    fn clean(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let useful: Vec<Word> = self.topics.iter().map(|topic| pick(&self.allowed(&topic.1), rng)).collect();
        let mut words = vec![pick(&GREETINGS, rng), self.name];
        words.extend(Self::advice(&useful));
        words.push(THANKS);
        words
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let mut words = Vec::new();
        if rng.random_bool(0.75) {
            words.push(pick(&GREETINGS, rng));
        }
        match rng.random_range(0..10) {
            0..6 => words.push(self.name),
            6..8 => words.push(pick(&NAMES, rng)),
            _ => {}
        }
        let mut useful = Vec::new();
        for topic in &self.topics {
            match rng.random_range(0..10) {
                0..4 => useful.push(pick(&self.allowed(&topic.1), rng)),
                4..6 => useful.push(pick(&self.forbidden, rng)),
                // Useful perhaps, but for another question.
                6 => useful.push(pick(&NOUNS, rng).0),
                _ => {}
            }
        }
        useful.shuffle(rng);
        words.extend(Self::advice(&useful));
        if rng.random_bool(0.3) {
            // Once more, or about something else.
            let word = if useful.is_empty() { pick(&NOUNS, rng).0 } else { pick(&useful, rng) };
            words.extend(Self::advice(&[word]));
        }
        if rng.random_bool(0.6) || words.is_empty() {
            words.push(THANKS);
        }
        words.truncate(MAX_WORDS);
        words
    }

    fn reward(&self, words: &[&str]) -> f64 {
        // Each word is accounted for once; what is left over is superfluous.
        let mut used = vec![false; words.len()];
        let mut points = 0;
        if words.first().is_some_and(|word| GREETINGS.contains(word)) {
            used[0] = true;
            points += GREETING;
        }
        if words.get(1) == Some(&self.name) {
            used[1] = true;
            points += NAME;
        }
        if words.last() == Some(&THANKS) {
            used[words.len() - 1] = true;
            points += CLOSING;
        }
        for topic in &self.topics {
            let helps = |word: &&str| topic.1.contains(word) && !self.is_forbidden(word);
            if let Some(place) = words.iter().position(helps) {
                used[place] = true;
                points += ALL_TOPICS / self.topics.len() as i32;
            }
        }
        for (filler, most) in [("try", 1), ("the", self.topics.len()), ("and", self.topics.len() - 1)] {
            let places = (0..words.len()).filter(|&place| words[place] == filler);
            places.take(most).for_each(|place| used[place] = true);
        }
        for (word, used) in words.iter().zip(used) {
            if self.is_forbidden(word) {
                points -= FORBIDDEN;
            } else if !used {
                points -= SUPERFLUOUS;
            }
        }
        f64::from(points.max(0)) / 100.0
    }

    fn combination(&self) -> Vec<Word> {
        let mut topics: Vec<Word> = self.topics.iter().map(|topic| topic.0).collect();
        let mut forbidden = self.forbidden.clone();
        topics.sort_unstable();
        forbidden.sort_unstable();
        [topics, vec!["without"], forbidden].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;

    #[test]
    fn literals() {
        let problem = Problem { name: "ann", topics: vec![TOPICS[1], TOPICS[0]], forbidden: vec!["soup", "bus"] };
        assert_eq!(problem.question().join(" "), "ann asks about food and travel without soup bus");
        for (reply, reward) in [
            ("hello ann try the bread and the ferry thanks", 1.0),
            ("hi ann train rice thanks", 1.0),
            ("hello ann try the bread and the ferry", 0.8),
            ("ann try the bread and the ferry thanks", 0.7), // and the name is not in its place
            ("hello bob try the bread and the ferry thanks", 0.8), // a wrong word besides
            ("hello ann try the bread thanks", 0.7),
            ("hello ann try the bread and the bus thanks", 0.3),
            ("hello ann try the bread and the ferry and the train thanks", 0.7),
            ("soup", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = reply.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{reply}");
        }
    }
}
