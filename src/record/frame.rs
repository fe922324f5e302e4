//! From rows to polars frames.

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame, NamedFrom, PlSmallStr, Series};

/// A value that can stand in a column.
pub trait Cell {
    type Stored;
    /// What the help on columns calls its type.
    const TYPE: &'static str;
    fn cell(&self) -> Self::Stored;
}

macro_rules! plain_cells {
    ($($T:ty: $name:literal),*) => {$(
        impl Cell for $T {
            type Stored = $T;
            const TYPE: &'static str = $name;
            fn cell(&self) -> $T {
                self.clone()
            }
        }
    )*};
}
plain_cells!(
    i64: "integer", f64: "number", bool: "true or false", String: "text",
    Option<f64>: "number or null", Option<String>: "text or null"
);

impl Cell for Vec<f64> {
    type Stored = Series;
    const TYPE: &'static str = "list of numbers";
    fn cell(&self) -> Series {
        Series::new(PlSmallStr::EMPTY, self)
    }
}

/// Declares a struct of cells with `frame(&[Self]) -> Result<DataFrame>`, one column a field, under its name, and
/// `columns() -> Result<DataFrame>`, what the fields' comments say of them.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $Name:ident { $($(#[doc = $doc:literal])* pub $field:ident: $T:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name { $($(#[doc = $doc])* pub $field: $T,)* }

        impl $Name {
            #[allow(dead_code)]
            /// The rows as a frame, one column a field.
            pub fn frame(rows: &[Self]) -> anyhow::Result<polars::prelude::DataFrame> {
                use polars::prelude::{Column, DataFrame, NamedFrom};
                let columns: Vec<Column> = vec![$(Column::from(polars::prelude::Series::new(
                    stringify!($field).into(),
                    rows.iter().map(|row| $crate::record::Cell::cell(&row.$field)).collect::<Vec<_>>(),
                ))),*];
                Ok(DataFrame::new(rows.len(), columns)?)
            }

            // Of a row that is not exported nobody may ask.
            #[allow(dead_code)]
            /// The help on the frame: a row a column, with `column`, `type` and `meaning`, which has the unit.
            pub fn columns() -> anyhow::Result<polars::prelude::DataFrame> {
                $crate::record::described(&[
                    $((stringify!($field), <$T as $crate::record::Cell>::TYPE, concat!($($doc),*))),*
                ])
            }
        }
    };
}
pub(crate) use record;

/// Columns with their types and meanings as a frame. A column without words of its own has a null.
pub(crate) fn described(columns: &[(&str, &str, &str)]) -> Result<DataFrame> {
    let names: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
    let types: Vec<&str> = columns.iter().map(|(_, kind, _)| *kind).collect();
    let meaning = |text: &str| {
        // Comments in code mark what is code, and escape what would be a link.
        let text = text.replace('`', "").replace("\\[", "[").replace("\\]", "]").replace("\\*", "*");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then_some(text)
    };
    let meanings: Vec<Option<String>> = columns.iter().map(|(.., text)| meaning(text)).collect();
    let columns = vec![
        Column::new("column".into(), names),
        Column::new("type".into(), types),
        Column::new("meaning".into(), meanings),
    ];
    Ok(DataFrame::new(columns[0].len(), columns)?)
}

/// All frames as one, one below the other.
///
/// # Errors
/// No frames, or frames with different columns.
pub fn stack(frames: impl IntoIterator<Item = DataFrame>) -> Result<DataFrame> {
    let mut frames = frames.into_iter();
    let mut all = frames.next().context("there are no rows yet")?;
    for frame in frames {
        all.vstack_mut(&frame)?;
    }
    all.rechunk_mut();
    Ok(all)
}

/// The frame with constant text and number columns in front: which run its rows come from.
pub fn with_labels(frame: &DataFrame, texts: &[(&str, &str)], numbers: &[(&str, i64)]) -> Result<DataFrame> {
    let height = frame.height();
    let mut columns: Vec<Column> = Vec::new();
    columns.extend(texts.iter().map(|(name, value)| Column::new((*name).into(), vec![*value; height])));
    columns.extend(numbers.iter().map(|(name, value)| Column::new((*name).into(), vec![*value; height])));
    columns.extend(frame.columns().iter().cloned());
    Ok(DataFrame::new(height, columns)?)
}

#[cfg(test)]
mod tests {
    use super::super::{EvaluationRow, PlanRow, SampleRow, StepRow};
    use super::*;

    fn text(frame: &DataFrame, name: &str, row: usize) -> Option<String> {
        frame.column(name).unwrap().str().unwrap().get(row).map(str::to_owned)
    }

    #[test]
    fn every_column_of_a_run_has_words_of_its_own() {
        let helps = [
            (StepRow::columns().unwrap(), StepRow::frame(&[]).unwrap()),
            (EvaluationRow::columns().unwrap(), EvaluationRow::frame(&[]).unwrap()),
            (SampleRow::columns().unwrap(), SampleRow::frame(&[]).unwrap()),
            (PlanRow::columns().unwrap(), PlanRow::frame(&[]).unwrap()),
        ];
        for (help, frame) in helps {
            let names: Vec<String> = (0..help.height()).map(|row| text(&help, "column", row).unwrap()).collect();
            let expected: Vec<String> = frame.get_column_names().iter().map(|name| name.to_string()).collect();
            assert_eq!(names, expected);
            for (row, name) in names.iter().enumerate() {
                assert!(text(&help, "meaning", row).is_some(), "`{name}` has no comment of its own");
            }
            let mut meanings: Vec<_> = (0..help.height()).map(|row| text(&help, "meaning", row)).collect();
            meanings.sort();
            meanings.dedup();
            assert_eq!(meanings.len(), names.len(), "two columns with the same words");
        }
    }

    record! {
        /// A row with and without words.
        pub struct ShortRow {
            /// The `first` line
            /// and the second, in \[0, 1\].
            pub words: Option<f64>,
            pub none: Vec<f64>,
        }
    }

    #[test]
    fn comments_become_plain_text() {
        let help = ShortRow::columns().unwrap();
        assert_eq!(text(&help, "meaning", 0).unwrap(), "The first line and the second, in [0, 1].");
        assert_eq!(text(&help, "type", 0).unwrap(), "number or null");
        assert_eq!(ShortRow::frame(&[]).unwrap().get_column_names(), ["words", "none"]);
        assert_eq!((text(&help, "meaning", 1), text(&help, "type", 1).unwrap()), (None, "list of numbers".to_owned()));
    }
}
