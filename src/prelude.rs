//! What every cell of a notebook sees. Types that a cell binds must be here, or rust-analyzer cannot name them.

pub use std::path::{Path, PathBuf};

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use candle_core::{DType, Device, Tensor, Var};
pub use polars::prelude::{Column, DataFrame};

pub use crate::display::{Html, Show};
pub use crate::evaluation::{self, Fields, Options as EvaluationOptions, Sample, Scores};
pub use crate::experiment::exact::{Estimate, Setting, Tabular, TabularProposal, Tree};
pub use crate::experiment::{
    Arm, Curves, DraftRow, Experiment, Folders, LearnedReward, Part, Plan, Policy, Preset, RemedyRow, Results, Search,
    SpeculativePair, TargetName, TargetRow, World, derivation, exact, measure_targets, remedies, report, speculation,
    study,
};
pub use crate::judge::{
    AgreementRow, Answer, ChatConfig, ChatJudge, EstimateRow, Judge, Judgment, JudgmentRow, Outcome,
    Pair as ResponsePair, Question, Ratings, RewardJudge, Rule as JudgeRule, Selection, Sheet, Spent as JudgeSpent,
    Verdict, WinRateRow, agreement_with_people, agreements_of_raters, disagreement, estimate_win_rate, judge_pairs,
    judgment_rows, read_pairs, select, select_uniformly, text_distance, win_rate,
};
pub use crate::method::{
    ALL as METHODS, Advantage, Aggregate, Bound, DPO, Dpo, ENTROPY, ESS_BALANCE, GRPO, KlEstimator, Level, Method,
    OFF_POLICY, ON_POLICY, Objective, Over, Penalty, Ppo, QSTAR, QSTAR_PPO, REINFORCE, REJECTION, RLOO, Rejection, SFT,
    SNR_MAX, STUDY, Source as ResponseSource, Surrogate, Treatment, UNIFORM, Weight,
};
pub use crate::metrics::{
    Aggregate as ScoreAggregate, Baseline, BertScorer, Bleu, Chrf, Correlation, Design, Document, Efficiency, Interval,
    Reached, Reading, Resampled, Resampling, Rouge, RougeKind, Smoothing, TTest, TokenWeights, Tokenizer,
    area_under_curve, bootstrap, bootstrap_gain, bootstrap_paired, cohen_kappa, distinct_n, holm, iqm, jackknife,
    jackknife_paired, paired_t, pearson, probability_of_improvement, sample_efficiency, samples_to, self_bleu,
    spearman, t_interval, welch_t,
};
pub use crate::mixture::{
    Batch, Drawn, Moments, Pair, Rule, Solution, Solver, Start, Status, Temperature, Truncation, draw, solve_batch,
};
pub use crate::models::{
    BertConfig, Chat, ChatTemplate, Classifier, Config, DebertaV2Config, DistilBertConfig, Encoded, Gpt2Config,
    GptNeoxConfig, Head, LanguageModel, LlamaConfig, LoraConfig, Message, RewardModel, RobertaConfig, Role,
    RopeScaling, Source, TextEncoder, Vocabulary, load_classifier, load_encoder, load_folder, load_model,
    load_reward_model, save_folder, save_reward_folder,
};
pub use crate::plot::{self, Figure};
pub use crate::progress::Progress;
pub use crate::record::{self, Compared, EvaluationRow, PlanRow, RunFolder, SampleRow, StepRow, compare, frames};
pub use crate::report::{Page, environment};
pub use crate::reward::{
    CalibrationRow, Completion, ExecutionRow, Preference, PreferenceEvaluation, Preferences, RewardEvaluationRow,
    evaluate_preferences, execute, execution_accuracy,
};
pub use crate::rollout::{
    Draft, Draw, Gamma, Proposal, Response, Rollout, Sampler, Speculated, Speculation, StopStrings, speculative,
};
pub use crate::sandbox::{Check, Limits, Outcome as ExecutionOutcome, Program, Sandbox, Verdict as ExecutionVerdict};
pub use crate::target::{
    Along, Base, BestOfN, Caching, Cost, Expert, PrefixScorer, PrefixValues, RewardSoftmax, SequenceReward,
    SoftmaxConfig, Target, log_probs_along,
};
pub use crate::tasks::micro::MicroWorld;
pub use crate::tasks::{Prompt, Quality, Split, Task};
pub use crate::train::{
    Batch as TrainingBatch, BradleyTerry, Budget, Conditional, Distillation, DistillationStepRow, Distilled, Keep,
    KlControl, Models, PrefixStepRow, PrefixTraining, RewardStepRow, Run, RunConfig, RunSpec, Schedule, Shaping, Spent,
    StepConfig, Supervised, TrainedConditional, TrainedValues, Trainer, TrainingReward, distill, train_conditional,
    train_prefix_values, train_reward_model, train_supervised,
};
