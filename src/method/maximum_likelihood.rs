//! Maximum likelihood on given responses.

use candle_core::{Result, Tensor};

/// −(1/n) Σ log π_θ: the mean negative log-likelihood of a response's tokens, summed over the response.
/// `log_probs` is `[N]`, the tokens of `responses` responses. With responses drawn from π_t its
/// gradient is that of KL(π_t‖π_θ), unbiased; rewards play no part.
pub fn maximum_likelihood_loss(log_probs: &Tensor, responses: usize) -> Result<Tensor> {
    log_probs.sum_all()? * (-1.0 / responses as f64)
}
