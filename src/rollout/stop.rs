//! Strings that end a response, found in its text while it is drawn.

use anyhow::{Result, anyhow, ensure};
use tokenizers::Tokenizer;

/// What a decoder writes for bytes that are no text, and so for the first part of a character.
const REPLACEMENT: char = '\u{FFFD}';

/// Strings that end a response: it ends at the token with which its decoded text first contains one of them.
///
/// The text is the response's alone, without the prompt, with special tokens written out. A string may span tokens,
/// begin and end inside of them, and hold characters whose bytes are split over tokens. The response keeps all of
/// its tokens, the last one whole; [`StopStrings::text`] is what stands before the string.
///
/// ```no_run
/// # let tokenizer = tokenizers::Tokenizer::from_file("tokenizer.json").unwrap();
/// use qstar::rollout::{Sampler, StopStrings};
/// let stop = StopStrings::new(&tokenizer, ["\n\nHuman:", "</answer>"])?;
/// let sampler = Sampler { stop_strings: Some(stop), ..Default::default() };
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings<'a> {
    tokenizer: &'a Tokenizer,
    strings: Vec<String>,
}

impl<'a> StopStrings<'a> {
    /// # Errors
    /// An empty string; one with U+FFFD, which stands for bytes that are no text.
    pub fn new(tokenizer: &'a Tokenizer, strings: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let strings: Vec<String> = strings.into_iter().map(Into::into).collect();
        for (i, string) in strings.iter().enumerate() {
            ensure!(!string.is_empty(), "stop string {i} is empty and would end every response: leave it out");
            ensure!(
                !string.contains(REPLACEMENT),
                "stop string {i}, {string:?}, contains U+FFFD, which stands for bytes that are no text: use real text"
            );
        }
        Ok(Self { tokenizer, strings })
    }

    /// The text of a response up to the stop string that begins first in it; all of it where there is none. A stop
    /// token at its end is decoded like any other: leave it off where its name is not wanted.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn text(&self, tokens: &[u32]) -> Result<String> {
        let mut text = decode(self.tokenizer, tokens)?;
        if let Some(at) = self.strings.iter().filter_map(|string| text.find(string)).min() {
            text.truncate(at);
        }
        Ok(text)
    }

    /// A watch over one response.
    pub(super) fn watch(&self) -> Watch<'_> {
        Watch { stop: self, tokens: Vec::new(), read: 0, pending: 0, known: String::new(), carried: String::new() }
    }

    fn occurs_in(&self, text: &str) -> bool {
        self.strings.iter().any(|string| text.contains(string))
    }
}

/// The text of a growing response, as far as a stop string needs it.
///
/// A token's text depends on those before it, so the latest piece that is known to be whole is decoded again with
/// whatever is new, and what is new in the text is what stands behind it.
pub(super) struct Watch<'a> {
    stop: &'a StopStrings<'a>,
    tokens: Vec<u32>,
    /// Tokens from `read` on are decoded again; those from `pending` on are not yet known to be whole.
    read: usize,
    pending: usize,
    /// The text of the tokens `read .. pending`.
    known: String,
    /// The end of the text before `pending`: what a stop string may begin in.
    carried: String,
}

impl Watch<'_> {
    /// Whether the text contains a stop string with this token.
    pub fn push(&mut self, token: u32) -> Result<bool> {
        self.tokens.push(token);
        let text = decode(self.stop.tokenizer, &self.tokens[self.read..])?;
        let whole = !text.ends_with(REPLACEMENT);
        match text.strip_prefix(&self.known) {
            Some(new) => {
                let text = format!("{}{new}", self.carried);
                let found = self.stop.occurs_in(&text);
                if whole {
                    self.settle(text, self.pending)?;
                }
                Ok(found)
            }
            // Bytes that were text have become none: they may be again when more of them are there.
            None if !whole => Ok(false),
            None => {
                let text = decode(self.stop.tokenizer, &self.tokens)?;
                let found = self.stop.occurs_in(&text);
                self.settle(text, self.read)?;
                Ok(found)
            }
        }
    }

    /// All of `text` is whole; from now on the tokens from `read` on are decoded again.
    fn settle(&mut self, text: String, read: usize) -> Result<()> {
        (self.read, self.pending) = (read, self.tokens.len());
        self.known = decode(self.stop.tokenizer, &self.tokens[read..])?;
        let longest = self.stop.strings.iter().map(String::len).max().unwrap_or(0);
        let from = (text.len().saturating_sub(longest)..text.len()).find(|&at| text.is_char_boundary(at));
        self.carried = from.map_or(String::new(), |from| text[from..].to_string());
        Ok(())
    }
}

fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
    tokenizer.decode(tokens, false).map_err(|error| anyhow!("the tokenizer cannot decode {tokens:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand::seq::IndexedRandom;

    use super::*;
    use crate::seed::{self, Purpose};

    const TEXTS: [&str; 4] = [
        "The naïve café — costs 20€, it says.\n\nHuman: 日本語のテキスト, und dann: Ärger!\n",
        "👩‍👩‍👧 family 🎉🎉 and ☃☃☃ snow; e\u{301} combined, \u{1F1E9}\u{1F1EA} flags. don't stop",
        "def f(x):\n    return x ** 2  # ≥ 0\n\n\nprint(f(3))</s><|endoftext|> [SEP] more",
        "السلام عليكم Ελληνικά 한국어 ไทย 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    ];

    /// The number of tokens after which decoding all of them anew gives a text with one of the strings.
    fn by_decoding_anew(tokenizer: &Tokenizer, tokens: &[u32], strings: &[String]) -> Option<usize> {
        (1..=tokens.len()).find(|&n| {
            let text = tokenizer.decode(&tokens[..n], false).unwrap();
            strings.iter().any(|string| text.contains(string))
        })
    }

    fn by_watching(stop: &StopStrings, tokens: &[u32]) -> Option<usize> {
        let mut watch = stop.watch();
        tokens.iter().position(|&token| watch.push(token).unwrap()).map(|at| at + 1)
    }

    /// Texts in many scripts, and tokens thrown together so that their bytes are no text, with every real tokenizer.
    #[test]
    fn watching_finds_what_decoding_anew_finds() {
        if std::env::var_os("HF_HOME").is_none() {
            println!("skipped: HF_HOME is not set, so there are no real tokenizers to read");
            return;
        }
        for repository in [
            "openai-community/gpt2",
            "EleutherAI/pythia-1.4b",
            "meta-llama/Llama-2-7b-hf",
            "microsoft/deberta-v3-large",
            "distilbert/distilbert-base-uncased",
            "qstar/stories260K",
        ] {
            let Some(file) = hf_hub::Cache::from_env().model(repository.into()).get("tokenizer.json") else {
                println!("skipped: tokenizer.json of {repository} is not in the hub's cache");
                continue;
            };
            let tokenizer = Tokenizer::from_file(file).unwrap();
            let mut rng = seed::rng(1, Purpose::Rollout, 0, 0);
            let texts: Vec<Vec<u32>> =
                TEXTS.iter().map(|text| tokenizer.encode(*text, false).unwrap().get_ids().to_vec()).collect();
            let pieces = texts.concat();
            let mut sequences = texts;
            for _ in 0..30 {
                sequences.push((0..25).map(|_| *pieces.choose(&mut rng).unwrap()).collect());
            }
            let (mut found, mut split) = (0, 0);
            for tokens in &sequences {
                let text: Vec<char> = tokenizer.decode(tokens, false).unwrap().chars().collect();
                for _ in 0..40 {
                    // Strings of the text itself, and one that is rarely there.
                    let length = rng.random_range(1..=6.min(text.len()));
                    let from = rng.random_range(0..=text.len() - length);
                    let string: String = text[from..from + length].iter().collect();
                    let strings = vec![string, "\n\nx".to_string()];
                    let Ok(stop) = StopStrings::new(&tokenizer, strings.clone()) else { continue };
                    let expected = by_decoding_anew(&tokenizer, tokens, &strings);
                    assert_eq!(by_watching(&stop, tokens), expected, "{repository}: {strings:?} in {text:?}");
                    if let Some(n) = expected {
                        found += 1;
                        let last = tokenizer.decode(&tokens[n - 1..n], false).unwrap();
                        split += usize::from(!last.contains(&strings[0]));
                        let text = tokenizer.decode(&tokens[..n], false).unwrap();
                        let start = strings.iter().filter_map(|string| text.find(string)).min().unwrap();
                        assert_eq!(stop.text(&tokens[..n]).unwrap(), text[..start]);
                    }
                }
            }
            println!("{repository}: {found} strings found, {split} of them across tokens");
            assert!(found > 400 && split > 100, "{repository}: {found} found, {split} across tokens");
        }
    }
}
