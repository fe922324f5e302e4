//! A language model behind an OpenAI-compatible endpoint as a judge (Zheng et al. 2023, arXiv:2306.05685).

mod cache;
mod config;
mod cost;
mod parse;
mod request;
mod template;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Answer, Judge, Question, Verdict};
use crate::progress::Progress;
use crate::seed::{Purpose, rng};
use cache::{Cache, Entry, Usage};
use cost::{Bill, Purse};
use request::{Endpoint, Reply};

pub use config::ChatConfig;
pub use cost::Spent;

/// Asks a language model at temperature 0, keeps every answer on disk, and never asks what is kept.
///
/// A request that fails is tried again; a question that fails `tries` times is [`Verdict::Unjudged`], and so is what the cost limit
/// leaves: the next run asks for it. An answer without a verdict is [`Verdict::Unreadable`] and kept like any other.
pub struct ChatJudge {
    config: ChatConfig,
    endpoint: Endpoint,
    cache: Cache,
    purse: Purse,
}

/// Questions in a row that get no answer before the server is taken for broken.
const GIVE_UP: usize = 8;

/// Tokens that a chat template may add to the bytes of the messages.
const TEMPLATE_TOKENS: u64 = 100;

impl ChatJudge {
    /// `cache` is a folder, which is made; any number of judges can share it.
    ///
    /// # Errors
    /// Settings that make no sense, a variable without a key, a key that would go unencrypted; nothing is asked yet.
    pub fn new(config: ChatConfig, cache: &Path) -> Result<Self> {
        config.check()?;
        let endpoint = Endpoint::new(&config)?;
        let purse = Purse::new(config.prices()?, config.cost_limit);
        Ok(Self { endpoint, purse, cache: Cache::new(cache)?, config })
    }

    /// What this judge has asked and paid so far.
    pub fn spent(&self) -> Spent {
        self.purse.spent()
    }

    /// The body of the request, and the hash by which its answer is kept: of address, template and body.
    fn request(&self, question: &Question) -> Result<Request> {
        let [system, user] = template::messages(question);
        let most = Usage {
            prompt: (system.len() + user.len()) as u64 + TEMPLATE_TOKENS,
            answer: u64::from(self.config.max_tokens),
        };
        let mut body = self.config.extra_fields()?;
        body.insert("model".into(), json!(self.config.model));
        body.insert("temperature".into(), json!(0));
        body.insert("max_tokens".into(), json!(self.config.max_tokens));
        body.insert(
            "messages".into(),
            json!([{"role": "system", "content": system}, {"role": "user", "content": user}]),
        );
        let body = serde_json::to_string(&body)?;
        let hashed = Sha256::digest(format!("{}\n{}\n{body}", self.endpoint.address(), template::VERSION));
        let key = hashed.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Request { body, key, most })
    }

    /// Asks until there is an answer, which is then kept; an error is a reason to ask nothing more.
    fn ask(&self, request: &Request, row: usize, gate: &Gate) -> Result<Asked, String> {
        let mut last = String::new();
        for attempt in 0..self.config.tries {
            if attempt > 0 {
                let random = rng(self.config.seed, Purpose::Judge, row as u64, u64::from(attempt)).random();
                gate.sleep(Instant::now() + self.config.wait(attempt, random));
            }
            gate.sleep_until_open();
            if gate.stopped() {
                return Ok(Asked::Stopped);
            }
            if !self.purse.reserve(request.most) {
                return Ok(Asked::TooExpensive);
            }
            let reply = self.endpoint.ask(&request.body);
            self.purse.settle(request.most, bill(&reply));
            match reply {
                Reply::Answered(completion) => {
                    let entry = Entry {
                        key: request.key.clone(),
                        model: self.config.model.clone(),
                        template: template::VERSION.into(),
                        text: completion.text,
                        finish: completion.finish,
                        usage: completion.usage,
                    };
                    self.cache.put(&entry).map_err(|error| format!("{error:#}"))?;
                    return Ok(Asked::Answered(entry));
                }
                Reply::Refused(why) => return Ok(Asked::Refused(why)),
                Reply::Hopeless(why) => return Err(why),
                Reply::Failed { why, retry_after, .. } => {
                    if let Some(pause) = retry_after {
                        let longest = self.config.longest_retry_after;
                        if pause.as_secs_f64() > longest {
                            return Err(format!(
                                "{why}; the server asks to wait {} s, longest_retry_after is {longest}",
                                pause.as_secs()
                            ));
                        }
                        gate.close_for(pause);
                    }
                    last = why;
                }
            }
        }
        Ok(Asked::GivenUp(format!("no answer after {} tries; the last: {last}", self.config.tries)))
    }
}

impl Judge for ChatJudge {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.config.model)
    }

    /// # Errors
    /// A server that refuses the key, does not know the model, asks for too long a pause, or leaves eight questions in a row
    /// without an answer; a cache that cannot be written. What was answered is kept in the cache.
    fn answers(&self, questions: &[Question], progress: &Progress) -> Result<Vec<Answer>> {
        let requests = questions.iter().map(|question| self.request(question)).collect::<Result<Vec<_>>>()?;
        // A question that stands there twice is asked once.
        let mut rows_of: HashMap<&str, Vec<usize>> = HashMap::new();
        for (row, request) in requests.iter().enumerate() {
            rows_of.entry(&request.key).or_default().push(row);
        }
        let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
        let mut open = Vec::new();
        for (row, request) in requests.iter().enumerate() {
            let rows = &rows_of[request.key.as_str()];
            if rows[0] != row {
                continue;
            }
            match self.cache.get(&request.key)? {
                Some(entry) => {
                    self.purse.cached(entry.usage);
                    fill(&mut answers, rows, &verdict(&entry), progress);
                }
                None => open.push(row),
            }
        }

        let (next, gate, answers) = (AtomicUsize::new(0), Gate::default(), Mutex::new(answers));
        // Questions given up since the last answer, and whether there ever was one.
        let (given_up, any) = (AtomicUsize::new(0), AtomicBool::new(self.purse.spent().cached > 0));
        let work = || {
            while let Some(&row) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                if gate.stopped() {
                    return;
                }
                let request = &requests[row];
                let answer = match self.ask(request, row, &gate) {
                    Err(why) => return gate.stop(Stop::Error(why)),
                    Ok(Asked::Stopped) => return,
                    Ok(Asked::TooExpensive) => return gate.stop(Stop::TooExpensive),
                    Ok(Asked::Answered(entry)) => {
                        given_up.store(0, Ordering::Relaxed);
                        any.store(true, Ordering::Relaxed);
                        verdict(&entry)
                    }
                    Ok(Asked::Refused(why)) if any.load(Ordering::Relaxed) => unjudged(why),
                    // A server that refuses every question from the first on is asked in a wrong way.
                    Ok(Asked::Refused(why) | Asked::GivenUp(why)) => {
                        if given_up.fetch_add(1, Ordering::Relaxed) + 1 >= GIVE_UP {
                            return gate.stop(Stop::Error(format!(
                                "{GIVE_UP} questions in a row got no answer; the last: {why}"
                            )));
                        }
                        unjudged(why)
                    }
                };
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                fill(&mut answers, &rows_of[request.key.as_str()], &answer, progress);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.config.at_once.min(open.len()) {
                scope.spawn(work);
            }
        });

        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let why = match gate.into_stop() {
            Some(Stop::Error(why)) => {
                let judged = answers.iter().flatten().filter(|answer| answer.verdict != Verdict::Unjudged).count();
                return Err(anyhow!(
                    "{}: {why}. {judged} of {} answers are kept in {}: the same command goes on from there",
                    self.endpoint.address(),
                    questions.len(),
                    self.cache.folder().display()
                ));
            }
            Some(Stop::TooExpensive) => "not asked: the cost limit is reached",
            None => "not asked",
        };
        let unasked = unjudged(why.into());
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| unasked.clone())).collect())
    }
}

struct Request {
    body: String,
    key: String,
    most: Usage,
}

enum Asked {
    Answered(Entry),
    /// The server says that it never will.
    Refused(String),
    GivenUp(String),
    TooExpensive,
    Stopped,
}

enum Stop {
    Error(String),
    TooExpensive,
}

fn bill(reply: &Reply) -> Bill {
    match reply {
        Reply::Answered(completion) => completion.usage.map_or(Bill::Unknown, Bill::Tokens),
        Reply::Failed { billed: true, .. } => Bill::Unknown,
        _ => Bill::Free,
    }
}

fn fill(answers: &mut [Option<Answer>], rows: &[usize], answer: &Answer, progress: &Progress) {
    for &row in rows {
        answers[row] = Some(answer.clone());
    }
    progress.inc(rows.len() as u64);
}

fn unjudged(why: String) -> Answer {
    Answer { verdict: Verdict::Unjudged, note: Some(why) }
}

fn verdict(entry: &Entry) -> Answer {
    let mut answer = parse::parse(&entry.text);
    // Why there is no verdict can be that there was no room for one, or that a filter stepped in.
    if let (Some(note), Some(finish)) = (&mut answer.note, &entry.finish)
        && finish != "stop"
    {
        note.push_str(&format!(" (it ended by {finish:?})"));
    }
    answer
}

/// Where threads wait for each other: closed while the server asks for a pause, and for good when one of them says stop.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    stop: Condvar,
}

#[derive(Default)]
struct GateState {
    opens: Option<Instant>,
    stop: Option<Stop>,
}

impl Gate {
    /// The first reason counts.
    fn stop(&self, why: Stop) {
        self.state().stop.get_or_insert(why);
        self.stop.notify_all();
    }

    fn stopped(&self) -> bool {
        self.state().stop.is_some()
    }

    fn close_for(&self, pause: Duration) {
        let mut state = self.state();
        state.opens = state.opens.max(Some(Instant::now() + pause));
    }

    fn sleep_until_open(&self) {
        loop {
            let opens = self.state().opens;
            match opens.filter(|&opens| opens > Instant::now()) {
                // Another thread can close it again meanwhile.
                Some(opens) if !self.stopped() => self.sleep(opens),
                _ => return,
            }
        }
    }

    /// Until then, or until somebody says stop.
    fn sleep(&self, until: Instant) {
        let mut state = self.state();
        while state.stop.is_none()
            && let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            state = self.stop.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn into_stop(self) -> Option<Stop> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).stop
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
