//! What a report was made with.

use std::fs;
use std::num::NonZero;
use std::time::SystemTime;

use anyhow::{Context, Result};
use polars::prelude::{DataFrame, df};

use crate::train::ALGORITHM;

/// The libraries whose versions may move a number.
const LIBRARIES: [&str; 4] = ["candle-core", "gemm", "polars", "tokenizers"];

/// Versions, processor, threads and date: a row an item, with the columns `item` and `value` (text).
///
/// # Errors
/// A list of versions that cannot be read.
pub fn environment() -> Result<DataFrame> {
    let mut rows = vec![
        ("qstar".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("algorithm".to_owned(), ALGORITHM.to_owned()),
    ];
    rows.extend(versions()?);
    rows.push(("system".to_owned(), format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)));
    rows.push(("processor".to_owned(), processor().unwrap_or_else(|| "not known".to_owned())));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    rows.push(("threads".to_owned(), threads.to_string()));
    rows.push(("date".to_owned(), httpdate::fmt_http_date(SystemTime::now())));
    let (items, values): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
    Ok(df!("item" => items, "value" => values)?)
}

/// As Cargo.lock has them, with which this library was built.
fn versions() -> Result<Vec<(String, String)>> {
    let lock: toml::Table = include_str!("../../Cargo.lock").parse().context("reading Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock names no package")?;
    let field = |package: &toml::Value, name: &str| package.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let named = packages.iter().filter_map(|package| Some((field(package, "name")?, field(package, "version")?)));
    Ok(named.filter(|(name, _)| LIBRARIES.contains(&name.as_str())).collect())
}

/// The processor's own name, where the system tells it.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
