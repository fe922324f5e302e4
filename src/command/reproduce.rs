//! `qstar reproduce`: notebooks, from the first cell to the last.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use qstar::notebook::{self, Project, Reproduction};

#[derive(Args)]
pub struct Reproduce {
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

pub fn reproduce(project: &Project, how: Reproduce) -> Result<()> {
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
