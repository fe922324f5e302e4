//! A model's chat template: Jinja, which makes one text of a conversation.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value as Json;

use super::jinja;
use crate::models::Source;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// A chat template, rendered as transformers renders it (`apply_chat_template`), with two exceptions: it has no
/// `strftime_now`, so that the text does not change with the day (templates that ask whether it is defined have a fixed
/// date for this case), and it may not go on for ever.
#[derive(Clone)]
pub struct ChatTemplate {
    /// The file, for errors.
    pub(super) place: String,
    source: String,
    /// By their names, such as `eos_token`.
    pub(super) special_tokens: BTreeMap<String, String>,
    environment: Environment<'static>,
}

const TEMPLATE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";

/// The fields of `tokenizer_config.json` that templates get.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

impl ChatTemplate {
    /// `chat_template.jinja`, else the field `chat_template` of `tokenizer_config.json` (of several the one that is
    /// named `default`), with the special tokens of that file. None where the model has neither.
    ///
    /// # Errors
    /// A file that cannot be read or a field that is not what it should be; what is no template. File and field are
    /// named.
    pub fn read(source: &Source) -> Result<Option<Self>> {
        let read = |path: &Path| -> Result<String> {
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
        };
        let config = source.file_if_there(CONFIG)?;
        let (mut special_tokens, mut of_config) = (BTreeMap::new(), None);
        if let Some(path) = &config {
            let file = path.display();
            let fields: Json = serde_json::from_str(&read(path)?).with_context(|| format!("{file}: not JSON"))?;
            for name in SPECIAL_TOKENS {
                let token = token(&fields[name]).with_context(|| format!("{file}: {name}"))?;
                special_tokens.extend(token.map(|token| (name.to_string(), token)));
            }
            let template = default_template(&fields["chat_template"]);
            let template = template.with_context(|| format!("{file}: chat_template"))?;
            of_config = template.map(|template| (format!("{file}: chat_template"), template));
        }
        let template = match source.file_if_there(TEMPLATE)? {
            Some(path) => Some((path.display().to_string(), read(&path)?)),
            None => of_config,
        };
        template.map(|(place, template)| Self::new(&place, &template, special_tokens)).transpose()
    }

    /// A template from its text. `place` is what errors begin with; `special_tokens` are by their names, such as
    /// `eos_token`.
    ///
    /// # Errors
    /// What is no template.
    pub fn new(place: &str, source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let environment = jinja::environment(source).map_err(|error| anyhow!("{place}: not a template: {error}"))?;
        Ok(Self { place: place.to_string(), source: source.to_string(), special_tokens, environment })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All that decides what is rendered, for the names of runs.
    pub fn identity(&self) -> String {
        format!("{:?} {}", self.special_tokens, self.source)
    }

    /// The text of a conversation, with what begins the assistant's next turn if it is asked for.
    ///
    /// # Errors
    /// The template refuses the messages, uses what it is not given, or would not end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let message = |m: &Message| context! { role => m.role.name(), content => m.content.as_str() };
        let tokens = self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let mut given: BTreeMap<&str, Value> = tokens.collect();
        given.extend([
            ("messages", messages.iter().map(message).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let template =
            self.environment.get_template(jinja::NAME).map_err(|error| anyhow!("{}: {error}", self.place))?;
        template.render(given).map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => anyhow!(
                "{}: rendering {} messages takes more steps than a chat template may: does it end?",
                self.place,
                messages.len()
            ),
            ErrorKind::UnknownFunction if error.to_string().contains("strftime_now") => anyhow!(
                "{}: the template asks for the date (strftime_now): a text that changes with the day is not rendered",
                self.place
            ),
            _ => anyhow!("{}: {error}", self.place),
        })
    }
}

/// A special token as it is stored: its text, or an object with it.
fn token(value: &Json) -> Result<Option<String>> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text.clone())),
        other => Ok(Some(other["content"].as_str().context("neither a string nor an object with \"content\"")?.into())),
    }
}

fn default_template(value: &Json) -> Result<Option<String>> {
    match value {
        Json::Null => Ok(None),
        Json::String(template) => Ok(Some(template.clone())),
        Json::Array(named) => {
            let default = named.iter().find(|one| one["name"] == "default");
            let default = default.context("none of its templates is named \"default\"")?;
            let template = default["template"].as_str().context("the template \"default\" is not a string")?;
            Ok(Some(template.to_string()))
        }
        _ => bail!("neither a string nor a list of templates"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Option<ChatTemplate>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        ChatTemplate::read(&Source::Folder(folder.path().into()))
    }

    #[test]
    fn a_template_is_read_with_its_special_tokens() {
        let messages = [Message::new(Role::User, "hi")];
        let written =
            |files: &[(&str, &str)]| read(files).unwrap().map(|template| template.render(&messages, false).unwrap());
        let shown = "{{ bos_token }}|{{ eos_token }}|{{ messages[0].content }}{{ pad_token }}";
        let one = format!(
            r#"{{"bos_token": "<s>", "eos_token": {{"content": "</s>", "lstrip": false}}, "pad_token": null,
                "add_bos_token": true, "chat_template": "{shown}"}}"#
        );
        assert_eq!(written(&[(CONFIG, &one)]).unwrap(), "<s>|</s>|hi");
        assert_eq!(written(&[(CONFIG, &one), (TEMPLATE, "{{ bos_token }}!\n")]).unwrap(), "<s>!");
        assert_eq!(written(&[(TEMPLATE, "{{ bos_token }}!")]).unwrap(), "!");
        let several =
            r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(written(&[(CONFIG, several)]).unwrap(), "d");
        assert!(read(&[]).unwrap().is_none() && read(&[(CONFIG, r#"{"eos_token": "</s>"}"#)]).unwrap().is_none());
    }

    #[test]
    fn errors_name_file_and_field() {
        for (content, named) in [
            ("{", "not JSON"),
            (r#"{"chat_template": 7}"#, "chat_template"),
            (r#"{"chat_template": [{"name": "tools", "template": "t"}]}"#, "\"default\""),
            (r#"{"chat_template": [{"name": "default"}]}"#, "not a string"),
            (r#"{"chat_template": "{% for %}"}"#, "chat_template: not a template: syntax error"),
            (r#"{"eos_token": {"text": "</s>"}}"#, "eos_token"),
            (r#"{"bos_token": true}"#, "bos_token"),
        ] {
            let error = format!("{:#}", read(&[(CONFIG, content)]).err().unwrap());
            assert!(error.contains(CONFIG) && error.contains(named), "{content}: {error}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let error = |source: &str| {
            let template = ChatTemplate::new("here", source, BTreeMap::new()).unwrap();
            template.render(&[Message::new(Role::User, "hi")], true).unwrap_err().to_string()
        };
        for (source, why) in [
            ("{{ raise_exception('no ' ~ messages[0].role) }}", "here: invalid operation: no user"),
            ("{{ strftime_now('%d %b %Y') }}", "here: the template asks for the date"),
            ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does it end?"),
            ("{{ messages[7].content }}", "here: undefined value"),
        ] {
            assert!(error(source).contains(why), "{}", error(source));
        }
        let dated = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}fixed{% endif %}";
        let template = ChatTemplate::new("here", dated, BTreeMap::new()).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "fixed");
    }
}
