//! How a policy reads a prompt and writes an answer: as the data set's own text, or as turns of the policy's chat
//! template.

use anyhow::{Context, Result, anyhow};

use super::example::Written;
use super::{Example, PromptText};
use crate::models::{Chat, ChatTemplate, Encoded, Message, Role, Vocabulary};

/// A policy's vocabulary, and its chat template where prompts are chats.
pub(super) struct Writing {
    pub vocabulary: Vocabulary,
    chat: Option<Chat>,
}

impl Writing {
    /// With a template, the token that ends its turns comes first among those that end a text, if it is one of them.
    ///
    /// # Errors
    /// A template that does not write what an assistant says behind what it answers.
    pub fn new(mut vocabulary: Vocabulary, template: Option<ChatTemplate>) -> Result<Self> {
        let chat = template.map(|template| Chat::new(template, &vocabulary.tokenizer)).transpose()?;
        if let Some(end) = chat.as_ref().map(Chat::end_token).transpose()?.flatten() {
            // The others keep their order.
            vocabulary.end_tokens.sort_by_key(|token| *token != end);
        }
        Ok(Self { vocabulary, chat })
    }

    pub fn is_chat(&self) -> bool {
        self.chat.is_some()
    }

    /// All of the template that decides what is written.
    pub fn identity(&self) -> Option<String> {
        self.chat.as_ref().map(|chat| chat.template().identity())
    }

    /// Whether a prompt can be answered: a chat's last turn has to be a person's.
    pub fn asks(&self, prompt: &PromptText) -> bool {
        self.chat.is_none() || prompt.turns().last().is_none_or(|turn| turn.role == Role::User)
    }

    /// A prompt of at most `limit` tokens, if it can be cut to so few. A dialogue that is too long for a chat loses its
    /// first turns, a person's with what answers it, and only what is left of one turn is cut as any other text is.
    pub fn prompt(&self, prompt: &PromptText, limit: usize) -> Result<Written> {
        let tokenizer = &self.vocabulary.tokenizer;
        let Some(chat) = &self.chat else {
            return prompt.fit(tokenizer, limit, |text| {
                let tokens = tokenizer.encode(&text[..], true).map_err(|e| anyhow!("{e}"))?.get_ids().to_vec();
                Ok(Written { text, tokens, messages: Vec::new() })
            });
        };
        let write = |messages: Vec<Message>| -> Result<Written> {
            let (text, tokens) = chat.prompt(&messages)?;
            Ok(Written { text, tokens, messages })
        };
        let single = |text: String| write(vec![Message::new(Role::User, text.trim())]);
        let mut turns = prompt.turns();
        while turns.len() > 1 {
            let written = write(turns.clone())?;
            if written.tokens.len() <= limit {
                return Ok(written);
            }
            let next = turns.iter().skip(1).position(|turn| turn.role == Role::User);
            turns.drain(..next.map_or(turns.len() - 1, |at| at + 1));
        }
        match turns.pop() {
            None => prompt.fit(tokenizer, limit, single),
            Some(turn) => {
                let (before, after) = (String::new(), String::new());
                PromptText { before, body: turn.content, after, keep: prompt.keep }.fit(tokenizer, limit, single)
            }
        }
    }

    /// The tokens of an answer behind a prompt, without the end.
    pub fn answer(&self, prompt: &Written, text: &str) -> Result<Vec<u32>> {
        match &self.chat {
            None => self.vocabulary.continuation(&prompt.text, &prompt.tokens, text),
            Some(chat) => chat.answer(&prompt.messages, text),
        }
    }

    /// A chat's messages with an answer, in which all that the assistant says is trained.
    pub fn conversation(&self, prompt: &Written, text: &str) -> Result<Encoded> {
        let chat = self.chat.as_ref().context("only a chat has turns")?;
        let messages = prompt.messages.iter().cloned().chain([Message::new(Role::Assistant, text.trim())]);
        let mut encoded = chat.encode(&messages.collect::<Vec<_>>())?;
        // Where the template ends no turn, or not the last one, the end of the text does.
        let last = encoded.trained.iter().rposition(|&trained| trained).context("an answer has tokens")?;
        if !self.vocabulary.end_tokens.contains(&encoded.tokens[last]) {
            encoded.tokens.truncate(last + 1);
            encoded.tokens.push(self.vocabulary.end_tokens[0]);
            encoded.trained.truncate(last + 1);
            encoded.trained.push(true);
        }
        Ok(encoded)
    }

    /// A response as it would stand in the data set, which says what its reward is: a chat's begins at once, most of
    /// the data's answers with a space.
    pub fn rewarded(&self, example: &Example, response: String) -> String {
        let answer = response.trim();
        if self.chat.is_none() || answer.is_empty() {
            return response;
        }
        let first = example.demonstrations.first().map_or(" ", String::as_str);
        let blank = &first[..first.len() - first.trim_start().len()];
        [blank, answer].concat()
    }
}
