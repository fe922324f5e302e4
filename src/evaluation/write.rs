//! Frames as files.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use polars::prelude::{AnyValue, DataFrame, ParquetWriter};
use serde_json::{Map, Value};

/// What a table is written as: what the file's name ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Parquet,
    /// With a line of names; a null is an empty cell.
    Csv,
    /// A list of objects.
    Json,
}

impl Format {
    /// # Errors
    /// The name ends with neither `.parquet`, `.csv` nor `.json`.
    pub fn of(path: &Path) -> Result<Self> {
        path.extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or_default()
            .parse()
            .with_context(|| path.display().to_string())
    }
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(ending: &str) -> Result<Self> {
        match ending {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            other => bail!("a table is written to a file that ends with .parquet, .csv or .json, not {other:?}"),
        }
    }
}

/// Writes a frame of texts, numbers and truth values. The file is whole or as it was: it is renamed into place.
///
/// # Errors
/// The name says no format, a column is of another kind, or the file cannot be written.
pub fn write_frame(frame: &DataFrame, path: &Path) -> Result<()> {
    let format = Format::of(path)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = write_as(frame, format, part).and_then(|()| Ok(std::fs::rename(part, path)?));
    if written.is_err() {
        let _ = std::fs::remove_file(part);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))
}

fn write_as(frame: &DataFrame, format: Format, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    match format {
        Format::Parquet => {
            ParquetWriter::new(&mut file).finish(&mut frame.clone())?;
        }
        Format::Csv => {
            let line = |cells: Vec<String>| cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(",");
            let names = frame.columns().iter().map(|column| column.name().to_string()).collect();
            writeln!(file, "{}", line(names))?;
            for row in 0..frame.height() {
                let cells = frame.columns().iter().map(|column| Ok(text(value(&column.get(row)?)?)));
                writeln!(file, "{}", line(cells.collect::<Result<_>>()?))?;
            }
        }
        Format::Json => {
            file.write_all(b"[")?;
            for row in 0..frame.height() {
                let cells = frame.columns().iter().map(|c| Ok((c.name().to_string(), value(&c.get(row)?)?)));
                let object = cells.collect::<Result<Map<String, Value>>>()?;
                file.write_all(if row == 0 { b"\n" } else { b",\n" })?;
                serde_json::to_writer(&mut file, &object)?;
            }
            file.write_all(b"\n]\n")?;
        }
    }
    file.flush()?;
    Ok(())
}

/// A number that is not finite is null.
fn value(cell: &AnyValue) -> Result<Value> {
    Ok(match cell {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(x) => Value::from(*x),
        AnyValue::Int64(x) => Value::from(*x),
        AnyValue::Float64(x) => Value::from(*x),
        AnyValue::String(text) => Value::from(*text),
        AnyValue::StringOwned(text) => Value::from(text.as_str()),
        other => bail!("a column of {:?} is neither texts, numbers nor truth values", other.dtype()),
    })
}

fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// In quotes where it must be (RFC 4180).
fn csv_cell(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::df;
    use polars::prelude::{ParquetReader, SerReader};

    fn frame() -> DataFrame {
        df!(
            "id" => [Some("a,\"b\""), None, Some("two\nlines")],
            "n" => [1i64, -2, 3],
            "x" => [0.1 + 0.2, f64::NAN, 1e-16],
            "yes" => [true, false, true],
        )
        .unwrap()
    }

    fn written(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        write_frame(&frame(), &path).unwrap();
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [name], "nothing is left beside it");
        (folder, path)
    }

    #[test]
    fn csv_has_quotes_where_needed_and_all_digits() {
        let (_folder, path) = written("x.csv");
        let expected =
            "id,n,x,yes\n\"a,\"\"b\"\"\",1,0.30000000000000004,true\n,-2,,false\n\"two\nlines\",3,1e-16,true\n";
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn json_and_parquet_are_read_back() {
        let (_folder, path) = written("x.json");
        let rows: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(rows[0]["id"], "a,\"b\"");
        assert_eq!((&rows[1]["id"], &rows[1]["x"], &rows[1]["n"]), (&Value::Null, &Value::Null, &Value::from(-2)));
        assert_eq!((rows[2]["x"].as_f64(), rows.as_array().unwrap().len()), (Some(1e-16), 3));
        let (_folder, path) = written("x.parquet");
        let back = ParquetReader::new(std::fs::File::open(path).unwrap()).finish().unwrap();
        assert!(back.equals_missing(&frame()));
    }

    #[test]
    fn a_name_without_a_format_is_refused() {
        let error = format!("{:#}", write_frame(&frame(), Path::new("scores.xlsx")).unwrap_err());
        assert!(error.contains("scores.xlsx") && error.contains(".parquet, .csv or .json"), "{error}");
        let missing = Path::new("/no/such/folder/x.csv");
        assert!(format!("{:#}", write_frame(&frame(), missing).unwrap_err()).contains("/no/such/folder/x.csv"));
    }
}
