//! Differentiable blocks.
//!
//! candle's own fused blocks cut the gradient without an error, so every block that a model is made of stands here,
//! with its backward, checked against finite differences in f64. Blocks work on [`Traced`] values; [`block`] makes one
//! node of candle's graph of any number of them. Gradients of weights do not go through candle's graph: they are
//! summed beside the variables, and [`Params::gradients`] hands them out.

mod activation;
mod attention;
mod cache;
mod conv;
pub mod cuda;
mod disentangled;
mod embedding;
mod kernel;
mod linear;
mod log_probs;
mod lora;
mod matmul;
mod norm;
mod packing;
mod params;
mod rope;
mod traced;
mod weight;

pub use activation::{Activation, Gelu, activate, activated, bias_gelu, swiglu};
pub use attention::{Heads, Mask, attention, pack};
pub use cache::KvCache;
pub use conv::Conv1d;
pub(crate) use cuda::on_gpu;
pub use disentangled::{Reach, RelativePositions, disentangled_attention};
pub use embedding::{Embedding, embed, select_rows};
pub(crate) use kernel::{sum_dtype, with_values, with_values_mut};
pub use linear::{Linear, add_bias};
pub use log_probs::{TokenLogProbs, entropies, kl_to, log_probs_of, token_log_probs};
pub use lora::{Dropout, DropoutClock, Lora};
pub use norm::{LayerNorm, RmsNorm};
pub use packing::{Packing, Part};
pub use params::{Adapters, LinearShape, Params, Weights};
pub use rope::{Rope, rope};
pub use traced::{Traced, block};
pub use weight::{GradientSum, Weight};
