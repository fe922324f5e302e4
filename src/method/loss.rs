//! A loss as a number and its derivatives.

use candle_core::{Result, Tensor};

/// The value of a loss, and its derivative by every token's log-probability (or value): what an objective is to the
/// layers below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    pub value: f64,
    /// One for each of the N tokens.
    pub derivatives: Vec<f64>,
}

impl Loss {
    /// A loss of no tokens.
    pub const ZERO: Loss = Loss { value: 0.0, derivatives: Vec::new() };

    /// Adds the next token: what it adds to the loss, and the derivative.
    pub(super) fn push(&mut self, value: f64, derivative: f64) {
        self.value += value;
        self.derivatives.push(derivative);
    }

    /// The loss times a constant.
    pub fn times(mut self, factor: f64) -> Self {
        self.value *= factor;
        self.derivatives.iter_mut().for_each(|derivative| *derivative *= factor);
        self
    }

    /// Σ derivative · x over the tokens, `[N]` to a scalar: a number with the gradient of this loss. Its value is not that
    /// of the loss.
    ///
    /// # Errors
    /// Another number of tokens.
    pub fn through(&self, x: &Tensor) -> Result<Tensor> {
        let derivatives = Tensor::new(&self.derivatives[..], x.device())?.to_dtype(x.dtype())?;
        (x * derivatives)?.sum_all()
    }
}

/// `(loss(x + h) − loss(x − h)) / 2h` for every x: what the derivatives must equal.
#[cfg(test)]
pub(super) fn check_derivatives(x: &[f64], loss: impl Fn(&[f64]) -> Loss) {
    const H: f64 = 1e-6;
    let at = loss(x);
    assert_eq!(at.derivatives.len(), x.len());
    for (i, derivative) in at.derivatives.iter().enumerate() {
        let moved = |h: f64| {
            let mut x = x.to_vec();
            x[i] += h;
            loss(&x).value
        };
        let difference = (moved(H) - moved(-H)) / (2.0 * H);
        assert!((derivative - difference).abs() < 1e-7, "place {i}: {derivative} and by differences {difference}");
    }
}
