//! What drawing responses costs.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What was spent on logits, by policy and target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Floating-point operations of forward passes: 2 a parameter and token that was read.
    pub forward_flops: f64,
    /// Sequences that a reward was computed for.
    pub reward_calls: u64,
    /// Sequences whose reward was known from before.
    pub reward_hits: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.forward_flops += other.forward_flops;
        self.reward_calls += other.reward_calls;
        self.reward_hits += other.reward_hits;
    }
}
