//! The code sandbox: what it lets pass, what it holds, and what it does not believe.

#![cfg(target_os = "linux")]

#[path = "sandbox/data.rs"]
mod data;
#[path = "sandbox/hostile.rs"]
mod hostile;
#[path = "sandbox/outcomes.rs"]
mod outcomes;

use std::sync::{Mutex, MutexGuard};

use qstar::sandbox::{Check, Limits, Program, Sandbox};

/// A sandbox for one test at a time (each looks for processes that are left), or a printed reason why this system gives none.
fn sandbox(limits: Limits) -> Option<(Sandbox, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match Sandbox::new(limits) {
        Ok(sandbox) => Some((sandbox, alone)),
        Err(error) => {
            println!("skipped: {error:#}");
            None
        }
    }
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
