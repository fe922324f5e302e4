//! An HTTP server on this machine that behaves as it is told, and remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use qstar::judge::Pair;
use serde_json::{Value, json};

/// A request, and how often its body has come.
pub struct Asked {
    pub body: Value,
    pub authorization: Option<String>,
    /// 0 for the first time.
    pub attempt: usize,
    /// A number that the body alone decides, in [0, 1).
    pub chance: f64,
    pub first: String,
    pub second: String,
}

pub enum Behaviour {
    /// A whole completion with this text and a usage of 100 and 10 tokens.
    Say(String),
    /// A status with headers and a body, whole.
    Status(u16, &'static str, String),
    /// Closes the connection without a word.
    Drop,
    /// Announces more than it sends, and closes.
    Truncate,
    /// Sends nothing for so long.
    Stall(Duration),
    /// A byte now and then, for ever.
    Drip,
    /// A body that never ends, until the client has enough.
    Huge,
}

pub struct Server {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behave: Box<dyn Fn(&Asked) -> Behaviour + Send + Sync>,
    /// By body: how often it came, how often it was answered with a completion.
    seen: Mutex<HashMap<String, (usize, usize)>>,
    times: Mutex<Vec<Instant>>,
    /// Requests that it thinks about.
    open: AtomicUsize,
    most_open: AtomicUsize,
    closed: AtomicBool,
}

impl Server {
    pub fn start(behave: impl Fn(&Asked) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behave: Box::new(behave),
            seen: Mutex::default(),
            times: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, state }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn requests(&self) -> usize {
        self.state.seen.lock().unwrap().values().map(|(asked, _)| asked).sum()
    }

    /// How often each question was answered with a completion.
    pub fn answered(&self) -> Vec<usize> {
        self.state.seen.lock().unwrap().values().map(|(_, answered)| *answered).collect()
    }

    /// When requests arrived.
    pub fn times(&self) -> Vec<Instant> {
        self.state.times.lock().unwrap().clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// The verdict of a judge that likes the longer response, in the words of the template.
pub fn longer(asked: &Asked) -> Behaviour {
    let verdict = match asked.first.len().cmp(&asked.second.len()) {
        std::cmp::Ordering::Greater => "A",
        std::cmp::Ordering::Less => "B",
        std::cmp::Ordering::Equal => "C",
    };
    Behaviour::Say(format!("One is longer.\n[[{verdict}]]"))
}

/// Pairs of responses of different and sometimes equal lengths.
pub fn pairs(count: usize) -> Vec<Pair> {
    let pair = |i: usize| Pair {
        id: format!("p{i}"),
        prompt: format!("Prompt {i}, with \"quotes\" and\nlines"),
        a: format!("a{i:04}{}", "x".repeat(i * 7 % 5)),
        b: format!("b{i:04}{}", "y".repeat(i * 3 % 5)),
        reference: None,
    };
    (0..count).map(pair).collect()
}

/// A number in [0, 1) that a text decides.
pub fn chance(text: &str) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The last bits of this hash change too little from text to text.
    hash ^= hash >> 31;
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64
}

fn serve(stream: TcpStream, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut out = stream;
    // A connection is used again, as long as it is whole.
    while let Some((authorization, body)) = read_request(&mut reader) {
        state.times.lock().unwrap().push(Instant::now());
        let now_open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_open.fetch_max(now_open, Ordering::SeqCst);
        let attempt = {
            let mut seen = state.seen.lock().unwrap();
            let (asked, _) = seen.entry(body.clone()).or_default();
            *asked += 1;
            *asked - 1
        };
        let json: Value = serde_json::from_str(&body).expect("the client sends JSON");
        let user = json["messages"][1]["content"].as_str().expect("a user's message").to_owned();
        // As a model would: by the mark that the system's message names.
        let system = json["messages"][0]["content"].as_str().expect("a system's message");
        let mark = system.split_once("the mark ").and_then(|(_, rest)| rest.split_once('.')).expect("a mark").0;
        let [first, second] = ["RESPONSE A", "RESPONSE B"].map(|name| section(&user, name, mark));
        let asked = Asked { chance: chance(&body), body: json, authorization, attempt, first, second };
        let behaviour = (state.behave)(&asked);
        // Before the answer: the client's next request can come on another connection at once.
        state.open.fetch_sub(1, Ordering::SeqCst);
        let goes_on = behave(&mut out, behaviour, || state.seen.lock().unwrap().get_mut(&body).unwrap().1 += 1);
        if !goes_on {
            return;
        }
    }
}

/// Whether the connection can be used again.
fn behave(out: &mut TcpStream, behaviour: Behaviour, answered: impl FnOnce()) -> bool {
    let mut whole = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        write!(
            out,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    };
    match behaviour {
        Behaviour::Say(text) => {
            answered();
            whole(200, "", &completion(&text).to_string()).is_ok()
        }
        Behaviour::Status(status, headers, body) => whole(status, headers, &body).is_ok(),
        Behaviour::Drop => false,
        Behaviour::Truncate => {
            let _ = write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{{\"choices\": [{{\"mess");
            false
        }
        Behaviour::Stall(time) => {
            thread::sleep(time);
            false
        }
        Behaviour::Drip => {
            let _ = write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n");
            while out.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(30));
            }
            false
        }
        Behaviour::Huge => {
            let _ = write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            while out.write_all(chunk.as_bytes()).is_ok() {}
            false
        }
    }
}

pub fn completion(text: &str) -> Value {
    json!({
        "id": "x", "object": "chat.completion", "model": "served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    })
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(Option<String>, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    assert_eq!(line, "POST /v1/chat/completions HTTP/1.1\r\n");
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((authorization, String::from_utf8(body).unwrap()))
}

/// The text between the two lines of one name.
fn section(message: &str, name: &str, mark: &str) -> String {
    let (begin, end) = (format!("BEGIN {name} {mark}\n"), format!("\nEND {name} {mark}\n"));
    assert_eq!((message.matches(&begin).count(), message.matches(&end).count()), (1, 1));
    let (_, rest) = message.split_once(&begin).unwrap();
    rest.split_once(&end).unwrap().0.to_owned()
}
