//! One HTML page with everything that a study found and where it comes from.
//!
//! The page needs neither a network nor a script: figures are inline, and a policy in its head forbids whatever could be
//! loaded or run. All text is escaped; what comes as HTML or SVG is read and refused where it holds more than text and shapes.

mod environment;
mod markup;
mod runs;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use crate::display::{Html, escape, table_html};
use crate::plot::Figure;
pub use environment::environment;
pub use runs::RunRow;

/// Rows of a table that the page shows: half of them from the start, half from the end, and a note says so.
const ROWS: usize = 500;
const STYLE: &str = include_str!("page.css");

/// A page that grows from top to bottom.
///
/// ```
/// use polars::df;
/// use qstar::report::{Page, environment};
///
/// let rewards = df!("method" => ["qstar", "sft"], "reward" => [0.61, 0.64])?;
/// let page = Page::new("A comparison")
///     .section("Results")
///     .text("Held-out rewards after 150 steps.")
///     .table("Table 1: rewards", &rewards)
///     .section("Environment")
///     .table("Versions and machine", &environment()?);
/// assert!(page.to_html().contains("<td style=\"text-align:right\">0.61</td>"));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    title: String,
    contents: String,
    body: String,
    sections: usize,
    /// Of the present section.
    entries: usize,
}

impl Page {
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), contents: String::new(), body: String::new(), sections: 0, entries: 0 }
    }

    /// Begins a section, which the table of contents names.
    pub fn section(mut self, title: &str) -> Self {
        self.end_entries();
        self.sections += 1;
        let (number, title) = (self.sections, text(title));
        let _ = write!(self.contents, "<li><a href=\"#s{number}\">{title}</a>");
        let _ = writeln!(self.body, "<h2 id=\"s{number}\">{title}</h2>");
        self
    }

    /// Paragraphs, which empty lines part.
    pub fn text(mut self, paragraphs: &str) -> Self {
        for paragraph in paragraphs.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
            let _ = writeln!(self.body, "<p>{}</p>", text(paragraph));
        }
        self
    }

    /// A frame as a table.
    pub fn table(self, caption: &str, frame: &DataFrame) -> Self {
        self.table_of(caption, frame, ROWS)
    }

    /// The same with at most so many `rows`.
    fn table_of(mut self, caption: &str, frame: &DataFrame, rows: usize) -> Self {
        let id = self.entry(caption);
        let (caption, table) = (text(caption), clean(&table_html(frame, rows)));
        let _ = writeln!(
            self.body,
            "<figure id=\"{id}\"><figcaption>{caption}</figcaption>\n<div class=\"table\">{table}</div></figure>"
        );
        self
    }

    /// A figure, as shapes and texts within the page.
    ///
    /// # Errors
    /// An `svg` that is not one, or that holds scripts, links or what would be loaded.
    pub fn figure(mut self, caption: &str, figure: &Figure) -> Result<Self> {
        let svg = markup::svg(&figure.svg).with_context(|| format!("the figure {caption:?} of a report"))?;
        let id = self.entry(caption);
        let caption = text(caption);
        let _ = writeln!(self.body, "<figure id=\"{id}\">{svg}\n<figcaption>{caption}</figcaption></figure>");
        Ok(self)
    }

    /// What was written as HTML, as the sentences of a verdict: paragraphs, lists, tables, emphasis.
    ///
    /// # Errors
    /// HTML that is not well-formed XML, or that holds other elements, links, or what would be loaded or run.
    pub fn html(mut self, html: &Html) -> Result<Self> {
        let html = clean(&html.0);
        markup::html(&html).context("the HTML of a report")?;
        let _ = writeln!(self.body, "<div>{html}</div>");
        Ok(self)
    }

    /// A table of runs with their seeds and hashes: what they were asked for, and what they ended with. Each is given as the
    /// experiments that it is part of and its name. No row is left out, however many there are.
    ///
    /// # Errors
    /// A run without a readable `spec.json`, which is named.
    pub fn runs<E: AsRef<str>, S: AsRef<str>>(
        self,
        caption: &str,
        folder: &Path,
        runs: impl IntoIterator<Item = (E, S)>,
    ) -> Result<Self> {
        let read = |(experiments, name): (E, S)| RunRow::read(folder, experiments.as_ref(), name.as_ref());
        let rows: Vec<RunRow> = runs.into_iter().map(read).collect::<Result<_>>()?;
        Ok(self.table_of(caption, &RunRow::frame(&rows)?, rows.len()))
    }

    /// The whole page.
    pub fn to_html(&self) -> String {
        let title = text(&self.title);
        let (contents, body) = (&self.contents, &self.body);
        let ends = if self.sections == 0 {
            ""
        } else if self.entries > 0 {
            "</ol></li>"
        } else {
            "</li>"
        };
        let nav = if contents.is_empty() {
            String::new()
        } else {
            format!("<nav aria-label=\"Contents\"><h2>Contents</h2>\n<ol>{contents}{ends}</ol></nav>\n")
        };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             base-uri 'none'; form-action 'none'\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{nav}<main>\n{body}</main>\n\
             </body>\n</html>\n"
        )
    }

    /// Writes the page; missing folders are made, a page of that name is replaced whole.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let told = || format!("{}: the report cannot be written", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(told)?;
        }
        let new = path.with_extension("html.new");
        fs::write(&new, self.to_html()).with_context(told)?;
        fs::rename(&new, path).with_context(told)
    }

    /// Names a table or figure in the contents, and gives its anchor.
    fn entry(&mut self, caption: &str) -> String {
        if self.sections == 0 {
            // What stands above all sections.
            self.sections = 1;
            let _ = write!(self.contents, "<li><a href=\"#s1-1\">{}</a>", text(&self.title));
        }
        if self.entries == 0 {
            self.contents.push_str("<ol>");
        }
        self.entries += 1;
        let id = format!("s{}-{}", self.sections, self.entries);
        let _ = write!(self.contents, "<li><a href=\"#{id}\">{}</a></li>", text(caption));
        id
    }

    fn end_entries(&mut self) {
        if self.entries > 0 {
            self.contents.push_str("</ol>");
        }
        if self.sections > 0 {
            self.contents.push_str("</li>\n");
        }
        self.entries = 0;
    }
}

/// Text as the page shows it.
fn text(text: &str) -> String {
    clean(&escape(text))
}

/// Without the characters that neither HTML nor XML can hold, and those that turn the direction of the text around them.
fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}
