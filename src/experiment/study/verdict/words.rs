//! The verdict in sentences.

use std::fmt::Write;

use anyhow::Result;
use polars::prelude::DataFrame;

use crate::display::{Html, escape};
use crate::experiment::study::estimates::ALPHA;
use crate::experiment::study::frames::{OneRun, rows_by_place};
use crate::experiment::study::scores::QSTAR;

/// The verdict, and how `qstar` ended against every other method: a sentence each, a result against the hypothesis as plainly
/// as one for it. `verdict` is the frame of [`verdict`](super::verdict), `table` that of
/// [`main_table`](crate::experiment::study::main_table).
///
/// # Errors
/// Other frames.
pub fn in_words(verdict: &DataFrame, table: &DataFrame) -> Result<Html> {
    let mut html = String::new();
    let methods = rows_by_place(table)?;
    for (place, rows) in rows_by_place(verdict)? {
        let _ = write!(html, "<p><b>{}</b></p><ul>", escape(&place.in_words()));
        html.push_str(&hypotheses(&rows)?);
        for (_, rows) in methods.iter().filter(|(known, _)| *known == place) {
            html.push_str(&differences(rows)?);
        }
        html.push_str("</ul>");
    }
    Ok(Html(html))
}

fn hypotheses(rows: &[OneRun]) -> Result<String> {
    let mut html = String::new();
    for run in rows {
        let text = |name: &str| run.texts(name).map(|texts| escape(&texts[0]));
        let number = |name: &str| run.series(name).map(|values| values[0]);
        let (low, high) = (number("low")?, number("high")?);
        let interval = low.zip(high).map(|(low, high)| format!(", 95% interval {low:.4} to {high:.4}"));
        let value = number("value")?.map_or("not measured".to_owned(), |value| format!("{value:.4}"));
        let against = run.texts("against")?.remove(0);
        let against = if against.is_empty() { String::new() } else { format!(" (against {})", escape(&against)) };
        let seeds = number("seeds")?.unwrap_or_default();
        let _ = write!(
            html,
            "<li><b>{}</b>, “{}”, is <b>{}</b>: {}. Statistic: {}{against}, {value}{}, {seeds:.0} seeds{}.</li>",
            text("hypothesis")?,
            text("claim")?,
            text("verdict")?,
            text("why")?,
            text("statistic")?,
            interval.unwrap_or_default(),
            number("detectable")?.map_or(String::new(), |x| format!("; {x:.4} could have been detected")),
        );
    }
    Ok(html)
}

fn differences(rows: &[OneRun]) -> Result<String> {
    let mut html = String::new();
    for run in rows {
        let number = |name: &str| run.series(name).map(|values| values[0]);
        let method = run.texts("method")?.remove(0);
        let Some(difference) = number("qstar_minus")?.filter(|_| method != QSTAR) else { continue };
        let p = number("p_paired_holm")?;
        let words = match p {
            Some(p) if p < ALPHA && difference > 0.0 => "ended above",
            Some(p) if p < ALPHA && difference < 0.0 => "ended <b>below</b>",
            _ => "did not end distinguishably from",
        };
        let interval = number("qstar_minus_low")?.zip(number("qstar_minus_high")?);
        let interval = interval.map(|(low, high)| format!(", 95% interval {low:+.4} to {high:+.4}"));
        let _ = write!(
            html,
            "<li>qstar {words} {}: {difference:+.4} of held-out reward{}{}{}.</li>",
            escape(&method),
            interval.unwrap_or_default(),
            p.map_or(", no p-value".to_owned(), |p| format!(", p = {p:.4} after Holm")),
            number("detectable")?.map_or(String::new(), |x| format!("; {x:.4} could have been detected")),
        );
    }
    Ok(html)
}
