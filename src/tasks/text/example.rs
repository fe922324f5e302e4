//! One prompt of a data set with what is known about it, and how it is cut to a number of tokens.

use anyhow::{Result, anyhow};
use tokenizers::Tokenizer;

use crate::models::{Message, Role};

/// A prompt with its answers. The texts of answers are what follows the prompt's text, white space included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// For tables, such as `"helpful"`.
    pub family: &'static str,
    /// Which record of its data set, by the place among those that were read.
    pub record: usize,
    pub prompt: PromptText,
    /// Examples of equal groups are never in two splits.
    pub group: String,
    pub demonstrations: Vec<String>,
    /// A preferred answer and another one.
    pub pair: Option<(String, String)>,
}

/// A prompt as text, of which only the body may be cut: the answer's marker, in `after`, always stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptText {
    pub before: String,
    pub body: String,
    pub after: String,
    pub keep: Keep,
}

/// What stays of a body that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Beginning,
    /// The end, from a place where this text stands if one is left. It begins a person's turn in a dialogue, as `after`
    /// begins the assistant's.
    EndFrom(&'static str),
}

/// What a policy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub text: String,
    pub tokens: Vec<u32>,
    /// What a chat template made the text of.
    pub messages: Vec<Message>,
}

impl PromptText {
    /// A prompt that is never cut.
    pub fn whole(text: impl Into<String>) -> Self {
        Self { before: String::new(), body: String::new(), after: text.into(), keep: Keep::Beginning }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.with(&self.body)
    }

    /// What `write` makes of the longest text that is left when the body is cut to at most `limit` tokens.
    pub(super) fn fit(
        &self,
        tokenizer: &Tokenizer,
        limit: usize,
        write: impl Fn(String) -> Result<Written>,
    ) -> Result<Written> {
        let mut body = &self.body[..];
        loop {
            let written = write(self.with(body))?;
            if written.tokens.len() <= limit || body.is_empty() {
                return Ok(written);
            }
            body = self.cut(tokenizer, body, written.tokens.len() - limit)?;
        }
    }

    /// The turns of a dialogue, trimmed; none of another text. Empty ones are left out, neighbours of one side are one
    /// message, and a person begins: templates want sides that alternate.
    pub(super) fn turns(&self) -> Vec<Message> {
        let Keep::EndFrom(person) = self.keep else { return Vec::new() };
        let sides = [(Role::User, person), (Role::Assistant, &self.after[..])];
        let mut turns: Vec<Message> = Vec::new();
        let mut rest = &self.body[..];
        while let Some((role, marker)) = sides.into_iter().find(|(_, marker)| rest.starts_with(marker)) {
            let begin = &rest[marker.len()..];
            let end = sides.iter().filter_map(|(_, marker)| begin.find(marker)).min().unwrap_or(begin.len());
            let content = begin[..end].trim();
            rest = &begin[end..];
            match turns.last_mut() {
                _ if content.is_empty() => {}
                None if role == Role::Assistant => {}
                Some(last) if last.role == role => last.content.extend(["\n\n", content]),
                _ => turns.push(Message::new(role, content)),
            }
        }
        turns
    }

    /// The body without `surplus` of its tokens.
    fn cut<'b>(&self, tokenizer: &Tokenizer, body: &'b str, surplus: usize) -> Result<&'b str> {
        let encoding = tokenizer.encode(body, false).map_err(|e| anyhow!("{e}"))?;
        let ends: Vec<(usize, usize)> = encoding.get_offsets().to_vec();
        let Some(left) = ends.len().checked_sub(surplus).filter(|left| *left > 0) else { return Ok("") };
        Ok(match self.keep {
            // A token may be a part of a character.
            Keep::Beginning => body[..body.floor_char_boundary(ends[left - 1].1.min(body.len() - 1))].trim_end(),
            Keep::EndFrom(begin) => {
                let rest = &body[body.ceil_char_boundary(ends[surplus].0.max(1))..];
                rest.find(begin).map_or(rest, |at| &rest[at..])
            }
        })
    }

    fn with(&self, body: &str) -> String {
        [&self.before, body, &self.after].concat()
    }
}
