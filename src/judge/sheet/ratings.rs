//! What raters answered.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::{SheetKey, table};
use crate::judge::{Answer, Judgment, Verdict, WinRateRow, win_rate};

/// The verdicts of several raters on the pairs of one sheet; `A` and `B` are the pair's.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratings {
    /// The pairs' ids, in the order of the sheet.
    pub ids: Vec<String>,
    pub raters: Vec<String>,
    /// `[rater][pair]`; none where a rater gave no answer.
    pub verdicts: Vec<Vec<Option<Verdict>>>,
}

/// Answers as the page's button writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerFile {
    sheet: String,
    rater: String,
    #[serde(deserialize_with = "entries")]
    answers: Vec<(String, String)>,
}

/// One answer, and where it stands.
struct Given {
    place: String,
    item: String,
    answer: String,
}

impl Ratings {
    /// Reads the sheet's key and the raters' files (JSON or CSV by their ending). A table without a column `rater` is by
    /// whom the file is named after.
    ///
    /// # Errors
    /// An item that is not on the sheet or is answered twice, an answer that is none of 1, 2 and tie, answers to another sheet, two
    /// files of one rater; unless `partial`, an item without an answer. File and line or item are named.
    pub fn read(key: &Path, answers: &[impl AsRef<Path>], partial: bool) -> Result<Self> {
        let key = SheetKey::read(key)?;
        ensure!(!answers.is_empty(), "there are no files of answers");
        let ids = key.items.iter().map(|item| item.id.clone()).collect();
        let mut ratings = Self { ids, raters: Vec::new(), verdicts: Vec::new() };
        for path in answers {
            let path = path.as_ref();
            (|| {
                for (rater, given) in read_file(path, &key.sheet)? {
                    ensure!(!ratings.raters.contains(&rater), "rater {rater:?} has answered in another file already; a table without a column rater is named by its file");
                    let verdicts = key.verdicts(&given).with_context(|| format!("rater {rater:?}"))?;
                    let missing: Vec<_> =
                        (1..=verdicts.len()).filter(|item| verdicts[item - 1].is_none()).map(|item| item.to_string()).collect();
                    ensure!(
                        partial || missing.is_empty(),
                        "rater {rater:?}: {} of {} items have no answer: {}; --partial takes them as they are",
                        missing.len(),
                        verdicts.len(),
                        some(&missing)
                    );
                    ratings.raters.push(rater);
                    ratings.verdicts.push(verdicts);
                }
                anyhow::Ok(())
            })()
            .with_context(|| path.display().to_string())?;
        }
        Ok(ratings)
    }

    /// For every pair what most of its raters say; a tie where no answer has more raters than each other one; none
    /// where nobody answered.
    pub fn majority(&self) -> Vec<Option<Verdict>> {
        let of_pair = |pair: usize| {
            let votes = |wanted| self.verdicts.iter().filter(|rater| rater[pair] == Some(wanted)).count();
            let counts = [Verdict::A, Verdict::B, Verdict::Tie].map(|verdict| (votes(verdict), verdict));
            let most = counts.iter().map(|(count, _)| *count).max().unwrap_or(0);
            let mut leaders = counts.into_iter().filter(|(count, _)| *count == most);
            match (most, leaders.next(), leaders.next()) {
                (0, ..) => None,
                (_, Some((_, verdict)), None) => Some(verdict),
                _ => Some(Verdict::Tie),
            }
        };
        (0..self.ids.len()).map(of_pair).collect()
    }

    /// A row for every rater, and one for the majority. People see a pair in one order, so none is inconsistent; what
    /// they left open is unjudged.
    ///
    /// # Errors
    /// No pairs.
    pub fn win_rates(&self) -> Result<Vec<WinRateRow>> {
        let one_order = |verdicts: &[Option<Verdict>]| -> Vec<Judgment> {
            let answers = verdicts.iter().map(|verdict| Answer::from(verdict.unwrap_or(Verdict::Unjudged)));
            let judgment =
                |(id, answer): (&String, Answer)| Judgment { id: id.clone(), ab: answer.clone(), ba: answer };
            self.ids.iter().zip(answers).map(judgment).collect()
        };
        let raters = self.raters.iter().zip(&self.verdicts);
        let mut rows =
            raters.map(|(rater, verdicts)| win_rate(rater, &one_order(verdicts), 0.95)).collect::<Result<Vec<_>>>()?;
        rows.push(win_rate("majority of people", &one_order(&self.majority()), 0.95)?);
        Ok(rows)
    }
}

impl SheetKey {
    /// The verdicts of one rater in the pairs' terms, in the order of the sheet.
    fn verdicts(&self, given: &[Given]) -> Result<Vec<Option<Verdict>>> {
        let mut verdicts = vec![None; self.items.len()];
        let mut seen: HashMap<usize, &str> = HashMap::new();
        for Given { place, item, answer } in given {
            let number = item.parse::<usize>().ok().filter(|number| (1..=self.items.len()).contains(number));
            let number = number.with_context(|| {
                format!("{place}: item {item:?} is not on the sheet, which has the items 1 to {}", self.items.len())
            })?;
            if let Some(before) = seen.insert(number, place) {
                bail!("{place}: item {number} is answered already ({before})");
            }
            let shown = match answer.to_lowercase().as_str() {
                "" => continue,
                "1" => Verdict::A,
                "2" => Verdict::B,
                "tie" => Verdict::Tie,
                _ => bail!("{place}: item {number} has the answer {answer:?}; it is 1, 2 or tie"),
            };
            verdicts[number - 1] = Some(if self.items[number - 1].swapped { shown.swapped() } else { shown });
        }
        Ok(verdicts)
    }
}

/// The entries of a JSON object as they stand there: a map would hide that an item is answered twice.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object from items to answers")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Entries)
}

/// The answers of every rater in a file.
fn read_file(path: &Path, sheet: &str) -> Result<Vec<(String, Vec<Given>)>> {
    let bytes = std::fs::read(path).context("cannot be read")?;
    let text = String::from_utf8(bytes).ok().context("is not UTF-8; save it as \"CSV UTF-8\"")?;
    let other = |found: &str| format!("answers to the sheet {found:?}, and the key is of {sheet:?}");
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
        let file: AnswerFile = serde_json::from_str(&text).context("not answers of a sheet")?;
        ensure!(file.sheet == sheet, other(&file.sheet));
        let rater = file.rater.trim().to_owned();
        ensure!(!rater.is_empty(), "`rater` is empty");
        let given =
            file.answers.into_iter().map(|(item, answer)| Given { place: format!("item {item:?}"), item, answer });
        return Ok(vec![(rater, given.collect())]);
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut raters: Vec<(String, Vec<Given>)> = Vec::new();
    for line in table::answers(&text)? {
        let place = format!("line {}", line.line);
        ensure!(line.sheet == sheet, "{place}: {}", other(&line.sheet));
        let rater = line.rater.unwrap_or_else(|| stem.clone());
        let given = Given { place, item: line.item, answer: line.answer };
        match raters.iter_mut().find(|(known, _)| *known == rater) {
            Some((_, answers)) => answers.push(given),
            None => raters.push((rater, vec![given])),
        }
    }
    ensure!(!raters.is_empty(), "there are no answers");
    Ok(raters)
}

fn some(names: &[String]) -> String {
    const NAMED: usize = 10;
    let more = if names.len() > NAMED { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}
