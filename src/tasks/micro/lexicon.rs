//! The words of the world, one vocabulary for all families, and its tokenizer.
//!
//! A token is a word. The families share words on purpose (a noun is a useful word of a reply, an
//! item of a summary, a word to translate and a thing of a fact), so that a policy profits from all
//! of them at once. Nothing outside the lexicon can be encoded: there is no `<unk>`.

use std::collections::HashMap;

use anyhow::{Result, anyhow, ensure};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer, models::wordlevel::WordLevel};

/// A word of the lexicon.
pub(super) type Word = &'static str;

/// The token ids of the two special tokens.
pub const PAD: u32 = 0;
pub const EOS: u32 = 1;
const SPECIALS: [Word; 2] = ["<pad>", "<eos>"];

/// The first word of a prompt names its family, the last one asks for the answer.
pub(super) const ANSWER: Word = "=>";
const MARKERS: [Word; 6] = ["reply", "summary", "code", "translation", "questions", ANSWER];

pub(super) const NAMES: [Word; 12] =
    ["ann", "bob", "cleo", "dan", "eve", "finn", "gina", "hugo", "iris", "jon", "kira", "leo"];

/// A topic that somebody may ask about, and the words that help there.
pub(super) const TOPICS: [(Word, [Word; 3]); 8] = [
    ("travel", ["train", "bus", "ferry"]),
    ("food", ["soup", "bread", "rice"]),
    ("sleep", ["hotel", "cabin", "tent"]),
    ("art", ["museum", "painting", "statue"]),
    ("music", ["concert", "choir", "drum"]),
    ("garden", ["rose", "tree", "pond"]),
    ("study", ["book", "teacher", "school"]),
    ("winter", ["coat", "stove", "sled"]),
];

/// A word of language A with its one translation into language B.
pub(super) type Pair = (Word, Word);

/// The useful words of all topics, in the order of `TOPICS`.
pub(super) const NOUNS: [Pair; 24] = [
    ("train", "tova"),
    ("bus", "bemu"),
    ("ferry", "ruska"),
    ("soup", "zupe"),
    ("bread", "panto"),
    ("rice", "oriz"),
    ("hotel", "noktel"),
    ("cabin", "kolib"),
    ("tent", "shatu"),
    ("museum", "muzel"),
    ("painting", "pintar"),
    ("statue", "stovi"),
    ("concert", "kantel"),
    ("choir", "horul"),
    ("drum", "tamba"),
    ("rose", "ruzha"),
    ("tree", "drevo"),
    ("pond", "lagun"),
    ("book", "knigu"),
    ("teacher", "maistra"),
    ("school", "skolu"),
    ("coat", "paltu"),
    ("stove", "fornel"),
    ("sled", "sanka"),
];

pub(super) const ADJECTIVES: [Pair; 10] = [
    ("red", "krasi"),
    ("blue", "modri"),
    ("old", "stari"),
    ("new", "novi"),
    ("big", "velki"),
    ("small", "mali"),
    ("warm", "topli"),
    ("cold", "hladi"),
    ("quiet", "tihi"),
    ("cheap", "barati"),
];

pub(super) const VERBS: [Pair; 10] = [
    ("likes", "lubet"),
    ("sells", "prodet"),
    ("wants", "hochet"),
    ("has", "imet"),
    ("sees", "videt"),
    ("finds", "nahet"),
    ("moves", "mutet"),
    ("follows", "sledet"),
    ("helps", "pomet"),
    ("hides", "skret"),
];

pub(super) const GREETINGS: [Word; 2] = ["hello", "hi"];
pub(super) const THANKS: Word = "thanks";
const FUNCTION_WORDS: [Word; 7] = ["asks", "about", "and", "without", "try", "the", "print"];
const SIGNS: [Word; 6] = ["!", ";", "?", "=", "+", "-"];

pub(super) const VARIABLES: [Word; 4] = ["w", "x", "y", "z"];

/// The word of a number is at the number's own place.
pub(super) const NUMBERS: [Word; 19] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18"];

/// The vocabulary with both directions of the map between words and token ids.
pub(super) struct Lexicon {
    words: Vec<Word>,
    ids: HashMap<Word, u32>,
    tokenizer: Tokenizer,
}

impl Lexicon {
    /// Errors if a word occurs twice, holds white space, or is not where its token id says.
    pub fn new() -> Result<Self> {
        let words = words();
        let ids: HashMap<Word, u32> = words.iter().copied().zip(0..).collect();
        ensure!(ids.len() == words.len(), "a word occurs twice in the lexicon");
        ensure!(
            words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)),
            "a word of the lexicon is empty or holds white space"
        );
        ensure!(words[PAD as usize] == SPECIALS[0] && words[EOS as usize] == SPECIALS[1]);
        let tokenizer = tokenizer(&words).map_err(|error| anyhow!("the tokenizer: {error}"))?;
        Ok(Self { words, ids, tokenizer })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The number of words, special tokens included.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// The token ids of the words of a family.
    ///
    /// # Panics
    /// If a word is not in the lexicon: families draw their words from the constants above.
    pub fn ids(&self, words: &[Word]) -> Vec<u32> {
        words.iter().map(|word| *self.ids.get(word).unwrap_or_else(|| panic!("{word:?} is no word here"))).collect()
    }

    /// The word of a token id. An id beyond the vocabulary reads as padding, which no answer holds.
    pub fn word(&self, id: u32) -> Word {
        self.words.get(id as usize).copied().unwrap_or(SPECIALS[PAD as usize])
    }
}

/// All words in the order of their token ids. The order is part of every trained policy.
fn words() -> Vec<Word> {
    let topics = TOPICS.iter().map(|topic| topic.0);
    let pairs = || NOUNS.iter().chain(&ADJECTIVES).chain(&VERBS);
    SPECIALS
        .into_iter()
        .chain(MARKERS)
        .chain(SIGNS)
        .chain(FUNCTION_WORDS)
        .chain(GREETINGS)
        .chain([THANKS])
        .chain(NAMES)
        .chain(topics)
        .chain(pairs().map(|pair| pair.0))
        .chain(pairs().map(|pair| pair.1))
        .chain(VARIABLES)
        .chain(NUMBERS)
        .collect()
}

fn tokenizer(words: &[Word]) -> tokenizers::Result<Tokenizer> {
    let vocab = words.iter().map(|word| word.to_string()).zip(0..).collect();
    let model = WordLevel::builder().vocab(vocab).build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(WhitespaceSplit));
    tokenizer.add_special_tokens(SPECIALS.map(|word| AddedToken::from(word, true)))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_useful_words_of_the_topics_are_the_nouns() {
        let useful: Vec<Word> = TOPICS.iter().flat_map(|topic| topic.1).collect();
        assert_eq!(useful, NOUNS.map(|noun| noun.0));
    }

    #[test]
    fn a_number_stands_at_its_own_place() {
        for (value, word) in NUMBERS.iter().enumerate() {
            assert_eq!(*word, value.to_string());
        }
    }

    #[test]
    fn a_word_outside_is_an_error() {
        let lexicon = Lexicon::new().unwrap();
        assert!(lexicon.tokenizer().encode("hello zebra", false).is_err());
    }
}
