//! Runs that survive: killed, resumed, refused, and the same bits whatever the number of threads.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use polars::prelude::DataFrame;
use qstar::record::{Kind, RunFolder};

const STEPS: &str = "12";

fn command(runs: &Path, method: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qstar"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["train", "--preset", "smoke", "--steps", STEPS, "--method", method, "--runs"]).arg(runs);
    command
}

fn train(runs: &Path, method: &str) -> Output {
    command(runs, method).output().unwrap()
}

fn trained(runs: &Path, method: &str) -> RunFolder {
    let output = train(runs, method);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    only_run(runs)
}

fn only_run(runs: &Path) -> RunFolder {
    let folders: Vec<PathBuf> = std::fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    RunFolder::new(&folders[0])
}

/// The rows without the columns of time and memory, as text that distinguishes every bit of a number.
fn rows(run: &RunFolder, kind: Kind) -> String {
    let frame = run.rows(kind).unwrap();
    let names = frame.get_column_names_owned();
    let kept = names.iter().filter(|name| !name.starts_with("seconds") && *name != "peak_memory_mb");
    let frame: DataFrame = frame.select(kept.cloned()).unwrap();
    let mut text = String::new();
    for column in frame.columns() {
        text += &format!("{}:", column.name());
        for row in 0..frame.height() {
            text += &format!(" {:?}", column.get(row).unwrap());
        }
        text.push('\n');
    }
    text
}

fn weights(run: &RunFolder) -> String {
    std::fs::read_to_string(run.file("done.json")).unwrap()
}

fn assert_same(a: &RunFolder, b: &RunFolder) {
    for kind in Kind::ALL {
        assert_eq!(rows(a, kind), rows(b, kind));
    }
    assert_eq!(weights(a), weights(b));
}

/// Kills with SIGKILL again and again, each time a little later, until the run is done.
#[test]
fn killed_and_resumed_equals_never_killed() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for method in ["qstar", "on_policy"] {
        let (whole, killed) = (whole.path().join(method), killed.path().join(method));
        let never = trained(&whole, method);
        let (mut kills, mut resumable) = (0, 0);
        // Each life is a little longer than the last, so that kills fall on different places of a step.
        for life in 0..40u64 {
            let mut child = command(&killed, method).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let start = Instant::now();
            let patience = Duration::from_millis(150 + 90 * life);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    assert!(status.success());
                    break true;
                }
                if start.elapsed() > patience {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            if ended {
                break;
            }
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
            kills += 1;
            let has = |file: &str| {
                std::fs::read_dir(&killed).is_ok_and(|mut runs| runs.any(|run| run.unwrap().path().join(file).exists()))
            };
            resumable += usize::from(has("checkpoint.safetensors") && !has("done.json"));
        }
        assert!(resumable > 0, "no kill fell between a checkpoint and the end");
        println!("{method}: killed {kills} times, {resumable} of them with a checkpoint to go on from");
        assert_same(&never, &trained(&killed, method));
    }
}

#[test]
fn a_finished_run_is_not_run_again() {
    let runs = tempfile::tempdir().unwrap();
    let run = trained(runs.path(), "sft");
    let written = |run: &RunFolder| std::fs::metadata(run.file("checkpoint.safetensors")).unwrap().modified().unwrap();
    let before = written(&run);
    assert_eq!(before, written(&trained(runs.path(), "sft")));
}

#[test]
fn the_same_seed_gives_the_same_bits_with_one_thread_and_with_four() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let runs = ["1", "4"].map(|threads| {
        let folder = folders[usize::from(threads == "4")].path();
        let status = command(folder, "qstar")
            .env("RAYON_NUM_THREADS", threads)
            .env("CANDLE_NUM_THREADS", threads)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        only_run(folder)
    });
    assert_same(&runs[0], &runs[1]);
}

fn error_of(output: Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_corrupt_checkpoint_is_named_and_nothing_is_lost() {
    let runs = tempfile::tempdir().unwrap();
    let run = trained(runs.path(), "reinforce");
    let before = rows(&run, Kind::Steps);
    std::fs::remove_file(run.file("done.json")).unwrap();
    let checkpoint = run.file("checkpoint.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let error = error_of(train(runs.path(), "reinforce"));
    assert!(error.contains("checkpoint.safetensors") && error.contains("remove the file"), "{error}");
    assert_eq!(rows(&run, Kind::Steps), before);
}

#[test]
fn a_wrong_preset_and_a_wrong_method_are_named() {
    let runs = tempfile::tempdir().unwrap();
    let mut wrong = command(runs.path(), "qstar");
    wrong.args(["--preset", "huge"]);
    let error = error_of(
        Command::new(wrong.get_program())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["train", "--preset", "huge"])
            .output()
            .unwrap(),
    );
    assert!(error.contains("no preset \"huge\"") && error.contains("micro") && error.contains("smoke"), "{error}");
    let error = error_of(train(runs.path(), "qstart"));
    assert!(error.contains("unknown method \"qstart\"") && error.contains("on_policy"), "{error}");
}

/// A file-size limit stands for a full disk: writing beyond it fails in the same way.
#[test]
fn a_full_disk_is_an_error_and_what_was_written_stays() {
    let runs = tempfile::tempdir().unwrap();
    let inner = command(runs.path(), "qstar");
    let args: Vec<_> = inner.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    // Parts are small and are written; the checkpoint of 4 MB is not. XFSZ ignored: the write fails instead of killing.
    let output = Command::new("bash")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_qstar")])
        .args(args)
        .output()
        .unwrap();
    let error = error_of(output);
    assert!(error.contains("checkpoint.safetensors") && error.contains("cannot be written"), "{error}");
    let run = only_run(runs.path());
    assert_eq!(run.rows(Kind::Steps).unwrap().height(), 2, "the part before the checkpoint");
    // With room again the run goes on.
    trained(runs.path(), "qstar");
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_run_with_its_step() {
    use qstar::experiment::{Preset, World};
    use qstar::method::QSTAR;
    use qstar::progress::Progress;
    use qstar::train::{Run, RunSpec};
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let world = World::micro(&data).unwrap();
    let mut config = Preset::load(&data, "smoke").unwrap().run;
    // Far beyond any sensible rate: the weights leave the range of f32.
    config.step.learning_rate = 1e30;
    config.step.warmup_steps = 1;
    let runs = tempfile::tempdir().unwrap();
    let spec = RunSpec::new(&*world.task, QSTAR, 0, config, &world.models).unwrap();
    let run = Run::new(runs.path(), spec).unwrap();
    let error = run.train(&*world.task, &world.models, &Progress::new("nan", 1)).unwrap_err();
    let error = format!("{error:#}");
    let says_so = ["NaN", "not a number", "not numbers"].iter().any(|words| error.contains(words));
    assert!(error.contains("run micro-qstar-s0") && error.contains("step 1") && says_so, "{error}");
    assert!(!run.is_done());
}

#[test]
fn two_processes_do_not_share_a_run() {
    let runs = tempfile::tempdir().unwrap();
    let run = trained(runs.path(), "qstar");
    std::fs::remove_file(run.file("done.json")).unwrap();
    let _lock = run.try_lock().unwrap().unwrap();
    assert!(error_of(train(runs.path(), "qstar")).contains("another process"));
}
