//! Importance weights: over which part of a response they run, and how they are treated.
//!
//! With a reward at the end only the product over the whole sequence is unbiased for ∇J. Prefix
//! products weigh what came before as the policy would and leave what follows to q. The token weight
//! estimates Σ_t E_{y<t∼q} Σ_{y_t} ∇π_θ(y_t) Q^q(y≤t), which is not ∇J; its variance is the smallest.

use serde::{Deserialize, Serialize};

/// A weight: its level and its treatment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    pub level: Level,
    pub treatment: Treatment,
}

/// Over which draws π_θ/q is multiplied for the token at place t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The token alone.
    Token,
    /// The tokens up to and with t.
    Prefix,
    /// All tokens of the response.
    Sequence,
}

/// What is done to a raw weight before it multiplies a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// 1 for every token: draws from the policy, or weights left out on purpose.
    None,
    Raw,
    /// Clamped into [low, high].
    Clipped {
        low: f64,
        high: f64,
    },
    /// Divided by the mean weight, so that weights of 1 on average are exactly that: self-normalised, biased by O(1/n). The
    /// mean of token weights is over tokens, that of sequence weights over responses. That of prefix weights is over tokens
    /// too, and there it tends to the policy's mean length over q's and not to 1.
    Normalized {
        over: Over,
    },
    /// At most `high` (truncated importance sampling, Ionides 2008).
    Truncated {
        high: f64,
    },
}

/// Over what weights are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The batch.
    Batch,
    /// The responses to one prompt.
    Prompt,
}

impl Treatment {
    /// The study's clipping.
    pub const CLIPPED: Treatment = Treatment::Clipped { low: 0.1, high: 10.0 };

    /// Weights from the logarithms of raw ones at a level, a row a response, `k` responses to each prompt.
    pub fn treat(self, level: Level, log_weights: &[Vec<f64>], k: usize) -> Vec<Vec<f64>> {
        let raw = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            rows.iter().map(|row| row.iter().map(|w| w.exp()).collect()).collect()
        };
        let each = |treat: &dyn Fn(f64) -> f64| -> Vec<Vec<f64>> {
            raw(log_weights).into_iter().map(|row| row.into_iter().map(treat).collect()).collect()
        };
        match self {
            Treatment::None => each(&|_| 1.0),
            Treatment::Raw => raw(log_weights),
            Treatment::Clipped { low, high } => each(&|w| w.clamp(low, high)),
            Treatment::Truncated { high } => each(&|w| w.min(high)),
            Treatment::Normalized { over: Over::Batch } => normalized(level, log_weights),
            Treatment::Normalized { over: Over::Prompt } => {
                log_weights.chunks(k.max(1)).flat_map(|rows| normalized(level, rows)).collect()
            }
        }
    }
}

fn normalized(level: Level, log_weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // Relative to the largest, which cannot underflow.
    let largest = log_weights.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut weights: Vec<Vec<f64>> =
        log_weights.iter().map(|row| row.iter().map(|w| (w - largest).exp()).collect()).collect();
    // The tokens of a response share one sequence weight.
    let counted = |row: &Vec<f64>| if level == Level::Sequence { row.len().min(1) } else { row.len() };
    let count: usize = weights.iter().map(counted).sum();
    let sum: f64 = weights.iter().flat_map(|row| &row[..counted(row)]).sum();
    weights.iter_mut().flatten().for_each(|w| *w *= count as f64 / sum);
    weights
}

impl Weight {
    pub const NONE: Weight = Weight { level: Level::Token, treatment: Treatment::None };

    /// The treated weights of a batch, one a token, from the log-probabilities of the drawn tokens of
    /// each response under the policy and under q; `k` responses to each prompt.
    pub fn weights(&self, log_p: &[Vec<f64>], log_q: &[Vec<f64>], k: usize) -> Vec<Vec<f64>> {
        let log_weights: Vec<Vec<f64>> = log_p.iter().zip(log_q).map(|(p, q)| log_weights(self.level, p, q)).collect();
        self.treatment.treat(self.level, &log_weights, k)
    }
}

/// log of the raw weight of every token of one response.
pub fn log_weights(level: Level, log_p: &[f64], log_q: &[f64]) -> Vec<f64> {
    let ratio = log_p.iter().zip(log_q).map(|(p, q)| p - q);
    match level {
        Level::Token => ratio.collect(),
        Level::Prefix => ratio
            .scan(0.0, |sum, x| {
                *sum += x;
                Some(*sum)
            })
            .collect(),
        Level::Sequence => vec![ratio.sum(); log_p.len()],
    }
}

/// The effective sample size of n weights as a share of n: (Σw)² / (n Σw²), in (0, 1]
/// (Elvira et al. 2018, arXiv:1809.04129). 0 for no weights, or where all are 0.
pub fn ess(weights: impl IntoIterator<Item = f64>) -> f64 {
    let weights: Vec<f64> = weights.into_iter().collect();
    // Relative to the largest, whose square cannot underflow.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    let (sum, squares) = weights.iter().fold((0.0, 0.0), |(sum, squares), w| {
        let w = w / largest;
        (sum + w, squares + w * w)
    });
    sum * sum / (weights.len() as f64 * squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_multiply_over_their_part() {
        let (p, q) = ([-1.0, -2.0, -0.5], [-0.5, -2.5, -1.5]);
        assert_eq!(log_weights(Level::Token, &p, &q), [-0.5, 0.5, 1.0]);
        assert_eq!(log_weights(Level::Prefix, &p, &q), [-0.5, 0.0, 1.0]);
        assert_eq!(log_weights(Level::Sequence, &p, &q), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn treatments_change_what_they_say() {
        let (p, q) = ([vec![0.0, 3.0, -4.0]], [vec![0.0, 0.0, 0.0]]);
        let of = |treatment| Weight { level: Level::Token, treatment }.weights(&p, &q, 1).remove(0);
        assert_eq!(of(Treatment::None), [1.0; 3]);
        assert_eq!(of(Treatment::Raw), [1.0, 3f64.exp(), (-4f64).exp()]);
        assert_eq!(of(Treatment::CLIPPED), [1.0, 10.0, 0.1]);
        assert_eq!(of(Treatment::Truncated { high: 2.0 }), [1.0, 2.0, (-4f64).exp()]);
        assert!((of(Treatment::Normalized { over: Over::Batch }).iter().sum::<f64>() - 3.0).abs() < 1e-12);
        // Two prompts: their means are 2 and 4.
        let log = |x: f64| vec![x.ln()];
        let rows = [log(1.0), log(3.0), log(2.0), log(6.0)];
        let found = Treatment::Normalized { over: Over::Prompt }.treat(Level::Token, &rows, 2).concat();
        assert!(found.iter().zip([0.5, 1.5, 0.5, 1.5]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    /// Two responses of one and three tokens, with the weights 1 and 3: the mean is 2, whatever their lengths.
    #[test]
    fn sequence_weights_are_averaged_over_responses() {
        let rows = [vec![0.0], vec![3f64.ln(); 3]];
        let of = |level| Treatment::Normalized { over: Over::Batch }.treat(level, &rows, 2).concat();
        let close = |a: Vec<f64>, b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(of(Level::Sequence), [0.5, 1.5, 1.5, 1.5]) && close(of(Level::Token), [0.4, 1.2, 1.2, 1.2]));
        // Weights far below the smallest f64.
        let tiny = [vec![-2000.0], vec![-2000.0 + 3f64.ln(); 3]];
        let found = Treatment::Normalized { over: Over::Batch }.treat(Level::Sequence, &tiny, 2).concat();
        assert!(close(found, [0.5, 1.5, 1.5, 1.5]));
        assert!((ess([1e-200, 1e-200]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ess_is_one_for_equal_weights_and_one_over_n_for_a_single_one() {
        assert_eq!(ess([2.0; 5]), 1.0);
        assert_eq!(ess([0.0, 0.0, 3.0, 0.0]), 0.25);
    }
}
