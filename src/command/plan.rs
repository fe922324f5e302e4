//! `qstar plan`: the experiments' runs, one by one or all at once.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use qstar::experiment::{Experiment, Folders, Preset};
use qstar::machine::silence_stdout;
use qstar::ranks::Ranks;

use super::train::preset;

#[derive(Subcommand)]
pub enum PlanCommand {
    /// The experiments, or every run of one of them with its number
    Show {
        #[arg(help = names())]
        experiment: Option<Experiment>,
        #[command(flatten)]
        scale: Scale,
    },
    /// Train what is not done yet
    ///
    /// Several processes may run the same plan on one disk, started by hand, by GNU parallel or as a Slurm array: each run is
    /// done by one of them, and what a dead process has begun is taken over from its checkpoint. Locks are those of the system
    /// (flock): on a network disk, one that honours them.
    ///
    /// Processes that mpirun or srun starts train every run together (build with the feature `mpi`): see environment.md.
    Run {
        #[arg(help = names())]
        experiment: Experiment,
        /// One run alone, by its number in `plan show`; it has all cores
        #[arg(long)]
        id: Option<usize>,
        #[command(flatten)]
        scale: Scale,
    },
    /// How far the runs are: a row for the runs of each method and setting
    Status {
        #[arg(help = names())]
        experiment: Experiment,
        #[command(flatten)]
        scale: Scale,
    },
}

#[derive(Args)]
pub struct Scale {
    /// The scale: a file of data/presets, without its ending
    /// [default: QSTAR_PRESET, else micro]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// The folder of the runs' folders [default: data/runs]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

pub fn plan(command: PlanCommand) -> Result<()> {
    let over = |ranks: &Ranks, experiment: Experiment, scale: Scale| {
        let found = Folders::find()?;
        let folders = Folders { runs: scale.runs.unwrap_or(found.runs), ..found };
        let preset = preset(&folders.data, scale.preset.as_deref())?;
        let on_gpu = ranks.size() > 1 && preset.models.as_ref().is_some_and(|models| models.cuda);
        let preset = Preset { ranks: if on_gpu { ranks.on_gpu()? } else { ranks.clone() }, ..preset };
        experiment.plan(&preset, &folders)
    };
    let of = |experiment: Experiment, scale: Scale| over(&Ranks::alone(), experiment, scale);
    match command {
        PlanCommand::Show { experiment: None, .. } => {
            for experiment in Experiment::ALL {
                println!("{:8} {}", experiment.name(), experiment.question());
            }
            Ok(())
        }
        PlanCommand::Show { experiment: Some(experiment), scale } => {
            println!("{}", of(experiment, scale)?.frame()?);
            Ok(())
        }
        PlanCommand::Run { experiment, id, scale } => {
            let ranks = Ranks::launched()?;
            if ranks.rank() > 0 {
                silence_stdout();
            }
            let trained = over(&ranks, experiment, scale).and_then(|plan| match id {
                Some(id) => plan.train_one(id),
                None => plan.train().map(drop),
            });
            ranks.end(trained)
        }
        PlanCommand::Status { experiment, scale } => {
            println!("{}", of(experiment, scale)?.status()?);
            Ok(())
        }
    }
}

fn names() -> String {
    let names: Vec<&str> = Experiment::ALL.into_iter().map(Experiment::name).collect();
    format!("The experiment: {}", names.join(", "))
}
