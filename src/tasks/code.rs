//! Code: Python that passes its tests, on HumanEval, MBPP and APPS. The reward is 1 if it does, else 0.

use std::sync::Arc;

use anyhow::Result;

use super::data::{Records, apps, humaneval, mbpp};
use super::text::{Example, Keep, Pools, PromptText, TextData};
use crate::models::Source;
use crate::sandbox::{Program, Sandbox};

/// Where the data sets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSources {
    pub humaneval: Source,
    pub mbpp: Source,
    /// Left out where its files are not there: it is large, and its files are made by a script of its repository.
    pub apps: Source,
}

impl Default for CodeSources {
    fn default() -> Self {
        Self {
            humaneval: Source::dataset(humaneval::REPOSITORY),
            mbpp: Source::dataset(mbpp::REPOSITORY),
            apps: Source::dataset(apps::REPOSITORY),
        }
    }
}

/// What ends a program of MBPP and of APPS, in the paper of the former.
const DONE: &str = "\n[DONE]";

/// What ends a completion of HumanEval, in its paper: the function is over.
const HUMANEVAL_STOPS: [&str; 5] = ["\nclass ", "\ndef ", "\n#", "\nif ", "\nprint("];

/// One problem of any of the three.
enum Problem {
    HumanEval(humaneval::Problem),
    Mbpp(mbpp::Problem),
    Apps(apps::Problem),
}

/// The three data sets. HumanEval and the test files are for testing, MBPP's and APPS' other files for training. Programs
/// are run in `sandbox`, on `threads` threads.
///
/// # Errors
/// A file of HumanEval or MBPP is not there; a file that cannot be read.
pub fn read(sources: &CodeSources, sandbox: Sandbox, threads: usize) -> Result<TextData> {
    let (pools, problems) = pools(sources)?;
    let problems = Arc::new(problems);
    Ok(TextData {
        name: "code",
        pools,
        stop_strings: vec![DONE.to_string()],
        rewards: Some(Box::new(move |texts| {
            let programs = texts.iter().map(|(example, text)| problems[example.record].program(text));
            let programs: Vec<Option<Program>> = programs.collect();
            let outcomes = sandbox.run_all(&programs.iter().flatten().cloned().collect::<Vec<_>>(), threads, None)?;
            let mut outcomes = outcomes.into_iter();
            // A problem without tests is passed by nothing.
            let reward = |program: Option<Program>| {
                let passed = program.and_then(|_| outcomes.next()).is_some_and(|outcome| outcome.passed());
                f64::from(u8::from(passed))
            };
            Ok(programs.into_iter().map(reward).collect())
        })),
        rewarded_by: "all tests pass".to_string(),
    })
}

/// The examples, each with the number of its problem.
fn pools(sources: &CodeSources) -> Result<(Pools, Vec<Problem>)> {
    let mut all = All::default();
    let path = sources.humaneval.file(humaneval::TEST)?;
    all.add(humaneval::read(&path)?, false, Problem::HumanEval);
    for (name, is_train) in [(mbpp::PROMPT, true), (mbpp::TRAIN, true), (mbpp::VALIDATION, true), (mbpp::TEST, false)] {
        all.add(mbpp::read(&sources.mbpp.file(name)?)?, is_train, Problem::Mbpp);
    }
    for (name, is_train) in [(apps::TRAIN, true), (apps::TEST, false)] {
        match sources.apps.file_if_there(name)? {
            Some(path) => all.add(apps::read(&path)?, is_train, Problem::Apps),
            None => all.notes.push(format!("{} of {} is not there: left out", name, sources.apps)),
        }
    }
    Ok((Pools::new(all.train, all.test, all.notes)?, all.problems))
}

#[derive(Default)]
struct All {
    problems: Vec<Problem>,
    train: Vec<Example>,
    test: Vec<Example>,
    notes: Vec<String>,
}

impl All {
    fn add<T>(&mut self, records: Records<T>, is_train: bool, kind: impl Fn(T) -> Problem) {
        self.notes.extend(records.left_out());
        let (file, mut untested) = (records.name(), 0);
        for record in records.values() {
            let problem = kind(record);
            if let Problem::Apps(apps::Problem { check: None, .. }) = problem {
                untested += 1;
                continue;
            }
            let example = problem.example(self.problems.len());
            if is_train { &mut self.train } else { &mut self.test }.push(example);
            self.problems.push(problem);
        }
        if untested > 0 {
            self.notes.push(format!("{file}: {untested} problems have no tests: left out"));
        }
    }
}

impl Problem {
    /// The program that a text completes, with its tests.
    fn program(&self, text: &str) -> Option<Program> {
        match self {
            Problem::HumanEval(problem) => {
                let end = HUMANEVAL_STOPS.iter().filter_map(|stop| text.find(stop)).min();
                Some(problem.program(&text[..end.unwrap_or(text.len())]))
            }
            Problem::Mbpp(problem) => Some(problem.program(text)),
            Problem::Apps(problem) => problem.program(text),
        }
    }

    fn example(&self, record: usize) -> Example {
        // The data hold lines that end in CR LF; a policy need not learn that.
        let whole = |code: &str| format!("{}{DONE}", code.replace("\r\n", "\n").trim_end());
        let (family, prompt, demonstrations) = match self {
            Problem::HumanEval(problem) => {
                ("humaneval", PromptText::whole(&problem.prompt), vec![problem.canonical_solution.clone()])
            }
            Problem::Mbpp(problem) => ("mbpp", PromptText::whole(problem.prompt()), vec![whole(&problem.code)]),
            Problem::Apps(problem) => {
                let [before, body, after] = problem.prompt();
                let prompt = PromptText { before, body, after, keep: Keep::Beginning };
                ("apps", prompt, problem.solutions.iter().map(|code| whole(code)).collect())
            }
        };
        Example { family, record, group: prompt.text(), prompt, demonstrations, pair: None }
    }
}
