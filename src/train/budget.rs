//! What a training is charged, and when it has had enough.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a training has spent so far. What only its diagnostics need is not charged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Completed responses, drawn or read, accepted or not; a preference pair is two.
    pub samples: u64,
    /// Rewards that the update or the target looked at.
    pub reward_calls: u64,
    /// Floating-point operations of the models: 2 a parameter and token forward, 4 backward; the search for α is in the
    /// seconds alone.
    pub forward_flops: f64,
    pub backward_flops: f64,
    /// Wall time of drawing, rewards, references and updates; of evaluations and checkpoints none.
    pub seconds: f64,
}

/// How much a method may spend: a run ends with the step that reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    Samples(u64),
    RewardCalls(u64),
    /// Forward and backward.
    Flops(f64),
    /// A run with this one does not come out the same twice.
    Seconds(f64),
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Budget::Samples(most) => write!(f, "{most} samples"),
            Budget::RewardCalls(most) => write!(f, "{most} reward calls"),
            Budget::Flops(most) => write!(f, "{most:e} FLOPs"),
            Budget::Seconds(most) => write!(f, "{most} seconds"),
        }
    }
}

impl Budget {
    pub fn is_spent(self, spent: &Spent) -> bool {
        match self {
            Budget::Samples(most) => spent.samples >= most,
            Budget::RewardCalls(most) => spent.reward_calls >= most,
            Budget::Flops(most) => spent.forward_flops + spent.backward_flops >= most,
            Budget::Seconds(most) => spent.seconds >= most,
        }
    }
}
