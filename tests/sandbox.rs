//! The code sandbox: what it lets pass, what it holds, and what it does not believe.

#![cfg(target_os = "linux")]

#[path = "sandbox/data.rs"]
mod data;
#[path = "sandbox/hostile.rs"]
mod hostile;
#[path = "sandbox/outcomes.rs"]
mod outcomes;
#[path = "sandbox/refusal.rs"]
mod refusal;

use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use qstar::sandbox::{Check, Limits, Program, Sandbox};

/// A sandbox for one test at a time, or a printed reason why this system gives none.
fn sandbox(limits: Limits) -> Option<(Sandbox, MutexGuard<'static, ()>)> {
    let alone = lock();
    match Sandbox::new(limits) {
        Ok(sandbox) => Some((sandbox, alone)),
        Err(error) => {
            let said = format!("{error:#}");
            assert!(
                !said.contains("refuses") || !system_gives_namespaces(),
                "the system gives what is needed, and yet: {said}"
            );
            println!("skipped: {said}");
            None
        }
    }
}

/// One test at a time: each looks for processes that are left.
fn lock() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether another program gets the namespaces that the sandbox needs, so that a refusal would be a fault of ours.
fn system_gives_namespaces() -> bool {
    let all = [
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/proc",
    ];
    Command::new("unshare").args(all).output().is_ok_and(|output| output.status.success())
}

/// A program with tests of its function `f`.
fn program(code: &str, tests: &[&str]) -> Program {
    let tests = tests.iter().map(|test| test.to_string()).collect();
    Program { code: code.into(), check: Check::Tests { setup: String::new(), names: vec!["f".into()], tests } }
}

/// A program that reads `input` and has to print `output`.
fn script(code: &str, input: &str, output: &str) -> Program {
    Program { code: code.into(), check: Check::Output { cases: vec![(input.into(), output.into())] } }
}
