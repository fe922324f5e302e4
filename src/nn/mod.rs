//! Differentiable blocks.
//!
//! candle's own fused blocks cut the gradient without an error, so every block that a model is made
//! of stands here, with its backward, checked against finite differences in f64.
//! A block is a pure function of tensors; forward and backward are one fused loop each.

mod activation;
mod attention;
mod kernel;
mod linear;
mod norm;
mod params;
mod rope;
mod token_log_probs;

pub use activation::{bias_gelu, swiglu};
pub use attention::{Heads, KvCache, causal_attention};
pub use linear::{Linear, add_bias, embedding};
pub use norm::{layer_norm, rms_norm};
pub use params::{Params, Weights};
pub use rope::{Rope, rope};
pub use token_log_probs::{kl_to, log_softmax, token_log_probs};
