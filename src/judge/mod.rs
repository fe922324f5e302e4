//! Who says which of two responses is better: rules, reward models, language models behind an endpoint, people.
//!
//! [`judge_pairs`] shows every pair to a [`Judge`] in both orders. What a judge could not be understood on and what it was
//! not asked are verdicts of their own, never ties. [`select`] picks the pairs that an expensive judge should see, with
//! known probabilities, so that [`Selection::mean`] stays unbiased. [`Sheet`] asks people.

mod agreement;
mod chat;
mod difference;
mod files;
mod pair;
mod reward;
mod rows;
mod rule;
mod select;
mod sheet;

pub use agreement::{AgreementRow, agreement_with_people, agreements_of_raters};
pub use chat::{ChatConfig, ChatJudge, Spent};
pub use difference::{disagreement, text_distance};
pub use files::{read_judgments, read_pairs, write_judgments};
pub use pair::{Answer, Judge, Judgment, Outcome, Pair, Question, Verdict, judge_pairs};
pub use reward::RewardJudge;
pub use rows::{EstimateRow, JudgmentRow, WinRateRow, estimate_win_rate, judgment_rows, judgments_of_rows, win_rate};
pub use rule::Rule;
pub use select::{Selection, select, select_uniformly};
pub use sheet::{Ratings, Sheet};
