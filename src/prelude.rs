//! What every cell of a notebook sees. Types that a cell binds must be here, or rust-analyzer cannot name them.

pub use std::path::{Path, PathBuf};

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use candle_core::{DType, Device, Tensor, Var};
pub use polars::prelude::{Column, DataFrame};

pub use crate::display::{Html, Show};
pub use crate::experiment::exact::{Estimate, Setting, Tabular, TabularProposal, Tree};
pub use crate::experiment::{Folders, Plan, Preset, Results, Size, World, derivation, exact, report};
pub use crate::method::{
    ALL as METHODS, Level, Method, ON_POLICY, Objective, Ppo, QSTAR, REINFORCE, SFT, Treatment, Weight,
};
pub use crate::metrics::{Interval, bootstrap_gain, t_interval, welch_t};
pub use crate::mixture::{
    Batch, Drawn, Moments, Pair, Rule, Solution, Solver, Start, Status, Temperature, Truncation, draw, solve_batch,
};
pub use crate::models::{
    Config, DebertaV2Config, DistilBertConfig, Gpt2Config, GptNeoxConfig, Head, LanguageModel, LlamaConfig, LoraConfig,
    RewardModel, RopeScaling, Source, load_folder, load_model, load_reward_model, save_folder, save_reward_folder,
};
pub use crate::plot::{self, Figure};
pub use crate::progress::Progress;
pub use crate::record::{self, RunFolder};
pub use crate::reward::{
    CalibrationRow, Preference, PreferenceEvaluation, Preferences, RewardEvaluationRow, evaluate_preferences,
};
pub use crate::rollout::{Draw, Proposal, Response, Sampler, StopStrings};
pub use crate::tasks::micro::MicroWorld;
pub use crate::tasks::{Prompt, Quality, Split, Task};
pub use crate::train::{
    BradleyTerry, Models, RewardStepRow, Run, RunConfig, RunSpec, StepConfig, Supervised, Trainer, train_reward_model,
    train_supervised,
};
