//! The tokens of rendered texts: special ones where the template writes them, plain text where a message spells them.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail};
use tokenizers::{AddedToken, Tokenizer};

use super::{ChatTemplate, Message};

/// A token and its place in the text, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub id: u32,
    pub start: usize,
    pub end: usize,
}

/// A model's tokenizer as templates need it.
pub struct Tokens {
    /// Special tokens in a text become their ids.
    special: Tokenizer,
    /// They are plain text; [`BORDER`] is a token.
    plain: Tokenizer,
    ids: HashSet<u32>,
}

/// Messages in which every special token that they spell stands between two marks. Marks go through a template with the
/// rest of the text, which cannot be said of anything that would stand for it.
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Characters that are in no message and not in the template.
    marks: [char; 2],
}

/// A rendered text without marks.
pub struct Written {
    pub text: String,
    /// What stood between marks. A single mark leaves an empty range.
    spelled: Vec<Range<usize>>,
}

/// What stands before a piece of a text in place of the special token before it: tokenizers treat the beginning of a
/// text otherwise than what follows a token. Two characters that no text has any business with.
const BORDER: &str = "\u{10FFFE}\u{10FFFF}";

/// What marks are taken from: private characters.
const PRIVATE: std::ops::RangeInclusive<char> = '\u{F0000}'..='\u{FFFFD}';

impl Tokens {
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Self> {
        let added = tokenizer.get_added_tokens_decoder();
        let is_special = |token: &AddedToken| {
            // Some models' turns end with a token that is added and not special. Blanks are no one's.
            let blank = token.content.trim().is_empty();
            token.special || (!blank && template.source().contains(&token.content))
        };
        let special: Vec<(u32, AddedToken)> = added.into_iter().filter(|(_, token)| is_special(token)).collect();
        let ids = special.iter().map(|(id, _)| *id).collect();
        let mut plain = tokenizer.clone();
        plain.set_encode_special_tokens(true);
        let border = AddedToken::from(BORDER, false).normalized(false);
        let special = special.into_iter().map(|(_, token)| token.special(true));
        plain.add_tokens(special.chain([border])).map_err(|error| anyhow!("{}: {error}", template.place))?;
        let mut special = tokenizer.clone();
        special.set_encode_special_tokens(false);
        Ok(Self { special, plain, ids })
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// Messages with marks around the special tokens that they spell.
    ///
    /// # Errors
    /// Those of the tokenizer; messages with every private character there is.
    pub fn conversation(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Conversation> {
        let texts = messages.iter().map(|message| &message.content[..]).chain([template.source()]);
        let taken: HashSet<char> = texts.flat_map(str::chars).filter(|c| PRIVATE.contains(c)).collect();
        let mut free = PRIVATE.filter(|c| !taken.contains(c));
        let marks = free.next().zip(free.next()).context("the messages hold every private character of Unicode")?;
        let marks = [marks.0, marks.1];
        let mut messages = messages.to_vec();
        for message in &mut messages {
            let spelled = encode(&self.special, &message.content)?;
            for token in spelled.iter().rev().filter(|token| self.is_special(token.id)) {
                // A token may take the white space beside it: templates trim it, so it stays outside.
                let text = &message.content[token.start..token.end];
                let start = token.start + text.len() - text.trim_start().len();
                message.content.insert(start + text.trim().len(), marks[1]);
                message.content.insert(start, marks[0]);
            }
        }
        Ok(Conversation { messages, marks })
    }

    /// The tokens of a rendered text.
    ///
    /// The whole is encoded at once, with special tokens. A stretch between two of the template's own ones that holds
    /// one of a message is then encoded as plain text: what special tokens separate does not see each other.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn encode(&self, written: &Written) -> Result<Vec<Token>> {
        let text = &written.text;
        let tokens = encode(&self.special, text)?;
        if written.spelled.is_empty() {
            return Ok(tokens);
        }
        let is_spelled = |token: &Token| written.spelled.iter().any(|at| token.start < at.end && at.start < token.end);
        let (mut all, mut stretch, mut begin, mut is_plain) = (Vec::new(), Vec::new(), 0, true);
        let end = Token { id: 0, start: text.len(), end: text.len() };
        for (i, token) in tokens.iter().chain([&end]).enumerate() {
            let is_special = self.is_special(token.id) && i < tokens.len();
            if i < tokens.len() && (!is_special || is_spelled(token)) {
                is_plain &= !is_special;
                stretch.push(*token);
                continue;
            }
            match is_plain {
                true => all.append(&mut stretch),
                false => all.extend(self.plain(text, begin..token.start)?),
            }
            (begin, is_plain) = (token.end, true);
            stretch.clear();
            all.push(*token);
        }
        all.pop();
        Ok(all)
    }

    /// The tokens of a piece of a text as plain text.
    ///
    /// # Errors
    /// Those of the tokenizer; plain text of which it makes a special token.
    pub fn plain(&self, text: &str, range: Range<usize>) -> Result<Vec<Token>> {
        let mut all = Vec::new();
        let mut begin = range.start;
        while begin < range.end {
            // A text that holds the border is cut inside of it.
            let rest = &text[begin..range.end];
            let length = rest.find(BORDER).map_or(rest.len(), |at| at + BORDER.len() / 2);
            let border = if begin > 0 { BORDER } else { "" };
            let tokens = encode(&self.plain, &[border, &rest[..length]].concat())?;
            let place = |at: usize| begin + at.saturating_sub(border.len());
            all.extend(tokens.into_iter().skip(usize::from(begin > 0)).map(|token| Token {
                start: place(token.start),
                end: place(token.end),
                ..token
            }));
            begin += length;
        }
        if let Some(token) = all.iter().find(|token| self.is_special(token.id)) {
            let name = self.special.id_to_token(token.id).unwrap_or_default();
            bail!("a message spells {name:?}, and the tokenizer makes the special token of this plain text");
        }
        Ok(all)
    }
}

impl Conversation {
    /// A rendered text, or a piece of one, without its marks.
    pub fn written(&self, text: &str) -> Written {
        let mut written = Written { text: String::with_capacity(text.len()), spelled: Vec::new() };
        let mut opened = None;
        for c in text.chars() {
            let here = written.text.len();
            if c == self.marks[0] {
                opened = Some(here);
                // Where the other mark is lost, this place still separates.
                written.spelled.push(here..here);
            } else if c == self.marks[1] {
                written.spelled.push(opened.take().unwrap_or(here)..here);
            } else {
                written.text.push(c);
            }
        }
        written
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Token>> {
    let encoding = tokenizer.encode(text, false).map_err(|error| anyhow!("{error}"))?;
    let places = encoding.get_ids().iter().zip(encoding.get_offsets());
    Ok(places.map(|(id, (start, end))| Token { id: *id, start: *start, end: *end }).collect())
}
