//! Translation: word for word, with the order of another language.
//!
//! ```text
//! prompt   translation old train follows red bus =>
//! clean    tova stari bemu krasi sledet
//! ```
//!
//! The source is `[adjective] noun verb [adjective] noun`. In the target an adjective follows its
//! noun and the verb comes last. The reward is the mean of the F1 of the words and the F1 of the
//! pairs of neighbours, so that right words in the wrong order earn a part. Combination: noun, verb
//! and noun, whatever the adjectives.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::flaws::{Flaw, pick, spoil};
use super::lexicon::{ADJECTIVES, NOUNS, Pair, VERBS, Word};
use super::overlap::{bigram_f1, word_f1};

const FLAWS: [Flaw; 6] = [Flaw::Drop, Flaw::Replace, Flaw::Replace, Flaw::Repeat, Flaw::Swap, Flaw::Stop];

/// One sentence.
#[derive(Debug)]
pub(super) struct Problem {
    subject: Phrase,
    verb: Pair,
    object: Phrase,
}

/// A noun, with or without an adjective.
#[derive(Debug)]
struct Phrase {
    adjective: Option<Pair>,
    noun: Pair,
}

impl Phrase {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let adjective = rng.random_bool(0.6).then(|| pick(&ADJECTIVES, rng));
        Self { adjective, noun: pick(&NOUNS, rng) }
    }

    /// In the order of the source.
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.adjective.into_iter().chain([self.noun])
    }

    /// In the target language.
    fn target(&self) -> impl Iterator<Item = Word> {
        [self.noun].into_iter().chain(self.adjective).map(|pair| pair.1)
    }
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let (subject, verb) = (Phrase::draw(rng), pick(&VERBS, rng));
        Self { subject, verb, object: Phrase::draw(rng) }
    }

    fn source(&self) -> Vec<Pair> {
        self.subject.pairs().chain([self.verb]).chain(self.object.pairs()).collect()
    }

    fn target(&self) -> Vec<Word> {
        self.subject.target().chain(self.object.target()).chain([self.verb.1]).collect()
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        self.source().iter().map(|pair| pair.0).collect()
    }

    fn clean(&self, _: &mut ChaCha8Rng) -> Vec<Word> {
        self.target()
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        // Either the order of the target is missed, and other things besides, or a few more of them.
        let source_order = rng.random_bool(0.5);
        let mut words: Vec<Word> =
            if source_order { self.source().iter().map(|pair| pair.1).collect() } else { self.target() };
        // What is not known stays as it was in the source, or becomes another word of the target.
        let mut pool = self.question();
        pool.extend([pick(&NOUNS, rng).1, pick(&ADJECTIVES, rng).1, pick(&VERBS, rng).1]);
        let most = if source_order { 4 } else { 6 };
        for _ in 0..rng.random_range(2..=most) {
            spoil(&mut words, &FLAWS, &pool, rng);
        }
        words
    }

    fn reward(&self, words: &[&str]) -> f64 {
        let truth = self.target();
        (word_f1(words, &truth) + bigram_f1(words, &truth)) / 2.0
    }

    fn combination(&self) -> Vec<Word> {
        vec![self.subject.noun.0, self.verb.0, self.object.noun.0]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;

    #[test]
    fn literals() {
        let problem = Problem {
            subject: Phrase { adjective: Some(ADJECTIVES[2]), noun: NOUNS[0] },
            verb: VERBS[7],
            object: Phrase { adjective: Some(ADJECTIVES[0]), noun: NOUNS[1] },
        };
        assert_eq!(problem.question().join(" "), "old train follows red bus");
        for (answer, reward) in [
            ("tova stari bemu krasi sledet", 1.0),
            // Of six pairs none stands in the order of the source.
            ("stari tova sledet krasi bemu", 0.5),
            ("tova stari bemu krasi", (8.0 / 9.0 + 8.0 / 11.0) / 2.0),
            ("old train follows red bus", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = answer.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{answer}");
        }
    }
}
