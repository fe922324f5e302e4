//! Progress of long work: a bar on a terminal, a line now and then everywhere else.
//!
//! A notebook's kernel passes whole lines on and nothing else (no carriage return, no update in place), so there
//! progress is a line on stdout at each tenth of the work, but not more often than every ten seconds.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Tells how far a piece of work is. Shared by threads: every method takes `&self`.
///
/// ```
/// let progress = qstar::progress::Progress::new("drawing", 1_000);
/// for _ in 0..1_000 {
///     progress.inc(1);
/// }
/// progress.finish();
/// ```
#[derive(Debug)]
pub struct Progress {
    label: String,
    /// Zero: not known.
    total: u64,
    started: Instant,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: u64,
    message: String,
    /// What was done at the last line, and when it was written.
    told: u64,
    told_at: Instant,
    finished: bool,
}

impl Progress {
    /// Work of `total` units. With `total` 0 the amount is unknown, and only the time and the message are shown.
    pub fn new(label: impl Into<String>, total: u64) -> Self {
        let label = label.into();
        let on_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| bar(&label, total));
        let now = Instant::now();
        let state = State { done: 0, message: String::new(), told: 0, told_at: now, finished: false };
        Self { label, total, started: now, bar, state: Mutex::new(state) }
    }

    /// `n` more units are done.
    pub fn inc(&self, n: u64) {
        let mut state = self.state();
        state.done += n;
        match &self.bar {
            Some(bar) => bar.set_position(state.done),
            None => self.tell_if_due(&mut state),
        }
    }

    /// What is being worked on, shown beside the numbers.
    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        let mut state = self.state();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => {
                state.message = text;
                self.tell_if_due(&mut state);
            }
        }
    }

    /// The work is done: the bar is removed, and one line says how long it took.
    pub fn finish(&self) {
        let mut state = self.state();
        if state.finished {
            return;
        }
        state.finished = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        println!("{}", last_line(&self.label, state.done, self.total, self.started.elapsed()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held this lock left plain numbers behind: they are still good.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn tell_if_due(&self, state: &mut State) {
        let now = Instant::now();
        if state.finished || !is_due(state.done, state.told, self.total, now - state.told_at) {
            return;
        }
        state.told = state.done;
        state.told_at = now;
        let elapsed = now - self.started;
        println!("{}", line(&self.label, state.done, self.total, elapsed, &state.message));
    }
}

impl Drop for Progress {
    /// Work that was given up leaves no bar behind and says nothing.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let (bar, template) = if total == 0 {
        (ProgressBar::new_spinner(), "{spinner} {prefix} [{elapsed}] {wide_msg}")
    } else {
        (ProgressBar::new(total), "{prefix} {bar:24} {pos}/{len} [{elapsed}, {eta} left] {wide_msg}")
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    bar.set_style(style);
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A tenth of the work since the last line, and ten seconds: whichever is later.
fn is_due(done: u64, told: u64, total: u64, since: Duration) -> bool {
    let tenth = total.div_ceil(10);
    since >= PAUSE && (total == 0 || done - told >= tenth)
}

fn line(label: &str, done: u64, total: u64, elapsed: Duration, message: &str) -> String {
    let mut text = format!("{label}: ");
    if total == 0 {
        text.push_str(&span(elapsed));
    } else {
        let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
        let percent = 100.0 * done as f64 / total as f64;
        text.push_str(&format!("{done}/{total} ({percent:.0}%), {} a second", short(rate)));
        if done > 0 && done < total {
            let left = Duration::from_secs_f64((total - done) as f64 / rate);
            text.push_str(&format!(", {} left", span(left)));
        }
    }
    if !message.is_empty() {
        text.push_str(&format!(" | {message}"));
    }
    text
}

fn last_line(label: &str, done: u64, total: u64, elapsed: Duration) -> String {
    if total == 0 {
        format!("{label}: done in {}", span(elapsed))
    } else {
        format!("{label}: {done}/{total} in {}", span(elapsed))
    }
}

fn short(rate: f64) -> String {
    let decimals = match rate {
        r if r >= 100.0 => 0,
        r if r >= 1.0 => 1,
        _ => 3,
    };
    format!("{rate:.decimals$}")
}

/// A duration as a person says it: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_line_is_due_after_a_tenth_and_ten_seconds() {
        assert!(!is_due(5, 0, 100, S(60)), "less than a tenth");
        assert!(!is_due(50, 0, 100, S(9)), "too soon");
        assert!(is_due(10, 0, 100, S(10)));
        assert!(!is_due(15, 10, 100, S(60)), "less than a tenth since then");
        assert!(is_due(0, 0, 0, S(10)), "unknown total: by time alone");
    }

    #[test]
    fn lines_hold_rate_and_time_left() {
        assert_eq!(line("train", 30, 100, S(60), ""), "train: 30/100 (30%), 0.500 a second, 2 min 20 s left");
        assert_eq!(line("pip", 0, 0, S(12), "wheel"), "pip: 12 s | wheel");
        assert_eq!(last_line("train", 100, 100, S(61)), "train: 100/100 in 1 min 01 s");
    }

    #[test]
    fn spans_read_well() {
        assert_eq!(span(Duration::from_millis(420)), "0.4 s");
        assert_eq!(span(Duration::from_millis(9_960)), "10 s");
        assert_eq!(span(S(185)), "3 min 05 s");
        assert_eq!(span(S(7_800)), "2 h 10 min");
    }

    #[test]
    fn threads_share_one_counter() {
        let progress = Progress::new("test", 400);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.inc(1)));
            }
        });
        assert_eq!(progress.state().done, 400);
    }
}
