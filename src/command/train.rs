//! `qstar train`: one policy, one method.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use qstar::experiment::{Preset, TEXT_TASKS, TargetName, World};
use qstar::method::{ALL as METHODS, Method};
use qstar::notebook::Project;
use qstar::progress::Progress;
use qstar::record;
use qstar::train::{Run, RunSpec};

#[derive(Args)]
pub struct Train {
    #[arg(long, help = format!(
        "The task, if not that of the preset: micro (embedded), stories (a small real model from the hub), {} (real texts, \
         with the models of the preset)", TEXT_TASKS.join(", ")))]
    task: Option<String>,

    #[arg(long, default_value = "qstar", help = format!("The method: {}", METHODS.map(|method| method.name).join(", ")))]
    method: String,

    #[arg(long, default_value = "expert", help = format!(
        "What the policy is mixed with: {}; what has to be trained for it is trained once and kept in data/cache",
        TargetName::ALL.map(TargetName::name).join(", ")))]
    target: TargetName,

    /// The seed of prompts and draws
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// The scale: a file of data/presets, without its ending
    /// [default: QSTAR_PRESET, else micro]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// Steps, if not those of the preset
    #[arg(long)]
    steps: Option<u64>,

    /// The folder of the runs' folders [default: data/runs]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

pub fn train(project: &Project, how: Train) -> Result<()> {
    let data = project.root().join("data");
    let mut preset = preset(&data, how.preset.as_deref())?;
    preset.task = how.task.unwrap_or(preset.task);
    let (world, mut config) = (World::of(&preset, &data)?, preset.run);
    let world = world.with_target_named(&data, how.target)?;
    config.steps = how.steps.unwrap_or(config.steps);
    let spec = RunSpec::new(&*world.task, Method::by_name(&how.method)?, how.seed, config, &world.models)?;
    let run = Run::new(&how.runs.unwrap_or_else(|| data.join("runs")), spec)?;
    let progress = Progress::new(run.spec.name()?, config.steps);
    run.train(&*world.task, &world.models, &progress)?;
    progress.finish();
    println!("{}", record::evaluations(&run.folder)?.select(["step", "samples", "reward", "kl", "entropy", "ended"])?);
    println!("{}", run.folder.path().display());
    Ok(())
}

/// The preset of this name, else the environment's.
pub fn preset(data: &Path, name: Option<&str>) -> Result<Preset> {
    match name {
        Some(name) => Preset::load(data, name),
        None => Preset::from_env(data),
    }
}
