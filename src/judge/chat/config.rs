//! How to ask a language model behind an endpoint.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::request::Key;

/// An OpenAI-compatible endpoint and how it is asked; a TOML file has the same fields. Only `base_url` and `model` are needed.
///
/// ```
/// let config = qstar::judge::ChatConfig::new("http://localhost:8000/v1", "my-model");
/// assert_eq!(config.tries, 6);
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatConfig {
    /// What stands before `/chat/completions`, for example `https://api.openai.com/v1`.
    pub base_url: String,
    pub model: String,
    /// The name of the environment variable that holds the key; without one no key is sent.
    pub key_variable: Option<String>,
    /// Whether the key may go over a connection that is not encrypted, to another machine than this one.
    pub unencrypted_key: bool,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Fields that the request has besides, as JSON: `{"chat_template_kwargs": {"enable_thinking": false}}`. In a TOML file
    /// a text.
    pub extra: String,
    /// Requests at once.
    pub at_once: usize,
    /// How often one question is asked before it is given up.
    pub tries: u32,
    /// Seconds before the second try; each further one waits twice as long up to `longest_wait`, less a random part of
    /// up to a half. What the server asks for with Retry-After is waited for in full.
    pub first_wait: f64,
    pub longest_wait: f64,
    /// A server that asks for a longer pause than this, in seconds, ends the run.
    pub longest_retry_after: f64,
    /// Seconds until there is a connection, and until the answer is whole.
    pub connect_timeout: f64,
    pub answer_timeout: f64,
    /// Prices of a million tokens of question and of answer, in any one currency.
    pub price_prompt: Option<f64>,
    pub price_answer: Option<f64>,
    /// What all answers of a run may cost together, those included that an earlier run paid for. No request is sent that
    /// could exceed it. Needs both prices.
    pub cost_limit: Option<f64>,
    /// Of the random part of waits.
    pub seed: u64,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            model: String::new(),
            key_variable: None,
            unencrypted_key: false,
            max_tokens: 512,
            extra: String::new(),
            at_once: 4,
            tries: 6,
            first_wait: 1.0,
            longest_wait: 60.0,
            longest_retry_after: 600.0,
            connect_timeout: 10.0,
            answer_timeout: 120.0,
            price_prompt: None,
            price_answer: None,
            cost_limit: None,
            seed: 0,
        }
    }
}

/// Prices of one token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prices {
    pub prompt: f64,
    pub answer: f64,
}

impl ChatConfig {
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { base_url: base_url.into(), model: model.into(), ..Self::default() }
    }

    /// # Errors
    /// No such file; one that is no TOML, or has an unknown field: file and line are named.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let config: Self =
            toml::from_str(&text).with_context(|| format!("{}: not a judge's settings", path.display()))?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        self.address()?;
        self.extra_fields()?;
        self.prices()?;
        ensure!(!self.model.is_empty(), "`model` is missing");
        ensure!(
            self.max_tokens > 0 && self.at_once > 0 && self.tries > 0,
            "max_tokens, at_once and tries are at least 1"
        );
        let seconds = [
            ("first_wait", self.first_wait),
            ("longest_wait", self.longest_wait),
            ("longest_retry_after", self.longest_retry_after),
            ("connect_timeout", self.connect_timeout),
            ("answer_timeout", self.answer_timeout),
        ];
        for (name, value) in seconds {
            ensure!(value > 0.0 && value <= 1e6, "{name} is a number of seconds above 0, and not {value}");
        }
        if let Some(limit) = self.cost_limit {
            ensure!(limit >= 0.0 && limit.is_finite(), "cost_limit is a number from 0 up, and not {limit}");
            ensure!(self.prices()?.is_some(), "a cost_limit needs price_prompt and price_answer");
        }
        Ok(())
    }

    /// The address that requests go to.
    pub(super) fn address(&self) -> Result<String> {
        let base = self.base_url.trim_end_matches('/');
        ensure!(!base.is_empty(), "`base_url` is missing");
        let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
        // The address stands in messages and decides the cache's keys: it holds no secrets.
        match rest {
            None => bail!("base_url begins with http:// or https://, and {base:?} does not"),
            Some(rest) if rest.contains(['@', '?', '#']) => {
                bail!(
                    "base_url holds a user, a query or a fragment; a key belongs into an environment variable that key_variable names"
                )
            }
            Some(_) => Ok(format!("{base}/chat/completions")),
        }
    }

    /// The key, from the environment.
    pub(super) fn key(&self) -> Result<Option<Key>> {
        let Some(name) = &self.key_variable else { return Ok(None) };
        let key = std::env::var(name).ok().filter(|key| !key.trim().is_empty());
        let key = key.with_context(|| format!("the environment variable {name} holds no key (it is key_variable)"))?;
        let address = self.address()?;
        if address.starts_with("http://") && !self.unencrypted_key && !self.is_this_machine() {
            bail!("the key would go to {address} without encryption: use https, or set unencrypted_key = true");
        }
        Key::new(key.trim()).with_context(|| format!("the environment variable {name}")).map(Some)
    }

    /// Whether the endpoint is on this machine.
    pub(super) fn is_this_machine(&self) -> bool {
        let rest = self.base_url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn extra_fields(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        if self.extra.is_empty() {
            return Ok(serde_json::Map::new());
        }
        let extra: serde_json::Map<_, _> = serde_json::from_str(&self.extra).context("`extra` is not a JSON object")?;
        for own in ["model", "messages", "temperature", "max_tokens", "n", "stream"] {
            ensure!(!extra.contains_key(own), "`extra` has the field {own:?}, which the judge sets itself");
        }
        Ok(extra)
    }

    pub(super) fn prices(&self) -> Result<Option<Prices>> {
        match (self.price_prompt, self.price_answer) {
            (None, None) => Ok(None),
            (Some(prompt), Some(answer)) => {
                let good = |price: f64| price.is_finite() && price >= 0.0;
                ensure!(good(prompt) && good(answer), "prices are numbers from 0 up, and not {prompt} and {answer}");
                Ok(Some(Prices { prompt: prompt * 1e-6, answer: answer * 1e-6 }))
            }
            _ => bail!("price_prompt and price_answer are given together or not at all"),
        }
    }

    /// The pause before try `attempt` (1 is the second), shortened by `random` in [0, 1).
    pub(super) fn wait(&self, attempt: u32, random: f64) -> Duration {
        let full = (self.first_wait * 2f64.powi(attempt.saturating_sub(1).min(60) as i32)).min(self.longest_wait);
        Duration::from_secs_f64(full * (1.0 - 0.5 * random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl Fn(&mut ChatConfig)) -> String {
        let mut config = ChatConfig::new("https://api.example.org/v1/", "m");
        config.check().unwrap();
        change(&mut config);
        format!("{:#}", config.check().unwrap_err())
    }

    #[test]
    fn errors_name_the_field() {
        assert!(refused(|c| c.base_url = "api.example.org".into()).contains("http"));
        let secret = refused(|c| c.base_url = "https://user:hunter2@api.example.org".into());
        assert!(secret.contains("key_variable") && !secret.contains("hunter2"));
        assert!(!refused(|c| c.base_url = "https://api.example.org/v1?key=hunter2".into()).contains("hunter2"));
        assert!(refused(|c| c.model = String::new()).contains("model"));
        assert!(refused(|c| c.extra = "[1]".into()).contains("extra"));
        assert!(refused(|c| c.extra = "{\"temperature\": 1}".into()).contains("temperature"));
        assert!(refused(|c| c.cost_limit = Some(1.0)).contains("price_prompt"));
        assert!(refused(|c| c.price_prompt = Some(1.0)).contains("together"));
        assert!(refused(|c| c.answer_timeout = f64::NAN).contains("answer_timeout"));
        let unknown = toml::from_str::<ChatConfig>("base_url = 'http://x'\nmodel = 'm'\nkey = 'hunter2'").unwrap_err();
        assert!(unknown.to_string().contains("unknown field `key`"));
    }

    #[test]
    fn keys_do_not_go_over_the_wire_in_the_clear() {
        // PATH is a variable that every process has.
        let config = |url: &str| ChatConfig { key_variable: Some("PATH".into()), ..ChatConfig::new(url, "m") };
        for local in ["http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:8/v1", "http://127.0.0.1"] {
            assert!(config(local).key().is_ok(), "{local}");
        }
        for open in ["http://example.org/v1", "http://localhost.example.org:80/v1", "http://10.0.0.1:8000"] {
            assert!(format!("{:#}", config(open).key().unwrap_err()).contains("without encryption"), "{open}");
        }
        let allowed = ChatConfig { unencrypted_key: true, ..config("http://10.0.0.1:8000") };
        assert!(allowed.key().is_ok() && config("https://example.org").key().is_ok());
        let missing = ChatConfig { key_variable: Some("QSTAR_NO_SUCH_KEY".into()), ..config("https://example.org") };
        assert!(format!("{:#}", missing.key().unwrap_err()).contains("QSTAR_NO_SUCH_KEY"));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = ChatConfig { first_wait: 1.0, longest_wait: 5.0, ..ChatConfig::default() };
        let waits: Vec<f64> = (1..6).map(|attempt| config.wait(attempt, 0.0).as_secs_f64()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(config.wait(u32::MAX, 1.0).as_secs_f64(), 2.5);
    }
}
