//! Summary: the important items of a list, each once.
//!
//! ```text
//! prompt   summary train ! soup rose ! train ! book =>
//! clean    train rose
//! ```
//!
//! A mark follows an important item wherever it stands; some items stand twice. The answer is the
//! important ones in order of their first appearance, and the reward is the F1 of the longest common
//! subsequence, as in ROUGE-L. Combination: the important items, as a set.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::distinct;
use super::flaws::{Flaw, spoil};
use super::lexicon::{NOUNS, Word};
use super::overlap::lcs_f1;

const MARK: Word = "!";
const FLAWS: [Flaw; 9] = [
    Flaw::Drop,
    Flaw::Replace,
    Flaw::Replace,
    Flaw::Replace,
    Flaw::Repeat,
    Flaw::Swap,
    Flaw::Babble,
    Flaw::Babble,
    Flaw::Stop,
];

/// One list with its important items.
#[derive(Debug)]
pub(super) struct Problem {
    /// Four to seven, some of them twice.
    items: Vec<Word>,
    /// The truth: two to four, in order of first appearance.
    important: Vec<Word>,
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let important_count = rng.random_range(2..=4);
        let plain_count = rng.random_range(1..=2);
        let nouns = NOUNS.map(|noun| noun.0);
        let mut items = distinct(&nouns, important_count + plain_count, rng);
        let marked = distinct(&items, important_count, rng);
        let important = items.iter().copied().filter(|item| marked.contains(item)).collect();
        let longest = 7 - items.len();
        let repeats = rng.random_range(4usize.saturating_sub(items.len())..=longest.min(2));
        for _ in 0..repeats {
            // After its first appearance, so that the order of the truth stands.
            let first = rng.random_range(0..items.len());
            items.insert(rng.random_range(first + 1..=items.len()), items[first]);
        }
        Self { items, important }
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for &item in &self.items {
            words.push(item);
            if self.important.contains(&item) {
                words.push(MARK);
            }
        }
        words
    }

    fn clean(&self, _: &mut ChaCha8Rng) -> Vec<Word> {
        self.important.clone()
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let plain: Vec<Word> = self.items.iter().copied().filter(|item| !self.important.contains(item)).collect();
        let mut words = self.important.clone();
        for _ in 0..rng.random_range(2..=6) {
            spoil(&mut words, &FLAWS, &plain, rng);
        }
        words
    }

    fn reward(&self, words: &[&str]) -> f64 {
        lcs_f1(words, &self.important)
    }

    fn combination(&self) -> Vec<Word> {
        let mut important = self.important.clone();
        important.sort_unstable();
        important
    }
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;

    #[test]
    fn literals() {
        let problem =
            Problem { items: vec!["train", "soup", "rose", "train", "book"], important: vec!["train", "rose"] };
        assert_eq!(problem.question().join(" "), "train ! soup rose ! train ! book");
        for (answer, reward) in [
            ("train rose", 1.0),
            ("train rose train book", 2.0 / 3.0),
            ("rose train", 0.5),
            ("train", 2.0 / 3.0),
            ("soup", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = answer.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{answer}");
        }
    }
}
