//! The command `qstar`: a thin front of the library.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use qstar::experiment::{Preset, Scratch, TEXT_TASKS, TargetName, World, text_data};
use qstar::method::{ALL as METHODS, Method};
use qstar::notebook::{self, Project, Reproduction};
use qstar::progress::Progress;
use qstar::record;
use qstar::train::{Run, RunSpec};
use std::path::PathBuf;
use std::process::ExitCode;

mod command {
    pub mod evaluate;
}

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
  qstar reproduce --all --output results
  qstar evaluate rouge --stem summaries.jsonl --output scores.csv
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

    /// Train a small policy and its tokenizer from scratch on the texts of a task
    ///
    /// Writes a folder in the hub's layout, which a preset's section [text] can name. About twenty minutes on two cores with
    /// the sizes that are given below.
    MakePolicy(MakePolicy),
    /// Score texts, programs and judgments in JSON lines: a table with intervals
    #[command(subcommand)]
    Evaluate(command::evaluate::Evaluate),

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
struct MakePolicy {
    #[arg(long, default_value = "dialogue", help = format!("The task: {}", TEXT_TASKS.join(", ")))]
    task: String,

    /// The scale, whose section [text.data] may say where the data are
    /// [default: QSTAR_PRESET, else micro]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// The folder that is written
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Sequences of 256 tokens, eight a step
    #[arg(long, default_value_t = 1500)]
    steps: usize,

    #[arg(long, default_value_t = 256)]
    width: usize,

    #[arg(long, default_value_t = 6)]
    layers: usize,
}

#[derive(Args)]
struct Train {
    #[arg(long, default_value = "micro", help = format!(
        "The task: micro (embedded), stories (a small real model from the hub), {} (real texts, with the models of the \
         preset)", TEXT_TASKS.join(", ")))]
    task: String,

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

fn main() -> ExitCode {
    let (name, one) = qstar::machine::ONE_THREAD;
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var(name, one) };
    }
    if std::env::var_os("POLARS_FMT_MAX_ROWS").is_none() {
        // SAFETY: no other thread is running yet. A table is printed whole.
        unsafe { std::env::set_var("POLARS_FMT_MAX_ROWS", "-1") };
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
    let project = Project::find;
    match cli.command {
        Command::Reproduce(how) => reproduce(&project()?, how),
        Command::Lab { arguments } => notebook::lab(&notebook::setup(&project()?)?, &arguments),
        Command::Train(how) => train(&project()?, how),
        Command::Evaluate(how) => command::evaluate::evaluate(how),
        Command::MakeMicro => {
            let project = project()?;
            for made in qstar::experiment::make_micro(&project.root().join("data"))? {
                println!("{}: loss {:.4} nats a token; held-out reward at temperature 1:", made.name, made.loss);
                for (family, reward) in made.rewards {
                    println!("    {family:12} {reward:.3}");
                }
            }
            Ok(())
        }
        Command::MakePolicy(how) => {
            let data = project()?.root().join("data");
            let preset = match &how.preset {
                Some(name) => Preset::load(&data, name)?,
                None => Preset::from_env(&data)?,
            };
            let sources = preset.text.map(|text| text.data).unwrap_or_default();
            let pools = text_data(&how.task, &sources)?.pools;
            pools.notes.iter().for_each(|note| println!("{}: {note}", how.task));
            let mut sizes = Scratch { width: how.width, layers: how.layers, ..Scratch::default() };
            sizes.training.steps = how.steps;
            let made = sizes.make(&pools, &how.output)?;
            println!(
                "{} parameters, {} tokens of text; nats a token: {:.3} in training, {:.3} on held-out texts ({:.3} bits a byte)",
                made.parameters, made.tokens, made.training_loss, made.held_out_loss, made.held_out_bits_per_byte
            );
            println!("{}", how.output.display());
            Ok(())
        }
        Command::Setup => {
            notebook::setup(&project()?)?;
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
    let (world, mut config) = match how.task.as_str() {
        "micro" => (World::micro(&data)?, preset.micro.run),
        "stories" => (World::stories(&data)?.context("the model of the stories is not there")?, preset.stories.run),
        name if TEXT_TASKS.contains(&name) => {
            let text = preset.text.context("the preset has no section [text]: it names no models for real texts")?;
            (World::text(&data, name, &text.models, &text.data)?, text.run)
        }
        other => bail!("unknown task {other:?}; known are micro, stories, {}", TEXT_TASKS.join(", ")),
    };
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
