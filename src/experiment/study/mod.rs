//! The statistics of the study, as functions of frames: the tables, the verdict on the hypotheses, the stages, the checklist.
//!
//! A frame has a row a step, an evaluation or a held-out response, with the labels of its run in front: `task`, `parameters`,
//! `target`, `method`, `setting`, `seed` ([`Results`](crate::experiment::Results) gives them; filter or stack them as you
//! like). Methods are compared where all labels but `method` and `seed` agree: that is a *place*. `parameters`, `target` and
//! `setting` may be left out where they do not vary.
//!
//! | notebook | function |
//! |---|---|
//! | 01 main comparison | [`main_table`], [`expected_table`], [`beside_expected`] |
//! | 02 the rules for α | [`rules_table`] |
//! | 03 weights | [`weight_table`] |
//! | 04 targets | [`target_table`] |
//! | 05 scale | [`scale_table`] |
//! | 08 efficiency | [`efficiency_table`] |
//! | 10 verdict | [`gradient_noise`], [`noise_table`], [`verdict`](verdict()), [`rivals`], [`stages`](stages()), [`in_words`] |
//! | all | [`checklist`](checklist()), [`checklist_summary`] |

mod checklist;
mod efficiency_table;
mod estimates;
mod expected;
mod frames;
mod main_table;
mod noise;
mod rules_table;
mod scale_table;
mod scores;
mod stages;
mod target_table;
mod verdict;
mod weight_table;

use anyhow::{Result, ensure};

pub use checklist::{CheckRow, checklist, checklist_summary};
pub use efficiency_table::{CostRow, efficiency_table};
pub use expected::{ExpectedRow, beside_expected, expected_table};
pub use main_table::{MainRow, main_table};
pub use noise::{NoiseRow, NoiseTableRow, gradient_noise, noise_table};
pub use rules_table::{RuleRow, rules_table};
pub use scale_table::{ScaleRow, scale_table};
pub use stages::{StageRow, stages};
pub use target_table::{TargetGainRow, target_table};
pub use verdict::{HypothesisRow, RivalRow, in_words, rivals, verdict};
pub use weight_table::{TreatmentRow, weight_table};

/// The level that was fixed ahead for a task.
fn level_of(levels: &[(&str, f64)], task: &str) -> Result<Option<f64>> {
    let found = levels.iter().find(|(name, _)| *name == task).map(|(_, level)| *level);
    ensure!(found.is_none_or(f64::is_finite), "the level of {task} is {found:?}: a held-out reward is a number");
    Ok(found)
}
