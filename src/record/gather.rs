//! Rows of all ranks in one frame.

use std::io::Cursor;

use anyhow::{Context, Result};
use polars::prelude::{DataFrame, ParquetReader, ParquetWriter, SerReader};

use super::frame::stack;
use crate::ranks::Ranks;

/// Gives rank 0 the rows of all ranks, in their order; the others get none. Collective.
///
/// # Errors
/// Frames with different columns; more than 2 GiB.
pub fn gather(mut rows: DataFrame, ranks: &Ranks) -> Result<Option<DataFrame>> {
    if ranks.size() == 1 {
        return Ok(Some(rows));
    }
    // Parquet keeps every bit of a number, nulls and the types of columns without a value.
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut rows)?;
    let Some(all) = ranks.gather(&bytes)? else { return Ok(None) };
    let read = |(rank, bytes)| {
        ParquetReader::new(Cursor::new(bytes)).finish().with_context(|| format!("the rows of rank {rank}"))
    };
    let frames: Result<Vec<_>> = all.into_iter().enumerate().map(read).collect();
    Ok(Some(stack(frames?)?))
}
