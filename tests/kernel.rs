//! The notebooks' kernel, driven as JupyterLab drives it.
//!
//! The first run on a machine sets the kernel up, which takes minutes.

use qstar::notebook::{Kernel, Project, setup};
use qstar::prelude::*;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};

const MAKE: &str = include_str!("kernel/make.rs");
const TRAIN: &str = include_str!("kernel/train.rs");

/// The kernel, and the right to run it: two kernels at once would make each other's times meaningless.
fn kernel() -> (&'static Kernel, MutexGuard<'static, ()>) {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let kernel = KERNEL.get_or_init(|| {
        println!("setting the kernel up; the first time takes minutes");
        let project = Project::find_from(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        setup(&project).unwrap_or_else(|error| panic!("the set-up failed: {error:#}"))
    });
    (kernel, one)
}

/// Runs cells in a fresh kernel, then asks for completions at the ends of the given codes.
fn probe(kernel: &Kernel, cells: &[&str], completions: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let asked = json!({ "folder": folder.path(), "cells": cells, "completions": completions });
    ask(kernel, "tests/kernel/probe.py", &asked)
}

/// Gives `asked` to one of our Python scripts and returns its answer.
fn ask(kernel: &Kernel, script: &str, asked: &Value) -> Value {
    let mut child =
        kernel.command("python").arg(in_checkout(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(asked.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Executes a notebook of these cells as `reproduce` does.
fn execute(kernel: &Kernel, cells: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let cells: Vec<Value> = cells
        .iter()
        .enumerate()
        .map(|(at, code)| {
            json!({
                "cell_type": "code", "id": format!("cell{at}"), "metadata": {}, "outputs": [],
                "execution_count": null, "source": code,
            })
        })
        .collect();
    let notebook = json!({ "nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells });
    let source = folder.path().join("in.ipynb");
    let target = folder.path().join("out/out.ipynb");
    std::fs::write(&source, notebook.to_string()).unwrap();
    let output =
        kernel.command("python").arg(in_checkout("src/notebook/execute.py")).args([&source, &target]).output().unwrap();
    let written = std::fs::read_to_string(&target).expect("the notebook is always written");
    (output, serde_json::from_str(&written).unwrap())
}

fn assert_ran(answer: &Value) {
    for (at, cell) in answer["cells"].as_array().unwrap().iter().enumerate() {
        assert_eq!(cell["errors"], json!([]), "cell {at}");
        assert_eq!(cell["stderr"], "", "cell {at}");
    }
}

#[test]
fn types_are_inferred_and_cells_are_quick() {
    let (kernel, _one) = kernel();
    let answer = probe(
        kernel,
        &[
            "let device = Device::Cpu;",
            "let t = Tensor::arange(0f32, 6f32, &device)?.reshape((2, 3))?;",
            "let (rows, columns) = t.dims2()?;\nlet doubled = (&t * 2.0)?;",
            "let values = doubled.flatten_all()?.to_vec1::<f32>()?;\n\
             let big: Vec<f32> = values.iter().copied().filter(|x| *x > 3.0).collect();\n\
             let pairs = values.iter().zip(&big).map(|(a, b)| (*a, *b)).collect::<Vec<_>>();\n\
             let first = values.first().copied().unwrap();",
            "let frame = DataFrame::new(rows, vec![Column::new(\"x\".into(), [1.5, 2.5])])?;",
            "frame.show();",
            "let half = frame.head(Some(1));\nlet height = half.height();",
            "println!(\"{rows} {columns} {first} {} {} {height}\", big.len(), pairs.len());",
        ],
        &[],
    );
    println!("kernel ready after {:.1} s", answer["ready"].as_f64().unwrap());
    for (at, cell) in answer["cells"].as_array().unwrap().iter().enumerate() {
        println!("cell {at}: {:.2} s", cell["seconds"].as_f64().unwrap());
    }
    assert_ran(&answer);
    let html = answer["cells"][5]["data"]["text/html"].as_str().unwrap();
    assert!(html.contains("<td style=\"text-align:right\">1.5</td>"), "{html}");
    assert_eq!(answer["cells"][7]["stdout"], "2 3 0 4 4 1\n");
    // Several times what a quiet machine needs: this finds a cold build at the start, not a busy machine.
    assert!(answer["ready"].as_f64().unwrap() < 60.0);
}

#[test]
fn a_model_made_in_one_cell_trains_in_the_next_bit_for_bit() {
    let (kernel, _one) = kernel();
    let make = format!("let model = {MAKE};");
    let train = format!("let trained = {TRAIN};");
    let show = "println!(\"{trained:?}\");";
    let answer = probe(kernel, &[&make, &train, show], &[]);
    assert_ran(&answer);

    let here = in_this_process().unwrap();
    assert_eq!(answer["cells"][2]["stdout"].as_str().unwrap(), format!("{here:?}\n"));
    assert_ne!(here.2, here.1, "training changes the weights");
}

/// (bits of the loss, digest of the weights before, digest after)
fn in_this_process() -> Result<(u64, String, String)> {
    let model = include!("kernel/make.rs");
    Ok(include!("kernel/train.rs"))
}

#[test]
fn the_librarys_items_complete() {
    let (kernel, _one) = kernel();
    let answer = probe(
        kernel,
        &["let t = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;"],
        &["let p = Languag", "t.sum_a", "qs::displ"],
    );
    assert_ran(&answer);
    for (at, expected) in ["LanguageModel", "sum_all", "display"].into_iter().enumerate() {
        let matches = answer["completions"][at]["matches"].to_string();
        assert!(matches.contains(expected), "{expected} is not in {matches}");
    }
}

#[test]
fn a_notebook_that_runs_is_written_with_its_outputs() {
    let (kernel, _one) = kernel();
    let cells = [
        "fn double(x: u32) -> u32 {\n    2 * x\n}",
        "// a comment\nlet x = double(21); // and another",
        "print!(\"x = \");\nprintln!(\"{x}\");\neprintln!(\"12% done\");",
        "x + 1",
        "Html(\"<b>bold</b>\".to_owned()).show();",
        "if x > 1 {\n    println!(\"large\");\n}",
        "// nothing here",
        "print!(\"no end of line\");",
        ":vars",
    ];
    let (output, notebook) = execute(kernel, &cells);
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(said.contains("    x = 42"), "{said}");
    assert_eq!(notebook["cells"][2]["outputs"][0]["text"], json!(["x = 42\n"]));
    assert_eq!(notebook["cells"][3]["outputs"][0]["data"]["text/plain"], json!(["43"]));
    assert_eq!(notebook["cells"][4]["outputs"][0]["data"]["text/html"], json!(["<b>bold</b>"]));
    assert_eq!(notebook["cells"][5]["outputs"][0]["text"], json!(["large\n"]));
    let source = notebook["cells"][0]["source"].as_array().unwrap().iter();
    let source: String = source.filter_map(|line| line.as_str()).collect();
    assert_eq!(source, cells[0], "the source is as it was");
    assert!(!notebook.to_string().contains("u001e"), "no mark is left");
}

#[test]
fn a_notebook_that_fails_names_the_cell_and_is_written() {
    let (kernel, _one) = kernel();
    let cells = ["let before = 1;", "bail!(\"the disk is full\");", "let after = 2;"];
    let (output, notebook) = execute(kernel, &cells);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cell 2 (bail!"), "{complaint}");
    assert!(complaint.contains("the disk is full"), "{complaint}");
    let count = |at: usize| notebook["cells"][at]["execution_count"].clone();
    assert_eq!((count(0), count(1), count(2)), (json!(1), json!(2), json!(null)));
}

#[test]
fn whatever_stops_a_cell_is_a_failure() {
    let (kernel, _one) = kernel();
    let cases = [
        ("let n: u32 = \"text\";", Some("mismatched types")),
        ("let fine = 1;", None),
        ("eprintln!(\"12% done\");", None),
        ("let v = vec![1];\nlet n = v[3];", Some("index out of bounds")),
        ("let n = \"x\".parse::<u32>()?;", Some("invalid digit")),
        ("bail!(\"the disk is full\");", Some("the disk is full")),
        ("for word in [\"1\", \"x\"] {\n    let n = word.parse::<u32>()?;\n}", Some("invalid digit")),
        ("\"x\".parse::<u32>()?", Some("invalid digit")),
        (
            "let handle = std::thread::spawn(|| panic!(\"far away\"));\nlet ok = handle.join().is_ok();",
            Some("far away"),
        ),
        ("println!(\"{fine}\"); // variables live on", None),
        ("std::process::exit(3);", Some("exit status: 3")),
        ("let still = \"works\";", None),
    ];
    let codes: Vec<&str> = cases.iter().map(|(code, _)| *code).collect();
    let folder = tempfile::tempdir().unwrap();
    let asked = json!({
        "folder": folder.path(), "codes": codes, "execute": in_checkout("src/notebook/execute.py"),
    });
    let reasons = ask(kernel, "tests/kernel/reasons.py", &asked);
    for (at, (code, expected)) in cases.into_iter().enumerate() {
        let reason = reasons[at].as_str();
        match expected {
            None => assert_eq!(reason, None, "{code}"),
            Some(text) => {
                let reason = reason.unwrap_or_else(|| panic!("no failure: {code}"));
                assert!(reason.contains(text), "{code}: {reason}");
            }
        }
    }
}
