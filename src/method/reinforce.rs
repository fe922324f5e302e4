//! REINFORCE (Williams 1992) with importance weights.

use candle_core::{Result, Tensor};

/// −(1/n) Σ_i Σ_t w_it A_it log π_θ(y_it): its gradient is minus the estimated ∇J.
///
/// `log_probs` is `[N]`, the tokens of all responses one after the other; `coefficients` holds w·A of
/// each, constants; n is the number of responses.
///
/// Unbiased for ∇J when w is the product over the whole response and the baseline in A does not
/// depend on the response. With token weights it estimates another quantity, see [`super::Weight`].
pub fn reinforce_loss(log_probs: &Tensor, coefficients: &[f64], responses: usize) -> Result<Tensor> {
    let coefficients = Tensor::new(coefficients, log_probs.device())?.to_dtype(log_probs.dtype())?;
    (log_probs * coefficients)?.sum_all()? * (-1.0 / responses as f64)
}
