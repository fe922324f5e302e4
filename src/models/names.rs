//! What the tensors of a checkpoint are called, and what of them a model takes.
//!
//! The hub's files do not all have the names of transformers' modules: a base model is saved without the prefix that it
//! has under a head, old files hold buffers, and a checkpoint of one head is read for another. One table says it for
//! every architecture. Names are those of `...ForCausalLM` and `...ForSequenceClassification`.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

/// What one architecture's checkpoints hold. Names of the base model are without its prefix.
#[derive(Debug)]
pub struct Architecture {
    pub model_type: &'static str,
    /// The base model's prefix under a head. A checkpoint of the base model alone does not have it.
    prefix: &'static str,
    /// The first parts of the base model's names.
    base: &'static [&'static str],
    /// Tensors of the base model that no model here reads: masks and frequencies that are computed, weights that the
    /// configuration switches off. `*` is any one part of a name.
    unread: &'static [&'static str],
    embedding: &'static str,
    /// The output head of the language model; with a tied one, the embedding is it.
    language_head: Option<&'static str>,
    /// Another name of a tensor, and the one that is used here.
    alias: Option<(&'static str, &'static str)>,
    /// The heads' first parts that a reward model drops.
    other_heads: &'static [&'static str],
    reward_head: &'static [&'static str],
    language_class: &'static str,
    reward_class: &'static str,
}

/// Every architecture whose checkpoints can be read.
pub const ARCHITECTURES: [Architecture; 7] = [
    Architecture {
        model_type: "gpt2",
        prefix: "transformer.",
        base: &["wte", "wpe", "h", "ln_f"],
        unread: &["h.*.attn.bias", "h.*.attn.masked_bias"],
        embedding: "wte.weight",
        language_head: Some("lm_head.weight"),
        alias: None,
        other_heads: &["lm_head", "multiple_choice_head"],
        reward_head: &["score.weight"],
        language_class: "GPT2LMHeadModel",
        reward_class: "GPT2ForSequenceClassification",
    },
    Architecture {
        model_type: "gpt_neox",
        prefix: "gpt_neox.",
        base: &["embed_in", "layers", "final_layer_norm", "rotary_emb"],
        unread: &[
            "layers.*.attention.bias",
            "layers.*.attention.masked_bias",
            "layers.*.attention.rotary_emb.inv_freq",
            "rotary_emb.inv_freq",
        ],
        embedding: "embed_in.weight",
        language_head: Some("embed_out.weight"),
        // The module's name since transformers 5, which still writes `embed_out`.
        alias: Some(("lm_head.weight", "embed_out.weight")),
        other_heads: &["embed_out", "lm_head"],
        reward_head: &["score.weight"],
        language_class: "GPTNeoXForCausalLM",
        reward_class: "GPTNeoXForSequenceClassification",
    },
    Architecture {
        model_type: "llama",
        prefix: "model.",
        base: &["embed_tokens", "layers", "norm", "rotary_emb"],
        unread: &["layers.*.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"],
        embedding: "embed_tokens.weight",
        language_head: Some("lm_head.weight"),
        alias: None,
        other_heads: &["lm_head"],
        reward_head: &["score.weight"],
        language_class: "LlamaForCausalLM",
        reward_class: "LlamaForSequenceClassification",
    },
    Architecture {
        model_type: "bert",
        prefix: "bert.",
        base: &["embeddings", "encoder", "pooler"],
        unread: &["embeddings.position_ids", "embeddings.token_type_ids"],
        embedding: "embeddings.word_embeddings.weight",
        language_head: None,
        alias: None,
        other_heads: &["cls", "qa_outputs"],
        // The pooler belongs to the base model and is the head's first map.
        reward_head: &["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"],
        language_class: "BertForMaskedLM",
        reward_class: "BertForSequenceClassification",
    },
    Architecture {
        model_type: "roberta",
        prefix: "roberta.",
        base: &["embeddings", "encoder", "pooler"],
        // Its head has a map of its own instead of the pooler.
        unread: &["embeddings.position_ids", "embeddings.token_type_ids", "pooler.dense.*"],
        embedding: "embeddings.word_embeddings.weight",
        language_head: None,
        alias: None,
        other_heads: &["lm_head", "qa_outputs"],
        reward_head: &[
            "classifier.dense.weight",
            "classifier.dense.bias",
            "classifier.out_proj.weight",
            "classifier.out_proj.bias",
        ],
        language_class: "RobertaForMaskedLM",
        reward_class: "RobertaForSequenceClassification",
    },
    Architecture {
        model_type: "distilbert",
        prefix: "distilbert.",
        base: &["embeddings", "transformer"],
        unread: &["embeddings.position_ids"],
        embedding: "embeddings.word_embeddings.weight",
        language_head: None,
        alias: None,
        other_heads: &["vocab_transform", "vocab_layer_norm", "vocab_projector"],
        reward_head: &["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"],
        language_class: "DistilBertForMaskedLM",
        reward_class: "DistilBertForSequenceClassification",
    },
    Architecture {
        model_type: "deberta-v2",
        prefix: "deberta.",
        base: &["embeddings", "encoder"],
        unread: &[
            "embeddings.position_ids",
            // What pretraining with shared embeddings added, beside the sum; transformers does not read it either.
            "embeddings.position_embeddings._weight",
            "embeddings.word_embeddings._weight",
        ],
        embedding: "embeddings.word_embeddings.weight",
        language_head: None,
        alias: None,
        other_heads: &["cls", "lm_predictions", "mask_predictions"],
        reward_head: &["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"],
        language_class: "DebertaV2ForMaskedLM",
        reward_class: "DebertaV2ForSequenceClassification",
    },
];

/// What a checkpoint is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Logits of the next token.
    LanguageModel,
    /// The hidden states of an encoder, without a head.
    Encoder,
    /// One score for a sequence, or one for each label.
    RewardModel(Head),
}

/// Where a reward model's head comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The checkpoint holds it.
    Stored,
    /// It is drawn anew, with this seed; one that the checkpoint holds is dropped.
    Fresh(u64),
}

/// What becomes of the tensors of a checkpoint. Every stored name is in exactly one of the first four.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The model's name of a tensor, and the stored one.
    pub kept: BTreeMap<String, String>,
    /// Further copies of the tied embedding, which must equal it.
    pub tied: Vec<String>,
    /// Buffers, and what the configuration switches off.
    pub unread: Vec<String>,
    /// Parts of heads that the model does not have, or has anew.
    pub dropped: Vec<String>,
    /// Tensors of a fresh head, which the caller draws.
    pub fresh: Vec<String>,
}

impl Architecture {
    /// # Errors
    /// A `model_type` that is not in the table.
    pub fn of(model_type: &str) -> Result<&'static Self> {
        match ARCHITECTURES.iter().find(|a| a.model_type == model_type) {
            Some(architecture) => Ok(architecture),
            None => bail!("the names of {model_type}'s tensors are not known"),
        }
    }

    /// The name of the language model's output head, where it has one of its own.
    pub fn language_head(&self) -> Option<&'static str> {
        self.language_head
    }

    /// The model's name of the token embedding.
    pub fn embedding(&self) -> String {
        self.prefix.to_string() + self.embedding
    }

    /// Whether a tensor is part of a reward model's head.
    pub fn is_reward_head(&self, name: &str) -> bool {
        self.reward_head.contains(&name)
    }

    /// The weight `[labels, width]` with which a sequence's head ends.
    pub(super) fn classifier(&self) -> &'static str {
        let weight = |name: &&&str| ["classifier.weight", "classifier.out_proj.weight", "score.weight"].contains(*name);
        self.reward_head.iter().find(weight).copied().unwrap_or("score.weight")
    }

    /// Transformers' class of a model with these tensors: it is known by its head.
    pub fn class<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> &'static str {
        match names.any(|name| self.reward_head.contains(&name)) {
            true => self.reward_class,
            false => self.language_class,
        }
    }

    /// Whether these are the names of a reward model.
    pub fn is_reward_model<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        self.class(names) == self.reward_class
    }
}

/// Says what becomes of the tensors named `stored`. Whether all of the base model is there is for the network to say:
/// it knows the number of layers.
///
/// # Errors
/// A tensor that belongs to no part of the architecture, two tensors of one name, a head that is missing: they are
/// named.
pub fn canonical_names<'a>(
    architecture: &Architecture,
    purpose: Purpose,
    tied: bool,
    stored: impl IntoIterator<Item = &'a str>,
) -> Result<Names> {
    let mut names = Names::default();
    let a = architecture;
    for stored_name in stored {
        let name = a.alias.filter(|(alias, _)| *alias == stored_name).map_or(stored_name, |(_, name)| name);
        let name = &current(name);
        // A name of the base model may begin like the prefix does: `transformer.` is both.
        let base = match name.strip_prefix(a.prefix) {
            Some(base) => Some(base),
            None => a.base.contains(&first(name)).then_some(name.as_str()),
        };
        let stored_name = stored_name.to_string();
        if base.is_some_and(|base| a.unread.iter().any(|pattern| matches(pattern, base))) {
            names.unread.push(stored_name);
            continue;
        }
        let name = base.map_or(name.clone(), |base| format!("{}{base}", a.prefix));
        if base.is_some() && !a.reward_head.contains(&name.as_str()) {
            if let Some(other) = names.kept.insert(name, stored_name.clone()) {
                bail!("tensors {other} and {stored_name} are the same part of the model");
            }
        } else if a.language_head == Some(&name) && purpose == Purpose::LanguageModel {
            if tied {
                names.tied.push(stored_name);
            } else if let Some(other) = names.kept.insert(name, stored_name.clone()) {
                bail!("tensors {other} and {stored_name} are the same part of the model");
            }
        } else if a.reward_head.contains(&name.as_str()) && purpose == Purpose::RewardModel(Head::Stored) {
            names.kept.insert(name, stored_name);
        } else if purpose != Purpose::LanguageModel
            && (a.other_heads.contains(&first(&name)) || a.reward_head.contains(&name.as_str()))
        {
            names.dropped.push(stored_name);
        } else {
            bail!("tensor {stored_name} is no part of a {} {}", a.model_type, purpose.noun());
        }
    }
    a.check_head(purpose, tied, &mut names)?;
    Ok(names)
}

impl Architecture {
    fn check_head(&self, purpose: Purpose, tied: bool, names: &mut Names) -> Result<()> {
        match purpose {
            Purpose::LanguageModel => {
                let Some(head) = self.language_head else {
                    bail!("{} is no causal language model; it can be a reward model", self.model_type)
                };
                ensure!(
                    tied || names.kept.contains_key(head),
                    "tensor {head}, the output head, is missing, and the configuration does not tie it to {}",
                    self.embedding()
                );
            }
            Purpose::Encoder => {}
            Purpose::RewardModel(Head::Fresh(_)) => {
                names.fresh = self.reward_head.iter().map(|name| name.to_string()).collect();
            }
            Purpose::RewardModel(Head::Stored) => {
                let missing: Vec<_> =
                    self.reward_head.iter().copied().filter(|name| !names.kept.contains_key(*name)).collect();
                ensure!(
                    missing.is_empty(),
                    "the reward model's head is missing: {}; ask for a fresh one to train it",
                    missing.join(", ")
                );
            }
        }
        Ok(())
    }
}

impl Purpose {
    fn noun(self) -> &'static str {
        match self {
            Purpose::LanguageModel => "language model",
            Purpose::Encoder => "encoder",
            Purpose::RewardModel(_) => "reward model",
        }
    }
}

/// The present name of a norm's weight and bias: the first files of BERT, which the hub still has, call them gamma and beta.
fn current(name: &str) -> String {
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_string()
}

fn first(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Whether a name fits a pattern, part by part.
fn matches(pattern: &str, name: &str) -> bool {
    pattern.split('.').count() == name.split('.').count()
        && pattern.split('.').zip(name.split('.')).all(|(pattern, part)| pattern == "*" || pattern == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Purpose::{LanguageModel, RewardModel};

    fn names(model_type: &str, purpose: Purpose, tied: bool, stored: &[&str]) -> Result<Names> {
        canonical_names(Architecture::of(model_type)?, purpose, tied, stored.iter().copied())
    }

    fn error(model_type: &str, purpose: Purpose, tied: bool, stored: &[&str]) -> String {
        names(model_type, purpose, tied, stored).unwrap_err().to_string()
    }

    fn kept(names: &Names) -> Vec<(&str, &str)> {
        names.kept.iter().map(|(name, stored)| (name.as_str(), stored.as_str())).collect()
    }

    #[test]
    fn a_base_model_gets_its_prefix_and_loses_its_buffers() {
        let stored = ["wte.weight", "h.0.attn.bias", "h.0.attn.masked_bias", "h.0.attn.c_attn.bias", "ln_f.bias"];
        let gpt2 = names("gpt2", LanguageModel, true, &stored).unwrap();
        assert_eq!(
            kept(&gpt2),
            [
                ("transformer.h.0.attn.c_attn.bias", "h.0.attn.c_attn.bias"),
                ("transformer.ln_f.bias", "ln_f.bias"),
                ("transformer.wte.weight", "wte.weight")
            ]
        );
        assert_eq!(gpt2.unread, ["h.0.attn.bias", "h.0.attn.masked_bias"]);
        let stored = ["transformer.layer.0.ffn.lin1.bias", "embeddings.LayerNorm.bias"];
        let bert = names("distilbert", RewardModel(Head::Fresh(1)), false, &stored).unwrap();
        assert_eq!(bert.kept.keys().next().unwrap(), "distilbert.embeddings.LayerNorm.bias");
        assert_eq!(bert.kept.keys().last().unwrap(), "distilbert.transformer.layer.0.ffn.lin1.bias");
    }

    #[test]
    fn old_buffers_of_pythia_and_llama_are_unread() {
        let stored = [
            "embed_out.weight",
            "gpt_neox.layers.11.attention.bias",
            "gpt_neox.layers.11.attention.masked_bias",
            "gpt_neox.layers.11.attention.rotary_emb.inv_freq",
            "gpt_neox.layers.11.attention.dense.bias",
        ];
        let neox = names("gpt_neox", LanguageModel, false, &stored).unwrap();
        assert_eq!(neox.unread, stored[1..4]);
        assert_eq!(neox.kept.len(), 2);
        let stored = ["lm_head.weight", "model.layers.3.self_attn.rotary_emb.inv_freq", "model.norm.weight"];
        let llama = names("llama", LanguageModel, false, &stored).unwrap();
        assert_eq!(llama.unread, stored[1..2]);
    }

    #[test]
    fn the_output_head_is_stored_or_tied() {
        let head = ["model.norm.weight", "lm_head.weight"];
        let untied = names("llama", LanguageModel, false, &head).unwrap();
        assert_eq!(untied.kept["lm_head.weight"], "lm_head.weight");
        let tied = names("llama", LanguageModel, true, &head).unwrap();
        assert_eq!((tied.tied, tied.kept.len()), (vec!["lm_head.weight".to_string()], 1));
        let message = error("llama", LanguageModel, false, &head[..1]);
        assert!(message.contains("lm_head.weight") && message.contains("missing"), "{message}");
        // Transformers 5 calls GPT-NeoX's head both.
        let neox = names("gpt_neox", LanguageModel, false, &["lm_head.weight"]).unwrap();
        assert_eq!(kept(&neox), [("embed_out.weight", "lm_head.weight")]);
        let message = error("gpt_neox", LanguageModel, false, &["embed_out.weight", "lm_head.weight"]);
        assert!(message.contains("embed_out.weight and lm_head.weight"), "{message}");
    }

    #[test]
    fn a_fresh_head_is_asked_for_and_reported() {
        // What the hub's distilbert-base-uncased and deberta-v3-large hold beside their base.
        let masked = [
            "distilbert.embeddings.word_embeddings.weight",
            "vocab_layer_norm.bias",
            "vocab_projector.bias",
            "vocab_projector.weight",
            "vocab_transform.weight",
        ];
        let message = error("distilbert", RewardModel(Head::Stored), true, &masked);
        for name in ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"] {
            assert!(message.contains(name), "{message}");
        }
        let fresh = names("distilbert", RewardModel(Head::Fresh(7)), true, &masked).unwrap();
        assert_eq!(fresh.dropped, masked[1..]);
        assert_eq!(
            fresh.fresh,
            ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"]
        );
        let masked = [
            "deberta.embeddings.word_embeddings._weight",
            "deberta.encoder.LayerNorm.bias",
            "lm_predictions.lm_head.bias",
            "mask_predictions.classifier.weight",
        ];
        let fresh = names("deberta-v2", RewardModel(Head::Fresh(7)), true, &masked).unwrap();
        assert_eq!(fresh.unread, masked[..1]);
        assert_eq!(fresh.dropped, masked[2..]);
        assert_eq!(fresh.fresh.len(), 4);
    }

    #[test]
    fn a_stored_head_is_kept_or_dropped_for_a_fresh_one() {
        let stored = ["classifier.bias", "classifier.weight", "pooler.dense.bias", "pooler.dense.weight"];
        let reward = names("deberta-v2", RewardModel(Head::Stored), true, &stored).unwrap();
        assert_eq!(reward.kept.len(), 4);
        assert!(reward.fresh.is_empty() && reward.dropped.is_empty());
        let fresh = names("deberta-v2", RewardModel(Head::Fresh(0)), true, &stored).unwrap();
        assert_eq!(fresh.dropped, stored);
        let message = error("deberta-v2", RewardModel(Head::Stored), true, &stored[..3]);
        assert!(message.contains("missing: pooler.dense.weight;"), "{message}");
    }

    #[test]
    fn a_language_model_becomes_a_reward_model_and_not_the_other_way() {
        let stored = ["transformer.wte.weight", "lm_head.weight"];
        let reward = names("gpt2", RewardModel(Head::Fresh(0)), true, &stored).unwrap();
        assert_eq!(
            (reward.dropped.as_slice(), reward.fresh.as_slice()),
            (["lm_head.weight".into()].as_slice(), ["score.weight".into()].as_slice())
        );
        let message = error("gpt2", LanguageModel, true, &["transformer.wte.weight", "score.weight"]);
        assert_eq!(message, "tensor score.weight is no part of a gpt2 language model");
        let message = error("distilbert", LanguageModel, true, &["distilbert.embeddings.LayerNorm.bias"]);
        assert!(message.contains("no causal language model"), "{message}");
    }

    #[test]
    fn the_pooler_is_part_of_berts_head_and_of_nothing_else() {
        // What the hub's bert-base-uncased and roberta-large hold beside their layers, in part.
        let stored = [
            "bert.embeddings.LayerNorm.beta",
            "bert.embeddings.LayerNorm.gamma",
            "bert.pooler.dense.bias",
            "bert.pooler.dense.weight",
            "cls.predictions.transform.LayerNorm.gamma",
            "cls.seq_relationship.weight",
        ];
        let encoder = names("bert", Purpose::Encoder, false, &stored).unwrap();
        let norm = [("bert.embeddings.LayerNorm.bias", stored[0]), ("bert.embeddings.LayerNorm.weight", stored[1])];
        assert_eq!((kept(&encoder), &encoder.dropped[..]), (norm.to_vec(), &stored.map(String::from)[2..]));
        let fresh = names("bert", RewardModel(Head::Fresh(1)), false, &stored).unwrap();
        assert_eq!((kept(&fresh), fresh.dropped.len(), fresh.fresh.len()), (norm.to_vec(), 4, 4));
        let message = error("bert", RewardModel(Head::Stored), false, &stored);
        assert!(message.contains("missing: classifier.weight, classifier.bias;"), "{message}");
        let base = ["embeddings.LayerNorm.bias", "pooler.dense.weight"];
        let plain = names("bert", RewardModel(Head::Fresh(1)), false, &base).unwrap();
        assert_eq!(plain.dropped, base[1..]);
        let stored = ["roberta.encoder.layer.0.output.dense.bias", "roberta.pooler.dense.bias", "lm_head.dense.bias"];
        let encoder = names("roberta", Purpose::Encoder, false, &stored).unwrap();
        assert_eq!(
            (encoder.kept.len(), &encoder.unread[..], &encoder.dropped[..]),
            (1, &[stored[1].into()][..], &[stored[2].into()][..])
        );
    }

    #[test]
    fn surplus_and_double_tensors_are_named() {
        let message = error("gpt2", LanguageModel, true, &["adapter.weight"]);
        assert!(message.contains("adapter.weight"), "{message}");
        let message = error("gpt2", LanguageModel, true, &["transformer.wte.weight", "wte.weight"]);
        assert!(message.contains("transformer.wte.weight and wte.weight"), "{message}");
        let message = Architecture::of("mamba").unwrap_err().to_string();
        assert!(message.contains("mamba"), "{message}");
    }
}
