//! `qstar make-policy`: a small policy from scratch.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use qstar::experiment::{Scratch, TEXT_TASKS, text_data};
use qstar::notebook::Project;

use super::train::preset;

#[derive(Args)]
pub struct MakePolicy {
    #[arg(long, default_value = "dialogue", help = format!("The task: {}", TEXT_TASKS.join(", ")))]
    task: String,

    /// The scale, whose section [data] may say where the data are
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

pub fn make_policy(project: &Project, how: MakePolicy) -> Result<()> {
    let preset = preset(&project.root().join("data"), how.preset.as_deref())?;
    let pools = text_data(project.root(), &how.task, &preset.data)?.pools;
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
