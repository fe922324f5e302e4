//! From which distribution should RLHF draw its responses?
//!
//! qstar trains language models with responses drawn from a policy, from a target, or from the geometric
//! mixture q\* of the two, and measures what each is worth. The house, from the ground up; a module
//! imports only from those above it in this list:
//!
//! - [`seed`], [`simd`], [`machine`], [`display`], [`progress`]: random numbers, vectorised loops, the process,
//!   what a cell shows, how long work tells of itself
//! - [`ranks`]: the processes of one training, and tensors spread over them
//! - [`mixture`]: K and its derivatives, the rules for α: numbers in, numbers out
//! - [`nn`], [`models`]: differentiable blocks; GPT-2, GPT-NeoX and LLaMA; reward models and classifiers on
//!   them and on BERT, RoBERTa, DistilBERT and DeBERTa; these as encoders of texts; chat templates
//! - [`target`]: what a policy is mixed with, one file a target
//! - [`rollout`]: responses drawn from a proposal
//! - [`sandbox`]: programs of models, run behind walls and judged
//! - [`tasks`]: prompts, demonstrations, true rewards
//! - [`method`]: the methods, their weights, one file an objective
//! - [`metrics`], [`record`]: statistics, scores of texts, BERTScore; rows, frames, the folder of a run
//! - [`reward`]: preference pairs, the Bradley-Terry model, its calibration
//! - [`judge`]: who says which of two responses is better: rules, reward models, endpoints, people
//! - [`train`]: a step, a run, supervised training, training of reward models and of targets
//! - [`evaluation`]: files of texts, programs and judgments to frames of scores
//! - [`plot`]: one function a figure
//! - [`report`]: one HTML page with tables, figures and where they come from
//! - [`notebook`]: the kernel's set-up, running notebooks
//! - [`experiment`]: worlds, plans, presets, tables, remedies
//! - [`prelude`]: all that a notebook's cell sees

pub mod display;
pub mod evaluation;
pub mod experiment;
pub mod judge;
pub mod machine;
pub mod method;
pub mod metrics;
pub mod mixture;
pub mod models;
pub mod nn;
pub mod notebook;
#[cfg(feature = "cuda")]
mod nvrtc;
pub mod plot;
pub mod prelude;
pub mod progress;
pub mod ranks;
pub mod record;
pub mod report;
pub mod reward;
pub mod rollout;
pub mod sandbox;
pub mod seed;
pub mod simd;
pub mod target;
pub mod tasks;
pub mod train;
