//! Supervised training on demonstrations: where π_init and the experts come from.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::sequences::numbers;
use super::{AdamW, AdamWConfig, Gradient, Schedule, Sequences};
use crate::method::maximum_likelihood_loss;
use crate::models::{Encoded, LanguageModel};
use crate::progress::Progress;

/// The constants of a supervised training: AdamW with a linear warm-up and a cosine decay to zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervised {
    pub steps: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub warmup_steps: usize,
}

/// Trains `model` on `example(i)` for i in `0 .. steps · batch`: (prompt, response), or the turns of a conversation of which
/// some are trained. Returns the mean loss a trained token, in nats, over the last tenth of the steps.
///
/// # Errors
/// A loss that is not a number, an example without a token to be trained; the step is named.
pub fn train_supervised<E: Into<Encoded>>(
    model: &LanguageModel,
    config: &Supervised,
    label: &str,
    example: impl Fn(u64) -> E,
) -> Result<f64> {
    let mut optimizer = AdamW::new(&model.params, AdamWConfig { weight_decay: 0.01, ..Default::default() })?;
    let schedule = Schedule::Cosine { steps: config.steps as u64 };
    let progress = Progress::new(label, config.steps as u64);
    let (mut last, mut counted) = (0.0, 0);
    for step in 0..config.steps {
        let example = |i| example((step * config.batch + i) as u64).into();
        let examples: Vec<Encoded> = (0..config.batch).map(example).collect();
        let rate = schedule.rate(step as u64, config.warmup_steps as u64, config.learning_rate);
        model.set_dropout_batch(step as u64);
        // Inside the pool, so that its threads are not woken and waited for at every product.
        let loss = rayon::scope(|_| one_step(model, &mut optimizer, &examples, rate))
            .with_context(|| format!("{label}, step {step}"))?;
        if step >= config.steps - config.steps.div_ceil(10) {
            last += loss;
            counted += 1;
        }
        progress.message(format!("loss {loss:.3}"));
        progress.inc(1);
    }
    progress.finish();
    Ok(last / counted.max(1) as f64)
}

/// The mean loss a token before the update.
fn one_step(model: &LanguageModel, optimizer: &mut AdamW, examples: &[Encoded], learning_rate: f64) -> Result<f64> {
    let marked: Vec<_> = examples.iter().map(|example| (&example.tokens[..], &example.trained[..])).collect();
    let sequences = Sequences::marked(&marked)?;
    let log_probs = sequences.log_probs(&model.network, &sequences.hidden(&model.network)?)?;
    // Per token, so that long demonstrations weigh as they would in pretraining.
    let loss = maximum_likelihood_loss(&numbers(&log_probs)?, sequences.token_count() as f64);
    let mut gradient = Gradient::of(&loss.through(&log_probs)?, &model.params)?;
    gradient.clip(1.0)?;
    optimizer.step(&model.params, &gradient, learning_rate)?;
    Ok(loss.value)
}
