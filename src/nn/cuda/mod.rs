//! The blocks on an NVIDIA GPU (feature `cuda`).
//!
//! Products of matrices, sums of two values and copies are candle's. The kernels here are norms, GELU, SwiGLU, rotary
//! positions, softmax of attention, gradients of tables and biases, log-probabilities over the vocabulary, AdamW and the
//! gradient's norm: those that candle lacks, does slowly, or gives no gradient to. NVRTC compiles them for the GPU that is
//! there when the first is used, once for f32 and once for bf16; both compute in f32. No kernel adds atomically: sums over
//! rows have two stages and a fixed order, so that the same step has the same bits on the same GPU.
//!
//! **Tested without a GPU**: `tests/cuda_blocks.rs` compiles the kernels' own source for the CPU and compares them with the
//! CPU's blocks; what is composed of candle's operations is compared on the CPU. **Not run on a GPU yet**: `tests/gpu.sh`
//! compares models and times training steps where there is one.
//!
//! Attention keeps its scores, `[B, heads, T, T]` in the values' type, in memory for a block of rows. A cache's keys and
//! values lie on the GPU; which rows are at which position stays on the host.

#[cfg(feature = "cuda")]
mod attention;
#[cfg(any(test, feature = "cuda"))]
mod composed;
#[cfg(feature = "cuda")]
mod elementwise;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod log_probs;
#[cfg(feature = "cuda")]
mod norm;
#[cfg(any(test, feature = "cuda"))]
mod segments;
#[cfg(feature = "cuda")]
mod sums;
#[cfg(feature = "cuda")]
mod update;

#[cfg(feature = "cuda")]
pub(crate) use self::{
    attention::{Held, attention},
    elementwise::{bias_gelu, rope, swiglu},
    log_probs::{entropies, kl_to, log_probs_of, token_log_probs},
    norm::norm,
    sums::{add_bias_gradient, add_table_gradient, scatter_rows},
    update::{adamw, add_in_place, squared_norms},
};
#[cfg(feature = "cuda")]
pub use launch::compile;

/// Returns what `$work` of the functions above gives, where `$tensor` lies on a GPU.
macro_rules! on_gpu {
    ($tensor:expr, $work:expr) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() {
            #[allow(unused_imports)]
            use crate::nn::cuda;
            return $work;
        }
    };
}
pub(crate) use on_gpu;

/// Every kernel takes values of one type.
#[cfg(feature = "cuda")]
fn same_dtype(tensors: &[&candle_core::Tensor]) -> candle_core::Result<()> {
    let dtypes: Vec<_> = tensors.iter().map(|x| x.dtype()).collect();
    if dtypes.windows(2).any(|pair| pair[0] != pair[1]) {
        candle_core::bail!("on a GPU the values of a block have one type, not {dtypes:?}: convert them with to_dtype")
    }
    Ok(())
}
