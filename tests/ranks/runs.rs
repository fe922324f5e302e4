//! Whole runs in the embedded world, by one process and by several.

use std::path::Path;

use anyhow::Result;
use polars::prelude::DataFrame;
use qstar::experiment::World;
use qstar::method::Method;
use qstar::progress::Progress;
use qstar::ranks::Ranks;
use qstar::record::{Kind, RunFolder};
use qstar::train::{Run, RunConfig, RunSpec};

const CONFIG: &str = r#"
    steps = 20
    evaluate_every = 10
    evaluation_prompts = 71
    checkpoint_every = 5
    step = { prompts = 6, responses = 2, microbatches = 6, learning_rate = 1e-3, warmup_steps = 2, kl_coefficient = 0.02,
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
    let spec = RunSpec::new(&*world.task, Method::by_name(method)?, 3, config, &world.models)?;
    Ok(Run::new(runs, spec)?.over(ranks))
}

fn world() -> Result<World> {
    World::micro(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data"))
}

pub fn train(ranks: &Ranks, method: &str, runs: &Path) -> Result<()> {
    let world = world()?;
    let run = run(&world, ranks, method, runs)?;
    run.train(&*world.task, &world.models, &Progress::new(method, 20))
}

pub fn read(method: &str, runs: &Path) -> Result<Trained> {
    let world = world()?;
    let run = run(&world, &Ranks::alone(), method, runs)?;
    let mut weights = Vec::new();
    for (_, var) in run.trained(&world.models.initial)?.params.iter() {
        weights.extend(var.flatten_all()?.to_vec1::<f32>()?);
    }
    let [steps, evaluations, samples] =
        [Kind::Steps, Kind::Evaluations, Kind::Samples].map(|kind| run.folder.rows(kind));
    Ok(Trained { steps: steps?, evaluations: evaluations?, samples: samples?, weights })
}

/// The folder of the only run in a folder of runs, where it has begun.
pub fn begun(runs: &Path) -> Option<RunFolder> {
    Some(RunFolder::new(std::fs::read_dir(runs).ok()?.next()?.ok()?.path()))
}
