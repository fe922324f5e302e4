//! The tokens of ROUGE as numbers.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::porter;

/// Words of up to three letters are not stemmed.
const SHORT: usize = 3;

/// Remembers the words that it has seen: each is stemmed once.
#[derive(Debug)]
pub(super) struct Words {
    stemming: bool,
    numbers: FxHashMap<Box<[u8]>, u32>,
    /// By stem, where there is stemming.
    stems: FxHashMap<Box<[u8]>, u32>,
    word: Vec<u8>,
}

/// A text's tokens; equal tokens have equal numbers.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub numbers: Vec<u32>,
    /// Which of them stand on one line. Lines without tokens are left out.
    pub lines: Vec<Range<usize>>,
}

impl Words {
    pub(super) fn new(stemming: bool) -> Self {
        Self { stemming, numbers: FxHashMap::default(), stems: FxHashMap::default(), word: Vec::new() }
    }

    /// How many different tokens there were: every number is smaller.
    pub(super) fn len(&self) -> usize {
        if self.stemming { self.stems.len() } else { self.numbers.len() }
    }

    /// Maximal runs of a–z and 0–9 in the text in lower case.
    pub(super) fn tokens(&mut self, text: &str) -> Tokens {
        let mut tokens = Tokens::default();
        let mut line = 0;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let (letter, width) = match bytes[at] {
                byte if byte.is_ascii_alphanumeric() => (Some(byte.to_ascii_lowercase()), 1),
                // Outside of ASCII two letters have a lower case that begins with an ASCII letter: İ, which goes on with a
                // combining dot, and the Kelvin sign.
                0xc4 if bytes[at..].starts_with("İ".as_bytes()) => (Some(b'i'), 2),
                0xe2 if bytes[at..].starts_with("\u{212a}".as_bytes()) => (Some(b'k'), 3),
                _ => (None, 1),
            };
            self.word.extend(letter);
            if letter.is_none() || width == 2 {
                self.end_word(&mut tokens);
            }
            if bytes[at] == b'\n' {
                end_line(&mut tokens, &mut line);
            }
            at += width;
        }
        self.end_word(&mut tokens);
        end_line(&mut tokens, &mut line);
        tokens
    }

    fn end_word(&mut self, tokens: &mut Tokens) {
        if self.word.is_empty() {
            return;
        }
        let number = match self.numbers.get(self.word.as_slice()) {
            Some(&number) => number,
            None => self.new_word(),
        };
        tokens.numbers.push(number);
        self.word.clear();
    }

    fn new_word(&mut self) -> u32 {
        let word: Box<[u8]> = self.word.as_slice().into();
        let number = if self.stemming {
            if word.len() > SHORT {
                porter::stem(&mut self.word);
            }
            let next = self.stems.len() as u32;
            *self.stems.entry(self.word.as_slice().into()).or_insert(next)
        } else {
            self.numbers.len() as u32
        };
        self.numbers.insert(word, number);
        number
    }
}

fn end_line(tokens: &mut Tokens, start: &mut usize) {
    let end = tokens.numbers.len();
    if *start < end {
        tokens.lines.push(*start..end);
        *start = end;
    }
}
