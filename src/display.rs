//! How values show themselves in a notebook's cell.
//!
//! evcxr turns what a cell prints between two marks into the cell's output. It joins all of a cell's outputs into
//! one, in which the last of each kind wins: so a cell shows one table or one figure, and ends with `x.show();`.
//!
//! Outside a notebook the same calls print plain text.

use polars::prelude::{AnyValue, Column, DataFrame};
use std::fmt::Write;
use std::io::Write as _;

/// Rows of a frame that a cell shows: half of them from the start, half from the end.
const ROWS: usize = 40;
/// Characters of a text that a cell of a table shows.
const TEXT: usize = 800;
/// Significant digits of a column's largest number.
const DIGITS: i32 = 4;

/// A value that a cell can show.
pub trait Show {
    /// Shows the value below the cell, or prints it where there is no notebook.
    fn show(&self);

    /// What evcxr calls on a cell's last expression when it has no semicolon.
    fn evcxr_display(&self) {
        self.show();
    }
}

/// A piece of HTML that is shown as it is. Text from outside goes through [`escape`] first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html(pub String);

impl Show for Html {
    fn show(&self) {
        if in_notebook() {
            emit("text/html", &self.0);
        } else {
            println!("{}", self.0);
        }
    }
}

impl Show for DataFrame {
    fn show(&self) {
        if in_notebook() {
            emit("text/html", &frame_html(self));
        } else {
            println!("{self}");
        }
    }
}

/// Whether this process is the one that runs a notebook's cells.
pub fn in_notebook() -> bool {
    std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

/// Gives `content` to the notebook as the cell's output of one mime type (`text/html`, `image/svg+xml`).
pub fn emit(mime: &str, content: &str) {
    const END: &str = "EVCXR_END_CONTENT";
    // A line of the content that looks like a mark would end the output early.
    let content = content.replace("EVCXR_", "EVCXR\u{200b}_");
    let mut out = std::io::stdout().lock();
    // When the notebook has gone away there is nobody left to show this to.
    let _ = write!(out, "EVCXR_BEGIN_CONTENT {mime}\n{content}\n{END}\n");
    let _ = out.flush();
}

/// Text with the characters that mean something in HTML written as entities.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A frame as a compact HTML table: numbers to the right with the digits that matter, a null as –, long frames and
/// long texts cut with a note, all text escaped.
pub fn frame_html(frame: &DataFrame) -> String {
    table_html(frame, ROWS)
}

/// The same with at most so many `rows`.
pub fn table_html(frame: &DataFrame, rows: usize) -> String {
    let height = frame.height();
    let rows = shown_rows(height, rows);
    let columns: Vec<Cells> = frame.columns().iter().map(|column| Cells::of(column, &rows)).collect();

    let mut html = String::from("<table><thead><tr>");
    for (column, cells) in frame.columns().iter().zip(&columns) {
        let name = escape(column.name());
        let _ = write!(html, "<th style=\"text-align:{}\">{name}</th>", cells.align);
    }
    html.push_str("</tr></thead><tbody>");
    for at in 0..rows.len() {
        if at > 0 && rows[at] != rows[at - 1] + 1 {
            let width = columns.len().max(1);
            let left_out = rows[at] - rows[at - 1] - 1;
            let _ = write!(
                html,
                "<tr><td colspan=\"{width}\" style=\"text-align:center\">… {left_out} more rows …</td></tr>"
            );
        }
        html.push_str("<tr>");
        for cells in &columns {
            let text = &cells.texts[at];
            let _ = write!(html, "<td style=\"text-align:{}\">{text}</td>", cells.align);
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    if height == 0 {
        html.push_str("<p>no rows</p>");
    } else if rows.len() < height {
        let _ = write!(html, "<p>{} of {height} rows shown</p>", rows.len());
    }
    html
}

fn shown_rows(height: usize, most: usize) -> Vec<usize> {
    if height <= most {
        return (0..height).collect();
    }
    let half = most / 2;
    (0..half).chain(height - half..height).collect()
}

/// One column's shown values as HTML.
struct Cells {
    align: &'static str,
    texts: Vec<String>,
}

impl Cells {
    fn of(column: &Column, rows: &[usize]) -> Self {
        let values: Vec<AnyValue> = rows.iter().map(|row| column.get(*row).unwrap_or(AnyValue::Null)).collect();
        if !column.dtype().is_primitive_numeric() {
            let texts = values.iter().map(text_html).collect();
            return Self { align: "left", texts };
        }
        let floats: Vec<Option<f64>> = values.iter().map(AnyValue::extract::<f64>).collect();
        let texts = if column.dtype().is_float() {
            let format = Numbers::of(floats.iter().copied().flatten());
            let write = |value: &Option<f64>| value.map_or(null(), |x| format.write(x));
            floats.iter().map(write).collect()
        } else {
            values.iter().map(text_html).collect()
        };
        Self { align: "right", texts }
    }
}

fn null() -> String {
    "–".to_owned()
}

fn text_html(value: &AnyValue) -> String {
    if value.is_null() {
        return null();
    }
    let text = match value {
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::StringOwned(text) => text.to_string(),
        other => other.to_string(),
    };
    let cut: String = text.chars().take(TEXT).collect();
    let note = if cut.len() < text.len() { " …" } else { "" };
    format!("{}{note}", escape(&cut).replace('\n', "<br/>"))
}

/// How the numbers of one column are written, so that their points stand below each other.
enum Numbers {
    Decimals(usize),
    Scientific,
}

impl Numbers {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let sizes = values.filter(|x| x.is_finite() && *x != 0.0).map(f64::abs);
        let largest = sizes.clone().fold(0.0, f64::max);
        let smallest = sizes.clone().fold(f64::INFINITY, f64::min);
        if largest == 0.0 {
            return Self::Decimals(0);
        }
        if !(1e-3..1e9).contains(&largest) || smallest < largest * 1e-7 {
            return Self::Scientific;
        }
        let magnitude = largest.log10().floor() as i32;
        let most = (DIGITS - 1 - magnitude).clamp(0, 6) as usize;
        // No more decimals than the values have: 0.3 and 0.5 are not 0.3000 and 0.5000.
        let enough = |decimals: &usize| {
            sizes.clone().all(|x| (rounded(x, *decimals) - rounded(x, most)).abs() < 1e-12 * x.max(1e-3))
        };
        let fewest = (0..most).find(enough).unwrap_or(most);
        Self::Decimals(fewest)
    }

    fn write(&self, x: f64) -> String {
        match self {
            _ if x.is_nan() => "NaN".to_owned(),
            _ if x.is_infinite() => if x > 0.0 { "∞" } else { "−∞" }.to_owned(),
            Self::Decimals(decimals) => format!("{x:.decimals$}").replace('-', "−"),
            Self::Scientific if x == 0.0 => "0".to_owned(),
            Self::Scientific => format!("{x:.3e}").replace('-', "−"),
        }
    }
}

fn rounded(x: f64, decimals: usize) -> f64 {
    let scale = 10f64.powi(decimals as i32);
    (x * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::df;

    fn column(values: &[f64]) -> Vec<String> {
        let format = Numbers::of(values.iter().copied());
        values.iter().map(|x| format.write(*x)).collect()
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!(column(&[0.3, 0.5]), ["0.3", "0.5"]);
        assert_eq!(column(&[0.4603839139, 0.5]), ["0.4604", "0.5000"]);
        assert_eq!(column(&[1234.5678, -2.0]), ["1235", "−2"]);
        assert_eq!(column(&[1e-6, 0.0]), ["1.000e−6", "0"]);
        assert_eq!(column(&[f64::NAN, f64::INFINITY, 2.0]), ["NaN", "∞", "2"]);
        assert_eq!(column(&[0.0]), ["0"]);
    }

    #[test]
    fn a_frame_is_a_table_with_all_text_escaped() {
        let frame = df!(
            "a<b" => [Some("<script>&"), None],
            "n" => [Some(1i64), None],
            "x" => [Some(0.25), None],
        )
        .unwrap();
        let html = frame_html(&frame);
        assert!(html.contains("a&lt;b</th>"), "{html}");
        assert!(html.contains("&lt;script&gt;&amp;</td>"), "{html}");
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("<td style=\"text-align:right\">0.25</td>"));
        assert_eq!(html.matches(">–<").count(), 3, "{html}");
    }

    #[test]
    fn a_long_frame_is_cut_with_a_note() {
        let frame = df!("i" => (0..1000i64).collect::<Vec<_>>()).unwrap();
        let html = frame_html(&frame);
        assert!(html.contains("… 960 more rows …") && html.contains("40 of 1000 rows shown"));
        assert!(html.contains(">0</td>") && html.contains(">999</td>") && !html.contains(">500<"));
    }

    #[test]
    fn an_empty_frame_says_so() {
        let frame = df!("i" => Vec::<i64>::new()).unwrap();
        assert!(frame_html(&frame).ends_with("<p>no rows</p>"));
    }

    #[test]
    fn a_long_text_is_cut() {
        let frame = df!("t" => ["é".repeat(1000)]).unwrap();
        let html = frame_html(&frame);
        assert!(html.contains(&format!("{} …", "é".repeat(TEXT))));
    }
}
