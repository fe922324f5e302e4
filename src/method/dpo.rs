//! Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290).

use serde::{Deserialize, Serialize};

use super::Loss;

/// DPO's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dpo {
    /// The strength of the tie to π_init: the loss is that of a Bradley-Terry model with the reward β log π_θ/π_init.
    pub beta: f64,
    /// The share of labels that are taken to be wrong (Mitchell 2023, conservative DPO).
    pub label_smoothing: f64,
    /// Whether log π_θ/π_init is a mean over a response's tokens and not their sum, so that long responses weigh as short
    /// ones do.
    pub length_normalized: bool,
}

/// The loss of a batch of pairs, and the rewards that it implies.
#[derive(Debug, Clone, PartialEq)]
pub struct DpoLoss {
    pub loss: Loss,
    /// β log π_θ/π_init of each chosen response, and of each rejected one.
    pub chosen: Vec<f64>,
    pub rejected: Vec<f64>,
}

impl Dpo {
    pub const DEFAULT: Dpo = Dpo { beta: 0.1, label_smoothing: 0.0, length_normalized: false };

    /// −(1/n) Σ [(1−ε) log σ(d) + ε log σ(−d)], d the difference of the two rewards of a pair. `log_probs` and
    /// `reference` hold the tokens of all responses, `lengths` how many each has: chosen, rejected, chosen, ...;
    /// n is the number of pairs.
    ///
    /// # Panics
    /// If the lengths do not come in pairs or do not sum to the number of tokens.
    pub fn loss(&self, log_probs: &[f64], reference: &[f64], lengths: &[usize], pairs: f64) -> DpoLoss {
        assert!(lengths.len().is_multiple_of(2) && lengths.iter().sum::<usize>() == log_probs.len(), "whole pairs");
        let mut found = DpoLoss { loss: Loss::ZERO, chosen: Vec::new(), rejected: Vec::new() };
        let mut at = 0;
        for pair in lengths.chunks(2) {
            let scales = [pair[0], pair[1]].map(|n| self.beta / if self.length_normalized { n as f64 } else { 1.0 });
            let mut reward = |n: usize, scale: f64| {
                let sum: f64 = (at..at + n).map(|i| log_probs[i] - reference[i]).sum();
                at += n;
                scale * sum
            };
            let (chosen, rejected) = (reward(pair[0], scales[0]), reward(pair[1], scales[1]));
            let (d, smoothing) = (chosen - rejected, self.label_smoothing);
            let value = -((1.0 - smoothing) * log_sigmoid(d) + smoothing * log_sigmoid(-d)) / pairs;
            let by_d = -((1.0 - smoothing) * log_sigmoid(-d).exp() - smoothing * log_sigmoid(d).exp()) / pairs;
            found.loss.value += value;
            for (n, factor) in [(pair[0], scales[0]), (pair[1], -scales[1])] {
                found.loss.derivatives.extend(std::iter::repeat_n(by_d * factor, n));
            }
            found.chosen.push(chosen);
            found.rejected.push(rejected);
        }
        found
    }
}

fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::super::loss::check_derivatives;
    use super::*;

    #[test]
    fn the_loss_is_that_of_bradley_terry() {
        let dpo = Dpo::DEFAULT;
        let found = dpo.loss(&[-1.0, -2.0, -3.0], &[-1.5, -2.0, -2.0], &[2, 1], 1.0);
        assert!((found.chosen[0] - 0.05).abs() < 1e-12 && (found.rejected[0] + 0.1).abs() < 1e-12);
        assert!((found.loss.value - (1.0 + (-0.15f64).exp()).ln()).abs() < 1e-12);
        assert!((log_sigmoid(-800.0) + 800.0).abs() < 1e-9 && log_sigmoid(800.0) == 0.0);
    }

    #[test]
    fn derivatives_are_those_of_the_loss() {
        let reference = [-1.5, -2.0, -2.0, -0.5, -1.0, -2.2];
        for length_normalized in [false, true] {
            let dpo = Dpo { beta: 0.7, label_smoothing: 0.1, length_normalized };
            let loss = |x: &[f64]| dpo.loss(x, &reference, &[2, 1, 1, 2], 2.0).loss;
            check_derivatives(&[-1.0, -2.0, -3.0, -0.1, -0.2, -4.0], loss);
        }
    }
}
