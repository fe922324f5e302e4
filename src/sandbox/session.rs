//! A program and its tests, each in a process of its own, and what passes between them.
//!
//! Messages are frames: four bytes of length (little endian), then as many bytes. Those of the tests begin with one byte that
//! says what they are: `J` a job, `C` a call of the program, `R` its reply, `X` there is no reply any more, `V` the verdict.

use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::filter::filter;
use super::interpreter::Interpreter;
use super::run::{Finished, Incoming, LONGEST, Outgoing, Run, take_frame, wait_for};
use super::spawn::{End, Launch, Maps, Process};
use super::walls::Walls;
use super::{Check, Limits, Outcome, Program, Verdict, same_output};
use crate::progress::Progress;

/// What the tests may use: they come from a data set, and hold what the program returns.
const TESTS_MEMORY: u64 = 2 << 30;
const TESTS_PROCESSES: u64 = 16;

/// How programs and tests are started.
pub struct Session {
    limits: Limits,
    program: Launch,
    script: Launch,
    tests: Launch,
}

impl Session {
    pub fn new(limits: &Limits) -> Result<Self> {
        let interpreter = Interpreter::find()?;
        let maps = Maps::of_this_process()?;
        let launch = |code: &str, argument: &str, limits: &Limits, processes: u64, forks: bool| {
            let walls = Walls::new(&interpreter, limits, processes, maps.changes_user)?;
            Launch::new(&interpreter, code, argument, walls, filter(forks)?, maps.clone())
        };
        let candidate = include_str!("candidate.py");
        let of_tests = Limits { memory: TESTS_MEMORY, cpu_seconds: 86_400.0, ..*limits };
        Ok(Self {
            limits: *limits,
            program: launch(candidate, "serve", limits, limits.threads, false)?,
            script: launch(candidate, "script", limits, limits.threads, false)?,
            tests: launch(include_str!("tester.py"), "", &of_tests, TESTS_PROCESSES, true)?,
        })
    }

    /// Whether a program sees what it must not see, or can do what it must not be able to do.
    pub fn look_at_walls(&self) -> Result<()> {
        let code = include_str!("look.py");
        let limits = Limits { cpu_seconds: 60.0, seconds: 60.0, output: 10_000, ..self.limits };
        let outcome = self.run_script(code, "", "all walls stand", &limits)?;
        ensure!(
            outcome.passed(),
            "the code sandbox refuses to run: a wall does not stand here. A program that looked at them says: {}{} ({})",
            outcome.stdout,
            outcome.stderr,
            outcome.message
        );
        Ok(())
    }

    pub fn run_all(&self, programs: &[Program], threads: usize, progress: Option<&Progress>) -> Result<Vec<Outcome>> {
        let results: Vec<Mutex<Option<Result<Outcome>>>> = programs.iter().map(|_| Mutex::new(None)).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, programs.len().max(1)) {
                scope.spawn(|| {
                    let mut tests = None;
                    while !failed.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(program) = programs.get(number) else { break };
                        let outcome = self.run(program, &mut tests).with_context(|| format!("program {}", number + 1));
                        failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                        *results[number].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome);
                        progress.inspect(|progress| progress.inc(1));
                    }
                });
            }
        });
        let outcome = |result: Mutex<Option<_>>| result.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        results.into_iter().filter_map(outcome).collect()
    }

    /// `tests` is the process of one thread's tests, started when it is needed.
    fn run(&self, program: &Program, tests: &mut Option<Process>) -> Result<Outcome> {
        let mut job = match &program.check {
            Check::Output { cases } => return self.run_cases(&program.code, cases),
            Check::Tests { setup, names, tests } => json!({"setup": setup, "names": names, "tests": tests}),
            Check::Calls { function, cases } => json!({"function": function, "cases": cases}),
        };
        job["code"] = json!(program.code);
        let mut message = b"J".to_vec();
        serde_json::to_writer(&mut message, &job)?;
        ensure!(message.len() <= LONGEST, "with its tests it is {} bytes long; the limit is {LONGEST}", message.len());
        let process = match tests.take() {
            Some(running) => running,
            None => self.tests.start()?,
        };
        let mut run = Run::start(&self.limits, &self.program, "", None)?;
        let mut judge = Judge::new(process, &message);
        let said = judge.follow(&mut run)?;
        let (stopped, ended) = (run.stopped, run.has_ended);
        if said.is_some() && !judge.is_broken {
            *tests = Some(judge.process);
        }
        let finished = run.finish()?;
        let (verdict, message) = match (stopped, said) {
            (None, Some(Said::Verdict(verdict, message))) => (verdict, message),
            (None, _) => how_it_ended(finished.end, ended, &self.limits),
            (Some(stopped), _) => (stopped, why_stopped(stopped, &self.limits)),
        };
        Ok(outcome(finished, verdict, message))
    }

    fn run_cases(&self, code: &str, cases: &[(String, String)]) -> Result<Outcome> {
        let (mut seconds, mut peak, mut last) = (0.0, None, None);
        for (number, (input, expected)) in cases.iter().enumerate() {
            let mut outcome = self.run_script(code, input, expected, &self.limits)?;
            seconds += outcome.seconds;
            peak = peak.max(outcome.peak_memory);
            (outcome.seconds, outcome.peak_memory) = (seconds, peak);
            if !outcome.passed() {
                outcome.message = format!("case {}: {}", number + 1, outcome.message);
                return Ok(outcome);
            }
            last = Some(outcome);
        }
        last.context("it has no case to be judged by")
    }

    fn run_script(&self, code: &str, input: &str, expected: &str, limits: &Limits) -> Result<Outcome> {
        let mut run = Run::start(limits, &self.script, input, Some(code))?;
        while !run.has_ended && run.stopped.is_none() {
            run.step(false, &mut [])?;
        }
        let stopped = run.stopped;
        let finished = run.finish()?;
        let last_line = || {
            let stderr = String::from_utf8_lossy(&finished.stderr);
            stderr.trim_end().lines().last().unwrap_or("").chars().take(1000).collect::<String>()
        };
        let (verdict, message) = match (stopped, finished.end) {
            (Some(stopped), _) => (stopped, why_stopped(stopped, limits)),
            (None, End::Exit { code: 0, .. }) => {
                match same_output(&String::from_utf8_lossy(&finished.stdout), expected) {
                    true => (Verdict::Passed, String::new()),
                    false => (Verdict::Wrong, "it printed something else".into()),
                }
            }
            (None, End::Exit { .. }) if last_line().starts_with("MemoryError") => (Verdict::OutOfMemory, last_line()),
            (None, End::Exit { code: 1, .. }) if !last_line().is_empty() => (Verdict::Exception, last_line()),
            (None, end) => how_it_ended(end, true, limits),
        };
        Ok(outcome(finished, verdict, message))
    }
}

/// What the tests said of a program, or that it had ended before they could.
enum Said {
    Verdict(Verdict, String),
    Gone,
}

/// The process of the tests while it judges one program.
struct Judge {
    process: Process,
    incoming: Incoming,
    outgoing: Outgoing,
    /// It cannot judge another one.
    is_broken: bool,
}

impl Judge {
    fn new(process: Process, job: &[u8]) -> Self {
        let mut outgoing = Outgoing::default();
        outgoing.push(job);
        Self { process, incoming: Incoming::new(LONGEST + 4), outgoing, is_broken: false }
    }

    /// Passes calls and replies between the tests and the program until the tests are through or the program is stopped;
    /// then there is `None`.
    fn follow(&mut self, run: &mut Run) -> Result<Option<Said>> {
        let (mut owes_reply, mut is_gone) = (false, false);
        loop {
            while let Some(message) = take_frame(&mut self.incoming.bytes)? {
                match message.split_first() {
                    Some((b'C', _)) if is_gone => self.outgoing.push(b"X"),
                    Some((b'C', call)) => {
                        run.ask(call);
                        owes_reply = true;
                    }
                    Some((b'V', verdict)) => return self.said(verdict, is_gone).map(Some),
                    _ => bail!("the process of the tests does not keep to what is agreed"),
                }
            }
            if owes_reply {
                if let Some(reply) = run.reply() {
                    self.outgoing.push(&[b"R", &reply[..]].concat());
                    owes_reply = false;
                } else if run.is_gone() {
                    self.outgoing.push(b"X");
                    (owes_reply, is_gone) = (false, true);
                }
            }
            if run.stopped.is_some() {
                return Ok(None);
            }
            ensure!(self.incoming.is_open(), "the process of the tests has ended");
            let (replies, requests) =
                (self.process.replies.as_raw_fd(), self.process.requests.as_ref().map_or(-1, AsRawFd::as_raw_fd));
            let mut own = [
                wait_for(replies, libc::POLLIN),
                wait_for(if self.outgoing.is_done() { -1 } else { requests }, libc::POLLOUT),
            ];
            run.step(owes_reply, &mut own)?;
            if own[0].revents != 0 {
                self.incoming.read(replies);
            }
            if own[1].revents != 0 {
                self.outgoing.write(requests);
            }
        }
    }

    fn said(&mut self, verdict: &[u8], is_gone: bool) -> Result<Said> {
        let (name, message): (String, String) = serde_json::from_slice(verdict).context("the verdict of the tests")?;
        self.is_broken = name == "broken";
        Ok(match &name[..] {
            _ if is_gone => Said::Gone,
            "passed" => Said::Verdict(Verdict::Passed, message),
            "exception" => Said::Verdict(Verdict::Exception, message),
            "memory" => Said::Verdict(Verdict::OutOfMemory, message),
            "wrong" | "broken" => Said::Verdict(Verdict::Wrong, message),
            other => bail!("the tests gave the unknown verdict {other:?}"),
        })
    }
}

fn outcome(finished: Finished, verdict: Verdict, message: String) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&finished.stdout), text(&finished.stderr));
    Outcome { verdict, message, stdout, stderr, seconds: finished.seconds, peak_memory: finished.peak_memory }
}

fn why_stopped(verdict: Verdict, limits: &Limits) -> String {
    match verdict {
        Verdict::TimedOut => {
            format!("it was stopped after {} s of processor time or {} s", limits.cpu_seconds, limits.seconds)
        }
        _ => format!("it printed more than {} bytes, or returned more than {LONGEST}", limits.output),
    }
}

/// The verdict on a process that was gone before it was through. `by_itself` is false where it had only closed its pipe.
fn how_it_ended(end: End, by_itself: bool, limits: &Limits) -> (Verdict, String) {
    match end {
        _ if !by_itself => (Verdict::Exited, "it closed the pipe through which it is asked".into()),
        End::Exit { code, .. } => {
            (Verdict::Exited, format!("its process ended before its tests, with exit code {code}"))
        }
        End::Signal { seconds, .. } if seconds >= limits.cpu_seconds => {
            (Verdict::TimedOut, format!("it took {seconds:.1} s of processor time"))
        }
        End::Signal { signal, .. } => (Verdict::Crashed, format!("signal {signal} ended it")),
    }
}
