//! The worlds of real texts: a data set, and models from the hub or from folders.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use serde::Deserialize;

use super::World;
use super::cache::{damaged, kept};
use crate::models::{
    ChatTemplate, LanguageModel, LoraConfig, Source, Vocabulary, load_folder, load_model, save_folder,
};
use crate::ranks::Ranks;
use crate::reward::TextReward;
use crate::sandbox::Sandbox;
use crate::target::Expert;
use crate::tasks::code::{self, CodeSources};
use crate::tasks::data::hh_rlhf::Part;
use crate::tasks::data::{apps, hh_rlhf, humaneval, mbpp, nq_open, tldr};
use crate::tasks::dialogue::Dialogues;
use crate::tasks::text::{Example, Limits, Rewards, TextData, TextTask};
use crate::tasks::translation::Translations;
use crate::tasks::{Split, Task};
use crate::tasks::{questions, summary};
use crate::train::{ALGORITHM, Models, Supervised, train_supervised};

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
    /// Prompts are what the policy's chat template makes of messages: of a dialogue's turns, else of one of the user.
    #[serde(default)]
    pub chat: bool,
    /// Train adapters alone: the reference shares the policy's weights.
    pub lora: Option<LoraConfig>,
    /// Keep of every block only its input for the way back: less memory, a quarter more time.
    #[serde(default)]
    pub recompute: bool,
    #[serde(default)]
    pub precision: Precision,
    /// Train on a GPU, the first one, or of several processes each on its own; needs the feature `cuda`.
    #[serde(default)]
    pub cuda: bool,
    /// Of several processes each keeps its part of the weights below adapters and of the expert's on its device; the whole
    /// expert stays in the CPU's memory. An expert that is to be trained is trained on the CPU: better name a model. Not with
    /// speculation, nor with another target.
    #[serde(default)]
    pub spread: bool,
}

/// The expert of a task of real texts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a model's name, or a table of steps, batch, learning_rate and warmup_steps")]
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
    /// The parts of HH-RLHF that the dialogues are of, if not `helpful-base` and `harmless-base`.
    pub parts: Option<Vec<Part>>,
    /// The first turns of the red-team attempts as further prompts to train on.
    #[serde(default)]
    pub red_team: bool,
    pub summary: Option<String>,
    pub questions: Option<String>,
    pub humaneval: Option<String>,
    pub mbpp: Option<String>,
    pub apps: Option<String>,
    /// Translations have no repository: plain files are named.
    pub translation: Option<Translations>,
}

/// The tasks of real texts.
pub const TEXT_TASKS: [&str; 5] = ["dialogue", "summary", "code", "translation", "questions"];

impl World {
    /// A task of real texts by its name, with the models that are trained on it.
    ///
    /// # Errors
    /// An unknown name; data or a model that are not there or not what they should be; models with different tokenizers;
    /// `chat` with a policy that has no chat template.
    pub fn text(data: &Path, name: &str, models: &TextModels, sources: &TextSources, ranks: &Ranks) -> Result<Self> {
        let root = data.parent().unwrap_or(data);
        let policy = found(root, &models.policy, Source::parse)?;
        let vocabulary = Vocabulary::read(&policy)?;
        let limits = Limits { prompt_tokens: models.prompt_tokens, response_tokens: models.response_tokens };
        let template = if models.chat { Some(chat_template(&policy)?) } else { None };
        let texts = rewarded(root, name, models, sources)?;
        let task = match template {
            Some(template) => TextTask::chat(texts, vocabulary.clone(), template, limits)?,
            None => TextTask::new(texts, vocabulary.clone(), limits)?,
        };
        for note in task.notes() {
            println!("{name}: {note}");
        }
        let load = |source: &Source| -> Result<LanguageModel> {
            let model = load_model(source)?.without_padding(vocabulary.size())?;
            let positions = model.config.max_positions();
            ensure!(
                limits.prompt_tokens + limits.response_tokens <= positions,
                "{source} has {positions} positions: a prompt of {} tokens and a response of {} do not fit",
                limits.prompt_tokens,
                limits.response_tokens
            );
            Ok(model)
        };
        let device = models.device(ranks)?;
        // What is to be spread need not fit on a device.
        let spread = models.spread && ranks.size() > 1;
        let initial = models.place(load(&policy)?, if spread { &Device::Cpu } else { &device })?;
        let expert = match &models.expert {
            TextExpert::Model(model) => {
                let source = found(root, model, Source::parse)?;
                let other = Vocabulary::read(&source)?;
                ensure!(
                    other.tokenizer.get_vocab(true) == vocabulary.tokenizer.get_vocab(true),
                    "{source} and {policy} have different tokenizers: there is no mixture of the two"
                );
                load(&source)?
            }
            TextExpert::Trained(training) => trained_expert(data, &task, &initial, training, models)?,
        };
        let mut initial = models.with_adapters(&initial, 0)?;
        if !spread {
            initial.recompute(models.recompute);
            return Self::new(task, initial, models.place(expert, &device)?);
        }
        let mut initial = initial.over(ranks)?.to_device(&device)?;
        initial.recompute(models.recompute);
        // The whole expert stays in the CPU's memory.
        let expert = models.rounded(expert)?;
        let target = Arc::new(Expert::over(&expert, ranks, &device)?);
        let models = Models { initial: Arc::new(initial), target };
        Ok(Self { task: Arc::new(task), models, expert: Arc::new(expert) })
    }
}

fn chat_template(policy: &Source) -> Result<ChatTemplate> {
    ChatTemplate::read(policy)?.with_context(|| {
        format!(
            "{policy}: the preset has chat = true, and there is no chat template: neither chat_template.jinja nor the \
             field chat_template of tokenizer_config.json"
        )
    })
}

impl TextModels {
    fn device(&self, ranks: &Ranks) -> Result<Device> {
        match (self.cuda, ranks.gpu_device()) {
            (false, _) => Ok(Device::Cpu),
            (true, Some(device)) => Ok(device.clone()),
            (true, None) => Device::new_cuda(0).context("cuda = true in the preset"),
        }
    }

    /// In its precision, on a device.
    fn place(&self, model: LanguageModel, device: &Device) -> Result<LanguageModel> {
        let model = self.rounded(model)?;
        if device.is_cpu() { Ok(model) } else { model.to_device(device) }
    }

    fn rounded(&self, model: LanguageModel) -> Result<LanguageModel> {
        match self.precision {
            Precision::F32 => Ok(model),
            Precision::Bf16 => model.to_dtype(DType::BF16),
        }
    }

    /// What is trained of a model: its adapters where the preset has some, else all of it.
    fn with_adapters(&self, model: &LanguageModel, seed: u64) -> Result<LanguageModel> {
        match &self.lora {
            Some(lora) => model.with_lora(lora, seed),
            None => model.copy(),
        }
    }
}

/// The examples of a task of real texts, and its rewards, if they are not learned. Folders are looked for in `root`, the
/// checkout.
///
/// # Errors
/// An unknown name; data that are not there or not what they should be; for code a system that does not allow the sandbox.
pub fn text_data(root: &Path, name: &str, sources: &TextSources) -> Result<TextData> {
    let source = |own: &Option<String>, hub: &str| match own {
        Some(name) => found(root, name, Source::parse_dataset),
        None => Ok(Source::dataset(hub)),
    };
    match name {
        "dialogue" => {
            let parts = sources.parts.clone().unwrap_or(Dialogues::default().parts);
            let dialogues = Dialogues { parts, red_team: sources.red_team };
            dialogues.read(&source(&sources.dialogue, hh_rlhf::REPOSITORY)?)
        }
        "summary" => summary::read(&source(&sources.summary, tldr::REPOSITORY)?),
        "questions" => questions::read(&source(&sources.questions, nq_open::REPOSITORY)?),
        "translation" => {
            let files = sources.translation.as_ref();
            files.context("translation is read from plain files: name them in the preset, [data.translation]")?.read()
        }
        "code" => {
            let sources = CodeSources {
                humaneval: source(&sources.humaneval, humaneval::REPOSITORY)?,
                mbpp: source(&sources.mbpp, mbpp::REPOSITORY)?,
                apps: source(&sources.apps, apps::REPOSITORY)?,
            };
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            code::read(&sources, Sandbox::new(Default::default())?, threads)
        }
        other => bail!("unknown task {other:?}; known are {}", TEXT_TASKS.join(", ")),
    }
}

/// A folder of the checkout, else what `parse` makes of the name.
fn found(root: &Path, name: &str, parse: impl Fn(&str) -> Result<Source>) -> Result<Source> {
    let folder = root.join(name);
    if folder.is_dir() { Ok(Source::Folder(folder)) } else { parse(name) }
}

/// The same with the preset's reward model, where the reward is learned.
fn rewarded(root: &Path, name: &str, models: &TextModels, sources: &TextSources) -> Result<TextData> {
    let data = text_data(root, name, sources)?;
    if data.rewards.is_some() {
        return Ok(data);
    }
    let reward = models.reward.as_ref();
    let reward =
        reward.with_context(|| format!("the reward of {name} is learned: the preset names no reward model"))?;
    let reward = TextReward::read(&found(root, reward, Source::parse)?)?;
    let rewarded_by = format!("preferred over chosen, {}", reward.identity()?);
    Ok(TextData { rewarded_by, rewards: Some(preferred_over_chosen(reward)), ..data })
}

/// The probability that the reward model (Bradley-Terry) prefers a text over the example's chosen answer: its win rate
/// against the data. For a prompt without an answer, σ of the score itself.
fn preferred_over_chosen(reward: TextReward) -> Rewards {
    let known: Mutex<HashMap<String, f64>> = Mutex::default();
    Box::new(move |texts| {
        let whole = |example: &Example, text: &str| [&example.prompt.text(), text].concat();
        let responses: Vec<String> = texts.iter().map(|(example, text)| whole(example, text)).collect();
        let scores = reward.scores(&responses)?;
        let chosen: Vec<Option<String>> =
            texts.iter().map(|(example, _)| Some(whole(example, example.demonstrations.first()?))).collect();
        let mut known = known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut new: Vec<String> = chosen.iter().flatten().filter(|text| !known.contains_key(*text)).cloned().collect();
        new.sort_unstable();
        new.dedup();
        let of_new = reward.scores(&new)?;
        known.extend(new.into_iter().zip(of_new));
        let preferred = |(score, chosen): (f64, &Option<String>)| {
            let base = chosen.as_ref().map_or(0.0, |text| known[text]);
            1.0 / (1.0 + (base - score).exp())
        };
        Ok(scores.into_iter().zip(&chosen).map(preferred).collect())
    })
}

/// The policy after a supervised training on the demonstrations of the training split, where the policy is trained: on its
/// device, in its precision, by adapters if it has some, which are then merged.
fn trained_expert(
    data: &Path,
    task: &TextTask,
    initial: &LanguageModel,
    training: &Supervised,
    models: &TextModels,
) -> Result<LanguageModel> {
    let key = format!("{}{ALGORITHM}{training:?}{:?}{}", task.identity(), models.lora, initial.digest()?);
    let folder = kept(data, &format!("{}-expert", task.name()), &key, |folder| {
        let mut expert = models.with_adapters(initial, 1)?;
        expert.recompute(models.recompute);
        let label = format!("{}: the expert (once)", task.name());
        // Prompts without a demonstration are passed over.
        let indices: Vec<u64> = (0..task.pools().train.len() as u64)
            .filter(|i| !task.example(Split::Train, *i).demonstrations.is_empty())
            .collect();
        ensure!(!indices.is_empty(), "{}: there are no demonstrations to train an expert on", task.name());
        train_supervised(&expert, training, &label, |i| {
            let prompt = task.prompt(Split::Train, indices[i as usize % indices.len()]);
            let demonstrated = task.demonstrated(&prompt, 0).ok().flatten();
            demonstrated.expect("an example with a demonstration, which was encoded before")
        })?;
        save_folder(&expert.whole()?.to_device(&Device::Cpu)?, folder)
    })?;
    load_folder(&folder).with_context(|| damaged(&folder))
}
