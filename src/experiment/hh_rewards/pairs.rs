//! The pairs of HH-RLHF that a reward model is trained on, and those that are held out.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::models::Source;
use crate::tasks::data::hh_rlhf::{ASSISTANT, Pair, Part, equal, read_pairs};

/// What the people who compared two answers looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Helpful,
    Harmless,
}

/// Pairs for training and pairs held out, each with its family.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub train: Vec<(Family, Pair)>,
    pub held_out: Vec<(Family, Pair)>,
    /// Which files they are from.
    pub files: Vec<FileUse>,
}

/// What a file gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileUse {
    pub file: String,
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
    pub train: usize,
    pub held_out: usize,
    /// Pairs of two equal dialogues, which are among neither.
    pub equal: usize,
    /// Lines that are no record, which are among neither.
    pub malformed: usize,
}

/// One prompt in so many is held out of a file that has to serve for both.
const HELD_OUT: u64 = 5;

impl Family {
    pub const ALL: [Family; 2] = [Family::Helpful, Family::Harmless];

    pub fn name(self) -> &'static str {
        match self {
            Family::Helpful => "helpful",
            Family::Harmless => "harmless",
        }
    }
}

impl Split {
    /// Reads the parts of HH-RLHF that are there: a part's training file is trained on and its test file held out. Where
    /// a part's training file is not there, its test file serves for both, which is printed: of its dialogues those
    /// are held out whose first turn has a SHA-256 (its first eight bytes, big-endian) divisible by five, so that no first
    /// turn is on both sides.
    ///
    /// # Errors
    /// No part is there; a file that cannot be read.
    pub fn read(data: &Source, only: Option<Family>) -> Result<Self> {
        let mut split = Self { train: Vec::new(), held_out: Vec::new(), files: Vec::new() };
        let mut absent = Vec::new();
        for part in Part::ALL {
            let family = if part.family() == Family::Helpful.name() { Family::Helpful } else { Family::Harmless };
            if only.is_some_and(|only| only != family) {
                continue;
            }
            let (train, test) = (part.file(true), part.file(false));
            match (data.file(&train), data.file(&test)) {
                (Ok(train_file), Ok(test_file)) => {
                    split.add(family, &train, &train_file, |_| true)?;
                    split.add(family, &test, &test_file, |_| false)?;
                }
                (Err(error), Ok(test_file)) => {
                    println!("{data}: {train} is not there ({})", error.root_cause());
                    println!(
                        "{data}: SO {test} SERVES FOR BOTH: one first turn in {HELD_OUT} is held out. A model trained on \
                         this must not be measured on that file elsewhere"
                    );
                    split.add(family, &test, &test_file, |pair| !is_held_out(pair))?;
                }
                (_, Err(error)) => absent.push((test, format!("{error:#}"))),
            }
        }
        if let (true, Some((_, error))) = (split.files.is_empty(), absent.first()) {
            bail!("no pairs of HH-RLHF are there: {error}");
        }
        for (file, _) in absent {
            println!("{data}: {file} is not there; its part is left out");
        }
        Ok(split)
    }

    fn add(&mut self, family: Family, name: &str, path: &Path, is_train: impl Fn(&Pair) -> bool) -> Result<()> {
        let sha256 = format!("{:x}", Sha256::digest(std::fs::read(path)?));
        let records = read_pairs(path)?;
        if let Some(left_out) = records.left_out() {
            println!("{left_out}");
        }
        let mut file = FileUse {
            file: name.to_string(),
            sha256,
            train: 0,
            held_out: 0,
            equal: 0,
            malformed: records.malformed.len(),
        };
        file.equal = equal(&records).len();
        for pair in records.values().into_iter().filter(|pair| pair.chosen != pair.rejected) {
            let (to, count) = match is_train(&pair) {
                true => (&mut self.train, &mut file.train),
                false => (&mut self.held_out, &mut file.held_out),
            };
            to.push((family, pair));
            *count += 1;
        }
        println!(
            "{name}: {} pairs to train on, {} held out, {} of equal dialogues left out",
            file.train, file.held_out, file.equal
        );
        self.files.push(file);
        Ok(())
    }
}

/// By the dialogue's first turn.
fn is_held_out(pair: &Pair) -> bool {
    let first = pair.chosen.split(ASSISTANT).next().unwrap_or_default();
    let digest = Sha256::digest(first);
    let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    number.is_multiple_of(HELD_OUT)
}

/// The folder of a source's file, where what belongs to it lies.
pub(super) fn folder(source: &Source, file: &str) -> Result<PathBuf> {
    let path = source.file(file)?;
    Ok(path.parent().map(Path::to_path_buf).unwrap_or_default())
}
