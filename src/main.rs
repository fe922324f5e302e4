//! The command `qstar`: a thin front of the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use qstar::notebook::{self, Project};

mod command {
    pub mod evaluate;
    pub mod judge;
    pub mod make_policy;
    pub mod plan;
    pub mod report;
    pub mod reproduce;
    pub mod train;
    pub mod train_reward;
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
  qstar plan show main               every run of the main comparison; `run` and `status` likewise
  qstar plan run main --id 17        one of them: for a Slurm array, or GNU parallel
  qstar report                       one page of what the runs on the disk say
  qstar train-reward --only harmless --loss responses --output data/rewards/harmless
  qstar judge a.jsonl b.jsonl --judge longer --judge chat:gpt-4.toml
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
    Reproduce(command::reproduce::Reproduce),

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
    Train(command::train::Train),

    /// Train a reward model on HH-RLHF's pairs and measure it on held-out ones, helpful and harmless apart
    ///
    /// With `--loss responses` a classifier of single responses instead: with `--only harmless`, one of harmlessness.
    /// Without `--base` it is a small BERT from scratch.
    TrainReward(command::train_reward::TrainReward),

    /// The runs of the experiments: what they are, how far they are, and training them in one process or in many
    #[command(subcommand)]
    Plan(command::plan::PlanCommand),

    /// Write one HTML page with the tables, figures and verdict of the runs on the disk
    ///
    /// No run is trained for it; experts and targets that are not there yet are made.
    Report(command::report::ReportArgs),

    /// Train a small policy and its tokenizer from scratch on the texts of a task
    ///
    /// Writes a folder in the hub's layout, which a preset's section [models] can name. Half a second a step on two cores with
    /// the sizes that are given below.
    MakePolicy(command::make_policy::MakePolicy),

    /// Score texts, programs and judgments in JSON lines: a table with intervals
    #[command(subcommand)]
    Evaluate(command::evaluate::Evaluate),

    Judge(Box<command::judge::JudgeArgs>),

    /// Train the embedded world's two models again: data/micro/initial and data/micro/expert
    MakeMicro,
}

fn main() -> ExitCode {
    let (name, one) = qstar::machine::ONE_THREAD;
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var(name, one) };
    }
    for limit in ["POLARS_FMT_MAX_ROWS", "POLARS_FMT_MAX_COLS", "POLARS_TABLE_WIDTH"] {
        if std::env::var_os(limit).is_none() {
            // SAFETY: no other thread is running yet. A table is printed whole.
            unsafe { std::env::set_var(limit, if limit == "POLARS_TABLE_WIDTH" { "240" } else { "-1" }) };
        }
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
        Command::Reproduce(how) => command::reproduce::reproduce(&project()?, how),
        Command::Lab { arguments } => notebook::lab(&notebook::setup(&project()?)?, &arguments),
        Command::Train(how) => command::train::train(&project()?, how),
        Command::TrainReward(how) => command::train_reward::train_reward(how),
        Command::Evaluate(how) => command::evaluate::evaluate(how),
        Command::Judge(how) => command::judge::run(*how),
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
        Command::Plan(command) => command::plan::plan(command),
        Command::Report(how) => command::report::report(how),
        Command::MakePolicy(how) => command::make_policy::make_policy(&project()?, how),
        Command::Setup => {
            notebook::setup(&project()?)?;
            println!("The kernel is ready: `qstar lab` or `qstar reproduce`");
            Ok(())
        }
    }
}
