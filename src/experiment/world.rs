//! The worlds that experiments run in: a task with π_init and its expert.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::DataFrame;
use sha2::{Digest, Sha256};

use super::cache::{damaged, kept};
use super::preset::{Policy, Preset};
use super::text_world::{TEXT_TASKS, TextModels};
use crate::machine::in_parallel;
use crate::metrics::mean;
use crate::models::{Config, Gpt2Config, LanguageModel, Network, Source, load_folder, read_llama2_c, save_folder};
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::record::record;
use crate::target::Expert;
use crate::tasks::micro::{MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MicroWorld};
use crate::tasks::stories::{Stories, write_stories};
use crate::tasks::{Quality, Split, Task};
use crate::train::{ALGORITHM, HeldOut, Models, Spent, Supervised, evaluate, train_supervised};

/// A task and the models that are trained on it. A clone shares their memory.
#[derive(Clone)]
pub struct World {
    pub task: Arc<dyn Task>,
    /// π_init, and π_t: the expert, unless another target is put in its place.
    pub models: Models,
    pub expert: Arc<LanguageModel>,
}

/// The training of the embedded models.
const MICRO: Supervised = Supervised { steps: 10_000, batch: 32, learning_rate: 2e-3, warmup_steps: 100 };

/// Held-out prompts on which they are measured, and the seed of their responses.
const HELD_OUT: usize = 1_000;
const HELD_OUT_SEED: u64 = 0;

/// The seed of their first weights and the first prompt that they learn from: far from the prompts of any run.
const MICRO_SEED: u64 = 20_260;

impl World {
    /// The embedded world, with the checkpoints in `data/micro`.
    pub fn micro(data: &Path) -> Result<Self> {
        let load = |name: &str| {
            let folder = data.join("micro").join(name);
            load_folder(&folder).with_context(|| format!("{}: `qstar make-micro` makes it", folder.display()))
        };
        Self::new(MicroWorld::new()?, load("initial")?, load("expert")?)
    }

    /// A world whose target is the expert.
    pub fn new(task: impl Task + 'static, initial: LanguageModel, expert: LanguageModel) -> Result<Self> {
        let target = Arc::new(Expert::new(&expert)?);
        let models = Models { initial: Arc::new(initial), target };
        Ok(Self { task: Arc::new(task), models, expert: Arc::new(expert) })
    }

    /// The task of a preset, with its policy.
    ///
    /// # Errors
    /// An unknown task; a model that is not there.
    pub fn of(preset: &Preset, data: &Path) -> Result<Self> {
        match &*preset.task {
            "micro" => Self::micro(data),
            "stories" => Self::stories(data)?.context("the model of the stories is not there"),
            name if TEXT_TASKS.contains(&name) => {
                Self::text(data, name, preset.text_models()?, &preset.data, &preset.ranks)
            }
            other => bail!("unknown task {other:?}; known are micro, stories, {}", TEXT_TASKS.join(", ")),
        }
    }

    /// The same task with a policy of another size.
    ///
    /// # Errors
    /// A policy that is not one of this task's kind.
    pub fn of_size(preset: &Preset, policy: &Policy, data: &Path) -> Result<Self> {
        match (&*preset.task, policy) {
            ("micro", Policy::Width(width)) => Self::micro_of_width(data, *width),
            (name, Policy::Model(policy)) if TEXT_TASKS.contains(&name) => {
                let models = TextModels { policy: policy.clone(), ..preset.text_models()?.clone() };
                Self::text(data, name, &models, &preset.data, &preset.ranks)
            }
            (name, other) => bail!("the task {name} has no policy {other:?}: micro has widths, real texts have models"),
        }
    }

    /// The embedded world with models of another width, a head of 32 each: trained as the embedded ones are, once, and kept in
    /// `data/cache`.
    fn micro_of_width(data: &Path, width: usize) -> Result<Self> {
        ensure!(width > 0 && width.is_multiple_of(32), "the embedded model's width is a multiple of 32: {width}");
        let world = MicroWorld::new()?;
        let config = micro_config(&world, width);
        let key = format!("{ALGORITHM}{config:?}{MICRO:?}{MICRO_SEED}");
        let folder = kept(data, &format!("micro-width-{width}"), &key, |folder| {
            let jobs = [("initial", Quality::Mixed), ("expert", Quality::Clean)];
            in_parallel(jobs.len(), jobs.to_vec(), |(name, quality)| {
                let label = format!("{name} of width {width} (once)");
                save_folder(&train_micro(&world, &config, &label, quality)?.0, &folder.join(name))
            })?;
            Ok(())
        })?;
        let load = |name: &str| load_folder(&folder.join(name)).with_context(|| damaged(&folder));
        Self::new(world, load("initial")?, load("expert")?)
    }
}

/// The repository of the small real model, and its files.
const STORIES: (&str, [&str; 2]) = ("karpathy/tinyllamas", ["stories260K/stories260K.bin", "stories260K/tok512.bin"]);

/// The file of the kept stories.
const CORPUS: &str = "stories.json";

/// The stories that prompts and demonstrations are made of: batches, stories a batch, tokens a story.
const STORIES_CORPUS: (u64, usize, usize) = (16, 64, 200);

/// The training of the stories' expert.
const STORIES_EXPERT: Supervised = Supervised { steps: 120, batch: 32, learning_rate: 1e-3, warmup_steps: 10 };

impl World {
    /// Mean held-out reward of π_init and of the expert, a row a family.
    pub fn families(&self, prompts: usize) -> Result<DataFrame> {
        let rewards = |model: &LanguageModel| family_rewards(&*self.task, &model.frozen()?, prompts);
        let both = rewards(&self.models.initial)?.into_iter().zip(rewards(&self.expert)?);
        let rows: Vec<FamilyRow> =
            both.map(|((family, initial), (_, expert))| FamilyRow { family, initial, expert }).collect();
        FamilyRow::frame(&rows)
    }

    /// A held-out reward to be reached, fixed before any run: so large a `share` of the way from π_init's to the expert's.
    /// Measured on validation prompts, which no result is reported on.
    ///
    /// # Errors
    /// Fewer validation prompts than `prompts`; an expert that is no better than π_init.
    pub fn level(&self, share: f64, prompts: usize) -> Result<f64> {
        let reward = |model: &LanguageModel| -> Result<f64> {
            let (network, held_out) = (model.frozen()?, (HeldOut::Validation, prompts));
            let (stand, ranks) = ((0, &Spent::default()), Ranks::alone());
            Ok(evaluate(&*self.task, &network, &network, held_out, HELD_OUT_SEED, stand, &ranks)?.row.reward)
        };
        let (initial, expert) = (reward(&self.models.initial)?, reward(&self.expert)?);
        ensure!(
            expert > initial,
            "the expert's held-out reward is {expert}, that of π_init {initial}: there is no way up"
        );
        Ok(initial + share * (expert - initial))
    }

    /// The small real model, from the hub's cache or from the hub. Its stories and its expert are made
    /// once and kept in `data/cache`.
    ///
    /// `None`, with a printed reason, where the model is neither in the cache nor to be downloaded.
    ///
    /// # Errors
    /// Files that are there and are not what they should be.
    pub fn stories(data: &Path) -> Result<Option<Self>> {
        let (repository, files) = STORIES;
        let [model, vocabulary] = files.map(|file| Source::hub(repository).file(file));
        let (model, vocabulary) = match (model, vocabulary) {
            (Ok(model), Ok(vocabulary)) => (model, vocabulary),
            (Err(error), _) | (_, Err(error)) => {
                println!("stories is skipped: {error:#}");
                return Ok(None);
            }
        };
        let (initial, tokenizer) = read_llama2_c(&model, &vocabulary)?;
        // All that decides what is made.
        let mut key = Sha256::new();
        key.update(format!("{}{ALGORITHM}{STORIES_CORPUS:?}{STORIES_EXPERT:?}", initial.params.digest()?));
        key.update(std::fs::read(&vocabulary).with_context(|| format!("{}: cannot be read", vocabulary.display()))?);
        let key: String = key.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = kept(data, "stories", &key, |folder| {
            let (batches, size, tokens) = STORIES_CORPUS;
            let network = initial.frozen()?;
            let progress = Progress::new("drawing stories from the model (once)", batches);
            let stories = in_parallel(2, (0..batches).collect(), |batch| {
                let stories = write_stories(&network, &tokenizer, batch, size, tokens);
                progress.inc(1);
                stories
            })?
            .concat();
            progress.finish();
            Ok(std::fs::write(folder.join(CORPUS), serde_json::to_string(&stories)?)?)
        })?;
        let text = std::fs::read_to_string(folder.join(CORPUS)).with_context(|| damaged(&folder))?;
        let corpus: Vec<String> = serde_json::from_str(&text).with_context(|| damaged(&folder))?;
        let task = Stories::new(tokenizer, &corpus)?;
        let folder = kept(data, "stories-expert", &key, |folder| {
            let expert = initial.copy()?;
            train_supervised(&expert, &STORIES_EXPERT, "the stories' expert (once)", |i| task.demonstration_at(i))?;
            save_folder(&expert, folder)
        })?;
        let expert = load_folder(&folder).with_context(|| damaged(&folder))?;
        Self::new(task, initial, expert).map(Some)
    }
}

/// Mean true reward of a model's own responses to held-out prompts at temperature 1, for every family.
fn family_rewards(task: &dyn Task, network: &Network, prompts: usize) -> Result<Vec<(String, f64)>> {
    let (held_out, stand) = ((HeldOut::Test, prompts), (0, &Spent::default()));
    let samples = evaluate(task, network, network, held_out, HELD_OUT_SEED, stand, &Ranks::alone())?.samples;
    let mut families: Vec<(String, Vec<f64>)> = Vec::new();
    for sample in samples {
        match families.iter_mut().find(|(name, _)| *name == sample.family) {
            Some((_, rewards)) => rewards.push(sample.reward),
            None => families.push((sample.family, vec![sample.reward])),
        }
    }
    Ok(families.into_iter().map(|(name, rewards)| (name, mean(&rewards))).collect())
}

record! {
    /// Where a world's two models stand in one family.
    pub struct FamilyRow {
        pub family: String,
        pub initial: f64,
        pub expert: f64,
    }
}

/// What one embedded model came to.
#[derive(Debug)]
pub struct Made {
    pub name: &'static str,
    /// Nats a token over the last tenth of its training.
    pub loss: f64,
    /// True reward on held-out prompts by its own responses at temperature 1, a family.
    pub rewards: Vec<(String, f64)>,
}

/// Trains π_init on mixed demonstrations and the expert on clean ones, side by side, and writes both
/// to `data/micro`.
pub fn make_micro(data: &Path) -> Result<Vec<Made>> {
    let world = MicroWorld::new()?;
    let config = micro_config(&world, 96);
    let make = |name: &'static str, quality: Quality| -> Result<Made> {
        let (model, loss) = train_micro(&world, &config, name, quality)?;
        save_folder(&model, &data.join("micro").join(name))?;
        let network = model.frozen()?;
        let rewards = family_rewards(&world, &network, HELD_OUT)?;
        Ok(Made { name, loss, rewards })
    };
    let jobs = [("initial", Quality::Mixed), ("expert", Quality::Clean)];
    in_parallel(jobs.len(), jobs.to_vec(), |(name, quality)| make(name, quality))
}

fn micro_config(world: &MicroWorld, width: usize) -> Config {
    Config::Gpt2(Gpt2Config {
        vocab_size: world.vocab_size(),
        n_positions: MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS,
        n_embd: width,
        n_layer: 3,
        n_head: width / 32,
        // About 1/sqrt(n_embd): GPT-2's 0.02 is meant for width 768 and learns slowly here.
        initializer_range: 0.1,
        ..Default::default()
    })
}

/// A model from scratch on demonstrations of the embedded task, and its loss.
fn train_micro(world: &MicroWorld, config: &Config, label: &str, quality: Quality) -> Result<(LanguageModel, f64)> {
    let model = LanguageModel::new(config.clone(), MICRO_SEED)?;
    let loss = train_supervised(&model, &MICRO, label, |i| {
        let prompt = world.prompt(Split::Train, (MICRO_SEED << 32) + i);
        let answer = world.demonstration(&prompt, quality, 0);
        // A language model of the prompt as well: reading it is what has to be learnt.
        let (family, rest) = prompt.tokens.split_at(1);
        (family.to_vec(), [rest, &answer].concat())
    })?;
    Ok((model, loss))
}
