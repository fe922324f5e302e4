//! The worlds of real texts: a data set, and models from the hub or from folders.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use serde::Deserialize;

use super::World;
use super::cache::{damaged, kept};
use crate::models::{LanguageModel, LoraConfig, Source, Vocabulary, load_folder, load_model, save_folder};
use crate::reward::TextReward;
use crate::tasks::data::hh_rlhf;
use crate::tasks::dialogue::{self, Dialogues};
use crate::tasks::text::{Example, Limits, Pools, Rewards, TextData, TextTask};
use crate::tasks::{Split, Task};
use crate::train::{ALGORITHM, Supervised, train_supervised};

/// The models of a task of real texts. A model is named by its folder or by its repository on the hub.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextModels {
    /// π_init.
    pub policy: String,
    pub expert: TextExpert,
    /// The reward model of the tasks whose reward is learned.
    pub reward: Option<String>,
    /// The most tokens of a prompt and of a response.
    pub prompt_tokens: usize,
    pub response_tokens: usize,
    /// Train adapters alone: the reference shares the policy's weights.
    pub lora: Option<LoraConfig>,
    /// Keep of every block only its input for the way back: less memory, a quarter more time.
    #[serde(default)]
    pub recompute: bool,
    #[serde(default)]
    pub precision: Precision,
    /// Train on the first GPU of CUDA; needs the feature `cuda`.
    #[serde(default)]
    pub cuda: bool,
}

/// The expert of a task of real texts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TextExpert {
    /// A model with the policy's tokenizer.
    Model(String),
    /// The policy, trained on the task's demonstrations once; it is kept in `data/cache`.
    Trained(Supervised),
}

/// The precision of the policy's and the expert's weights; the optimizer's are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
}

/// Where the tasks' data are, if not in the hub's repositories: a folder with the same files, or another repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSources {
    pub dialogue: Option<String>,
}

/// The tasks of real texts.
pub const TEXT_TASKS: [&str; 1] = ["dialogue"];

impl World {
    /// A task of real texts by its name, with the models that are trained on it.
    ///
    /// # Errors
    /// An unknown name; data or a model that are not there or not what they should be; models with different tokenizers.
    pub fn text(data: &Path, name: &str, models: &TextModels, sources: &TextSources) -> Result<Self> {
        let policy = Source::parse(&models.policy)?;
        let vocabulary = Vocabulary::read(&policy)?;
        let limits = Limits { prompt_tokens: models.prompt_tokens, response_tokens: models.response_tokens };
        let task = TextTask::new(text_data(name, models, sources)?, vocabulary.clone(), limits)?;
        for note in task.notes() {
            println!("{name}: {note}");
        }
        let load = |source: &Source| load_model(source)?.without_padding(vocabulary.size());
        let initial = load(&policy)?;
        let positions = limits.prompt_tokens + limits.response_tokens;
        ensure!(
            positions <= initial.config.max_positions(),
            "{policy} has {} positions: a prompt of {} tokens and a response of {} do not fit",
            initial.config.max_positions(),
            limits.prompt_tokens,
            limits.response_tokens
        );
        let expert = match &models.expert {
            TextExpert::Model(model) => {
                let source = Source::parse(model)?;
                let other = Vocabulary::read(&source)?;
                ensure!(
                    other.tokenizer.get_vocab(true) == vocabulary.tokenizer.get_vocab(true),
                    "{source} and {policy} have different tokenizers: there is no mixture of the two"
                );
                load(&source)?
            }
            TextExpert::Trained(training) => trained_expert(data, &task, &initial, training)?,
        };
        let expert = models.place(expert)?;
        let mut initial = models.place(initial)?;
        if let Some(lora) = &models.lora {
            initial = initial.with_lora(lora, 0)?;
        }
        initial.recompute(models.recompute);
        Self::new(Box::new(task), initial, expert)
    }
}

impl TextModels {
    /// In its precision, on its device.
    fn place(&self, model: LanguageModel) -> Result<LanguageModel> {
        let model = match self.precision {
            Precision::F32 => model,
            Precision::Bf16 => model.to_dtype(DType::BF16)?,
        };
        match self.cuda {
            false => Ok(model),
            true => model.to_device(&Device::new_cuda(0).context("cuda = true in the preset")?),
        }
    }
}

/// The examples of a task of real texts.
///
/// # Errors
/// An unknown name; data that are not there or not what they should be.
pub fn text_pools(name: &str, sources: &TextSources) -> Result<Pools> {
    let source = |own: &Option<String>, hub: &str| match own {
        Some(name) => Source::parse_dataset(name),
        None => Ok(Source::dataset(hub)),
    };
    match name {
        "dialogue" => Dialogues::default().pools(&source(&sources.dialogue, hh_rlhf::REPOSITORY)?),
        other => bail!("unknown task {other:?}; known are {}", TEXT_TASKS.join(", ")),
    }
}

fn text_data(name: &str, models: &TextModels, sources: &TextSources) -> Result<TextData> {
    let pools = text_pools(name, sources)?;
    match name {
        "dialogue" => {
            let reward = models.reward.as_ref();
            let reward = reward.context("the reward of the dialogues is learned: the preset names no reward model")?;
            let reward = TextReward::read(&Source::parse(reward)?)?;
            Ok(TextData {
                name: "dialogue",
                pools,
                stop_strings: vec![dialogue::STOP.to_string()],
                rewarded_by: reward.model.params.digest()?,
                rewards: preferred_over_chosen(reward),
            })
        }
        other => bail!("unknown task {other:?}"),
    }
}

/// The probability that the reward model (Bradley-Terry) prefers a text over the example's chosen answer: its win rate
/// against the data. For a prompt without an answer, σ of the score itself.
fn preferred_over_chosen(reward: TextReward) -> Rewards {
    let known: Mutex<HashMap<(&'static str, usize), f64>> = Mutex::default();
    Box::new(move |texts| {
        let whole = |example: &Example, text: &str| [&example.prompt.text(), text].concat();
        let responses: Vec<String> = texts.iter().map(|(example, text)| whole(example, text)).collect();
        let scores = reward.scores(&responses)?;
        let mut known = known.lock().expect("no thread panics while it holds the scores");
        let mut new: Vec<&Example> = texts.iter().map(|(example, _)| *example).collect();
        new.retain(|example| !known.contains_key(&(example.family, example.record)));
        new.sort_by_key(|example| (example.family, example.record));
        new.dedup_by_key(|example| (example.family, example.record));
        let (answered, bare): (Vec<&Example>, Vec<_>) = new.into_iter().partition(|e| !e.demonstrations.is_empty());
        let chosen: Vec<String> = answered.iter().map(|example| whole(example, &example.demonstrations[0])).collect();
        for (example, score) in answered.iter().zip(reward.scores(&chosen)?) {
            known.insert((example.family, example.record), score);
        }
        known.extend(bare.iter().map(|example| ((example.family, example.record), 0.0)));
        let preferred = |(score, (example, _)): (f64, &(&Example, &str))| {
            1.0 / (1.0 + (known[&(example.family, example.record)] - score).exp())
        };
        Ok(scores.into_iter().zip(texts).map(preferred).collect())
    })
}

/// The policy after a supervised training on the demonstrations of the training split.
fn trained_expert(
    data: &Path,
    task: &TextTask,
    initial: &LanguageModel,
    training: &Supervised,
) -> Result<LanguageModel> {
    let key = format!("{}{ALGORITHM}{training:?}{}", task.identity(), initial.digest()?);
    let folder = kept(data, &format!("{}-expert", task.name()), &key, |folder| {
        let expert = initial.copy()?;
        let label = format!("{}: the expert (once)", task.name());
        // Prompts without a demonstration are passed over.
        let indices: Vec<u64> = (0..task.pools().train.len() as u64)
            .filter(|i| !task.example(Split::Train, *i).demonstrations.is_empty())
            .collect();
        ensure!(!indices.is_empty(), "{}: there are no demonstrations to train an expert on", task.name());
        train_supervised(&expert, training, &label, |i| {
            let prompt = task.prompt(Split::Train, indices[i as usize % indices.len()]);
            let answer = task.demonstration(&prompt, 0).unwrap_or_default();
            (prompt.tokens, answer)
        })?;
        save_folder(&expert, folder)
    })?;
    load_folder(&folder).with_context(|| damaged(&folder))
}
