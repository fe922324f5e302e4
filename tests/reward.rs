//! Reward models.

#[path = "gradients/differences.rs"]
mod differences;
#[path = "reward/gradients.rs"]
mod gradients;
