//! People as judges: a blinded sheet of pairs to fill in, and how it is read back.
//!
//! A sheet shows the pairs in an order and with sides that a seed decides. Which is which stands in a key of its own that
//! raters do not get. The same sheet is a page (one HTML file that asks nothing of a network) and a table (CSV).

mod html;
mod ratings;
mod table;

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Pair;
use crate::seed::{Purpose, rng};

pub use ratings::Ratings;

/// Pairs as raters see them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    title: String,
    items: Vec<Item>,
    key: SheetKey,
}

/// One pair on the sheet. Its number is its place, from 1.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    prompt: String,
    responses: [String; 2],
}

/// What raters must not see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SheetKey {
    format: String,
    /// A digest of all that the sheet shows: answers to another sheet are noticed.
    sheet: String,
    seed: u64,
    items: Vec<KeyItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyItem {
    item: usize,
    id: String,
    /// Whether response 1 is the pair's `b`.
    swapped: bool,
}

const FORMAT: &str = "qstar-sheet-key-1";

impl Sheet {
    /// Pairs of equal responses are left out: there is nothing to choose.
    ///
    /// # Errors
    /// No pairs with different responses; two with one id.
    pub fn new(title: impl Into<String>, pairs: &[Pair], seed: u64) -> Result<Self> {
        let mut shown: Vec<&Pair> = pairs.iter().filter(|pair| pair.a != pair.b).collect();
        ensure!(!shown.is_empty(), "none of {} pairs has two different responses", pairs.len());
        let mut ids = std::collections::HashSet::new();
        for pair in &shown {
            ensure!(ids.insert(&pair.id), "two pairs have the id {:?}", pair.id);
        }
        let mut rng = rng(seed, Purpose::Sheet, 0, 0);
        for i in (1..shown.len()).rev() {
            shown.swap(i, rng.random_range(0..=i));
        }
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        for (place, pair) in shown.into_iter().enumerate() {
            let swapped = rng.random();
            let responses = if swapped { [&pair.b, &pair.a] } else { [&pair.a, &pair.b] };
            for text in [&pair.prompt, responses[0], responses[1]] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
            keys.push(KeyItem { item: place + 1, id: pair.id.clone(), swapped });
            items.push(Item { prompt: pair.prompt.clone(), responses: responses.map(String::clone) });
        }
        let sheet = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { title: title.into(), items, key: SheetKey { format: FORMAT.into(), sheet, seed, items: keys } })
    }

    /// Pairs on the sheet.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing on it, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One HTML file that opens anywhere: keys or buttons answer, the browser keeps the answers, a button downloads them as
    /// CSV or JSON for [`Ratings::read`]. All texts are escaped, and a policy in the file forbids everything but its own
    /// script and style.
    pub fn html(&self) -> String {
        html::page(&self.title, &self.key.sheet, &self.items)
    }

    /// The same as a table with an empty column `answer`, into which raters write `1`, `2` or `tie`. A text that a spreadsheet
    /// would take for a formula begins with an apostrophe that is not the response's.
    pub fn csv(&self) -> String {
        table::sheet(&self.key.sheet, &self.items)
    }

    /// The key as JSON.
    ///
    /// # Errors
    /// What writing into memory fails of.
    pub fn key(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.key)?)
    }

    /// Writes `sheet.html`, `sheet.csv` and `key.json` into a folder, which is made.
    ///
    /// # Errors
    /// One of them is there already: answers to it may exist. A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        let files = [
            ("sheet.html", self.html().into_bytes()),
            ("sheet.csv", self.csv().into_bytes()),
            ("key.json", self.key()?.into_bytes()),
        ];
        for (name, _) in &files {
            let path = folder.join(name);
            ensure!(!path.exists(), "{}: is there already; take another folder", path.display());
        }
        for (name, content) in &files {
            let path = folder.join(name);
            let mut file =
                fs::File::create_new(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
            file.write_all(content).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }
}

impl SheetKey {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let key: Self =
            serde_json::from_str(&text).with_context(|| format!("{}: not a sheet's key", path.display()))?;
        if key.format != FORMAT {
            bail!("{}: the format {:?} is not {FORMAT}", path.display(), key.format);
        }
        for (place, item) in key.items.iter().enumerate() {
            ensure!(item.item == place + 1, "{}: item {} stands at place {}", path.display(), item.item, place + 1);
        }
        Ok(key)
    }
}
