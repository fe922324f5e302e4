//! The header of a safetensors file, <https://github.com/huggingface/safetensors#format>: eight bytes with the length
//! of a JSON object, the object with the place of every tensor, then the tensors' bytes without gaps.
//!
//! The crate `safetensors` reads it too; here every error names the tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use candle_core::DType;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Where a tensor is in its file.
#[derive(Debug, Clone)]
pub struct Place {
    /// The type as it is read; a bool is read as u8.
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// From the file's begin.
    pub offset: u64,
    pub bytes: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The limit of the format.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads the header and checks it against the file's length.
///
/// # Errors
/// What is wrong, with the tensor's name. The caller adds the file's.
pub fn read_header(file: &mut File) -> Result<BTreeMap<String, Place>> {
    let length = file.metadata()?.len();
    ensure!(length > 0, "the file is empty");
    ensure!(length >= 8, "the file has {length} bytes: it is truncated, or no safetensors file");
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    ensure!(size <= LONGEST_HEADER, "no safetensors file: its header would have {size} bytes");
    ensure!(8 + size <= length, "the file is truncated: its header has {size} bytes, the file {length}");
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).context("the header is not a JSON object")?;
    places(header, 8 + size, length)
}

fn places(header: Map<String, Value>, begin: u64, length: u64) -> Result<BTreeMap<String, Place>> {
    let mut entries = Vec::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(entry).with_context(|| format!("tensor {name} in the header"))?;
        entries.push((entry.data_offsets, name, entry));
    }
    entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut places = BTreeMap::new();
    let mut end = 0;
    for ((from, to), name, entry) in entries {
        ensure!(from == end, "tensor {name} begins at byte {from} of the data, the one before it ends at {end}");
        let (dtype, width) = dtype(&entry.dtype).with_context(|| format!("tensor {name}"))?;
        let expected = entry.shape.iter().try_fold(width, |n, &d| n.checked_mul(d as u64));
        ensure!(
            expected.is_some() && to.checked_sub(from) == expected,
            "tensor {name} of type {} and shape {:?} cannot lie in the bytes {from} to {to}",
            entry.dtype,
            entry.shape
        );
        ensure!(
            to <= length - begin,
            "the file is truncated: tensor {name} ends at byte {}, the file has {length}",
            begin + to
        );
        let bytes = usize::try_from(to - from)?;
        places.insert(name, Place { dtype, shape: entry.shape, offset: begin + from, bytes });
        end = to;
    }
    ensure!(begin + end == length, "{} bytes follow the last tensor", length - begin - end);
    Ok(places)
}

/// A type of the format as it is read, and its size in bytes.
fn dtype(name: &str) -> Result<(DType, u64)> {
    Ok(match name {
        "F64" => (DType::F64, 8),
        "F32" => (DType::F32, 4),
        "F16" => (DType::F16, 2),
        "BF16" => (DType::BF16, 2),
        "I64" => (DType::I64, 8),
        "I32" => (DType::I32, 4),
        "U32" => (DType::U32, 4),
        "I16" => (DType::I16, 2),
        "U8" | "BOOL" => (DType::U8, 1),
        other => bail!(
            "its type {other} is not read; weights are F32, F16 or BF16 (a quantised checkpoint has to be converted)"
        ),
    })
}
