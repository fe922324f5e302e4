//! Whole runs in the embedded world, by one process and by several.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::Device;
use polars::prelude::DataFrame;
use qstar::experiment::World;
use qstar::method::{Method, Source};
use qstar::mixture::Rule;
use qstar::models::{Config, LanguageModel, LlamaConfig, LoraConfig};
use qstar::progress::Progress;
use qstar::ranks::Ranks;
use qstar::record::{Kind, RunFolder};
use qstar::rollout::{Proposal, Response, Rollout, Sampler};
use qstar::target::Expert;
use qstar::tasks::Split;
use qstar::tasks::micro::{MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MicroWorld};
use qstar::train::{Models, Run, RunConfig, RunSpec};

use super::training;

const CONFIG: &str = r#"
    steps = 20
    evaluate_every = 10
    evaluation_prompts = 71
    checkpoint_every = 5
    step = { prompts = 6, responses = 2, microbatches = 6, learning_rate = 3e-4, warmup_steps = 5, kl_coefficient = 0.02,
             max_gradient_norm = 1.0 }
"#;

/// What a run has come to.
pub struct Trained {
    pub steps: DataFrame,
    pub evaluations: DataFrame,
    pub samples: DataFrame,
    pub weights: Vec<f32>,
}

/// Where the run of a method by so many processes lies.
fn run(world: &World, ranks: &Ranks, method: &str, runs: &Path) -> Result<Run> {
    let config: RunConfig = toml::from_str(CONFIG)?;
    let mut method = Method::by_name(method)?;
    if let Source::Accepted(rejection) = &mut method.source {
        // A third is accepted, also of a policy that earns nothing.
        rejection.beta = 1.0;
    }
    let spec = RunSpec::new(&*world.task, method, 3, config, &world.models)?;
    Ok(Run::new(runs, spec)?.over(ranks))
}

/// Models that have learned nothing, in the embedded world.
fn world(ranks: &Ranks, weights: &str) -> Result<World> {
    let task = MicroWorld::new()?;
    let config = LlamaConfig {
        vocab_size: task.vocab_size(),
        max_position_embeddings: MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS,
        initializer_range: 0.1,
        ..training::config()
    };
    let model = |seed| LanguageModel::new(Config::Llama(config.clone()), seed);
    let (initial, expert) = (model(1)?, model(2)?);
    if weights == "all" {
        return World::new(task, initial, expert);
    }
    let targets = ["q_proj", "down_proj"].map(String::from).to_vec();
    let initial = initial.with_lora(&LoraConfig { rank: 3, alpha: 6.0, dropout: 0.0, targets }, 5)?;
    if ranks.size() == 1 {
        return World::new(task, initial, expert);
    }
    let target = Arc::new(Expert::over(&expert, ranks, &Device::Cpu)?);
    let initial = initial.over(ranks)?;
    ensure!(initial.network.is_spread() && initial.frozen()?.is_spread(), "nothing is spread");
    Ok(World { task: Arc::new(task), models: Models { initial: Arc::new(initial), target }, expert: Arc::new(expert) })
}

/// Trains `all` weights, or adapters beside weights that are spread over the ranks (`spread`).
pub fn train(ranks: &Ranks, weights: &str, method: &str, runs: &Path) -> Result<()> {
    let world = world(ranks, weights)?;
    let run = run(&world, ranks, method, runs)?;
    run.train(&*world.task, &world.models, &Progress::new(method, 20))
}

pub fn read(weights: &str, method: &str, runs: &Path) -> Result<Trained> {
    let world = world(&Ranks::alone(), weights)?;
    let run = run(&world, &Ranks::alone(), method, runs)?;
    let mut weights = Vec::new();
    for (_, var) in run.trained(&world.models.initial)?.params.iter() {
        weights.extend(var.flatten_all()?.to_vec1::<f32>()?);
    }
    let [steps, evaluations, samples] =
        [Kind::Steps, Kind::Evaluations, Kind::Samples].map(|kind| run.folder.rows(kind));
    Ok(Trained { steps: steps?, evaluations: evaluations?, samples: samples?, weights })
}

/// Draws in step from weights that are spread, with so many tokens that end a response that ranks are done at different
/// times; each gets and is charged what one process gets from whole weights.
pub fn draw(ranks: &Ranks) -> Result<()> {
    let (spread, whole) = (world(ranks, "spread")?, world(&Ranks::alone(), "spread")?);
    let ends: Vec<u32> = (0..spread.models.initial.config.vocab_size() as u32).filter(|id| id % 4 == 0).collect();
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| spread.task.prompt(Split::Train, i).tokens).collect();
    let mut waited = 0;
    for step in 0..10 {
        let draw = |world: &World, own: std::ops::Range<usize>, in_step| -> Result<_> {
            let sampler = Sampler {
                proposal: Proposal::Mixture(Rule::Q_STAR),
                stop_tokens: &ends,
                max_response_tokens: MAX_RESPONSE_TOKENS,
                first_row: own.start as u64,
                step,
                in_step,
                ..Sampler::default()
            };
            sampler.rollout(&world.models.initial.frozen()?, Some(&*world.models.target), &prompts[own], 1)
        };
        let own = ranks.part(prompts.len());
        let (ours, alone) = (draw(&spread, own.clone(), Some(ranks))?, draw(&whole, own, None)?);
        let tokens = |rollout: &Rollout| rollout.responses.iter().map(Response::tokens).collect::<Vec<_>>();
        ensure!(tokens(&ours) == tokens(&alone), "other responses");
        ensure!(ours.cost == alone.cost, "charged {:?}, not {:?}", ours.cost, alone.cost);
        let lengths = ranks.exchange(tokens(&ours).iter().map(Vec::len).max().unwrap_or(0))?;
        waited += usize::from(lengths.iter().any(|&length| length < lengths[0]) || lengths[0] < lengths[1]);
    }
    ensure!(waited > 5, "only {waited} times a rank was done before another");
    Ok(())
}

/// The folder of the only run in a folder of runs, where it has begun.
pub fn begun(runs: &Path) -> Option<RunFolder> {
    Some(RunFolder::new(std::fs::read_dir(runs).ok()?.next()?.ok()?.path()))
}
