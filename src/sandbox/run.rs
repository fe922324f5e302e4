//! One process of a program while it runs: what it is sent, what it says, and its limits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::spawn::{End, Launch, Process};
use super::{Limits, Verdict};

/// The largest message of a program or of the tests.
pub const LONGEST: usize = 16 << 20;

/// How often a program's memory and processor time are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long a program may live on after it closed its pipe.
const MOMENT: Duration = Duration::from_millis(500);

/// Bytes that wait to be written.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// Bytes that were read, up to a limit.
pub struct Incoming {
    pub bytes: Vec<u8>,
    limit: usize,
    is_open: bool,
}

/// A running program.
pub struct Run {
    process: Process,
    limits: Limits,
    started: Instant,
    looked: Instant,
    stdin: Outgoing,
    requests: Outgoing,
    /// Whether the end of the requests is told to the program.
    closes_requests: bool,
    pub stdout: Incoming,
    pub stderr: Incoming,
    replies: Incoming,
    /// When it closed the pipe of its replies.
    closed: Option<Instant>,
    peak_memory: Option<u64>,
    cpu_seconds: f64,
    /// It was seen to have ended by itself.
    pub has_ended: bool,
    /// Why it is not to run on.
    pub stopped: Option<Verdict>,
}

/// What is left of a program that no longer runs.
pub struct Finished {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub seconds: f64,
    pub peak_memory: Option<u64>,
}

impl Run {
    /// Starts a program and gives it its standard input. `code`, if any, is all that it is asked.
    pub fn start(limits: &Limits, launch: &Launch, stdin: &str, code: Option<&str>) -> Result<Self> {
        let started = Instant::now();
        let output = usize::try_from(limits.output)?;
        Ok(Self {
            process: launch.start()?,
            limits: *limits,
            started,
            looked: started,
            stdin: Outgoing { bytes: stdin.as_bytes().to_vec(), sent: 0 },
            requests: Outgoing { bytes: code.unwrap_or_default().as_bytes().to_vec(), sent: 0 },
            closes_requests: code.is_some(),
            stdout: Incoming::new(output),
            stderr: Incoming::new(output),
            replies: Incoming::new(LONGEST + 4),
            closed: None,
            peak_memory: None,
            cpu_seconds: 0.0,
            has_ended: false,
            stopped: None,
        })
    }

    pub fn ask(&mut self, request: &[u8]) {
        self.requests.push(request);
    }

    /// The reply to the oldest request that has none yet, if it is there whole.
    pub fn reply(&mut self) -> Option<Vec<u8>> {
        match take_frame(&mut self.replies.bytes) {
            Ok(reply) => reply,
            Err(_) => {
                self.stopped = Some(Verdict::TooMuchOutput);
                None
            }
        }
    }

    /// No reply will come any more. A process that ends closes its pipe a moment before.
    pub fn is_gone(&self) -> bool {
        self.has_ended || self.closed.is_some_and(|closed| closed.elapsed() > MOMENT)
    }

    /// Waits until something happens here or at one of `others`, but not long, and deals with what happened here.
    pub fn step(&mut self, waits_for_reply: bool, others: &mut [libc::pollfd]) -> Result<()> {
        let reads = |incoming: &Incoming, fd: &OwnedFd| if incoming.is_open { fd.as_raw_fd() } else { -1 };
        let writes =
            |fd: &Option<OwnedFd>, is_done: bool| fd.as_ref().filter(|_| !is_done).map_or(-1, AsRawFd::as_raw_fd);
        if self.stdin.is_done() {
            self.process.stdin = None;
        }
        if self.closes_requests && self.requests.is_done() {
            self.process.requests = None;
        }
        let process = &self.process;
        let mut fds = vec![
            wait_for(process.pidfd.as_raw_fd(), libc::POLLIN),
            wait_for(reads(&self.stdout, &process.stdout), libc::POLLIN),
            wait_for(reads(&self.stderr, &process.stderr), libc::POLLIN),
            wait_for(if waits_for_reply { reads(&self.replies, &process.replies) } else { -1 }, libc::POLLIN),
            wait_for(writes(&process.stdin, self.stdin.is_done()), libc::POLLOUT),
            wait_for(writes(&process.requests, self.requests.is_done()), libc::POLLOUT),
        ];
        let own = fds.len();
        fds.extend_from_slice(others);
        let left = self.limits.seconds - self.started.elapsed().as_secs_f64();
        poll(&mut fds, Duration::from_secs_f64(left.max(0.0)).min(LOOK))?;
        others.copy_from_slice(&fds[own..]);

        // What it wrote before its end is still to be read.
        self.has_ended = fds[0].revents != 0;
        if fds[1].revents != 0 {
            self.stdout.read(process.stdout.as_raw_fd());
        }
        if fds[2].revents != 0 {
            self.stderr.read(process.stderr.as_raw_fd());
        }
        if fds[3].revents != 0 || (self.has_ended && waits_for_reply) {
            self.replies.read(process.replies.as_raw_fd());
            if !self.replies.is_open {
                self.closed.get_or_insert_with(Instant::now);
            }
        }
        if fds[4].revents != 0 && !self.stdin.write(fds[4].fd) {
            self.process.stdin = None;
        }
        if fds[5].revents != 0 && !self.requests.write(fds[5].fd) {
            self.process.requests = None;
        }
        if self.has_ended {
            self.stdout.read(self.process.stdout.as_raw_fd());
            self.stderr.read(self.process.stderr.as_raw_fd());
        } else if self.looked.elapsed() >= LOOK {
            self.look();
        }
        if self.stdout.is_full() || self.stderr.is_full() {
            self.stopped = Some(Verdict::TooMuchOutput);
        } else if !self.has_ended
            && (self.started.elapsed().as_secs_f64() >= self.limits.seconds
                || self.cpu_seconds >= self.limits.cpu_seconds)
        {
            self.stopped = Some(Verdict::TimedOut);
        }
        Ok(())
    }

    /// Kills what still runs of it, and waits until nothing is left.
    ///
    /// # Errors
    /// Something else in this process has waited for it.
    pub fn finish(mut self) -> Result<Finished> {
        self.look();
        Ok(Finished {
            end: self.process.end()?,
            stdout: self.stdout.bytes,
            stderr: self.stderr.bytes,
            seconds: self.started.elapsed().as_secs_f64(),
            peak_memory: self.peak_memory,
        })
    }

    fn look(&mut self) {
        self.peak_memory = self.peak_memory.max(self.process.peak_memory());
        self.cpu_seconds = self.process.cpu_seconds().unwrap_or(self.cpu_seconds);
        self.looked = Instant::now();
    }
}

impl Outgoing {
    /// A message, as a frame.
    pub fn push(&mut self, message: &[u8]) {
        if self.is_done() {
            self.bytes.clear();
            self.sent = 0;
        }
        self.bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(message);
    }

    pub fn is_done(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Writes what can be written without waiting; `false` if nobody reads it any more.
    pub fn write(&mut self, fd: RawFd) -> bool {
        while !self.is_done() {
            let rest = &self.bytes[self.sent..];
            // SAFETY: a slice of ours.
            let written = unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written) {
                Ok(written) => self.sent += written,
                Err(_) if is_later() => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Incoming {
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, is_open: true }
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    fn is_full(&self) -> bool {
        self.bytes.len() > self.limit
    }

    /// Reads what is there, up to one byte more than the limit.
    pub fn read(&mut self, fd: RawFd) {
        let mut buffer = [0u8; 1 << 16];
        while self.is_open && !self.is_full() {
            // SAFETY: a buffer of ours.
            let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(count) {
                Ok(0) => self.is_open = false,
                Ok(count) => {
                    let room = self.limit + 1 - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(_) if is_later() => return,
                Err(_) => self.is_open = false,
            }
        }
    }
}

/// Takes the first whole frame from the beginning of `bytes`, if there is one.
///
/// # Errors
/// A frame that is longer than [`LONGEST`].
pub fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > LONGEST {
        bail!("a message of {length} bytes");
    }
    if bytes.len() < 4 + length {
        return Ok(None);
    }
    let rest = bytes.split_off(4 + length);
    let mut frame = std::mem::replace(bytes, rest);
    Ok(Some(frame.split_off(4)))
}

pub fn wait_for(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn poll(fds: &mut [libc::pollfd], timeout: Duration) -> Result<()> {
    let milliseconds = timeout.as_millis() as i32 + 1;
    // SAFETY: an array of that length.
    if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) } < 0 {
        let error = io::Error::last_os_error();
        fds.iter_mut().for_each(|fd| fd.revents = 0);
        if error.kind() != io::ErrorKind::Interrupted {
            bail!("waiting for a program failed: {error}");
        }
    }
    Ok(())
}

/// Whether the last call only has to be tried again.
fn is_later() -> bool {
    matches!(io::Error::last_os_error().kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
