//! The command, its key, and what a kill leaves.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use qstar::judge::{judgments_of_rows, read_judgments};

use crate::server::{Behaviour, Server, completion, longer, pairs};

const SECRET: &str = "sk-hunter2-0123456789";

fn qstar(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qstar"));
    command.current_dir(folder).arg("judge").args(arguments).env("QSTAR_TEST_KEY", SECRET).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    qstar(folder, arguments).output().unwrap()
}

fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two files of responses and the settings of a judge.
fn folder(count: usize, server: &Server) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (String::new(), String::new());
    for pair in pairs(count) {
        let line = |response: &str| {
            serde_json::json!({"id": pair.id, "prompt": pair.prompt, "response": response}).to_string() + "\n"
        };
        a.push_str(&line(&pair.a));
        b.push_str(&line(&pair.b));
    }
    fs::write(folder.path().join("a.jsonl"), a).unwrap();
    fs::write(folder.path().join("b.jsonl"), b).unwrap();
    let settings = format!(
        "base_url = \"{}\"\nmodel = \"served\"\nkey_variable = \"QSTAR_TEST_KEY\"\nat_once = 4\ntries = 30\nfirst_wait = 0.001\n",
        server.base_url()
    );
    fs::write(folder.path().join("judge.toml"), settings + "longest_wait = 0.01\n").unwrap();
    folder
}

/// All that a run left on disk, in one text.
fn everything(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { everything(&path) } else { fs::read_to_string(&path).unwrap() };
        text += &path.display().to_string();
    }
    text
}

#[test]
fn the_key_goes_to_the_server_and_nowhere_else() {
    // A server that sends the key back wherever it can.
    let server = Server::start(|asked| {
        let key = asked.authorization.clone().unwrap_or_default();
        assert_eq!(key, format!("Bearer {SECRET}"));
        match asked.attempt {
            0 => Behaviour::Status(500, "", format!("{{\"error\": {{\"message\": \"I saw {key}\"}}}}")),
            1 => Behaviour::Status(200, "", format!("not JSON: {key}")),
            2 if asked.first.starts_with("a0000") => {
                Behaviour::Status(400, "", format!("{{\"error\": {{\"message\": \"{key}\"}}}}"))
            }
            _ => {
                let mut answer = completion(&format!("{key}\n[[A]]"));
                answer["choices"][0]["finish_reason"] = key.into();
                Behaviour::Status(200, "", answer.to_string())
            }
        }
    });
    let folder = folder(3, &server);
    let output = run(folder.path(), &["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml", "--output", "out.jsonl"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let left = everything(folder.path());
    assert!(left.contains("[key]") && left.contains("HTTP 400: Bearer [key]"), "the server's words are there");
    assert!(!left.contains("hunter2") && !said.contains("hunter2"));
    // And in the error that ends a run.
    let refusing = Server::start(|asked| Behaviour::Status(401, "", asked.authorization.clone().unwrap_or_default()));
    let other = crate::command::folder(3, &refusing);
    let output = run(other.path(), &["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("401") && error.contains("[key]") && !error.contains("hunter2"),
        "{error}"
    );
    let output = qstar(other.path(), &["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml"])
        .env_remove("QSTAR_TEST_KEY")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("judge.toml: the environment variable QSTAR_TEST_KEY holds no key")
    );
}

#[test]
fn a_killed_run_goes_on() {
    let server = Server::start(|asked| {
        std::thread::sleep(Duration::from_millis(10));
        if asked.attempt == 0 && asked.chance < 0.3 { Behaviour::Drop } else { longer(asked) }
    });
    let folder = folder(60, &server);
    let arguments = ["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml", "--judge", "longer", "--output", "out.jsonl"];
    let mut child = qstar(folder.path(), &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while server.answered().iter().sum::<usize>() < 40 {
        assert!(
            started.elapsed() < Duration::from_secs(30) && child.try_wait().unwrap().is_none(),
            "the run has not come so far"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was under way when it was killed is answered by now.
    std::thread::sleep(Duration::from_millis(300));
    let before = server.answered().iter().sum::<usize>();
    assert!(before < 120, "it was killed in the middle");
    let kept = everything(&folder.path().join("judge-cache")).matches("\"finish\"").count();
    assert!(
        kept + 4 >= before,
        "what was answered is kept, but for at most the four that were under way: {kept} of {before}"
    );

    good(folder.path(), &arguments);
    let answered = server.answered();
    assert_eq!(answered.len(), 120);
    assert_eq!(answered.iter().sum::<usize>(), 120 + (before - kept), "only what was under way is asked again");
    let judges = judgments_of_rows(&read_judgments(&folder.path().join("out.jsonl")).unwrap()).unwrap();
    assert_eq!((judges[0].0.as_str(), judges[1].0.as_str(), judges[1].1.len()), ("longer", "served", 60));
    assert_eq!(judges[0].1, judges[1].1, "the server's rule is the rule");

    let requests = server.requests();
    assert!(good(folder.path(), &arguments).contains("served: 0 requests, 120 answers from the cache"));
    assert_eq!(server.requests(), requests);
}

#[test]
fn samples_sheets_and_answers() {
    let server = Server::start(longer);
    let folder = folder(40, &server);
    let chat = ["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml", "--judge", "shorter", "--judge", "longer"];
    let said = good(folder.path(), &[&chat[..], &["--sample", "10"]].concat());
    assert!(said.contains("All 40 pairs, by the 10 that were drawn") && said.contains("Wilson"), "{said}");
    assert_eq!(server.answered().len(), 20);
    let said = good(
        folder.path(),
        &[&chat[..], &["--select", "10", "--select-by", "judges", "--output", "out.jsonl"]].concat(),
    );
    assert!(said.contains("Horvitz-Thompson"), "{said}");

    let said = good(folder.path(), &["sheet", "a.jsonl", "b.jsonl", "--output", "sheet", "--count", "12"]);
    assert!(said.contains("12 pairs in sheet"), "{said}");
    let key: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("sheet/key.json")).unwrap()).unwrap();
    for rater in ["ann", "bob"] {
        let answers: serde_json::Map<_, _> =
            (1..=12).map(|item| (item.to_string(), ["1", "2", "tie"][item % 3].into())).collect();
        let file = serde_json::json!({"sheet": key["sheet"], "rater": rater, "answers": answers});
        fs::write(folder.path().join(format!("{rater}.json")), file.to_string()).unwrap();
    }
    let said = good(folder.path(), &["import", "sheet/key.json", "ann.json", "bob.json", "--judgments", "out.jsonl"]);
    assert!(said.contains("Fleiss' kappa of 2 raters: 1.000") && said.contains("majority of people"), "{said}");

    for (arguments, expected) in [
        (&["a.jsonl", "none.jsonl", "--judge", "longer"][..], "none.jsonl: cannot be read"),
        (&["a.jsonl", "b.jsonl", "--judge", "best"][..], "unknown judge \"best\""),
        (&["a.jsonl", "b.jsonl", "--judge", "reference"][..], "no reference"),
        (&["a.jsonl", "b.jsonl", "--judge", "longer", "--sample", "9"][..], "there is none"),
        (&["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml", "--sample", "99"][..], "99 of 40 pairs"),
        (&["a.jsonl", "b.jsonl", "--judge", "chat:a.jsonl"][..], "a.jsonl: not a judge's settings"),
        (
            &["a.jsonl", "b.jsonl", "--judge", "chat:judge.toml", "--select", "9", "--select-by", "judges"][..],
            "two judges",
        ),
        (&["a.jsonl", "b.jsonl"][..], "--judge"),
        (&["a.jsonl", "b.jsonl", "--judge", "longer", "--judge", "longer"][..], "two judges are called \"longer\""),
        (&["import", "a.jsonl", "ann.json"][..], "a.jsonl: not a sheet's key"),
    ] {
        let output = run(folder.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
    }
}
