//! REINFORCE (Williams 1992) with importance weights.

use super::Loss;

/// −(1/n) Σ_i Σ_t w_it A_it log π_θ(y_it): minus its gradient is the estimate of ∇J.
///
/// `log_probs` are those of the tokens of all responses, one after the other; `coefficients` holds w·A of each,
/// constants; n is the number of responses (of the whole batch over the number of its parts, where this is a part).
///
/// Unbiased for ∇J when w is the product over the whole response and the baseline in A does not
/// depend on the response. With token weights it estimates another quantity, see [`super::Weight`].
///
/// # Panics
/// If the two slices differ in length.
pub fn reinforce_loss(log_probs: &[f64], coefficients: &[f64], responses: f64) -> Loss {
    assert_eq!(log_probs.len(), coefficients.len(), "a coefficient for each token");
    let mut loss = Loss::ZERO;
    for (log_prob, coefficient) in log_probs.iter().zip(coefficients) {
        loss.push(-coefficient * log_prob / responses, -coefficient / responses);
    }
    loss
}

/// −(1/n) Σ log π_θ: the mean negative log-likelihood of a response, summed over its tokens. With responses drawn
/// from π_t its gradient is that of KL(π_t‖π_θ), unbiased; rewards play no part.
pub fn maximum_likelihood_loss(log_probs: &[f64], responses: f64) -> Loss {
    reinforce_loss(log_probs, &vec![1.0; log_probs.len()], responses)
}
