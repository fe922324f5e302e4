//! One request and what came of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use ureq::http::{HeaderValue, Response, header};
use ureq::{Agent, Body, Error, Timeout};

use super::cache::Usage;
use super::config::ChatConfig;

/// A secret. It is sent to the server, and shown by nothing.
pub struct Key {
    secret: String,
    header: HeaderValue,
}

/// A judge's answer, as the server gave it.
pub struct Completion {
    pub text: String,
    pub finish: Option<String>,
    pub usage: Option<Usage>,
}

/// What came of a request. Texts are for people; what a server says in them is short and holds no key.
pub enum Reply {
    Answered(Completion),
    /// Another try can help.
    Failed {
        why: String,
        retry_after: Option<Duration>,
        billed: bool,
    },
    /// This question will never be answered.
    Refused(String),
    /// No question will be.
    Hopeless(String),
}

/// The largest answer that is read, in bytes.
const MAX_BODY: u64 = 4 << 20;

/// The connection to an endpoint.
pub struct Endpoint {
    agent: Agent,
    address: String,
    key: Option<Key>,
}

impl Endpoint {
    pub fn new(config: &ChatConfig) -> Result<Self> {
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        let mut builder = Agent::config_builder();
        // What stays on this machine goes to no proxy that the environment names.
        if config.is_this_machine() {
            builder = builder.proxy(None);
        }
        let agent = builder
            .http_status_as_error(false)
            // A redirect would take texts to where nobody sent them.
            .max_redirects(0)
            .timeout_resolve(seconds(config.connect_timeout))
            .timeout_connect(seconds(config.connect_timeout))
            .timeout_global(seconds(config.connect_timeout + config.answer_timeout))
            .timeout_recv_response(seconds(config.answer_timeout))
            .timeout_recv_body(seconds(config.answer_timeout))
            .max_idle_connections_per_host(config.at_once)
            .build()
            .new_agent();
        Ok(Self { agent, address: config.address()?, key: config.key()? })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks once.
    pub fn ask(&self, body: &str) -> Reply {
        let mut request = self.agent.post(&self.address).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key.header.clone());
        }
        match request.send(body) {
            Err(error) => self.failed(&error),
            Ok(response) if response.status() == 200 => self.read(response),
            Ok(response) => self.status(response),
        }
    }

    fn read(&self, mut response: Response<Body>) -> Reply {
        let bytes = match response.body_mut().with_config().limit(MAX_BODY).read_to_vec() {
            Ok(bytes) => bytes,
            Err(Error::BodyExceedsLimit(_)) => return again(format!("an answer of more than {MAX_BODY} bytes")),
            Err(error) => return self.failed(&error),
        };
        match serde_json::from_slice::<ChatResponse>(&bytes) {
            Ok(ChatResponse { choices, usage }) => match choices.into_iter().next() {
                None => again("an answer without choices".into()),
                Some(choice) => Reply::Answered(Completion {
                    // No text at all is an answer too: some servers give null when a filter has stepped in.
                    text: self.redact(&choice.message.content.unwrap_or_default()),
                    finish: choice.finish_reason.map(|reason| self.short(&reason)),
                    usage,
                }),
            },
            // The message of the parser quotes what the server sent.
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                let kind = if error.is_eof() { "is cut off" } else { "is not one of /chat/completions" };
                again(format!("an answer that {kind} ({place}): {:?}", self.short(&String::from_utf8_lossy(&bytes))))
            }
        }
    }

    fn status(&self, mut response: Response<Body>) -> Reply {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers().get(header::RETRY_AFTER));
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().unwrap_or_default();
        let error = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let code = error["error"]["code"].as_str().unwrap_or_default();
        let message = match error["error"]["message"].as_str() {
            Some(message) => self.short(message),
            None => self.short(&String::from_utf8_lossy(&body)),
        };
        let why = match message.as_str() {
            "" => format!("HTTP {status}"),
            message => format!("HTTP {status}: {message}"),
        };
        match status {
            429 if code == "insufficient_quota" => Reply::Hopeless(format!("the account's quota is used up ({why})")),
            408 | 409 | 425 | 429 | 500..=599 => Reply::Failed { why, retry_after, billed: false },
            401 | 403 => Reply::Hopeless(format!(
                "the server refuses access ({why}); key_variable names the variable of the key"
            )),
            400 | 413 | 422 => Reply::Refused(why),
            300..=399 => {
                Reply::Hopeless(format!("the server redirects elsewhere ({why}); set base_url to where it is now"))
            }
            _ => Reply::Hopeless(format!("the server does not know what to do ({why}); check base_url and model")),
        }
    }

    fn failed(&self, error: &Error) -> Reply {
        use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let why = self.short(&error.to_string());
        let unsent = match error {
            Error::HostNotFound | Error::ConnectionFailed | Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
            Error::Io(io) => {
                // The standard library has no kind for a name that cannot be resolved.
                matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable)
                    || io.to_string().starts_with("failed to lookup address")
            }
            Error::BadUri(_) | Error::InvalidProxyUrl | Error::Tls(_) | Error::Rustls(_) => {
                return Reply::Hopeless(why);
            }
            _ => false,
        };
        Reply::Failed { why, retry_after: None, billed: !unsent }
    }

    /// Without the key, which a server may send back.
    fn redact(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(&key.secret, "[key]"),
            None => text.to_owned(),
        }
    }

    /// What a server says, fit for an error message.
    fn short(&self, text: &str) -> String {
        const LONGEST: usize = 300;
        let text: String = self.redact(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((cut, _)) = words.char_indices().nth(LONGEST) {
            words.truncate(cut);
            words.push_str("...");
        }
        words
    }
}

impl Key {
    /// # Errors
    /// A key that no header can hold; it is not shown.
    pub fn new(secret: &str) -> Result<Self> {
        ensure!(
            secret.bytes().all(|byte| byte.is_ascii_graphic()),
            "a key is letters, digits and signs without spaces"
        );
        let mut header = HeaderValue::from_str(&format!("Bearer {secret}")).context("not a key")?;
        header.set_sensitive(true);
        Ok(Self { secret: secret.to_owned(), header })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Key")
    }
}

#[derive(Deserialize)]
struct ChatResponse {
    choices: Vec<Choice>,
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    /// Present, but null where a filter has stepped in.
    #[serde(deserialize_with = "Option::deserialize")]
    content: Option<String>,
}

/// A count of tokens that is none does not make the answer worthless.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Usage>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// The server may have billed what did not arrive.
fn again(why: String) -> Reply {
    Reply::Failed { why, retry_after: None, billed: true }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    match text.parse::<f64>() {
        Ok(seconds) => Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| retry_after(Some(&HeaderValue::from_str(text).unwrap()));
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!((read("-1"), read("1e300")), (Some(Duration::ZERO), Some(Duration::MAX)));
        let soon = read(&httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100))).unwrap();
        assert!(soon > Duration::from_secs(95) && soon <= Duration::from_secs(100), "{soon:?}");
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!((read("soon"), read("NaN"), retry_after(None)), (None, Some(Duration::ZERO), None));
    }

    #[test]
    fn a_key_shows_itself_nowhere() {
        let key = Key::new("sk-hunter2").unwrap();
        assert!(!format!("{key:?} {:?}", key.header).contains("hunter2"));
        assert!(!format!("{:?}", Key::new("sk-hunter2\nX: y").unwrap_err()).contains("hunter2"));
    }
}
