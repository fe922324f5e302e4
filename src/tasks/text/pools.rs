//! Which examples are trained on and which are held out.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Example;

/// The examples of a task by split, each in the order of their groups' hashes: no order of the data set is left, and it is
/// the same on every machine.
pub struct Pools {
    pub train: Vec<Example>,
    /// What settings are chosen on.
    pub validation: Vec<Example>,
    pub test: Vec<Example>,
    /// What was left out and how many are left, in words.
    pub notes: Vec<String>,
}

/// Of sixteen parts of the hash, the validation split has one; where a data set brings no training file, the test split
/// has two.
const PARTS: u64 = 16;
const VALIDATION: u64 = 0;
const TEST: [u64; 2] = [1, 2];

impl Pools {
    /// From the examples of a data set's training and test files. One of the training file whose group is also held out is
    /// left out.
    ///
    /// # Errors
    /// A split without an example.
    pub fn new(train: Vec<Example>, mut test: Vec<Example>, mut notes: Vec<String>) -> Result<Self> {
        let held_out: HashSet<&str> = test.iter().map(|example| &example.group[..]).collect();
        let all = train.len();
        let mut train: Vec<_> = train.into_iter().filter(|example| !held_out.contains(&example.group[..])).collect();
        if train.len() < all {
            notes.push(format!("{} of {all} training examples are also held out: left out", all - train.len()));
        }
        let (mut validation, rest): (Vec<_>, Vec<_>) =
            train.drain(..).partition(|example| part(&example.group) == VALIDATION);
        let mut train = rest;
        for pool in [&mut train, &mut validation, &mut test] {
            pool.sort_by_cached_key(|example| (digest(&example.group), example.record));
        }
        let [n, v, t] = [train.len(), validation.len(), test.len()];
        ensure!(n > 0 && v > 0 && t > 0, "{n} examples to train on, {v} to validate and {t} to test with: too few");
        notes.push(format!("{n} examples to train on, {v} to validate and {t} to test with"));
        Ok(Self { train, validation, test, notes })
    }

    /// The examples of a test file without a training file, divided by the hash of their groups into those to train on and
    /// those to test with; the note says so: such results are not those of the usual test split.
    pub fn divide(file: &str, test: Vec<Example>, notes: &mut Vec<String>) -> (Vec<Example>, Vec<Example>) {
        notes.push(format!(
            "{file}: there is no training file: the {} examples of the test file are divided by hash, {} of {PARTS} parts for \
             testing; this is not the data set's own split",
            test.len(),
            TEST.len()
        ));
        test.into_iter().partition(|example| !TEST.contains(&part(&example.group)))
    }

    /// Leaves out the examples whose prompts do not fit.
    ///
    /// # Errors
    /// Those of `fits`; a split of which none is left.
    pub(super) fn keep_fitting(&mut self, fits: impl Fn(&Example) -> Result<bool> + Sync) -> Result<()> {
        for (name, pool) in [("train", &mut self.train), ("validation", &mut self.validation), ("test", &mut self.test)]
        {
            let all = pool.len();
            let fit: Vec<bool> = pool
                .par_iter()
                .map(|example| fits(example).with_context(|| format!("{} {}", example.family, example.record)))
                .collect::<Result<_>>()?;
            let mut fit = fit.into_iter();
            pool.retain(|_| fit.next().unwrap_or(false));
            ensure!(!pool.is_empty(), "no prompt of the {name} split fits the limit of tokens, however much is cut");
            if pool.len() < all {
                self.notes
                    .push(format!("{} of {all} prompts of the {name} split do not fit: left out", all - pool.len()));
            }
        }
        Ok(())
    }
}

fn part(group: &str) -> u64 {
    digest(group) % PARTS
}

fn digest(group: &str) -> u64 {
    let digest = Sha256::digest(group);
    u64::from_le_bytes(std::array::from_fn(|byte| digest[byte]))
}
