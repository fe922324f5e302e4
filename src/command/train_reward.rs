//! `qstar train-reward`: reward models and classifiers from the pairs of HH-RLHF.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use qstar::experiment::hh_rewards::{Family, HeldOutRow, HhRewards, Loss, Start};
use qstar::models::Source;
use qstar::train::BradleyTerry;

#[derive(Args)]
pub struct TrainReward {
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

pub fn train_reward(how: TrainReward) -> Result<()> {
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
