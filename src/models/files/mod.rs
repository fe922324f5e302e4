//! The files of a model in the hub's layout: where they are, what is in them, how they are written.

mod header;
mod index;
mod read;
mod save;
mod source;

pub use read::TensorFiles;
pub(super) use save::save_adapter_files;
pub use save::{SHARD_BYTES, save_model};
pub use source::{Source, WeightFiles};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
