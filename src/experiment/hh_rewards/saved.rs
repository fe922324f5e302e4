//! A trained model in the hub's layout, with an account of what it was trained on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{HeldOutRow, HhRewards, Loss, Start, TrainedHhRewards};
use crate::models::{SHARD_BYTES, save_model};

/// The file with the account.
pub const ACCOUNT: &str = "training.json";

impl TrainedHhRewards {
    /// Writes the model with its tokenizer, and `training.json`: what it was trained on and from, how, and its accuracy on
    /// held-out pairs. The one label of a classifier is named after its family, or `chosen`; its logistic function is the
    /// label's probability.
    ///
    /// # Errors
    /// A file that cannot be written; it is named.
    pub fn save(&self, how: &HhRewards, to: &Path) -> Result<()> {
        let origin = match &how.start {
            Start::Base(source) => source.config()?.parent().map(Path::to_path_buf),
            Start::Scratch { .. } => None,
        };
        let tensors = self.model.params.tensors().into_iter().collect();
        save_model(to, &self.model.config, &tensors, origin.as_deref(), SHARD_BYTES)?;
        let path = to.join("tokenizer.json");
        self.vocabulary.tokenizer.save(&path, false).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        name_label(&to.join("config.json"), label(how))?;
        let last = &self.steps[self.steps.len().saturating_sub(20)..];
        let account = json!({
            "data": how.data.to_string(),
            "only": how.only,
            "files": self.split.files,
            "splits": self.split.notes,
            "pairs": {
                "train": self.split.train.len(), "validation": self.split.validation.len(), "test": self.split.test.len(),
                "equal": self.split.equal,
            },
            "start": start(&how.start),
            "model_type": self.model.config.model_type(),
            "weights": self.model.params.count(),
            "loss": how.loss,
            "label": label(how),
            "training": how.training,
            "max_tokens": how.max_tokens.min(self.model.config.max_positions()),
            "shortened_dialogues": {"count": self.shortened.0, "of": self.shortened.1},
            "last_steps_mean_loss": crate::metrics::mean(&last.iter().map(|step| step.loss).collect::<Vec<_>>()),
            "last_steps_mean_accuracy": crate::metrics::mean(&last.iter().map(|step| step.accuracy).collect::<Vec<_>>()),
            "held_out": self.held_out.iter().map(held_out).collect::<Vec<_>>(),
        });
        write_json(&to.join(ACCOUNT), &account)
    }
}

fn label(how: &HhRewards) -> &'static str {
    match how.loss {
        Loss::Pairs => "reward",
        Loss::Responses => how.only.map_or("chosen", super::Family::name),
    }
}

fn start(start: &Start) -> Value {
    match start {
        Start::Base(source) => json!({"base": source.to_string()}),
        Start::Scratch { tokenizer, layers, width } => {
            json!({"scratch": {"tokenizer": tokenizer.to_string(), "layers": layers, "width": width}})
        }
    }
}

fn held_out(row: &HeldOutRow) -> Value {
    json!({
        "split": row.split, "family": row.family, "pairs": row.pairs, "equal": row.equal, "shortened_dialogues": row.shortened,
        "accuracy": row.accuracy, "accuracy_95": [row.accuracy_low, row.accuracy_high], "log_loss": row.log_loss,
        "calibration_error": row.calibration_error, "response_accuracy": row.response_accuracy,
        "response_accuracy_95": [row.response_accuracy_low, row.response_accuracy_high],
        "longer_accuracy": row.longer_accuracy,
    })
}

fn name_label(config: &Path, label: &str) -> Result<()> {
    let text = fs::read_to_string(config).with_context(|| format!("{}: cannot be read", config.display()))?;
    let mut fields: Value = serde_json::from_str(&text).with_context(|| config.display().to_string())?;
    fields["id2label"] = json!({"0": label});
    fields["label2id"] = json!({label: 0});
    write_json(config, &fields)
}

/// Under another name first: a crash leaves the old file or the new one.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    let new = path.with_extension("json.new");
    let written = fs::write(&new, serde_json::to_string_pretty(value)? + "\n").and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("{}: cannot be written", path.display()))
}
