//! Runs a tool of the set-up: its output goes to a log file, its progress to the user.

use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// How many lines of a failed tool's output are shown.
const TAIL: usize = 30;

/// Variables that cargo sets for what it runs (`cargo run`, `cargo test`). A cargo that is started from there must
/// not see them: build scripts that look at them would run again.
const SET_BY_CARGO: [&str; 6] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR"];

/// A command that sees the user's environment, without what an outer cargo added to it.
pub(super) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if SET_BY_CARGO.iter().any(|prefix| text.starts_with(prefix)) || text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs `command` to its end. `seen` is told each line of stdout and of stderr as it arrives, and may move `progress`.
/// Returns stdout.
///
/// # Errors
/// When the tool cannot be started or fails: the error holds the end of its output and names the log.
pub(super) fn run(
    what: &str,
    command: &mut Command,
    log: &Path,
    progress: &Progress,
    seen: impl Fn(&str, &Progress) + Sync,
) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut file = File::create(log).with_context(|| format!("the log {} cannot be made", log.display()))?;
    writeln!(file, "$ {command:?}")?;
    let log_file = Mutex::new(file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: `{program}` cannot be started: is it installed?"))?;
    let out = child.stdout.take().context("no stdout")?;
    let err = child.stderr.take().context("no stderr")?;

    let follow = |stream: Box<dyn Read + Send>| -> std::io::Result<String> {
        let mut all = String::new();
        for line in BufReader::new(stream).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if let Ok(mut file) = log_file.lock() {
                writeln!(file, "{line}")?;
            }
            seen(&line, progress);
            all.push_str(&line);
            all.push('\n');
        }
        Ok(all)
    };
    let (out, err) = std::thread::scope(|scope| {
        let err = scope.spawn(|| follow(Box::new(err)));
        let out = follow(Box::new(out));
        (out, err.join().expect("a reader thread does not panic"))
    });
    let status = child.wait()?;
    let (out, err) = (out?, err?);
    if !status.success() {
        let text = if err.trim().is_empty() { &out } else { &err };
        bail!(
            "{what} failed ({status}). The end of what `{program}` said:\n\n{}\n\nAll of it: {}",
            tail(text, TAIL),
            log.display()
        );
    }
    Ok(out)
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let shown = &all[all.len().saturating_sub(lines)..];
    shown.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_output_and_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let progress = Progress::new("test", 0);
        let mut failing = command("sh");
        failing.args(["-c", "seq 100 >&2; exit 3"]);
        let error = run("counting", &mut failing, &log, &progress, |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("counting failed") && error.contains("exit status: 3"));
        assert!(error.contains("    100\n") && !error.contains("    70\n"));
        assert!(error.contains(&log.display().to_string()));
        assert!(std::fs::read_to_string(&log).unwrap().contains("\n1\n"));
    }

    #[test]
    fn a_missing_tool_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(
            "making",
            &mut command("no-such-tool-here"),
            &folder.path().join("log"),
            &Progress::new("test", 0),
            |_, _| {},
        )
        .unwrap_err();
        assert!(format!("{error:#}").contains("`no-such-tool-here` cannot be started"));
    }
}
