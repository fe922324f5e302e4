//! Several processes as one training: started by mpirun, killed, failing, in disagreement.
//!
//! mpirun starts this very test again, as [`one_rank`], with a case in its environment. The feature `mpi` builds it.

#[path = "ranks/cases.rs"]
mod cases;
#[path = "ranks/runs.rs"]
mod runs;
#[path = "ranks/training.rs"]
mod training;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qstar::ranks::Ranks;
use qstar::record::RunFolder;

const CASE: &str = "QSTAR_RANKS_CASE";
const FOLDER: &str = "QSTAR_RANKS_FOLDER";

/// How soon a run must be over after one of its ranks is.
const SOON: Duration = Duration::from_secs(20);

#[test]
#[ignore = "what mpirun starts, not a test of its own"]
fn one_rank() {
    let case = std::env::var(CASE).expect("mpirun is given a case");
    let folder = std::env::var(FOLDER).expect("mpirun is given a folder");
    cases::run(&case, Path::new(&folder));
}

struct Outcome {
    status: ExitStatus,
    seconds: f64,
    /// What the ranks and mpirun said, both streams.
    said: String,
}

/// Runs a case on `count` ranks; none where there is no mpirun.
fn mpirun(count: usize, case: &str, folder: &Path) -> Option<Outcome> {
    let said = folder.join(format!("said-{case}"));
    let file = File::create(&said).unwrap();
    let mut command = Command::new("mpirun");
    command.args(["-n", &count.to_string()]).arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "one_rank", "--nocapture", "--test-threads=1"]);
    command.env(CASE, case).env(FOLDER, folder).env("RUST_BACKTRACE", "0");
    // Open MPI: as root, more ranks than cores, not each bound to one of them (version 4, then 5).
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.envs([("OMPI_MCA_rmaps_base_oversubscribe", "1"), ("OMPI_MCA_hwloc_base_binding_policy", "none")]);
    command.envs([
        ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
        ("PRTE_MCA_hwloc_default_binding_policy", "none"),
    ]);
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    // A group of its own, so that what hangs can be ended whole.
    command.process_group(0);
    let start = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            println!("skipped: mpirun cannot be started ({e})");
            return None;
        }
    };
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(120) {
            // SAFETY: a signal to the group that was made for this child.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            panic!("{case} on {count} ranks hangs: {}", std::fs::read_to_string(&said).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&std::fs::read(&said).unwrap()).into_owned();
    Some(Outcome { status, seconds, said })
}

/// A case in which every rank checks what it got: all must come to the end.
fn succeeds(count: usize, case: &str, folder: &Path) -> Option<String> {
    let outcome = mpirun(count, case, folder)?;
    assert!(outcome.status.success(), "{case} on {count} ranks: {}", outcome.said);
    let ended = outcome.said.matches("came to the end").count();
    assert_eq!(ended, count, "{case} on {count} ranks: {}", outcome.said);
    Some(outcome.said)
}

/// A case in which one rank ends early: all must end, soon, and none well.
fn fails(count: usize, case: &str, folder: &Path) -> Option<String> {
    let outcome = mpirun(count, case, folder)?;
    println!("{case}: over after {:.2} s, {}", outcome.seconds, outcome.status);
    assert!(!outcome.status.success(), "{case}: {}", outcome.said);
    assert!(outcome.seconds < SOON.as_secs_f64(), "{case} took {} s: {}", outcome.seconds, outcome.said);
    assert!(!outcome.said.contains("came to the end"), "{case}: {}", outcome.said);
    Some(outcome.said)
}

fn line_with<'a>(said: &'a str, words: &str) -> &'a str {
    said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words:?} in: {said}"))
}

/// Against the sum in f64 in the order of the ranks, bit for bit, and the same bits in a second run with other delays.
#[test]
fn a_mean_has_the_same_bits_on_every_rank_and_in_every_run() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2, 3, 5] {
        let Some(first) = succeeds(count, "mean", folder.path()) else { return };
        let second = succeeds(count, "mean-delayed", folder.path()).unwrap();
        let digest = |said: &str| line_with(said, "digest of all means: ").rsplit(' ').next().unwrap().to_string();
        assert_eq!(digest(&first), digest(&second));
        assert_eq!(digest(&first).len(), 64);
    }
}

#[test]
fn rank_0_gives_its_values_and_takes_all_rows() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2, 3] {
        if succeeds(count, "exchange", folder.path()).is_none() {
            return;
        }
    }
}

#[test]
fn a_sharded_tensor_is_gathered_whole_whatever_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2, 3] {
        if succeeds(count, "shard", folder.path()).is_none() {
            return;
        }
    }
}

#[test]
fn another_spec_is_an_error_on_every_rank_that_names_rank_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let Some(said) = succeeds(3, "other-spec", folder.path()) else { return };
    let expected = "the spec of rank 2 is not that of rank 0: `\"seed\": 1,` instead of `\"seed\": 0,`";
    assert_eq!(said.matches(expected).count(), 3, "{said}");
    let expected = "the weights of rank 1, 2 is not that of rank 0: nothing instead of `second`";
    assert_eq!(said.matches(expected).count(), 3, "{said}");
}

#[test]
fn ranks_that_are_out_of_step_are_told_where_each_is() {
    let folder = tempfile::tempdir().unwrap();
    let Some(said) = succeeds(2, "out-of-step", folder.path()) else { return };
    for expected in [
        "rank 0 is at the mean of 5 values, rank 1 at a barrier",
        "rank 0 is at the mean of 5 values, rank 1 at the mean of 6 values",
        "rank 0 is at a broadcast of 2 values, rank 1 at the mean of 2 values",
    ] {
        assert_eq!(said.matches(expected).count(), 2, "{said}");
    }
    // One is through while the other is not: both end with an error.
    let Some(said) = fails(2, "ends-early", folder.path()) else { return };
    line_with(&said, "rank 0 is at the end, rank 1 at the mean of 1 values");
}

#[test]
fn an_error_of_one_rank_ends_all_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(said) = fails(3, "error", folder.path()) else { return };
    line_with(&said, "error: rank 1 of 3: step 3: the loss is not a number");
    let said = fails(2, "panic", folder.path()).unwrap();
    line_with(&said, "a bug on rank 1");
    line_with(&said, "error: rank 1 of 2: it panicked; all ranks end");
    let said = fails(2, "leaves", folder.path()).unwrap();
    line_with(&said, "error: rank 1 of 2: it left without Ranks::end; all ranks end");
}

#[test]
fn a_rank_that_is_killed_or_exits_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let Some(said) = fails(2, "killed", folder.path()) else { return };
    // Open MPI's own words.
    line_with(&said, "signal 9");
    // What mpirun makes of a rank that leaves without a word is its own affair, but it must not hang.
    fails(2, "exits", folder.path());
}

/// Two ranks with half of every batch each: bit for bit what one process does that takes the halves one after the other,
/// and within 1e-6 what it does with the whole batch at once.
#[test]
fn two_ranks_train_as_one_process_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let alone = Ranks::alone();
    let halves = training::train(&alone, 2, &RunFolder::new(path("halves")), None).unwrap();
    let whole = training::train(&alone, 1, &RunFolder::new(path("whole")), None).unwrap();
    assert!(whole.losses[19] < 0.9 * whole.losses[0], "nothing was learned: {:?}", whole.losses);
    if succeeds(2, "train", folder.path()).is_none() {
        return;
    }
    let two = training::read(&RunFolder::new(path("train"))).unwrap();
    assert_eq!(two.losses.len(), 20);
    assert_eq!(two.weights, halves.weights);
    assert_eq!(two.losses, halves.losses);
    let gap = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let losses = gap(&two.losses, &whole.losses);
    let numbers = |weights: &[f32]| weights.iter().map(|&w| f64::from(w)).collect::<Vec<_>>();
    let weights = gap(&numbers(&two.weights), &numbers(&whole.weights));
    println!(
        "two ranks against the whole batch, 20 steps: losses differ by at most {losses:.1e}, weights by {weights:.1e}"
    );
    assert!(losses < 1e-6 && weights < 1e-6, "losses {losses:e}, weights {weights:e}");
}

/// A rank is killed between two checkpoints; the run goes on from the one on the disk and ends with the same bits.
#[test]
fn a_killed_rank_leaves_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let Some(said) = fails(2, "train-killed", folder.path()) else { return };
    line_with(&said, "signal 9");
    let left = training::read(&RunFolder::new(folder.path().join("train"))).unwrap();
    assert_eq!(left.losses.len(), 10, "killed in step 13, checkpoints every 5 steps");
    succeeds(2, "train", folder.path()).unwrap();
    let resumed = training::read(&RunFolder::new(folder.path().join("train"))).unwrap();
    let never = training::train(&Ranks::alone(), 2, &RunFolder::new(folder.path().join("never")), None).unwrap();
    assert_eq!(resumed.losses, never.losses);
    assert_eq!(resumed.weights, never.weights);
}

fn column(frame: &polars::prelude::DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).unwrap().f64().unwrap().iter().collect()
}

/// Whole runs: every prompt and draw is that of one process alone, numbers differ by the order of sums. Of `rejection` some
/// steps leave fewer microbatches than there are ranks; `dpo` draws nothing; `on_policy` has four passes and a value head.
#[test]
fn several_ranks_make_the_run_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    for (count, weights, method) in [
        (2, "all", "qstar"),
        (3, "all", "on_policy"),
        (2, "all", "rejection"),
        (2, "all", "dpo"),
        (2, "spread", "qstar"),
        (2, "spread", "dpo"),
        (3, "spread", "rejection"),
    ] {
        let (alone, together) = (folder.path().join("alone"), folder.path().join("run"));
        runs::train(&Ranks::alone(), weights, method, &alone).unwrap();
        if succeeds(count, &format!("{weights} {method}"), folder.path()).is_none() {
            return;
        }
        let (one, two) =
            (runs::read(weights, method, &alone).unwrap(), runs::read(weights, method, &together).unwrap());
        std::fs::remove_dir_all(&together).unwrap();
        let mut worst: f64 = 0.0;
        for (kind, names) in [
            ("steps", &["loss", "q_reward", "gradient_norm", "gradient_variance", "q_kl_init", "alpha_mean"][..]),
            ("evaluations", &["reward", "kl", "kl_k1", "entropy", "distinct_1", "distinct_2", "length", "ended"]),
        ] {
            let frame = |run: &runs::Trained| if kind == "steps" { run.steps.clone() } else { run.evaluations.clone() };
            for name in names {
                let (a, b) = (column(&frame(&one), name), column(&frame(&two), name));
                assert_eq!(a.len(), b.len(), "{method}, {name}");
                for (a, b) in a.iter().zip(&b) {
                    assert_eq!(a.is_some(), b.is_some(), "{method}, {name}");
                    let (a, b) = (a.unwrap_or(0.0), b.unwrap_or(0.0));
                    let off = (a - b).abs() / a.abs().max(1.0);
                    // What differs by a rounding gives gradients that differ by several.
                    let most = if name.starts_with("gradient") { 1e-5 } else { 1e-6 };
                    assert!(off < most, "{method}, {weights}, {name}: {a} {b}");
                    worst = worst.max(off);
                }
            }
        }
        let counted =
            |run: &runs::Trained| run.steps.select(["samples", "reward_calls", "flops_forward", "tokens"]).unwrap();
        assert!(counted(&one).equals(&counted(&two)), "{method}: {}\n{}", counted(&one), counted(&two));
        assert!(one.samples.equals(&two.samples), "{method}: other held-out responses");
        let off = one.weights.iter().zip(&two.weights).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        println!(
            "{method}, {weights}: {count} ranks against one process, 20 steps: rows differ by {worst:.1e}, weights by {off:.1e}"
        );
        assert!(off < 1e-6, "{method}, {weights}: weights differ by {off:e}");
    }
}

#[test]
fn ranks_draw_in_step_from_spread_weights_whoever_is_done_first() {
    let folder = tempfile::tempdir().unwrap();
    for count in [2, 3] {
        if succeeds(count, "draw", folder.path()).is_none() {
            return;
        }
    }
}

/// One of two ranks is killed behind a checkpoint: the run ends, soon, and goes on to the same bits as one that was not killed.
#[test]
fn a_run_whose_rank_was_killed_goes_on_from_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_path_buf();
    let killer = std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(5));
            let run = runs::begun(&place.join("run")).filter(|run| run.file("checkpoint.safetensors").exists());
            let pid = std::fs::read_to_string(place.join("pid-1")).ok().and_then(|pid| pid.parse().ok());
            if let (Some(_), Some(pid)) = (run, pid) {
                // SAFETY: a signal to a process that this test has started.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                return;
            }
        }
    });
    let Some(said) = fails(2, "all qstar", folder.path()) else { return };
    killer.join().unwrap();
    line_with(&said, "signal 9");
    let steps = runs::begun(&folder.path().join("run")).unwrap().steps_written().unwrap();
    assert!((5..20).contains(&steps) && steps.is_multiple_of(5), "{steps} steps are written");
    succeeds(2, "all qstar", folder.path()).unwrap();
    let never = tempfile::tempdir().unwrap();
    succeeds(2, "all qstar", never.path()).unwrap();
    let of = |folder: &Path| runs::read("all", "qstar", &folder.join("run")).unwrap();
    let (resumed, never) = (of(folder.path()), of(never.path()));
    assert_eq!(resumed.weights, never.weights);
    assert_eq!(column(&resumed.steps, "loss"), column(&never.steps, "loss"));
    assert_eq!(column(&resumed.evaluations, "reward"), column(&never.evaluations, "reward"));
}
