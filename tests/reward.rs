//! Reward models: gradients, scores in batches, training on preferences, evaluation and its calibration.

#[path = "gradients/differences.rs"]
mod differences;
#[path = "reward/evaluation.rs"]
mod evaluation;
#[path = "reward/gradients.rs"]
mod gradients;
#[path = "reward/models.rs"]
mod models;
#[path = "reward/training.rs"]
mod training;
