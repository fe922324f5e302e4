//! Exact match and F1 of short answers, with the normalisation of SQuAD.
//!
//! P. Rajpurkar et al., arXiv:1606.05250, and for questions without an answer arXiv:1806.03822; the numbers of SQuAD 2.0's
//! evaluation, as in transformers' `squad_metrics`.

use anyhow::Result;
use rustc_hash::FxHashMap;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::document::Document;
use super::white_space::words;

/// How well an answer fits, both from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    /// 1 if the normalised answer is one of the normalised references, else 0.
    pub exact_match: f64,
    /// The harmonic mean of the shares of words that answer and reference have in common, of the best reference.
    pub f1: f64,
}

/// Compares an answer with its references, each score with the reference that fits best. An answer without words fits
/// only a reference without words.
///
/// # Errors
/// No reference.
///
/// ```
/// # use qstar::metrics::{Document, answer_score};
/// let document = Document {
///     id: "1".into(),
///     prediction: "in the year 1972.".into(),
///     references: vec!["14 December 1972 UTC".into(), "December 1972".into()],
/// };
/// let score = answer_score(&document)?;
/// assert_eq!((score.exact_match, score.f1), (0.0, 0.4));
/// # anyhow::Ok(())
/// ```
pub fn answer_score(document: &Document) -> Result<AnswerScore> {
    let answer = normalize_answer(&document.prediction);
    let mut best = AnswerScore { exact_match: 0.0, f1: 0.0 };
    for reference in document.references()? {
        let reference = normalize_answer(reference);
        best.exact_match = best.exact_match.max(f64::from(u8::from(answer == reference)));
        best.f1 = best.f1.max(f1(&answer, &reference));
    }
    Ok(best)
}

/// In lower case, without ASCII punctuation, without the words a, an and the, with single spaces.
///
/// ```
/// # use qstar::metrics::normalize_answer;
/// assert_eq!(normalize_answer(" The U.S.A.,  an  A-team"), "usa ateam");
/// ```
pub fn normalize_answer(text: &str) -> String {
    let text = text.to_lowercase();
    let kept: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // A word of a regular expression ends at a combining mark, too.
    let mut without_articles = String::with_capacity(kept.len());
    let mut rest = kept.as_str();
    while let Some(first) = rest.chars().next() {
        let in_word = is_word(first);
        let end = rest.find(|c| is_word(c) != in_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let is_article = in_word && matches!(run, "a" | "an" | "the");
        without_articles.push_str(if is_article { " " } else { run });
        rest = after;
    }
    let words: Vec<&str> = words(&without_articles).collect();
    words.join(" ")
}

/// Of normalised texts.
fn f1(answer: &str, reference: &str) -> f64 {
    let (ours, theirs) = (words(answer).count(), words(reference).count());
    if ours == 0 || theirs == 0 {
        return f64::from(u8::from(ours == theirs));
    }
    let mut left: FxHashMap<&str, usize> = FxHashMap::default();
    for word in words(reference) {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in words(answer) {
        if let Some(left) = left.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / ours as f64, common as f64 / theirs as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Python's `\w`, without the underscore, which is punctuation: letters and numbers.
fn is_word(c: char) -> bool {
    use Category::*;
    matches!(
        get_general_category(c),
        UppercaseLetter
            | LowercaseLetter
            | TitlecaseLetter
            | ModifierLetter
            | OtherLetter
            | DecimalNumber
            | LetterNumber
            | OtherNumber
    )
}
