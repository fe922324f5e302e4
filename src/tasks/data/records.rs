//! Records from JSON lines and parquet files. What is malformed is counted and named, never dropped in silence.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use polars::prelude::{AnyValue, DataFrame, ParquetReader, SerReader};
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

/// A file's records in its order, and what could not be read as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Records<T> {
    pub file: PathBuf,
    pub records: Vec<Record<T>>,
    pub malformed: Vec<Malformed>,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<T> {
    /// The line in a text file, the row in a parquet file; both count from 1.
    pub number: usize,
    pub value: T,
}

/// A line or row that is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// As in [`Record`].
    pub number: usize,
    pub why: String,
}

impl<T> Records<T> {
    /// The file, for notes that other people read: of the hub's cache by repository and name, else by its path.
    pub fn name(&self) -> String {
        name_of(&self.file)
    }

    /// What was left out, in words; `None` if nothing was.
    pub fn left_out(&self) -> Option<String> {
        const NAMED: usize = 5;
        let first: Vec<_> =
            self.malformed.iter().take(NAMED).map(|bad| format!("{} ({})", bad.number, bad.why)).collect();
        let more = if self.malformed.len() > NAMED { ", ..." } else { "" };
        (!self.malformed.is_empty()).then(|| {
            let (bad, all) = (self.malformed.len(), self.malformed.len() + self.records.len());
            format!(
                "{}: {bad} of {all} records are malformed and left out: number {}{more}",
                self.name(),
                first.join(", ")
            )
        })
    }

    /// Each record through `read`; what it refuses is malformed as well.
    pub fn map<U>(self, read: impl Fn(T) -> Result<U>) -> Records<U> {
        let (mut records, mut malformed) = (Vec::with_capacity(self.records.len()), self.malformed);
        for Record { number, value } in self.records {
            match read(value) {
                Ok(value) => records.push(Record { number, value }),
                Err(error) => malformed.push(Malformed { number, why: format!("{error:#}") }),
            }
        }
        malformed.sort_by_key(|bad| bad.number);
        Records { file: self.file, records, malformed }
    }

    /// The records without their numbers.
    pub fn values(self) -> Vec<T> {
        self.records.into_iter().map(|record| record.value).collect()
    }

    /// # Errors
    /// There is no record; the first malformed one is named.
    pub fn some(self) -> Result<Self> {
        if self.records.is_empty() {
            let file = self.file.display();
            match self.malformed.first() {
                Some(bad) => {
                    bail!("{file}: none of {} records can be read; {}: {}", self.malformed.len(), bad.number, bad.why)
                }
                None => bail!("{file}: there is no record"),
            }
        }
        Ok(self)
    }
}

/// As [`Records::name`].
pub fn name_of(file: &Path) -> String {
    let parts: Vec<_> = file.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let repository = |at: usize| parts[..at].last()?.strip_prefix("datasets--");
    let in_cache = parts.iter().rposition(|part| part == "snapshots");
    match in_cache.and_then(|at| Some((repository(at)?, parts.get(at + 2..)?))) {
        Some((repository, file)) => format!("{}: {}", repository.replacen("--", "/", 1), file.join("/")),
        None => file.display().to_string(),
    }
}

/// One JSON object a line, or one array of objects; gzipped where the name ends in `.gz`. Empty lines are skipped.
///
/// # Errors
/// The file cannot be read or holds no record at all.
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Records<T>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut reader: Box<dyn Read> = match path.extension().is_some_and(|ending| ending == "gz") {
        true => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        false => Box::new(file),
    };
    reader.read_to_end(&mut bytes).with_context(|| format!("{}: cannot be read to its end", path.display()))?;
    let mut read = Reading::new(path);
    if bytes.trim_ascii_start().starts_with(b"[") {
        let values: Vec<Value> =
            serde_json::from_slice(&bytes).with_context(|| format!("{}: not an array of JSON", path.display()))?;
        values.into_iter().enumerate().for_each(|(i, value)| read.push(i + 1, serde_json::from_value(value)));
    } else {
        for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if !line.trim_ascii().is_empty() {
                read.push(i + 1, serde_json::from_slice(line));
            }
        }
    }
    read.0.some()
}

/// The rows of a parquet file, by the names of its columns.
///
/// # Errors
/// The file cannot be read, a column has a type that no record holds, there is no record at all.
pub fn read_parquet<T: DeserializeOwned>(path: &Path) -> Result<Records<T>> {
    let frame = || -> Result<DataFrame> { Ok(ParquetReader::new(File::open(path)?).finish()?) };
    let frame = frame().with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut read = Reading::new(path);
    for row in 0..frame.height() {
        let cell = |column: &polars::prelude::Column| Ok((column.name().to_string(), json(column.get(row)?)?));
        let cells: Result<serde_json::Map<_, _>> = frame.columns().iter().map(cell).collect();
        let cells = cells.with_context(|| format!("{}: row {}", path.display(), row + 1))?;
        read.push(row + 1, serde_json::from_value(Value::Object(cells)));
    }
    read.0.some()
}

/// Records so far.
struct Reading<T>(Records<T>);

impl<T> Reading<T> {
    fn new(path: &Path) -> Self {
        Self(Records { file: path.to_path_buf(), records: Vec::new(), malformed: Vec::new() })
    }

    fn push(&mut self, number: usize, read: serde_json::Result<T>) {
        match read {
            Ok(value) => self.0.records.push(Record { number, value }),
            Err(error) => self.0.malformed.push(Malformed { number, why: error.to_string() }),
        }
    }
}

fn json(value: AnyValue) -> Result<Value> {
    Ok(match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(truth) => Value::Bool(truth),
        AnyValue::String(text) => Value::String(text.to_string()),
        AnyValue::StringOwned(text) => Value::String(text.to_string()),
        AnyValue::List(items) => {
            let items: Result<Vec<Value>> = items.iter().map(json).collect();
            Value::Array(items?)
        }
        number if number.dtype().is_integer() => Value::Number(number.try_extract::<i64>()?.into()),
        number if number.dtype().is_float() => {
            let number = Number::from_f64(number.try_extract()?);
            number.map_or(Value::Null, Value::Number)
        }
        other => bail!("a value of the type {}", other.dtype()),
    })
}

/// Checks of a record's fields: what is checked is text that is there.
pub(super) fn not_empty(field: &str, text: &str) -> Result<()> {
    ensure!(!text.trim().is_empty(), "the field {field} is empty");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::io::Write;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        a: i64,
        b: Vec<String>,
    }

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_the_cache_is_named_by_its_repository() {
        let file = "/somewhere/hub/datasets--Anthropic--hh-rlhf/snapshots/0123abcd/harmless-base/test.jsonl.gz";
        assert_eq!(name_of(Path::new(file)), "Anthropic/hh-rlhf: harmless-base/test.jsonl.gz");
        for other in ["data/mine/test.jsonl", "/snapshots/test.jsonl", "snapshots"] {
            assert_eq!(name_of(Path::new(other)), other);
        }
    }

    #[test]
    fn malformed_lines_are_named_by_number() {
        let text =
            "{\"a\": 1, \"b\": [\"x\"]}\r\n\n{\"a\": 2}\n{\"a\": \"3\", \"b\": []}\n{\"a\": 4, \"b\": [\"\u{e9}\"]}\n{";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        for (name, bytes) in [("x.jsonl", text.as_bytes()), ("x.jsonl.gz", &gz.finish().unwrap())] {
            let (_folder, path) = file(name, bytes);
            let read = read_json_lines::<Row>(&path).unwrap();
            let numbers: Vec<_> = read.records.iter().map(|record| record.number).collect();
            assert_eq!(numbers, [1, 5]);
            let bad: Vec<_> = read.malformed.iter().map(|bad| bad.number).collect();
            assert_eq!(bad, [3, 4, 6]);
            let said = read.left_out().unwrap();
            assert!(said.contains("3 of 5 records") && said.contains("3 (missing field `b`"), "{said}");
            // What a check refuses is malformed as well, in the order of the lines.
            let read = read.map(|row| if row.a == 1 { bail!("one is refused") } else { Ok(row.a) });
            assert_eq!(read.malformed[0], Malformed { number: 1, why: "one is refused".into() });
            assert_eq!(read.values(), [4]);
        }
    }

    #[test]
    fn an_array_is_read_and_nothing_is_an_error() {
        let (_folder, path) = file("x.jsonl", b" [{\"a\": 1, \"b\": []},\n {\"a\": 2, \"b\": []}, 3]");
        let read = read_json_lines::<Row>(&path).unwrap();
        assert_eq!((read.records.len(), read.malformed[0].number), (2, 3));
        for bytes in [&b""[..], b"\n\n", b"{}\n{}", b"\xff\xfe"] {
            let (_folder, path) = file("x.jsonl", bytes);
            let error = read_json_lines::<Row>(&path).unwrap_err().to_string();
            assert!(error.contains("x.jsonl"), "{error}");
        }
        let (_folder, path) = file("x.jsonl.gz", b"\x1f\x8b\x08cut");
        assert!(format!("{:#}", read_json_lines::<Row>(&path).unwrap_err()).contains("cannot be read to its end"));
    }
}
