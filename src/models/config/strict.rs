//! Reading `config.json` strictly: a field is honoured, or known to change nothing here, or must have one value.
//! Any other field is an error, since it may change what the model computes.
//!
//! What is honoured is not listed: it is what the configuration's struct serialises.

use anyhow::{Context, Result, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// What is known of one architecture's fields beside those that are honoured.
pub struct Fields {
    /// Fields that change nothing here, whatever their value.
    pub inert: &'static [&'static str],
    pub fixed: &'static [Fixed],
}

/// A field that is not read and must have the value that the model is written for.
pub struct Fixed {
    pub name: &'static str,
    /// The values that are accepted, as JSON.
    pub accepted: &'static [&'static str],
    /// False where transformers takes another value for a field that is absent.
    pub may_be_absent: bool,
}

/// A field that may be absent, because transformers then takes an accepted value.
pub const fn fixed(name: &'static str, accepted: &'static [&'static str]) -> Fixed {
    Fixed { name, accepted, may_be_absent: true }
}

/// Names, versions, token ids, generation settings, what is returned, dropout (qstar trains without), labels (the
/// shape of the head decides): inert in every architecture.
const INERT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// No second half, no heads cut out: in every architecture.
const FIXED: &[Fixed] = &[
    fixed("add_cross_attention", &["false"]),
    fixed("cross_attention_hidden_size", &["null"]),
    fixed("is_decoder", &["false"]),
    fixed("is_encoder_decoder", &["false"]),
    fixed("pruned_heads", &["{}", "null"]),
    fixed("tie_encoder_decoder", &["false"]),
];

/// Reads a configuration from the fields of its file, `model_type` taken out.
///
/// `T` must serialise every field, under the name by which it reads it.
///
/// # Errors
/// A field that is missing, of the wrong type, not known, or fixed to another value: it is named with its value.
pub fn read<T: Serialize + DeserializeOwned>(known: &Fields, mut fields: Map<String, Value>) -> Result<T> {
    for fixed in FIXED.iter().chain(known.fixed) {
        fixed.check(fields.remove(fixed.name).as_ref())?;
    }
    fields.retain(|name, _| !known.is_inert(name));
    let config: T = match serde_json::from_value(Value::Object(fields.clone())) {
        Ok(config) => config,
        Err(error) => return Err(name_the_field::<T>(&fields, error)),
    };
    let honoured = serde_json::to_value(&config)?;
    match fields.iter().find(|(name, _)| honoured.get(name.as_str()).is_none()) {
        None => Ok(config),
        Some((name, value)) => bail!(
            "field {name} with the value {} is not honoured: it is not known whether the model computes something \
             else with it",
            short(value)
        ),
    }
}

impl Fields {
    /// Whether a field changes nothing here, whatever its value.
    pub fn is_inert(&self, name: &str) -> bool {
        INERT.contains(&name) || self.inert.contains(&name)
    }
}

impl Fixed {
    fn check(&self, value: Option<&Value>) -> Result<()> {
        let name = self.name;
        let accepted = self.accepted.join(" or ");
        let Some(value) = value else {
            ensure!(self.may_be_absent, "field {name} is missing; only {accepted} is honoured, and is not its default");
            return Ok(());
        };
        for accepted in self.accepted {
            let accepted: Value = serde_json::from_str(accepted).context("the table of fixed fields")?;
            // 1 and 1.0 are one value.
            if accepted == *value || accepted.is_number() && accepted.as_f64() == value.as_f64() {
                return Ok(());
            }
        }
        bail!("field {name} is {}; only {accepted} is honoured", short(value))
    }
}

/// serde_json names a missing field, but not the field whose value does not fit: it is the one without which the error
/// is another.
fn name_the_field<T: DeserializeOwned>(fields: &Map<String, Value>, error: serde_json::Error) -> anyhow::Error {
    let message = error.to_string();
    for (name, value) in fields {
        let mut others = fields.clone();
        others.remove(name);
        let without = serde_json::from_value::<T>(Value::Object(others));
        if without.err().is_none_or(|other| other.to_string() != message) {
            return anyhow::anyhow!("field {name} is {}: {message}", short(value));
        }
    }
    error.into()
}

/// A value as JSON, cut where it is long.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Config {
        width: usize,
        #[serde(default)]
        eps: f64,
    }

    const RELATIVE: Fixed = Fixed { name: "relative", accepted: &["true", "1"], may_be_absent: false };
    const KNOWN: Fields = Fields { inert: &["colour"], fixed: &[fixed("bias", &["false"]), RELATIVE] };

    fn read(fields: Value) -> Result<Config> {
        let Value::Object(fields) = fields else { panic!("an object") };
        super::read(&KNOWN, fields)
    }

    fn error(fields: Value) -> String {
        format!("{:#}", read(fields).unwrap_err())
    }

    #[test]
    fn honoured_fields_are_read_and_inert_ones_are_not() {
        let config = read(json!({"width": 3, "eps": 0.5, "colour": [1, {}], "top_p": 0.1, "relative": true})).unwrap();
        assert_eq!(config, Config { width: 3, eps: 0.5 });
        assert!(read(json!({"width": 3, "relative": 1.0, "bias": false})).is_ok());
    }

    #[test]
    fn every_other_field_is_named_with_its_value() {
        let message = error(json!({"width": 3, "relative": true, "window": 4096}));
        assert!(message.contains("field window with the value 4096 is not honoured"), "{message}");
        let message = error(json!({"width": 3, "relative": true, "bias": true}));
        assert_eq!(message, "field bias is true; only false is honoured");
        let message = error(json!({"width": 3, "relative": false}));
        assert_eq!(message, "field relative is false; only true or 1 is honoured");
        let message = error(json!({"width": 3}));
        assert!(message.starts_with("field relative is missing"), "{message}");
        let message = error(json!({"width": 3, "relative": true, "is_encoder_decoder": true}));
        assert!(message.starts_with("field is_encoder_decoder is true"), "{message}");
        let long = error(json!({"width": 3, "relative": true, "window": "x".repeat(1000)}));
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn a_missing_field_and_a_wrong_type_are_named() {
        let message = error(json!({"eps": 1.0, "relative": true}));
        assert!(message.contains("missing field `width`"), "{message}");
        let message = error(json!({"width": "3", "eps": 1.0, "relative": true}));
        assert!(message.contains("field width is \"3\": invalid type"), "{message}");
        let message = error(json!({"width": -3, "relative": true}));
        assert!(message.contains("field width is -3"), "{message}");
        let message = error(json!({"width": 3, "eps": [], "relative": true}));
        assert!(message.contains("field eps is []"), "{message}");
    }
}
