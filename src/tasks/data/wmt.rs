//! Translation from plain text files, a sentence a line, as WMT gives them: a source and its references.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Records;
use super::records::{Malformed, Record};

/// A sentence and its translations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    pub source: String,
    /// One of every file of references.
    pub references: Vec<String>,
}

/// The sentences of a source with their references. A line that is empty in any file is malformed.
///
/// # Errors
/// A file that cannot be read or is not UTF-8, files of different numbers of lines, no sentence at all.
pub fn read(source: &Path, references: &[PathBuf]) -> Result<Records<Translation>> {
    ensure!(!references.is_empty(), "{}: a translation needs a file of references", source.display());
    let sources = lines(source)?;
    let references: Vec<Vec<String>> = references
        .iter()
        .map(|path| {
            let read = lines(path)?;
            ensure!(
                read.len() == sources.len(),
                "{} has {} lines, {} has {}",
                path.display(),
                read.len(),
                source.display(),
                sources.len()
            );
            Ok(read)
        })
        .collect::<Result<_>>()?;
    let mut read = Records { file: source.to_path_buf(), records: Vec::new(), malformed: Vec::new() };
    for (i, source) in sources.into_iter().enumerate() {
        let references: Vec<String> = references.iter().map(|lines| lines[i].clone()).collect();
        let number = i + 1;
        if source.trim().is_empty() || references.iter().any(|text| text.trim().is_empty()) {
            read.malformed.push(Malformed { number, why: "the line is empty in the source or in a reference".into() });
        } else {
            read.records.push(Record { number, value: Translation { source, references } });
        }
    }
    read.some()
}

/// Lines end in LF; a CR before it is no part of the line. Other separators of Unicode do not end one.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(text.lines().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_different_lengths_are_refused_and_empty_lines_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (source, a) = (file("s", "one\ntwo\r\n\u{2028}three\n"), file("a", "eins\n\ndrei\n"));
        let read = read(&source, &[a]).unwrap();
        assert_eq!((read.records.len(), read.malformed[0].number), (2, 2));
        assert_eq!(read.records[1].value.source, "\u{2028}three");
        let error = super::read(&source, &[file("b", "eins\n")]).unwrap_err().to_string();
        assert!(error.contains("has 1 lines") && error.contains("has 3"), "{error}");
    }
}
