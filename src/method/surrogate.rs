//! Clipped surrogates without a value function: GRPO (Shao et al. 2024, arXiv:2402.03300), RLOO (Ahmadian et al. 2024,
//! arXiv:2402.14740), and what lies between them.

use serde::{Deserialize, Serialize};

use super::ppo::clipped;
use super::{KlEstimator, Level, Loss, group_advantages, leave_one_out};

/// The choices of a surrogate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Surrogate {
    pub advantage: Advantage,
    /// Over what π_θ/π_old is multiplied before it is clipped.
    pub ratio: Level,
    pub clip: f64,
    pub aggregate: Aggregate,
    pub kl: Penalty,
    /// Passes over each batch.
    pub epochs: usize,
}

/// What is subtracted from a reward, and what it is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// The mean of the other rewards of the prompt: no bias.
    LeaveOneOut,
    /// The mean of all rewards of the prompt, the own one included: the estimate shrinks by (k − 1)/k.
    Group,
    /// As `Group`, over their standard deviation (of k − 1, plus 1e-4): prompts of small spread weigh more.
    GroupOverSd,
}

/// How tokens are summed up to a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// The mean over responses of the sum over tokens: the policy gradient.
    Sum,
    /// The mean over responses of the mean over tokens, as in GRPO's paper: long responses weigh less a token.
    Response,
    /// The mean over all tokens of the batch (`bnpo`, and DAPO, Yu et al. 2025, arXiv:2503.14476).
    Tokens,
    /// The sum over the number of responses times the longest length allowed (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783).
    Length,
}

/// Where the divergence from π_init is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// In the reward of the response.
    Reward,
    /// In the loss of every token, by an estimator. `times_ratio`: times π_θ/π_old, through which the gradient goes too; with
    /// k3 the gradient is then that of KL(π_θ‖π_init) where it was the reverse's (the default of TRL 1.16).
    Loss { estimator: KlEstimator, times_ratio: bool },
}

/// The size of the whole batch that a part belongs to, over the number of its parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub responses: f64,
    pub tokens: f64,
    /// The most tokens of a response.
    pub longest: usize,
}

/// The tokens of a part of a batch, one response after the other.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Under the distribution that they were drawn from.
    pub old_log_probs: &'a [f64],
    pub reference: &'a [f64],
    /// One a response.
    pub advantages: &'a [f64],
    pub lengths: &'a [usize],
}

impl Surrogate {
    pub const GRPO: Surrogate = Surrogate {
        advantage: Advantage::GroupOverSd,
        ratio: Level::Token,
        clip: 0.2,
        aggregate: Aggregate::Response,
        kl: Penalty::Loss { estimator: KlEstimator::K3, times_ratio: false },
        epochs: 1,
    };

    pub const RLOO: Surrogate = Surrogate {
        advantage: Advantage::LeaveOneOut,
        ratio: Level::Sequence,
        clip: 0.2,
        aggregate: Aggregate::Sum,
        kl: Penalty::Reward,
        epochs: 1,
    };

    /// The advantages of k responses to each prompt, one prompt after the other.
    ///
    /// # Panics
    /// If k is 0 or does not divide the number of rewards.
    pub fn advantages(&self, rewards: &[f64], k: usize) -> Vec<f64> {
        match self.advantage {
            Advantage::LeaveOneOut => leave_one_out(rewards, k),
            Advantage::Group => group_advantages(rewards, k, false),
            Advantage::GroupOverSd => group_advantages(rewards, k, true),
        }
    }

    /// The loss of a part of a batch, with β of the divergence where it is paid in the loss.
    ///
    /// # Panics
    /// If the lengths do not sum to the number of tokens.
    pub fn loss(&self, log_probs: &[f64], tokens: &Tokens, beta: f64, share: &Share) -> Loss {
        assert_eq!(tokens.lengths.iter().sum::<usize>(), log_probs.len(), "the lengths are those of the tokens");
        let (mut loss, mut at) = (Loss::ZERO, 0);
        for (&length, &advantage) in tokens.lengths.iter().zip(tokens.advantages) {
            let weight = match self.aggregate {
                Aggregate::Sum => 1.0 / share.responses,
                Aggregate::Response => 1.0 / (share.responses * length as f64),
                Aggregate::Tokens => 1.0 / share.tokens,
                Aggregate::Length => 1.0 / (share.responses * share.longest as f64),
            };
            let places = at..at + length;
            let log_ratios: Vec<f64> = places.clone().map(|i| log_probs[i] - tokens.old_log_probs[i]).collect();
            match self.ratio {
                Level::Token => log_ratios.iter().for_each(|&log_ratio| {
                    let (value, derivative) = clipped(log_ratio, advantage, self.clip);
                    loss.push(weight * value, weight * derivative);
                }),
                Level::Prefix => {
                    // The derivative by a token counts in all prefixes that hold it.
                    let mut sum = 0.0;
                    let prefixes: Vec<(f64, f64)> = log_ratios
                        .iter()
                        .map(|log_ratio| {
                            sum += log_ratio;
                            clipped(sum, advantage, self.clip)
                        })
                        .collect();
                    let mut rest: f64 = prefixes.iter().map(|(_, derivative)| derivative).sum();
                    for (value, derivative) in prefixes {
                        loss.push(weight * value, weight * rest);
                        rest -= derivative;
                    }
                }
                Level::Sequence => {
                    // One ratio for the whole response: its loss is counted once, its derivative with every token.
                    let (value, derivative) = clipped(log_ratios.iter().sum(), advantage, self.clip);
                    loss.value += weight * value;
                    loss.derivatives.extend(std::iter::repeat_n(weight * derivative, length));
                }
            }
            if let Penalty::Loss { estimator, times_ratio } = self.kl {
                for (i, log_ratio) in places.zip(log_ratios) {
                    let (k, derivative) = (
                        estimator.of(log_probs[i], tokens.reference[i]),
                        estimator.derivative(log_probs[i], tokens.reference[i]),
                    );
                    let ratio = log_ratio.exp();
                    let (k, derivative) =
                        if times_ratio { (ratio * k, ratio * (k + derivative)) } else { (k, derivative) };
                    loss.value += weight * beta * k;
                    loss.derivatives[i] += weight * beta * derivative;
                }
            }
            at += length;
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::super::loss::check_derivatives;
    use super::*;

    const OLD: [f64; 5] = [-1.0, -0.5, -2.0, -1.2, -0.3];
    const REFERENCE: [f64; 5] = [-1.1, -0.4, -2.5, -1.0, -0.6];
    const LENGTHS: [usize; 2] = [3, 2];

    #[test]
    fn derivatives_are_those_of_the_loss() {
        let tokens = Tokens { old_log_probs: &OLD, reference: &REFERENCE, advantages: &[1.5, -0.7], lengths: &LENGTHS };
        let share = Share { responses: 2.0, tokens: 5.0, longest: 4 };
        for ratio in [Level::Token, Level::Prefix, Level::Sequence] {
            for aggregate in [Aggregate::Sum, Aggregate::Response, Aggregate::Tokens, Aggregate::Length] {
                for (estimator, times_ratio) in KlEstimator::ALL.into_iter().zip([true, false, true]) {
                    let kl = Penalty::Loss { estimator, times_ratio };
                    let surrogate = Surrogate { ratio, aggregate, kl, ..Surrogate::GRPO };
                    check_derivatives(&[-0.9, -0.6, -1.95, -1.6, -0.2], |x| surrogate.loss(x, &tokens, 0.04, &share));
                }
            }
        }
    }

    #[test]
    fn where_nothing_has_moved_rloo_is_reinforce() {
        let advantages = Surrogate::RLOO.advantages(&[0.2, 0.9], 2);
        let tokens = Tokens { old_log_probs: &OLD, reference: &REFERENCE, advantages: &advantages, lengths: &LENGTHS };
        let share = Share { responses: 2.0, tokens: 5.0, longest: 3 };
        let coefficients: Vec<f64> =
            LENGTHS.iter().zip(&advantages).flat_map(|(&n, &a)| std::iter::repeat_n(a, n)).collect();
        let rloo = Surrogate::RLOO.loss(&OLD, &tokens, 0.04, &share);
        assert_eq!(rloo.derivatives, super::super::reinforce_loss(&OLD, &coefficients, 2.0).derivatives);
    }
}
