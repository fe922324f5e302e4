//! The data sets' own solutions pass, and programs that do nothing do not.

use std::path::{Path, PathBuf};
use std::time::Instant;

use qstar::models::Source;
use qstar::reward::{Completion, ExecutionRow, execute, execution_accuracy};
use qstar::sandbox::{Check, Limits, Sandbox};
use qstar::tasks::data::{apps, humaneval, mbpp};

use super::sandbox;

/// The file of a data set in the cache of `HF_HOME`, or a printed reason.
fn cached(repository: &str, file: &str) -> Option<PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let path = hf_hub::Cache::from_env().dataset(repository.to_string()).get(file);
    if path.is_none() {
        println!("skipped: {file} of {repository} is not in the hub's cache");
        return None;
    }
    Some(Source::dataset(repository).file(file).unwrap())
}

fn run(sandbox: &Sandbox, what: &str, completions: &[Completion]) -> Vec<ExecutionRow> {
    let begin = Instant::now();
    let rows = execute(sandbox, completions, 2, None).unwrap();
    println!("{what}: {} programs in {:.2?} on 2 threads", rows.len(), begin.elapsed());
    rows
}

fn assert_all_passed(rows: &[ExecutionRow], count: usize) {
    let failed: Vec<_> = rows.iter().filter(|row| !row.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!((rows.len(), execution_accuracy(rows).unwrap()), (count, 1.0));
}

#[test]
fn humaneval_passes_with_its_solutions_and_not_without() {
    let Some(path) = cached(humaneval::REPOSITORY, humaneval::TEST) else { return };
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let problems = humaneval::read(&path).unwrap();
    assert_eq!(problems.left_out(), None);
    let problems = problems.values();
    let with = |body: &dyn Fn(&humaneval::Problem) -> String| -> Vec<Completion> {
        let completion = |problem: &humaneval::Problem| {
            let (task, program) = (problem.task_id.clone(), problem.program(&body(problem)));
            Completion { task, program }
        };
        problems.iter().map(completion).collect()
    };
    let begin = Instant::now();
    assert_all_passed(
        &run(&sandbox, "HumanEval's solutions", &with(&|problem| problem.canonical_solution.clone())),
        164,
    );
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    let rows = run(&sandbox, "HumanEval with pass", &with(&|_| "    pass\n".into()));
    let passed: Vec<_> = rows.iter().filter(|row| row.passed).collect();
    assert!(rows.len() == 164 && passed.is_empty(), "{passed:?}");
    assert_eq!(execution_accuracy(&rows).unwrap(), 0.0);
    // What would pass in the tests' own interpreter: leaving it, and answers that equal everything.
    for body in [
        "    import os; os._exit(0)\n",
        "    return type('A', (), {'__eq__': lambda *a: True, '__lt__': lambda *a: True})()\n",
    ] {
        let rows = run(&sandbox, "HumanEval forged", &with(&|_| body.into())[..20]);
        assert!(rows.iter().all(|row| !row.passed), "{body}");
    }
    let frame = ExecutionRow::frame(&rows).unwrap();
    assert_eq!(frame.shape(), (164, 7));
    assert_eq!(frame.column("task").unwrap().str().unwrap().get(163), Some("HumanEval/163"));
}

#[test]
fn mbpp_passes_with_its_solutions() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let mut completions = Vec::new();
    for (file, count) in [(mbpp::PROMPT, 10), (mbpp::TEST, 500), (mbpp::VALIDATION, 90), (mbpp::TRAIN, 374)] {
        let Some(path) = cached(mbpp::REPOSITORY, file) else { return };
        let problems = mbpp::read(&path).unwrap();
        assert_eq!((problems.left_out(), problems.records.len()), (None, count));
        assert!(problems.records[0].value.prompt().contains("pass these tests:\n\nassert "));
        let completion = |problem: &mbpp::Problem| Completion {
            task: problem.task_id.to_string(),
            program: problem.program(&problem.code),
        };
        completions.extend(problems.values().iter().map(completion));
    }
    assert_all_passed(&run(&sandbox, "MBPP's solutions", &completions), 974);
}

/// Records of our own, in the schema of codeparrot/apps.
#[test]
fn apps_passes_with_its_solutions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/apps.jsonl");
    let problems = apps::read(&path).unwrap();
    assert_eq!((problems.left_out(), problems.records.len()), (None, 6));
    let problems = problems.values();
    assert!(
        matches!(problems[0].check, Some(Check::Output { .. }))
            && matches!(problems[2].check, Some(Check::Calls { .. }))
    );
    assert!(problems[4].check.is_none() && problems[4].program("").is_none() && problems[4].solutions.is_empty());
    assert!(problems[0].prompt()[2].ends_with("Use Standard Input format\n\nANSWER:\n"));
    assert!(problems[2].prompt()[2].ends_with("-> int:\n\n\nUse Call-Based format\n\nANSWER:\n"));

    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let mut right = Vec::new();
    let mut wrong = Vec::new();
    for problem in &problems {
        let completion =
            |code: &str| Some(Completion { task: problem.problem_id.to_string(), program: problem.program(code)? });
        right.extend(problem.solutions.iter().filter_map(|code| completion(code)));
        wrong.extend(["", "print(0)", "def total(numbers, start): return 10"].into_iter().filter_map(completion));
    }
    assert_all_passed(&run(&sandbox, "records like APPS", &right), 8);
    let rows = run(&sandbox, "records like APPS, wrong", &wrong);
    assert!(rows.iter().all(|row| !row.passed), "{rows:?}");
    assert_eq!(rows.iter().map(|row| row.completion).collect::<Vec<_>>(), [0, 1, 2].repeat(5));
}

#[test]
fn lines_that_are_not_of_the_schema_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.jsonl");
    let line = |solutions: &str, tests: &str| {
        serde_json::json!({"problem_id": 1, "question": "q", "solutions": solutions, "input_output": tests, "difficulty": "x", "url": "", "starter_code": ""})
            .to_string()
    };
    let lines = [
        line("[]", "{\"inputs\": [\"1\"], \"outputs\": [\"1\"]}"),
        "{\"problem_id\": 1}".into(),
        line("[", ""),
        line("[]", "{\"inputs\": [\"1\"], \"outputs\": []}"),
        line("[]", "{\"inputs\": [1], \"outputs\": [2], \"fn_name\": \"f\"}"),
        line("[]", "{\"inputs\": [[1]], \"outputs\": [2], \"fn_name\": \"f(); import os\"}"),
        line("[]", "{\"inputs\": [[1]], \"outputs\": [[\"x\"]]}"),
        line("", "{\"inputs\": [], \"outputs\": []}"),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let read = apps::read(&path).unwrap();
    assert_eq!(read.records.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 8]);
    let why = [
        "question",
        "field solutions",
        "1 inputs and 0 outputs",
        "no list of arguments",
        "no name of a function",
        "not of lines",
    ];
    assert_eq!(read.malformed.len(), why.len());
    for (i, (bad, why)) in read.malformed.iter().zip(why).enumerate() {
        assert!(bad.number == i + 2 && bad.why.contains(why), "{bad:?}");
    }
}
