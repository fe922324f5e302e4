//! What every cell of a notebook sees. Types that a cell binds must be here, or rust-analyzer cannot name them.

pub use crate::display::{Html, Show};
pub use crate::progress::Progress;
pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use candle_core::{DType, Device, Tensor, Var};
pub use polars::prelude::{Column, DataFrame};
