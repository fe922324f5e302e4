//! Where BLEU cuts texts into tokens.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// One of sacrebleu's tokenizers that need no model and no dictionary, under its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tokenizer {
    /// `13a`: WMT's, as in NIST's mteval-v13a. Cuts off ASCII punctuation, but not a point, comma or dash between digits.
    #[default]
    V13a,
    /// `intl`: mteval-v14's. Cuts off Unicode's punctuation and symbols.
    Intl,
    /// `char`: every character that is no white space.
    Char,
    /// `none`: what is between white space.
    None,
}

impl Tokenizer {
    pub const ALL: [Tokenizer; 4] = [Tokenizer::V13a, Tokenizer::Intl, Tokenizer::Char, Tokenizer::None];

    /// The text with white space between the tokens.
    pub(super) fn tokenize(self, text: &str) -> String {
        match self {
            Tokenizer::V13a => v13a(text),
            Tokenizer::Intl => intl(text),
            Tokenizer::Char => text.chars().flat_map(|c| [c, ' ']).collect(),
            Tokenizer::None => text.to_owned(),
        }
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Tokenizer::V13a => "13a",
            Tokenizer::Intl => "intl",
            Tokenizer::Char => "char",
            Tokenizer::None => "none",
        })
    }
}

impl FromStr for Tokenizer {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|tokenizer| tokenizer.to_string() == name) {
            Some(tokenizer) => Ok(tokenizer),
            None => match name {
                "zh" | "ja-mecab" | "ko-mecab" | "spm" | "flores101" | "flores200" => bail!(
                    "sacrebleu's tokenizer {name:?} is not built in; there are 13a, intl, char, none. Tokenize the texts yourself \
                     and take none, or take char"
                ),
                _ => bail!("unknown tokenizer {name:?}; there are 13a, intl, char, none"),
            },
        }
    }
}

/// Rules of mteval-v13a, one after the other. Each looks at the text from left to right and goes on behind what it has
/// changed, as a replacement by a regular expression does.
fn v13a(text: &str) -> String {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if text.contains('&') {
        for (entity, meaning) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(entity, meaning);
        }
    }
    // All that is cut at is ASCII, so bytes do.
    let mut bytes = Vec::with_capacity(2 * text.len() + 2);
    bytes.push(b' ');
    for byte in text.bytes() {
        if is_cut_off(byte) {
            bytes.extend([b' ', byte, b' ']);
        } else {
            bytes.push(byte);
        }
    }
    bytes.push(b' ');
    let is_point = |byte: u8| matches!(byte, b'.' | b',');
    let bytes = each_pair(&bytes, |a, b| (!a.is_ascii_digit() && is_point(b)).then_some([a, b' ', b, b' ']));
    let bytes = each_pair(&bytes, |a, b| (is_point(a) && !b.is_ascii_digit()).then_some([b' ', a, b' ', b]));
    let bytes = each_pair(&bytes, |a, b| (a.is_ascii_digit() && b == b'-').then_some([a, b' ', b, b' ']));
    String::from_utf8(bytes).expect("only ASCII was put in, beside ASCII")
}

/// ASCII punctuation but for ' , - .
fn is_cut_off(byte: u8) -> bool {
    byte.is_ascii_punctuation() && !matches!(byte, b'\'' | b',' | b'-' | b'.')
}

fn intl(text: &str) -> String {
    let chars: Vec<(char, Kind)> = text.chars().map(|c| (c, Kind::of(c))).collect();
    let space = (' ', Kind::Other);
    let chars =
        each_pair(&chars, |a, b| (a.1 != Kind::Number && b.1 == Kind::Punctuation).then_some([a, space, b, space]));
    let chars =
        each_pair(&chars, |a, b| (a.1 == Kind::Punctuation && b.1 != Kind::Number).then_some([space, a, space, b]));
    let mut tokens = String::with_capacity(text.len() + chars.len());
    for (c, kind) in chars {
        if kind == Kind::Symbol {
            tokens.extend([' ', c, ' ']);
        } else {
            tokens.push(c);
        }
    }
    tokens
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Punctuation,
    Symbol,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        use Category::*;
        match get_general_category(c) {
            DecimalNumber | LetterNumber | OtherNumber => Kind::Number,
            ConnectorPunctuation | DashPunctuation | OpenPunctuation | ClosePunctuation | InitialPunctuation
            | FinalPunctuation | OtherPunctuation => Kind::Punctuation,
            MathSymbol | CurrencySymbol | ModifierSymbol | OtherSymbol => Kind::Symbol,
            _ => Kind::Other,
        }
    }
}

/// Neighbours from left to right, and what stands in their place; behind a pair that was replaced it goes on with a new one.
fn each_pair<T: Copy, const N: usize>(text: &[T], replacement: impl Fn(T, T) -> Option<[T; N]>) -> Vec<T> {
    let mut replaced = Vec::with_capacity(text.len() + text.len() / 2);
    let mut at = 0;
    while at < text.len() {
        match text.get(at + 1).and_then(|&next| replacement(text[at], next)) {
            Some(new) => {
                replaced.extend(new);
                at += 2;
            }
            None => {
                replaced.push(text[at]);
                at += 1;
            }
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(tokenizer: Tokenizer, text: &str) -> String {
        tokenizer.tokenize(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Literals of sacrebleu 2.6.0.
    #[test]
    fn texts_are_cut_as_by_sacrebleu() {
        let text = "Don't pay $1,000.50-2 (\"now\"), a.b..c -\nA&amp;B <skipped>3.";
        assert_eq!(tokens(Tokenizer::V13a, text), "Don't pay $ 1,000.50 - 2 ( \" now \" ) , a . b . . c A & B 3 .");
        assert_eq!(
            tokens(Tokenizer::Intl, text),
            "Don ' t pay $ 1,000.50-2 ( \" now \" ) , a . b . . c - A & amp ; B < skipped > 3."
        );
    }

    #[test]
    fn names_are_those_of_sacrebleu() {
        for tokenizer in Tokenizer::ALL {
            assert_eq!(tokenizer.to_string().parse::<Tokenizer>().unwrap(), tokenizer);
        }
        let error = "ja-mecab".parse::<Tokenizer>().unwrap_err().to_string();
        assert!(error.contains("ja-mecab") && error.contains("13a, intl, char, none"), "{error}");
        assert!("14a".parse::<Tokenizer>().is_err());
    }
}
