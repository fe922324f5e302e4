//! Starts a process behind the walls, from a process with any number of threads, whichever program that is.
//!
//! The library runs in its own command, in test binaries and in a notebook's kernel; no helper can be started by
//! executing "this program" again, and there is no helper file to ship. So the process is cloned with the namespaces,
//! puts up the walls and executes the interpreter itself. After a plain fork only async-signal-safe functions would be
//! allowed, and a process with large models would copy its page tables each time. It is therefore cloned as posix_spawn does it:
//! it shares memory with the thread that starts it, which waits until the interpreter has been executed. Locks that other
//! threads hold are given back as always, and nothing is copied.

use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use seccompiler::BpfProgram;

use super::interpreter::{Interpreter, LOADER, OPTIONS};
use super::walls::{NOBODY, Step, Walls, check};

/// The stack on which a process puts up its walls.
const STACK: usize = 512 << 10;

/// What is the same for every process of one kind.
pub struct Launch {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// What the loader reads first.
    program: Vec<u8>,
    walls: Walls,
    filter: BpfProgram,
    maps: Maps,
}

/// Users inside and outside.
#[derive(Debug, Clone)]
pub struct Maps {
    users: String,
    groups: String,
    /// An ordinary user may map its group only where groups cannot be dropped.
    denies_setgroups: bool,
    /// See [`Walls`].
    pub changes_user: bool,
}

/// A running process and our ends of its files.
pub struct Process {
    pid: libc::pid_t,
    pub pidfd: OwnedFd,
    /// Ends of its descriptors 0 to 4: where it reads, where it prints, what it is asked, what it answers.
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub requests: Option<OwnedFd>,
    pub replies: OwnedFd,
    is_reaped: bool,
}

/// How a process ended, and how much of the processors' time it had taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    Exit { code: i32, seconds: f64 },
    Signal { signal: i32, seconds: f64 },
}

impl Maps {
    /// Root becomes `nobody`, if it has such a user to become; anyone else stays who they are outside, under `nobody`'s number inside.
    pub fn of_this_process() -> Result<Self> {
        // SAFETY: these cannot fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let has_nobody = |file: &str| -> Result<bool> {
            let map = fs::read_to_string(file).with_context(|| format!("{file}: cannot be read; is /proc mounted?"))?;
            Ok(map.lines().any(|line| {
                let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                matches!(numbers[..], [first, _, count] if (first..first + count).contains(&u64::from(NOBODY)))
            }))
        };
        if user == 0 && has_nobody("/proc/self/uid_map")? && has_nobody("/proc/self/gid_map")? {
            let both = |root: u32| format!("0 {root} 1\n{NOBODY} {NOBODY} 1\n");
            return Ok(Self { users: both(user), groups: both(group), denies_setgroups: false, changes_user: true });
        }
        let own = |id: u32| format!("{NOBODY} {id} 1\n");
        Ok(Self { users: own(user), groups: own(group), denies_setgroups: true, changes_user: false })
    }

    fn write(&self, pid: libc::pid_t) -> io::Result<()> {
        if self.denies_setgroups {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        fs::write(format!("/proc/{pid}/gid_map"), &self.groups)?;
        fs::write(format!("/proc/{pid}/uid_map"), &self.users)
    }
}

impl Launch {
    /// The interpreter with a program of ours, which gets one argument.
    pub fn new(
        interpreter: &Interpreter,
        program: &str,
        argument: &str,
        walls: Walls,
        filter: BpfProgram,
        maps: Maps,
    ) -> Result<Self> {
        let mut arguments = vec![CString::new(interpreter.executable.as_os_str().as_bytes())?];
        for argument in OPTIONS.into_iter().chain(["-c", LOADER, argument]) {
            arguments.push(CString::new(argument)?);
        }
        // The same order of sets in every run; no folder but the standard library's in the path of modules.
        let environment = ["HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "PYTHONHASHSEED=0", "PYTHONSAFEPATH=1"];
        let environment = environment.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        Ok(Self { arguments, environment, program: interpreter.compile(program)?, walls, filter, maps })
    }

    /// Starts one process.
    ///
    /// # Errors
    /// The kernel refuses a wall, which is named; nothing has run then.
    pub fn start(&self) -> Result<Process> {
        let pipes = [pipe()?, pipe()?, pipe()?, pipe()?, pipe()?];
        let [stdin, stdout, stderr, requests, replies] = &pipes;
        let theirs = [&stdin.0, &stdout.1, &stderr.1, &requests.0, &replies.1].map(|end| end.as_raw_fd());
        let (go, ready) = (pipe()?, pipe()?);
        // It fits into the pipe, so nobody has to read it yet.
        let mut requests_end = fs::File::from(requests.1.try_clone()?);
        requests_end.write_all(&self.program)?;
        drop(requests_end);
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let mut child = Child {
            launch: self,
            arguments: &arguments,
            environment: &environment,
            theirs,
            ready: ready.1.as_raw_fd(),
            go: go.0.as_raw_fd(),
            failure: None,
        };
        let pid = AtomicI32::new(0);
        let mapped: io::Result<()>;
        let started: io::Result<()>;
        {
            let _dumpable = KeepDumpable::begin();
            let pid = &pid;
            (started, mapped) = std::thread::scope(|scope| {
                // This thread waits inside clone until the interpreter runs; another one gives the process its users.
                let (ready_end, go_end) = (fs::File::from(ready.0), fs::File::from(go.1));
                let mapping = scope.spawn(move || self.give_users(ready_end, go_end, pid));
                let started = child.clone(pid);
                drop(ready.1);
                (started, mapping.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))))
            });
        }
        started.map_err(|error| refused("user, mount, pid and network namespaces (clone)", &error))?;
        let pid = pid.into_inner();
        // SAFETY: the process is ours and not yet waited for, so the number is its.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd;
        if pidfd < 0 {
            let error = io::Error::last_os_error();
            let _ = end(pid); // The error of the handle is what counts.
            return Err(refused("a handle of the process (pidfd_open, Linux 5.3)", &error));
        }
        let [stdin, stdout, stderr, requests, replies] = pipes;
        let process = Process {
            pid,
            // SAFETY: just opened, and nobody else has it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            stdin: Some(stdin.1),
            stdout: stdout.0,
            stderr: stderr.0,
            requests: Some(requests.1),
            replies: replies.0,
            is_reaped: false,
        };
        mapped.map_err(|error| refused("a user of its own (uid_map)", &error))?;
        if let Some((what, error)) = child.failure.take() {
            return Err(refused(what, &error));
        }
        for end in [&process.stdout, &process.stderr, &process.replies]
            .into_iter()
            .chain(&process.stdin)
            .chain(&process.requests)
        {
            // SAFETY: a descriptor that is ours.
            if unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
                bail!("a pipe cannot be read without waiting: {}", io::Error::last_os_error());
            }
        }
        Ok(process)
    }

    /// Waits for the process, writes its maps and tells it to go on.
    fn give_users(&self, mut ready: fs::File, mut go: fs::File, pid: &AtomicI32) -> io::Result<()> {
        if ready.read(&mut [0])? == 0 {
            return Ok(()); // It was not even started.
        }
        self.maps.write(pid.load(Ordering::SeqCst))?;
        go.write_all(&[1])
    }
}

impl Process {
    /// The largest part of memory that it held so far, in bytes; `None` once it is dead.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// The processors' time that its threads have taken so far.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: numbers of ours; the process is not yet waited for.
        let read = unsafe {
            libc::clock_getcpuclockid(self.pid, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
        };
        read.then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }

    /// Kills it and all that it started, waits until nothing of it is left, and says how it ended.
    ///
    /// # Errors
    /// Something else in this process has waited for it, or it ignores the ends of its children.
    pub fn end(mut self) -> Result<End> {
        self.is_reaped = true;
        end(self.pid)
            .context("how a program ended is not known: this process ignores SIGCHLD, or waits for children of others")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = end(self.pid); // There is nobody to be told.
        }
    }
}

/// The first process of a namespace takes all others of it with it, and is gone only when they are.
fn end(pid: libc::pid_t) -> io::Result<End> {
    let mut status = 0;
    // SAFETY: all zeros is a struct of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a child of ours that was not waited for.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::wait4(pid, &mut status, libc::__WALL, &mut usage) < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    let seconds = time(usage.ru_utime) + time(usage.ru_stime);
    Ok(match libc::WIFEXITED(status) {
        true => End::Exit { code: libc::WEXITSTATUS(status), seconds },
        false => End::Signal { signal: libc::WTERMSIG(status), seconds },
    })
}

/// What the new process works from, in memory that it shares with its parent.
struct Child<'a> {
    launch: &'a Launch,
    arguments: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    theirs: [RawFd; 5],
    ready: RawFd,
    go: RawFd,
    failure: Option<Step>,
}

impl Child<'_> {
    /// Returns when the process has executed the interpreter or has failed.
    fn clone(&mut self, pid: &AtomicI32) -> io::Result<()> {
        let mut stack = vec![0u128; STACK / size_of::<u128>()];
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
        let spaces =
            libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
        let flags = flags | spaces | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        // SAFETY: signals are blocked, so no handler of ours runs in the process; the stack and `self` outlive it, for
        // this thread waits until it no longer uses them.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
            let made = libc::clone(enter, top, flags, std::ptr::from_mut(self).cast(), pid.as_ptr());
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            if made < 0 { Err(error) } else { Ok(()) }
        }
    }

    fn enter(&mut self) -> Result<(), Step> {
        // SAFETY: descriptors of ours, buffers of one byte, C strings and arrays that end with a null pointer.
        unsafe {
            // Handlers are functions of the parent.
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            check("its start (write)", libc::write(self.ready, [1u8].as_ptr().cast(), 1) as i32)?;
            if libc::read(self.go, [0u8].as_mut_ptr().cast(), 1) != 1 {
                return Err(("a user of its own (uid_map)", io::Error::last_os_error()));
            }
            // First away from the numbers that they will have.
            for end in &mut self.theirs {
                *end = libc::fcntl(*end, libc::F_DUPFD, 10);
                check("its pipes (dup)", *end)?;
            }
            for (number, end) in self.theirs.iter().enumerate() {
                check("its pipes (dup)", libc::dup2(*end, number as c_int))?;
            }
            check(
                "no other files (close_range, Linux 5.9)",
                libc::syscall(libc::SYS_close_range, 5, c_int::MAX, 0) as i32,
            )?;
            self.launch.walls.put_up()?;
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            seccompiler::apply_filter(&self.launch.filter)
                .map_err(|_| ("a filter of system calls (seccomp)", io::Error::last_os_error()))?;
            libc::execve(self.arguments[0], self.arguments.as_ptr(), self.environment.as_ptr());
        }
        Err(("the interpreter (execve)", io::Error::last_os_error()))
    }
}

extern "C" fn enter(child: *mut c_void) -> c_int {
    // SAFETY: what `clone` was given; the parent's thread waits and does not touch it.
    let child = unsafe { &mut *child.cast::<Child>() };
    child.failure = child.enter().err();
    // SAFETY: ends this process alone, without the parent's handlers of exit.
    unsafe { libc::_exit(1) }
}

/// A change of the user makes memory that both processes share at that moment untraceable, for the parent too and for good.
/// This sets the parent back when no process is being started any more; not before, for one that is must stay so.
struct KeepDumpable;

static STARTING: Mutex<(usize, c_int)> = Mutex::new((0, 0));

impl KeepDumpable {
    fn begin() -> Self {
        let mut starting = STARTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if starting.0 == 0 {
            // SAFETY: reads a flag.
            starting.1 = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        }
        starting.0 += 1;
        Self
    }
}

impl Drop for KeepDumpable {
    fn drop(&mut self) {
        let mut starting = STARTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        starting.0 -= 1;
        if starting.0 == 0 && starting.1 == 1 {
            // SAFETY: sets a flag.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        }
    }
}

/// Ends for reading and for writing, closed in other programs.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: an array of two numbers.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        bail!("a pipe cannot be made: {}", io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

fn refused(what: &str, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "the code sandbox refuses to run: this system does not give it {what}: {error}. Programs of models are run behind all walls \
         or not at all; src/sandbox says what is needed, and how a container or a system's settings give it"
    )
}
