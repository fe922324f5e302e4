//! The text side of a model: its tokenizer and the tokens that end a text.

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::Source;

/// A tokenizer, and the tokens that end a text.
#[derive(Clone)]
pub struct Vocabulary {
    pub tokenizer: Tokenizer,
    /// The first one is the one that demonstrations end with.
    pub end_tokens: Vec<u32>,
}

/// The field of `generation_config.json` or `config.json`.
#[derive(Deserialize)]
struct End {
    eos_token_id: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

impl Vocabulary {
    /// `tokenizer.json`, with its truncation and padding and special tokens in texts switched off, and `eos_token_id` of `generation_config.json` or
    /// else of `config.json`.
    ///
    /// # Errors
    /// A file that is missing or not what it should be; an end token that the tokenizer does not have.
    pub fn read(source: &Source) -> Result<Self> {
        let path = source.file("tokenizer.json")?;
        let named = |what: String| format!("{}: {what}", path.display());
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow!(named(e.to_string())))?;
        tokenizer.with_padding(None);
        // A text that spells a special token does not become it: nobody ends a prompt or fools a reward model that way.
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_truncation(None).map_err(|e| anyhow!(named(e.to_string())))?;
        let mut end_tokens = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            let Some(path) = source.file_if_there(name)? else { continue };
            let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            let end: End = serde_json::from_str(&text).with_context(|| format!("{}: eos_token_id", path.display()))?;
            match end.eos_token_id {
                Some(OneOrMore::One(token)) => end_tokens = vec![token],
                Some(OneOrMore::More(tokens)) => end_tokens = tokens,
                None => continue,
            }
            break;
        }
        for token in &end_tokens {
            ensure!(
                tokenizer.id_to_token(*token).is_some(),
                named(format!("there is no token {token}, which ends texts"))
            );
        }
        Ok(Self { tokenizer, end_tokens })
    }

    /// The number of ids, from 0 to the largest one that a text can have.
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The tokens of `text` behind a prompt, without special ones.
    ///
    /// They are what the whole adds to the prompt's tokens. Where the whole begins otherwise (a token of it would span the
    /// border), they are those of the text alone.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn continuation(&self, prompt: &str, prompt_tokens: &[u32], text: &str) -> Result<Vec<u32>> {
        let encode = |text: &str, special: bool| -> Result<Vec<u32>> {
            Ok(self.tokenizer.encode(text, special).map_err(|e| anyhow!("{e}"))?.get_ids().to_vec())
        };
        let whole = encode(&[prompt, text].concat(), true)?;
        match whole.strip_prefix(prompt_tokens) {
            Some(rest) => Ok(rest.to_vec()),
            None => encode(text, false),
        }
    }
}
