//! The verdict in a language model's answer.

use crate::judge::{Answer, Verdict};

/// Reads `[[A]]`, `[[B]]` or `[[C]]` (a tie) as the template asks for them, and what models write instead: the letter alone, `Verdict: A`,
/// `Response B is better`, `tie`, JSON such as `{"winner": "A"}`, in bold, in a code block.
///
/// The last line counts; if it holds no verdict, all verdicts in double brackets must be the same one. Anything else is
/// [`Verdict::Unreadable`]: nothing is guessed, and nothing becomes a tie that does not say so.
pub fn parse(text: &str) -> Answer {
    // What reasoning models think aloud is not their answer.
    let text = text.rsplit("</think>").next().unwrap_or_default();
    let text = text.trim().trim_end_matches("```").trim();
    let Some(last) = text.lines().last() else { return unreadable("the answer is empty") };
    if let Some(verdict) = of_line(last).or_else(|| of_json(text)) {
        return verdict.into();
    }
    let mut marked = text.split("[[").skip(1).filter_map(|rest| of_letter(rest.split_once("]]")?.0.trim()));
    match marked.next() {
        None => unreadable("the answer holds no verdict"),
        Some(first) if marked.all(|other| other == first) => first.into(),
        Some(_) => unreadable("the answer holds different verdicts"),
    }
}

fn unreadable(why: &str) -> Answer {
    Answer { verdict: Verdict::Unreadable, note: Some(why.into()) }
}

fn of_letter(text: &str) -> Option<Verdict> {
    match text {
        "A" | "a" => Some(Verdict::A),
        "B" | "b" => Some(Verdict::B),
        "C" | "c" => Some(Verdict::Tie),
        other if other.eq_ignore_ascii_case("tie") => Some(Verdict::Tie),
        _ => None,
    }
}

/// A line that says nothing but a verdict.
fn of_line(line: &str) -> Option<Verdict> {
    const AROUND: [&str; 17] = [
        "final",
        "my",
        "the",
        "verdict",
        "answer",
        "winner",
        "choice",
        "judgment",
        "judgement",
        "preference",
        "response",
        "assistant",
        "is",
        "better",
        "best",
        "wins",
        "therefore",
    ];
    const MARKUP: &[char] =
        &['*', '_', '`', '#', '[', ']', '(', ')', '"', '\'', '.', ',', ':', '!', '>', '=', '-', '\\'];
    // Brackets that do not close are a verdict that was cut off.
    if line.matches('[').count() != line.matches(']').count() {
        return None;
    }
    let words = line.split(|c: char| c.is_whitespace() || MARKUP.contains(&c)).filter(|word| !word.is_empty());
    let mut said = words.filter(|word| !AROUND.contains(&word.to_ascii_lowercase().as_str()));
    let word = match said.next()? {
        article if article.eq_ignore_ascii_case("a") && line.to_ascii_lowercase().contains("a tie") => said.next()?,
        word => word,
    };
    if said.next().is_some() {
        return None;
    }
    match word {
        "A" => Some(Verdict::A),
        "B" => Some(Verdict::B),
        "C" => Some(Verdict::Tie),
        // In lower case a letter is also an article.
        "a" | "b" | "c" if line.contains("[[") => of_letter(word),
        other if ["tie", "draw", "equal"].contains(&other.to_ascii_lowercase().as_str()) => Some(Verdict::Tie),
        _ => None,
    }
}

/// A JSON object, alone or in a code block, with one field that holds the verdict.
fn of_json(text: &str) -> Option<Verdict> {
    const FIELDS: [&str; 7] = ["verdict", "winner", "choice", "answer", "preference", "better", "result"];
    let inside = &text[text.find('{')?..=text.rfind('}')?];
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(inside).ok()?;
    let mut named = object.iter().filter(|(name, _)| FIELDS.contains(&name.to_ascii_lowercase().as_str()));
    let (_, value) = named.next()?;
    // Two such fields could say two things.
    if named.next().is_some() {
        return None;
    }
    let value = value.as_str()?.trim();
    of_letter(value).or_else(|| of_line(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_forms_are_read() {
        let a = [
            "[[A]]",
            "A",
            " A. ",
            "**A**",
            "[[a]]",
            "[A]",
            "(A)",
            "Response A",
            "Response A is better.",
            "The better response is A.",
            "Verdict: [[A]]",
            "**Verdict:** A",
            "## Final verdict: [[A]]",
            "My answer is A",
            "\"A\"",
            "`A`",
            "\\[\\[A\\]\\]",
            "B is shorter, but A is right.\n\n[[A]]",
            "Both have faults. [[A]]",
            "[[A]] because B is wrong.",
            "{\"verdict\": \"A\"}",
            "```json\n{\"winner\": \"a\", \"why\": \"[[B]] is wrong\"}\n```",
            "```\nA\n```",
            "I compare.\n{\"reason\": \"x\", \"choice\": \"Response A\"}",
            "<think>[[B]]? No.</think>\n[[A]]",
            "I like [[B]] less.\nA",
            "A\n```",
            "{\n  \"Verdict\": \"[[A]]\"\n}",
        ];
        for text in a {
            assert_eq!(parse(text).verdict, Verdict::A, "{text:?}");
            let swapped = text.replace('A', "\u{1}").replace('B', "A").replace('\u{1}', "B").replace("\"a\"", "\"b\"");
            if !text.contains("[a]") && !text.starts_with("## ") {
                assert_eq!(parse(&swapped).verdict, Verdict::B, "{swapped:?}");
            }
        }
        for text in [
            "[[C]]",
            "C",
            "tie",
            "Tie.",
            "**TIE**",
            "A tie",
            "It differs little.\nVerdict: a tie",
            "[[tie]]",
            "{\"winner\": \"tie\"}",
        ] {
            assert_eq!(parse(text).verdict, Verdict::Tie, "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_no_verdict_and_no_tie() {
        let rubbish = [
            "",
            "   \n",
            "I cannot say.",
            "[[A]] and [[B]] are both good.",
            "A or B",
            "not A",
            "A is not better",
            "neither",
            "Neither is better",
            "[[D]]",
            "[[]]",
            "[[",
            "]]",
            "{\"verdict\": \"A\"",
            "{\"verdict\": 1}",
            "{\"verdict\": null}",
            "{\"winner\": \"A\", \"better\": \"B\"}",
            "{}",
            "the answer is a",
            "AB",
            "Ä",
            "42",
            "a",
            "<html>502</html>",
            "Assistant",
            "<think>[[A]]</think>",
            "[[A",
            "\u{0}\u{1}",
            "As an AI, I think they differ.",
            "1",
            "}{",
        ];
        for text in rubbish {
            let answer = parse(text);
            assert_eq!(answer.verdict, Verdict::Unreadable, "{text:?}");
            assert!(answer.note.is_some());
        }
    }
}
