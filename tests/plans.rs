//! Plans: many processes on one disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use polars::prelude::{Column, DataFrame};
use qstar::experiment::{Experiment, Folders, Preset, study_page};
use qstar::plot;
use qstar::record::{Kind, RunFolder};

fn qstar(arguments: &[&str], runs: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qstar"));
    command.args(["plan"]).args(arguments).args(["--preset", "smoke", "--runs"]).arg(runs);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(runs: &Path) -> Child {
    qstar(&["run", "rules"], runs).spawn().unwrap()
}

/// The finished runs, and when they were finished.
fn done(runs: &Path) -> BTreeMap<String, SystemTime> {
    let Ok(entries) = std::fs::read_dir(runs) else { return BTreeMap::new() };
    let finished = |entry: std::fs::DirEntry| {
        let time = std::fs::metadata(entry.path().join("done.json")).ok()?.modified().ok()?;
        Some((entry.file_name().into_string().unwrap(), time))
    };
    entries.flatten().filter_map(finished).collect()
}

fn folders(runs: &Path) -> Folders {
    Folders { runs: runs.to_path_buf(), ..Folders::find().unwrap() }
}

/// Two processes; one is killed in the midst of its runs.
#[test]
fn of_two_processes_on_one_plan_one_may_die() {
    let runs = tempfile::tempdir().unwrap();
    let (mut first, second) = (start(runs.path()), start(runs.path()));
    let begun = Instant::now();
    while done(runs.path()).len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(120), "no run is done");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let before = done(runs.path());
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = done(runs.path());
    assert!(before.len() < after.len(), "the first was killed after the last run");

    // Every run of the plan and no other, each with all its steps once.
    let folders = folders(runs.path());
    let plan = Experiment::Rules.plan(&Preset::load(&folders.data, "smoke").unwrap(), &folders).unwrap();
    let frame = plan.frame().unwrap();
    let mut names: Vec<&str> = frame.column("run").unwrap().str().unwrap().iter().flatten().collect();
    names.sort_unstable();
    assert_eq!(after.keys().map(String::as_str).collect::<Vec<_>>(), names);
    for name in names {
        let steps = RunFolder::new(runs.path().join(name)).rows(Kind::Steps).unwrap();
        let steps: Vec<i64> = steps.column("step").unwrap().i64().unwrap().iter().flatten().collect();
        assert_eq!(steps, [0, 1, 2, 3], "{name}");
    }
    // What was done was not done again, neither by the second process nor by a third one.
    assert!(before.iter().all(|(name, time)| after[name] == *time));
    assert!(start(runs.path()).wait().unwrap().success());
    assert_eq!(done(runs.path()), after);
    let status = plan.status().unwrap();
    let sum = |name: &str| status.column(name).unwrap().i64().unwrap().iter().flatten().sum::<i64>();
    assert_eq!((sum("runs"), sum("done"), sum("at_work")), (after.len() as i64, after.len() as i64, 0));
    assert_eq!(sum("steps"), sum("steps_done"));
}

/// As a Slurm array would: one process a number, in any order.
#[test]
fn runs_are_trained_one_by_one_by_their_numbers() {
    let runs = tempfile::tempdir().unwrap();
    let folders = folders(runs.path());
    let mut preset = Preset::load(&folders.data, "smoke").unwrap();
    (preset.seeds, preset.run.steps) = (1, 2);
    let plan = || Experiment::Main.plan(&preset, &folders).unwrap();
    let jobs = plan().jobs().len();
    assert_eq!(jobs, 9 + 9 * 2 + 9);
    // The last one is tuned: its trials come first, and they alone.
    plan().train_one(jobs - 1).unwrap();
    assert_eq!(done(runs.path()).len(), 3);
    plan().train_one(0).unwrap();
    plan().train_one(9).unwrap();
    let found = done(runs.path());
    assert_eq!(found.len(), 5);
    let frame = plan().frame().unwrap();
    let flags: Vec<bool> = frame.column("done").unwrap().bool().unwrap().iter().flatten().collect();
    let of = |done: bool| (0..jobs).filter(|id| flags[*id] == done).collect::<Vec<_>>();
    assert_eq!(of(true), [0, 9, 25, 26, jobs - 1]);
    plan().train_one(0).unwrap();
    assert_eq!(done(runs.path()), found);
    let error = plan().train_one(jobs).unwrap_err().to_string();
    assert!(error.contains("0 to 35") && error.contains("no run 36"), "{error}");
    // All that is left, at once; then every run has its name and its rows.
    let results = plan().train().unwrap();
    assert_eq!(results.runs().len(), 18);
    let rows = results.evaluations().unwrap();
    let columns: Vec<String> = rows.get_column_names().iter().take(6).map(|name| name.to_string()).collect();
    assert_eq!(columns, ["task", "parameters", "target", "method", "setting", "seed"]);
    // What is on the disk makes a page; of experiments without runs it says so.
    assert_eq!(plan().finished().unwrap().runs().len(), 18);
    let page = study_page(&preset, &folders).unwrap().to_html();
    assert!(page.contains("H5") && page.contains("<svg") && page.contains("No run of this experiment is done"));
    // Every run is listed once, with the experiments that it is part of.
    for (_, run) in results.runs() {
        assert_eq!(page.matches(&format!(">{}</td>", run.spec.name().unwrap())).count(), 1);
    }
    let shared = |row: &&str| row.contains(">micro-qstar-s0-") && row.contains(">main, rules, weights");
    assert_eq!(page.split("<tr>").filter(shared).count(), 1);
    let tuned = results.only("setting", "tuned").unwrap();
    assert_eq!((tuned.runs().len(), tuned.methods().len()), (9, 9));
    let error = tuned.only("setting", "common").err().unwrap().to_string();
    assert!(error.contains("common") && error.contains("tuned"), "{error}");
}

/// A method that looks at no target has one run beside all of them.
#[test]
fn what_no_target_changes_is_trained_once() {
    let runs = tempfile::tempdir().unwrap();
    let folders = folders(runs.path());
    let mut preset = Preset::load(&folders.data, "smoke").unwrap();
    (preset.seeds, preset.search) = (1, None);
    preset.targets.push(qstar::experiment::TargetName::PrefixScorer);
    let plan = Experiment::Main.plan(&preset, &folders).unwrap();
    let frame = plan.frame().unwrap();
    let column = |name: &str| -> Vec<&str> { frame.column(name).unwrap().str().unwrap().iter().flatten().collect() };
    let (method, name) = (column("method"), column("run"));
    let shared: Vec<&str> = (0..9).filter(|i| name[*i] == name[i + 9]).map(|i| method[i]).collect();
    assert_eq!(shared, ["reinforce", "on_policy", "rejection", "dpo"]);
    let results = plan.train().unwrap();
    assert_eq!(done(runs.path()).len(), 14);
    let of_both = results.only("method", "dpo").unwrap().evaluations().unwrap();
    let targets = of_both.column("target").unwrap().n_unique().unwrap();
    assert_eq!((targets, of_both.height()), (2, 2 * 3));
}

/// Twice from scratch: one run on each core, each alone on a thread; then one after the other, each on three.
#[test]
fn frames_and_figures_are_the_same_bits_every_time() {
    let made = |threads: &str, one_by_one: bool| {
        let runs = tempfile::tempdir().unwrap();
        let folders = folders(runs.path());
        let plan = Experiment::Rules.plan(&Preset::load(&folders.data, "smoke").unwrap(), &folders).unwrap();
        let train = |arguments: &[&str]| {
            let mut command = qstar(&[&["run", "rules"], arguments].concat(), runs.path());
            let ended = command.env("RAYON_NUM_THREADS", threads).env("CANDLE_NUM_THREADS", threads).status();
            assert!(ended.unwrap().success());
        };
        match one_by_one {
            true => (0..plan.jobs().len()).for_each(|id| train(&["--id", &id.to_string()])),
            false => train(&[]),
        }
        let results = plan.finished().unwrap();
        assert_eq!(results.runs().len(), plan.jobs().len());
        let (steps, evaluations) = (results.steps().unwrap(), results.evaluations().unwrap());
        let frames = [steps.clone(), evaluations.clone(), results.samples().unwrap()].map(bits).concat();
        let figures = [
            plot::alpha_rules(&steps, &evaluations),
            plot::reward_curves(&evaluations),
            plot::alpha_over_training(&steps),
            plot::ess_scatter(&steps),
            plot::reward_over_kl(&evaluations),
        ];
        (frames, figures.map(|figure| figure.unwrap().svg))
    };
    let (first, second) = (made("1", false), made("3", true));
    assert!(first.0.len() > 10_000, "{} bytes of rows", first.0.len());
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
}

/// The columns that are not measured, as text that distinguishes every bit of a number.
fn bits(frame: DataFrame) -> String {
    let measured = |name: &str| name.starts_with("seconds") || name == "peak_memory_mb";
    let kept = frame.columns().iter().filter(|column| !measured(column.name()));
    let text = |column: &Column| {
        let values: Vec<String> = (0..frame.height()).map(|row| format!("{:?}", column.get(row).unwrap())).collect();
        format!("{}: {}\n", column.name(), values.join(" "))
    };
    kept.map(text).collect()
}

#[test]
fn the_command_names_what_it_does_not_know() {
    let runs = tempfile::tempdir().unwrap();
    let error = |arguments: &[&str]| {
        let output = qstar(arguments, runs.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["show", "mian"]).contains("main, rules, weights"));
    assert!(error(&["run", "rules", "--id", "9999"]).contains("there is no run 9999"));
}
