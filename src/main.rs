//! The command `qstar`: a thin front of the library.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use qstar::experiment::{Preset, World};
use qstar::judge::command::JudgeArgs;
use qstar::method::{ALL as METHODS, Method};
use qstar::notebook::{self, Project, Reproduction};
use qstar::progress::Progress;
use qstar::record;
use qstar::train::{Run, RunSpec};
use std::path::PathBuf;
use std::process::ExitCode;

/// From which distribution should RLHF draw its responses?
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  qstar reproduce                    run notebook 01 and write its outputs into it
  qstar reproduce --preset smoke     the same in two minutes, to see that every part works
  qstar reproduce 00                 the derivation, in half a minute
  qstar train --method qstar --seed 1
  qstar judge a.jsonl b.jsonl --judge longer --judge chat:gpt-4.toml
  qstar reproduce --all --output results
  qstar lab                          open the notebooks in JupyterLab

From a checkout, `cargo run --release -- reproduce` does the same.";

#[derive(Subcommand)]
enum Command {
    /// Run notebooks from the first cell to the last, without a browser
    ///
    /// Sets the kernel up if that was not done. Exits with an error when a cell does not compile, panics or ends with
    /// an error; the notebook is written with the outputs up to there.
    Reproduce(Reproduce),

    /// Open the notebooks in JupyterLab
    ///
    /// Sets the kernel up if that was not done.
    Lab {
        /// What JupyterLab is given as it is, after `--`: for example `-- --no-browser --port 8899`
        #[arg(last = true)]
        arguments: Vec<String>,
    },

    /// Set up the notebooks' kernel
    ///
    /// Everything is put into the checkout's folders .qstar and target. The first time takes about a quarter of an hour and
    /// needs the network. An interrupted set-up goes on where it was.
    Setup,

    /// Train one policy with one method and write its run to data/runs
    ///
    /// A run that was interrupted goes on from its checkpoint; a finished one is not run again.
    Train(Train),

    Judge(Box<JudgeArgs>),

    /// Train the embedded world's two models again: data/micro/initial and data/micro/expert
    MakeMicro,
}

#[derive(Args)]
struct Reproduce {
    /// The notebooks' numbers [default: 01]
    #[arg(value_name = "NUMBER", conflicts_with = "all")]
    numbers: Vec<u32>,

    /// Run every notebook, in the order of their numbers
    #[arg(long)]
    all: bool,

    /// The scale: a file of data/presets, without its ending
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// Write the executed notebooks into this folder, and leave those of the checkout as they are
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Args)]
struct Train {
    /// The task: micro (embedded) or stories (a small real model from the hub)
    #[arg(long, default_value = "micro")]
    task: String,

    #[arg(long, default_value = "qstar", help = format!("The method: {}", METHODS.map(|method| method.name).join(", ")))]
    method: String,

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

fn main() -> ExitCode {
    let (name, one) = qstar::machine::ONE_THREAD;
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var(name, one) };
    }
    qstar::machine::keep_memory();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Judge(args) => qstar::judge::command::run(*args),
        Command::Reproduce(how) => reproduce(&Project::find()?, how),
        Command::Lab { arguments } => notebook::lab(&notebook::setup(&Project::find()?)?, &arguments),
        Command::Train(how) => train(&Project::find()?, how),
        Command::MakeMicro => {
            for made in qstar::experiment::make_micro(&Project::find()?.root().join("data"))? {
                println!("{}: loss {:.4} nats a token; held-out reward at temperature 1:", made.name, made.loss);
                for (family, reward) in made.rewards {
                    println!("    {family:12} {reward:.3}");
                }
            }
            Ok(())
        }
        Command::Setup => {
            notebook::setup(&Project::find()?)?;
            println!("The kernel is ready: `qstar lab` or `qstar reproduce`");
            Ok(())
        }
    }
}

fn reproduce(project: &Project, how: Reproduce) -> Result<()> {
    let notebooks: Vec<PathBuf> = if how.all {
        let all = project.numbered_notebooks()?;
        all.into_iter().map(|(_, path)| path).collect()
    } else {
        let numbers = if how.numbers.is_empty() { vec![1] } else { how.numbers };
        let found = numbers.iter().map(|number| project.notebook(*number));
        found.collect::<Result<_>>()?
    };
    if notebooks.is_empty() {
        bail!("there are no notebooks in {}", project.notebooks().display());
    }
    let kernel = notebook::setup(project)?;
    let how = Reproduction { preset: how.preset, output: how.output };
    notebook::reproduce(&kernel, &notebooks, &how)
}

fn train(project: &Project, how: Train) -> Result<()> {
    let data = project.root().join("data");
    let preset = match &how.preset {
        Some(name) => Preset::load(&data, name)?,
        None => Preset::from_env(&data)?,
    };
    let (world, size) = match how.task.as_str() {
        "micro" => (World::micro(&data)?, preset.micro),
        "stories" => (World::stories(&data)?.context("the model of the stories is not there")?, preset.stories),
        other => bail!("unknown task {other:?}; known are micro, stories"),
    };
    let mut config = size.run;
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
