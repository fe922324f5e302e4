//! From rows to polars frames.

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame, NamedFrom, PlSmallStr, Series};

/// A value that can stand in a column.
pub trait Cell {
    type Stored;
    fn cell(&self) -> Self::Stored;
}

macro_rules! plain_cells {
    ($($T:ty),*) => {$(
        impl Cell for $T {
            type Stored = $T;
            fn cell(&self) -> $T {
                self.clone()
            }
        }
    )*};
}
plain_cells!(i64, f64, bool, String, Option<f64>, Option<String>);

impl Cell for Vec<f64> {
    type Stored = Series;
    fn cell(&self) -> Series {
        Series::new(PlSmallStr::EMPTY, self)
    }
}

/// Declares a struct of cells with `frame(&[Self]) -> Result<DataFrame>`: one column a field, under its name.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $Name:ident { $($(#[$field_meta:meta])* pub $field:ident: $T:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name { $($(#[$field_meta])* pub $field: $T,)* }

        impl $Name {
            /// The rows as a frame, one column a field.
            pub fn frame(rows: &[Self]) -> anyhow::Result<polars::prelude::DataFrame> {
                use polars::prelude::{Column, DataFrame, NamedFrom};
                let columns: Vec<Column> = vec![$(Column::from(polars::prelude::Series::new(
                    stringify!($field).into(),
                    rows.iter().map(|row| $crate::record::Cell::cell(&row.$field)).collect::<Vec<_>>(),
                ))),*];
                Ok(DataFrame::new(rows.len(), columns)?)
            }
        }
    };
}
pub(crate) use record;

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
