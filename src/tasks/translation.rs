//! Translation, from plain files of sentences as WMT gives them. The reward is a sentence's chrF.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::data::{name_of, wmt};
use super::text::{Example, Keep, Pools, PromptText, TextData, documents};
use crate::metrics::Chrf;

/// Two languages, by their English names, and the files: a sentence a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Translations {
    /// Such as `("English", "German")`.
    pub languages: (String, String),
    pub train: Option<Files>,
    pub test: Files,
}

/// A source and its references, line by line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub source: PathBuf,
    pub references: Vec<PathBuf>,
}

impl Translations {
    /// The same, files that are not absolute in a folder.
    pub fn inside(&self, folder: &Path) -> Self {
        let files = |files: &Files| Files {
            source: folder.join(&files.source),
            references: files.references.iter().map(|path| folder.join(path)).collect(),
        };
        let (train, test) = (self.train.as_ref().map(files), files(&self.test));
        Self { languages: self.languages.clone(), train, test }
    }

    /// Of a prompt that is too long, the sentence's end is cut.
    ///
    /// # Errors
    /// Those of [`wmt::read`].
    pub fn read(&self) -> Result<TextData> {
        let mut notes = Vec::new();
        let mut examples = |files: &Files| -> Result<Vec<Example>> {
            let records = wmt::read(Path::new(&files.source), &files.references)?;
            notes.extend(records.left_out());
            Ok(records.values().into_iter().enumerate().map(|(record, pair)| self.example(record, pair)).collect())
        };
        let train = self.train.as_ref().map(&mut examples).transpose()?;
        let test = examples(&self.test)?;
        let (train, test) = match train {
            Some(train) => (train, test),
            None => Pools::divide(&name_of(&self.test.source), test, &mut notes),
        };
        Ok(TextData {
            name: "translation",
            pools: Pools::new(train, test, notes)?,
            stop_strings: vec!["\n".to_string()],
            rewards: Some(Box::new(|texts| {
                let chrf = Chrf::default();
                let statistics = chrf.statistics_all(&documents(texts), 1)?;
                // The sum of rounded parts may lie a rounding above 1.
                Ok(statistics.iter().map(|sentence| (chrf.score(sentence) / 100.0).min(1.0)).collect())
            })),
            rewarded_by: "chrF".to_string(),
        })
    }

    fn example(&self, record: usize, pair: wmt::Translation) -> Example {
        let (from, to) = &self.languages;
        Example {
            family: "translation",
            record,
            group: pair.source.clone(),
            prompt: PromptText {
                before: format!("{from}: "),
                body: pair.source,
                after: format!("\n{to}:"),
                keep: Keep::Beginning,
            },
            demonstrations: pair.references.iter().map(|text| format!(" {}", text.trim())).collect(),
            pair: None,
        }
    }
}
