//! Pairs and judgments in files of one JSON object a line.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{JudgmentRow, Pair};

/// A model's response, one line of its file. Other fields are ignored.
#[derive(Deserialize)]
struct ResponseLine {
    id: Id,
    prompt: String,
    response: String,
    reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`id` is a text or a whole number")]
enum Id {
    Text(String),
    Number(i64),
}

/// The pairs of two models' responses, in the order of the first file. Lines are joined by `id`.
///
/// # Errors
/// A line that is no such object, an id twice in one file or in one file alone, two prompts or references under one id;
/// file and line are named.
pub fn read_pairs(a: &Path, b: &Path) -> Result<Vec<Pair>> {
    let (first, second) = (responses(a)?, responses(b)?);
    let mut others: HashMap<String, (usize, ResponseLine)> = HashMap::new();
    for (line, id, response) in second {
        if let Some((before, _)) = others.get(&id) {
            bail!("{}, line {line}: the id {id:?} stands on line {before} already", b.display());
        }
        others.insert(id, (line, response));
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut pairs = Vec::new();
    for (line, id, response) in first {
        let place = || format!("{}, line {line}", a.display());
        if let Some(before) = seen.insert(id.clone(), line) {
            bail!("{}: the id {id:?} stands on line {before} already", place());
        }
        let (other_line, other) =
            others.remove(&id).with_context(|| format!("{}: the id {id:?} is not in {}", place(), b.display()))?;
        let other_place = || format!("{}, line {other_line}", b.display());
        ensure!(response.prompt == other.prompt, "{} and {}: id {id:?} has two prompts", place(), other_place());
        let reference = match (response.reference, other.reference) {
            (Some(x), Some(y)) if x != y => bail!("{} and {}: id {id:?} has two references", place(), other_place()),
            (x, y) => x.or(y),
        };
        pairs.push(Pair { id, prompt: response.prompt, a: response.response, b: other.response, reference });
    }
    if let Some((id, (line, _))) = others.into_iter().min_by_key(|(_, (line, _))| *line) {
        bail!("{}, line {line}: the id {id:?} is not in {}", b.display(), a.display());
    }
    ensure!(!pairs.is_empty(), "{}: there are no responses", a.display());
    Ok(pairs)
}

/// # Errors
/// As reading JSON lines fails; no rows.
pub fn read_judgments(path: &Path) -> Result<Vec<JudgmentRow>> {
    let rows: Vec<JudgmentRow> = lines(path)?.into_iter().map(|(_, row)| row).collect();
    ensure!(!rows.is_empty(), "{}: there are no judgments", path.display());
    Ok(rows)
}

/// Writes the rows under another name and renames the file into place, instead of one that is there.
///
/// # Errors
/// A file that cannot be written.
pub fn write_judgments(path: &Path, rows: &[JudgmentRow]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = fs::File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.with_context(|| format!("{}: cannot be written", path.display()))
}

fn responses(path: &Path) -> Result<Vec<(usize, String, ResponseLine)>> {
    let with_id = |(line, response): (usize, ResponseLine)| {
        let id = match &response.id {
            Id::Text(text) => text.clone(),
            Id::Number(number) => number.to_string(),
        };
        (line, id, response)
    };
    Ok(lines(path)?.into_iter().map(with_id).collect())
}

/// Every line that is not empty, with its number.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>> {
    let bytes = fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{}: is not UTF-8", path.display()))?;
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = numbered.map(|(index, line)| {
        let value = serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), index + 1))?;
        Ok((index + 1, value))
    });
    parsed.collect()
}
