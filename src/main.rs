//! The command `qstar`: a thin front of the library.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use qstar::experiment::hh_rewards::{Family, HeldOutRow, HhRewards, Loss, Start};
use qstar::experiment::{Preset, Scratch, TEXT_TASKS, TextSources, World, text_pools};
use qstar::method::{ALL as METHODS, Method};
use qstar::models::Source;
use qstar::notebook::{self, Project, Reproduction};
use qstar::progress::Progress;
use qstar::record;
use qstar::train::{BradleyTerry, Run, RunSpec};
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
  qstar train-reward --only harmless --loss responses --output data/rewards/harmless
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

    /// Train a reward model on HH-RLHF's pairs and measure it on held-out ones, helpful and harmless apart
    ///
    /// With `--loss responses` a classifier of single responses instead: with `--only harmless`, one of harmlessness.
    /// Without `--base` it is a small BERT from scratch.
    TrainReward(TrainReward),
    /// Train a small policy and its tokenizer from scratch on the texts of a task
    ///
    /// Writes a folder in the hub's layout, which a preset's section [text] can name. About twenty minutes on two cores with
    /// the sizes that are given below.
    MakePolicy(MakePolicy),

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

    /// The data, if not in the hub's repository: a folder with the same files, or another repository
    #[arg(long, value_name = "SOURCE")]
    data: Option<String>,

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

#[derive(Args)]
struct TrainReward {
    /// The folder of the model, which is made: weights, tokenizer, training.json
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// The pairs of one family alone
    #[arg(long)]
    only: Option<Family>,

    /// What is learned: which of two responses is better, or whether one alone is
    #[arg(long, default_value = "pairs")]
    loss: Loss,

    /// HH-RLHF: a folder with its files, or a repository of the hub
    #[arg(long, default_value = qstar::tasks::data::hh_rlhf::REPOSITORY)]
    data: String,

    /// The checkpoint whose layers are trained further, with its tokenizer: a folder, or a repository of the hub, for
    /// example distilbert/distilbert-base-uncased
    #[arg(long, conflicts_with_all = ["tokenizer", "layers", "width"])]
    base: Option<String>,

    /// The tokenizer of a model from scratch
    #[arg(long, default_value = "distilbert/distilbert-base-uncased")]
    tokenizer: String,

    /// The layers of a model from scratch
    #[arg(long, default_value_t = 1)]
    layers: usize,

    /// The width of a model from scratch
    #[arg(long, default_value_t = 64)]
    width: usize,

    /// Longer dialogues lose their beginning
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,

    #[arg(long, default_value_t = 120)]
    steps: usize,

    /// Pairs a step
    #[arg(long, default_value_t = 32)]
    batch: usize,

    /// Pairs that are computed at once: less of them need less memory
    #[arg(long, default_value_t = 8)]
    microbatch: usize,

    /// [default: 2e-3 from scratch, 2e-5 on a base]
    #[arg(long)]
    learning_rate: Option<f64>,

    /// The seed of fresh weights and of the order of the pairs
    #[arg(long, default_value_t = 0)]
    seed: u64,
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
    let project = Project::find()?;
    match cli.command {
        Command::Reproduce(how) => reproduce(&project, how),
        Command::Lab { arguments } => notebook::lab(&notebook::setup(&project)?, &arguments),
        Command::Train(how) => train(&project, how),
        Command::TrainReward(how) => train_reward(how),
        Command::MakeMicro => {
            for made in qstar::experiment::make_micro(&project.root().join("data"))? {
                println!("{}: loss {:.4} nats a token; held-out reward at temperature 1:", made.name, made.loss);
                for (family, reward) in made.rewards {
                    println!("    {family:12} {reward:.3}");
                }
            }
            Ok(())
        }
        Command::MakePolicy(how) => {
            let sources = TextSources { dialogue: how.data };
            let pools = text_pools(&how.task, &sources)?;
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
            notebook::setup(&project)?;
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

fn train_reward(how: TrainReward) -> Result<()> {
    let (start, learning_rate) = match &how.base {
        Some(base) => (Start::Base(Source::parse(base)?), 2e-5),
        None => {
            let tokenizer = Source::parse(&how.tokenizer)?;
            (Start::Scratch { tokenizer, layers: how.layers, width: how.width }, 2e-3)
        }
    };
    let plan = HhRewards {
        data: Source::parse_dataset(&how.data)?,
        only: how.only,
        start,
        loss: how.loss,
        max_tokens: how.max_tokens,
        training: BradleyTerry {
            steps: how.steps,
            batch: how.batch,
            microbatch: how.microbatch,
            learning_rate: how.learning_rate.unwrap_or(learning_rate),
            warmup_steps: how.steps / 10,
            seed: how.seed,
        },
    };
    let trained = plan.train()?;
    trained.save(&plan, &how.output)?;
    let columns =
        ["split", "family", "pairs", "accuracy", "accuracy_low", "accuracy_high", "log_loss", "longer_accuracy"];
    println!("{}", HeldOutRow::frame(&trained.held_out)?.select(columns)?);
    for row in trained.held_out.iter().filter(|row| row.split == "test") {
        let (accuracy, low, high) = (100.0 * row.accuracy, 100.0 * row.accuracy_low, 100.0 * row.accuracy_high);
        println!(
            "{}: {accuracy:.1} % of {} test pairs are ordered right, {low:.1} to {high:.1}",
            row.family, row.pairs
        );
        if let (Some(p), Some(low), Some(high)) =
            (row.response_accuracy, row.response_accuracy_low, row.response_accuracy_high)
        {
            let (p, low, high) = (100.0 * p, 100.0 * low, 100.0 * high);
            println!("{}: {p:.1} % of their single responses, {low:.1} to {high:.1}", row.family);
        }
    }
    println!("{}", how.output.display());
    Ok(())
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
