//! The code sandbox: runs Python that a model wrote, and judges it.
//!
//! **This is a boundary, and it is up to Linux to give it.** Where the kernel, a container or a system's setting refuses a
//! part of it, [`Sandbox::new`] is an error that names the part; nothing is ever run with less.
//!
//! # What holds a program
//! Every program runs in a fresh interpreter of its own, behind all of these:
//!
//! | what | with | so that |
//! |---|---|---|
//! | files | mount namespace, an empty root, read-only mounts; landlock besides, where the kernel has it | only the interpreter's modules, the system's libraries and `/dev/null` can be read, only a fresh `/tmp` can be written; there is no `/proc` and no `/sys` |
//! | disk | `/tmp` is a tmpfs of limited size and number of files; a limit on the size of each | |
//! | network | network namespace without an interface; no system call makes a socket | also the host's own services are out of reach |
//! | processes | PID namespace; seccomp lets no process start another | nothing else is seen, signalled or traced; the end of the one process is the end of all, and is waited for |
//! | threads, memory, processor time, open files, core files | rlimits; one process, so the limit of its address space is the limit of its memory | |
//! | rights | user namespace, user `nobody` (from root; otherwise the caller's, under that number), no capabilities, no new privileges | |
//! | the kernel | seccomp: a list of the system calls that an interpreter needs | no ptrace, mounts, keys, bpf, io_uring, shared memory |
//! | time, output | the parent kills at the limit | |
//! | the parent's death | the kernel then kills the program | no process is left |
//!
//! # What a verdict rests on
//! Nothing that a program prints, returns as exit code or does to its interpreter decides whether it passed.
//!
//! - Tests run in **another process**, behind walls of its own, in which not one line of the program runs. The program's
//!   functions are called through a pipe and give back plain values (numbers, text, lists, ...), which the tests compare. So
//!   there is no `assert`, frame, builtin or result line within the program's reach: to pass, it must give right answers,
//!   up to the last call, and still be there at the end.
//! - For problems of standard input and output the output is compared here.
//!
//! # What it does not do
//! - A program that gives right answers has passed, however it found them. Tests are what they are: a program may give right answers to
//!   these calls only, and a test that cannot fail passes.
//! - Arguments and results are copies. A test that looks at what a call did to its argument, or whether two results are the same
//!   object, sees the copy. A result of a class of the program's own is an object whose attributes can be read and whose
//!   methods can be called; it equals nothing but itself.
//! - The boundary is the kernel's. A flaw of the kernel in what is left open (the list is in `filter.rs`), or of the processor, can be
//!   a way out. There is no limit on the share of the processor, and programs side by side can see each other's load.
//! - What the interpreter's modules and the system's libraries hold can be read, the time and the processor's kind too.
//! - Sums over programs are not limited: `threads` times `memory` and `disk` must be there, and for each thread's tests up to 2 GiB more.
//!
//! # What it needs
//! Linux 5.12 on x86-64, aarch64 or riscv64, with user namespaces for the caller; Python 3.8 or newer. As root in a container:
//! `docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN`, or podman. As an ordinary user where a system forbids it:
//! `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu since 23.10), `kernel.unprivileged_userns_clone=1` (older Debian),
//! `user.max_user_namespaces` above 0 (RHEL).

#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod interpreter;
mod program;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod spawn;
#[cfg(target_os = "linux")]
mod walls;

use anyhow::{Result, ensure};
pub use program::{Check, Program, same_output};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

/// What a program may use. Past a limit it is killed, or the call that goes past it fails.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Seconds of processor time, of all threads together; for each case of [`Check::Output`] anew. This does not depend on
    /// what else the machine does.
    pub cpu_seconds: f64,
    /// Seconds by the clock, of a program and its tests together; for each case of [`Check::Output`] anew.
    pub seconds: f64,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes that are printed, stdout and stderr each.
    pub output: u64,
    /// Bytes in the temporary folder.
    pub disk: u64,
    /// Files and folders in it.
    pub files: u64,
    pub threads: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_seconds: 10.0,
            seconds: 30.0,
            memory: 512 << 20,
            output: 1 << 20,
            disk: 16 << 20,
            files: 1000,
            threads: 16,
        }
    }
}

/// What became of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// A test does not hold, or the output is another one.
    Wrong,
    /// The program ended with an exception: also one that does not compile or lacks a function.
    Exception,
    TimedOut,
    OutOfMemory,
    /// It printed or returned more than it may.
    TooMuchOutput,
    /// Its process ended before its tests did.
    Exited,
    /// A signal ended it.
    Crashed,
}

impl Verdict {
    /// As in frames, for example `out_of_memory`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Wrong => "wrong",
            Verdict::Exception => "exception",
            Verdict::TimedOut => "timed_out",
            Verdict::OutOfMemory => "out_of_memory",
            Verdict::TooMuchOutput => "too_much_output",
            Verdict::Exited => "exited",
            Verdict::Crashed => "crashed",
        }
    }
}

/// What a run of a program gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Why it is not another verdict, in one line. May hold text of the program.
    pub message: String,
    /// What was printed, cut at the limit; of the last case of [`Check::Output`].
    pub stdout: String,
    pub stderr: String,
    pub seconds: f64,
    /// The most memory that the program held, in bytes. Looked at from outside, so that the last milliseconds of a
    /// program that ended by itself may be missing, and all of it, if it ended at once.
    pub peak_memory: Option<u64>,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }
}

/// Runs programs. See the [module](self) for what that means.
///
/// ```no_run
/// use qstar::sandbox::{Check, Limits, Program, Sandbox};
/// let sandbox = Sandbox::new(Limits::default())?;
/// let check = Check::Tests { setup: String::new(), names: vec!["add".into()], tests: vec!["assert add(1, 2) == 3".into()] };
/// let program = Program { code: "def add(a, b):\n    return a + b\n".into(), check };
/// assert!(sandbox.run(&program)?.passed());
/// # anyhow::Ok(())
/// ```
pub struct Sandbox {
    limits: Limits,
    #[cfg(target_os = "linux")]
    session: session::Session,
}

impl Sandbox {
    /// Finds the interpreter (`QSTAR_PYTHON`, else `python3`), and runs one program that looks whether all walls stand.
    ///
    /// # Errors
    /// No Python; a wall that this system does not give, by name; limits that leave no room for an interpreter.
    pub fn new(limits: Limits) -> Result<Self> {
        for seconds in [limits.cpu_seconds, limits.seconds] {
            ensure!(seconds > 0.0 && seconds <= 86_400.0, "a limit of {seconds} seconds is not between 0 and a day");
        }
        ensure!(
            limits.memory >= 64 << 20,
            "a limit of {} bytes of memory is too little for Python: at least 64 MiB",
            limits.memory
        );
        ensure!(limits.threads >= 1, "a program needs one thread");
        #[cfg(target_os = "linux")]
        {
            let sandbox = Self { limits, session: session::Session::new(&limits)? };
            sandbox.session.look_at_walls()?;
            Ok(sandbox)
        }
        #[cfg(not(target_os = "linux"))]
        anyhow::bail!("the code sandbox is made of Linux's own means and refuses to run elsewhere")
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs one program.
    ///
    /// # Errors
    /// A process cannot be started, or the process of the tests was ended from outside. Whatever the program does is an outcome.
    pub fn run(&self, program: &Program) -> Result<Outcome> {
        Ok(self.run_all(std::slice::from_ref(program), 1, None)?.remove(0))
    }

    /// Runs programs on `threads` threads, with the outcomes in the order of the programs, and tells `progress` of each.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn run_all(&self, programs: &[Program], threads: usize, progress: Option<&Progress>) -> Result<Vec<Outcome>> {
        #[cfg(target_os = "linux")]
        return self.session.run_all(programs, threads, progress);
        #[cfg(not(target_os = "linux"))]
        anyhow::bail!(
            "the code sandbox runs on Linux only ({} programs, {threads}, {})",
            programs.len(),
            progress.is_some()
        )
    }
}
