//! JSON lines: one record a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::Sample;
use crate::metrics::Document;

/// Under which names a record has its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub prediction: String,
    /// One text or a list of them.
    pub references: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self { prediction: "prediction".into(), references: "references".into() }
    }
}

/// Texts beside their references. The field `id` names a record, otherwise its line number does.
///
/// # Errors
/// The file cannot be read or has no records; a line that is no JSON object or lacks a field: file, line and field are
/// named.
pub fn read_documents(path: &Path, fields: &Fields) -> Result<Vec<Document>> {
    read(path, |record| {
        let prediction = record.text(&fields.prediction)?.to_owned();
        let references = match record.field(&fields.references)? {
            Value::String(text) => vec![text.clone()],
            Value::Array(list) => {
                let texts: Option<Vec<String>> = list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
                texts.filter(|texts| !texts.is_empty()).with_context(|| {
                    format!(
                        "field {:?}: expected at least one text, and nothing but texts, in the list",
                        fields.references
                    )
                })?
            }
            other => bail!("field {:?}: expected a text or a list of texts, found {}", fields.references, kind(other)),
        };
        Ok(Document { id: record.id()?, prediction, references })
    })
}

/// Generated programs: the fields `task_id` and `passed`, as the results of HumanEval have them.
///
/// # Errors
/// As of [`read_documents`].
pub fn read_samples(path: &Path) -> Result<Vec<Sample>> {
    read(path, |record| {
        let passed = match record.field("passed")? {
            Value::Bool(passed) => *passed,
            other => bail!("field \"passed\": expected true or false, found {}", kind(other)),
        };
        Ok(Sample { task: name(record.field("task_id")?, "task_id")?, passed })
    })
}

struct Record {
    line: usize,
    fields: Map<String, Value>,
}

impl Record {
    fn field(&self, name: &str) -> Result<&Value> {
        self.fields.get(name).with_context(|| {
            let known: Vec<&str> = self.fields.keys().map(String::as_str).collect();
            format!("there is no field {name:?}; the record has {}", known.join(", "))
        })
    }

    fn text(&self, name: &str) -> Result<&str> {
        match self.field(name)? {
            Value::String(text) => Ok(text),
            other => bail!("field {name:?}: expected a text, found {}", kind(other)),
        }
    }

    fn id(&self) -> Result<String> {
        match self.fields.get("id") {
            None | Some(Value::Null) => Ok(self.line.to_string()),
            Some(id) => name(id, "id"),
        }
    }
}

/// All records; empty lines are passed over.
fn read<T>(path: &Path, each: impl Fn(&Record) -> Result<T>) -> Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let mut reader = BufReader::new(file);
    let (mut bytes, mut records) = (Vec::new(), Vec::new());
    for line in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("{}: cannot be read beyond line {line}", path.display()))? == 0 {
            break;
        }
        let content = bytes.strip_prefix("\u{feff}".as_bytes()).filter(|_| line == 1).unwrap_or(&bytes).trim_ascii();
        if content.is_empty() {
            continue;
        }
        let record = object(content).and_then(|fields| each(&Record { line, fields }));
        records.push(record.with_context(|| format!("{}, line {line}", path.display()))?);
    }
    ensure!(!records.is_empty(), "{}: there are no records", path.display());
    Ok(records)
}

fn object(line: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(line).context("not UTF-8")?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => bail!("expected a JSON object, found {}", kind(&other)),
        Err(error) => {
            let message = error.to_string();
            // The line that it names is that of the one line that it was given.
            let message = message.split(" at line ").next().unwrap_or_default();
            bail!("not a JSON object: {message} at column {}", error.column())
        }
    }
}

fn name(value: &Value, field: &str) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => bail!("field {field:?}: expected a text or a number, found {}", kind(other)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
