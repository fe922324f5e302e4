//! Conversations as a model reads them: its chat template, their tokens, and which of these the assistant wrote.

mod jinja;
mod template;
mod tokens;

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use tokenizers::Tokenizer;

pub use template::{ChatTemplate, Message, Role};
use tokens::{Conversation, Token, Tokens};

/// A chat template with the tokenizer of its model.
///
/// A text is encoded at once, as transformers does: the template's special tokens become their ids. What a message
/// holds never does: where it spells a special token, this is plain text to the model, as everywhere else
/// ([`Vocabulary`](super::Vocabulary)). Special are the tokens that the tokenizer says are special, and the added ones
/// that stand in the template. Only whole ones are found: a template that joins pieces of messages to one is not
/// guarded against.
///
/// ```no_run
/// use qstar::models::{Chat, ChatTemplate, Message, Role, Source, Vocabulary};
/// let model = Source::hub("HuggingFaceH4/zephyr-7b-beta");
/// let template = ChatTemplate::read(&model)?.expect("it has one");
/// let chat = Chat::new(template, &Vocabulary::read(&model)?.tokenizer)?;
/// let messages = [Message::new(Role::User, "What rhymes?"), Message::new(Role::Assistant, "Nothing does.")];
/// let encoded = chat.encode(&messages)?;
/// assert_eq!(encoded.tokens.len(), encoded.trained.len());
/// # anyhow::Ok(())
/// ```
pub struct Chat {
    template: ChatTemplate,
    tokens: Tokens,
}

/// A conversation, or another text, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// For each token whether it is trained: it is the assistant's text or ends the assistant's turn.
    pub trained: Vec<bool>,
}

/// A prompt and its answer, of which the answer is trained.
impl From<(Vec<u32>, Vec<u32>)> for Encoded {
    fn from((prompt, answer): (Vec<u32>, Vec<u32>)) -> Self {
        let trained = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
        Self { tokens: [prompt, answer].concat(), trained }
    }
}

/// Where the assistant's turn stands in a text, in bytes: from behind the generation prompt, and where its content
/// ends.
struct Turn {
    begin: usize,
    content_end: usize,
    end: usize,
}

impl Chat {
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(template: ChatTemplate, tokenizer: &Tokenizer) -> Result<Self> {
        let tokens = Tokens::new(&template, tokenizer)?;
        Ok(Self { template, tokens })
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// A conversation, with the tokens that the assistant is trained on: those of each of its turns, from behind the
    /// generation prompt to the special token that ends the turn, or to its text's end where the template writes none.
    ///
    /// Turns are found in what the template makes of the conversation's beginnings. A token across the border to a turn
    /// is trained.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and of the tokenizer; a conversation that begins with the assistant; a
    /// template that writes a beginning otherwise than the whole, that changes the assistant's text beyond white space
    /// at its ends, or whose generation prompt lacks the assistant's header.
    pub fn encode(&self, messages: &[Message]) -> Result<Encoded> {
        let conversation = self.tokens.conversation(&self.template, messages)?;
        let whole = self.template.render(&conversation.messages, false)?;
        let tokens = self.tokens.encode(&conversation.written(&whole))?;
        let mut trained = vec![false; tokens.len()];
        for (i, message) in messages.iter().enumerate() {
            if message.role == Role::Assistant {
                let turn = self.turn(&conversation, i, &whole)?;
                trained[self.trained(&tokens, &turn)].fill(true);
            }
        }
        Ok(Encoded { tokens: tokens.iter().map(|token| token.id).collect(), trained })
    }

    /// What the assistant reads before it answers: the text and its tokens.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and of the tokenizer.
    pub fn prompt(&self, messages: &[Message]) -> Result<(String, Vec<u32>)> {
        let conversation = self.tokens.conversation(&self.template, messages)?;
        let written = conversation.written(&self.template.render(&conversation.messages, true)?);
        let tokens = self.tokens.encode(&written)?;
        Ok((written.text, tokens.iter().map(|token| token.id).collect()))
    }

    /// The tokens of an answer behind the tokens of [`Chat::prompt`], with what the template puts around it, without
    /// the token that ends the turn. White space at the answer's ends does not count.
    ///
    /// They are what the whole adds to the prompt's tokens. Where the whole begins otherwise (a token of it would span
    /// the border), they are those of the answer alone.
    ///
    /// # Errors
    /// Those of [`Chat::encode`].
    pub fn answer(&self, messages: &[Message], text: &str) -> Result<Vec<u32>> {
        let whole: Vec<Message> =
            messages.iter().cloned().chain([Message::new(Role::Assistant, text.trim())]).collect();
        let conversation = self.tokens.conversation(&self.template, &whole)?;
        let whole = self.template.render(&conversation.messages, false)?;
        let turn = self.turn(&conversation, messages.len(), &whole)?;
        let written = conversation.written(&whole);
        let tokens = self.tokens.encode(&written)?;
        let end = self.end(&tokens, &turn).unwrap_or(behind(&tokens, turn.content_end));
        let before = self.template.render(&conversation.messages[..messages.len()], true)?;
        let before = self.tokens.encode(&conversation.written(&before))?;
        let is_beginning = before.len() <= end && before.iter().zip(&tokens).all(|(a, b)| a.id == b.id);
        let answer = match is_beginning {
            true => tokens[before.len()..end].iter().map(|token| token.id).collect(),
            false => self.tokens.plain(&written.text, turn.begin..turn.content_end)?.iter().map(|t| t.id).collect(),
        };
        Ok(answer)
    }

    /// The special token that ends the assistant's turn, where the template writes one.
    ///
    /// # Errors
    /// Those of [`Chat::encode`].
    pub fn end_token(&self) -> Result<Option<u32>> {
        let messages = [Message::new(Role::User, "a"), Message::new(Role::Assistant, "b")];
        let conversation = self.tokens.conversation(&self.template, &messages)?;
        let whole = self.template.render(&conversation.messages, false)?;
        let turn = self.turn(&conversation, 1, &whole)?;
        let tokens = self.tokens.encode(&conversation.written(&whole))?;
        Ok(self.end(&tokens, &turn).map(|at| tokens[at].id))
    }

    /// The turn of message i, the assistant's, in the rendered whole.
    fn turn(&self, conversation: &Conversation, i: usize, whole: &str) -> Result<Turn> {
        let place = &self.template.place;
        ensure!(i > 0, "{place}: a conversation that begins with the assistant has no prompt that it answers");
        let before = self.template.render(&conversation.messages[..i], true)?;
        let with = self.template.render(&conversation.messages[..=i], false)?;
        let Some(turn) = with.strip_prefix(&before[..]).filter(|_| whole.starts_with(&with)) else {
            bail!(
                "{place}: what the template makes of a conversation does not begin with what it makes of the \
                 conversation's beginning (message {i}, the assistant's): its tokens cannot be told from others"
            )
        };
        let (text, content) = (turn.trim_start(), conversation.messages[i].content.trim());
        ensure!(
            text.starts_with(content),
            "{place}: behind its generation prompt the template writes {:?}, not the assistant's text (message {i}): \
             it changes the text, or the prompt lacks a header",
            text.chars().take(40).collect::<String>()
        );
        let content_end = with.len() - text.len() + content.len();
        let [begin, content_end, end] =
            [&before[..], &with[..content_end], &with].map(|text| conversation.written(text).text.len());
        Ok(Turn { begin, content_end, end })
    }

    /// Where the special token stands that ends a turn.
    fn end(&self, tokens: &[Token], turn: &Turn) -> Option<usize> {
        let ends = |token: &Token| {
            self.tokens.is_special(token.id) && token.start >= turn.content_end && token.start < turn.end
        };
        tokens.iter().position(ends)
    }

    fn trained(&self, tokens: &[Token], turn: &Turn) -> Range<usize> {
        let begin = tokens.iter().position(|token| token.end > turn.begin).unwrap_or(tokens.len());
        let end = self.end(tokens, turn).map_or(behind(tokens, turn.content_end), |end| end + 1);
        begin..end.max(begin)
    }
}

/// How many tokens begin before a place.
fn behind(tokens: &[Token], place: usize) -> usize {
    tokens.iter().rposition(|token| token.start < place).map_or(0, |last| last + 1)
}
