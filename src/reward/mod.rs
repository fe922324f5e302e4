//! Learned rewards: preference pairs, the Bradley-Terry model, how good and how calibrated it is on held-out pairs.

mod bradley_terry;
mod evaluate;
mod preferences;
mod text;

pub use crate::models::{RewardModel, RewardNetwork};
pub use bradley_terry::bradley_terry_loss;
pub use evaluate::{CalibrationRow, PreferenceEvaluation, RewardEvaluationRow, evaluate_preferences};
pub use preferences::{Preference, Preferences};
pub use text::TextReward;
