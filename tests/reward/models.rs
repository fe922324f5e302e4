//! Configurations, weights, batches, errors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use qstar::models::{
    BertConfig, Config, DebertaV2Config, DistilBertConfig, Gpt2Config, Head, LanguageModel, PositionTerm, RelativeNorm,
    RewardModel, RobertaConfig, Source, load_reward_model, save_reward_folder,
};
use qstar::nn::{Activation, Params};
use qstar::train::Gradient;

const FIXTURES: [&str; 9] = [
    "gpt2-reward",
    "gpt-neox-reward",
    "llama-reward",
    "bert",
    "roberta",
    "distilbert",
    "deberta-v3",
    "deberta-v2",
    "deberta-plain",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder(name).join("model.safetensors"), &Device::Cpu).unwrap()
}

fn config(name: &str) -> Config {
    Config::read(&folder(name).join("config.json")).unwrap()
}

fn fixture(name: &str) -> RewardModel {
    load_reward_model(&Source::Folder(folder(name)), Head::Stored).unwrap()
}

pub fn distilbert() -> Config {
    Config::DistilBert(DistilBertConfig {
        vocab_size: 16,
        max_position_embeddings: 16,
        dim: 32,
        n_layers: 2,
        n_heads: 4,
        hidden_dim: 64,
        ..Default::default()
    })
}

pub fn bert() -> BertConfig {
    BertConfig {
        vocab_size: 16,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        max_position_embeddings: 16,
        ..Default::default()
    }
}

pub fn roberta() -> Config {
    let BertConfig { vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, .. } = bert();
    Config::Roberta(RobertaConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        max_position_embeddings: 20,
        pad_token_id: 3,
        ..Default::default()
    })
}

pub fn deberta() -> Config {
    Config::DebertaV2(DebertaV2Config {
        vocab_size: 16,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        max_position_embeddings: 16,
        position_biased_input: false,
        position_buckets: 6,
        norm_rel_ebd: RelativeNorm::LayerNorm,
        share_att_key: true,
        pos_att_type: vec![PositionTerm::C2p, PositionTerm::P2c],
        ..Default::default()
    })
}

pub fn gpt2() -> Config {
    Config::Gpt2(Gpt2Config {
        vocab_size: 16,
        n_positions: 16,
        n_embd: 32,
        n_layer: 2,
        n_head: 4,
        ..Default::default()
    })
}

/// Rows of all lengths up to 16, in no order.
fn rows() -> Vec<Vec<u32>> {
    (0..40u32).map(|row| (0..1 + (row * 7) % 16).map(|t| (row * 5 + t * t * 3) % 16).collect()).collect()
}

#[test]
fn both_spellings_of_a_configuration_are_one_and_it_is_written_back() {
    for name in FIXTURES {
        let read = config(name);
        if let Ok(old) = Config::read(&folder(name).join("config.v4.json")) {
            assert_eq!(old, read, "{name}");
        }
        assert_eq!(Config::from_fields(read.to_fields().unwrap()).unwrap(), read, "{name}");
    }
}

/// The published number of roberta-base's parameters, whose pooler is as large as the head's first map.
#[test]
fn roberta_has_its_number_of_parameters() {
    let base = RobertaConfig { max_position_embeddings: 514, type_vocab_size: 1, ..Default::default() };
    let model = RewardModel::new(Config::Roberta(base), 0).unwrap();
    assert_eq!(model.params.count(), 124_645_632 + 768 + 1);
}

/// The published number of distilbert-base-uncased's parameters, and those of the head by hand.
#[test]
fn distilbert_has_its_number_of_parameters() {
    let model = RewardModel::new(Config::DistilBert(DistilBertConfig::default()), 0).unwrap();
    assert_eq!(model.params.count(), 66_362_880 + 768 * 768 + 768 + 768 + 1);
}

#[test]
fn scores_come_in_the_callers_order_and_do_not_depend_on_the_batch() {
    for config in [Config::Bert(bert()), roberta(), distilbert(), deberta(), gpt2()] {
        let name = config.model_type();
        // Fresh heads are nearly flat: larger weights make more of every difference.
        let model = RewardModel::new(config, 3).unwrap();
        for (_, var) in model.params.iter().filter(|(name, _)| !name.contains("orm")) {
            var.set(&(var.as_tensor() * 12.0).unwrap()).unwrap();
        }
        // So many tokens that they do not fit one batch.
        let rows: Vec<Vec<u32>> = std::iter::repeat_n(rows(), 40).flatten().collect();
        let together = model.scores(&rows).unwrap();
        let frozen = model.frozen().unwrap();
        let alone: Vec<f64> = rows[..40]
            .iter()
            .map(|row| f64::from(frozen.scores(&[row]).unwrap().to_vec1::<f32>().unwrap()[0]))
            .collect();
        let spread = alone.iter().map(|score| (score - alone[0]).abs()).fold(0.0, f64::max);
        let off = together.iter().zip(alone.iter().cycle()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: scores spread over {spread:.2}; alone and together they differ by {off:.1e}");
        assert!(spread > 0.1, "{name}: all scores are alike, {spread}");
        assert!(off < 1e-5 * spread.max(1.0), "{name}: alone and together scores differ by {off:e}");
        assert_eq!(model.scores(&[]).unwrap(), Vec::<f64>::new());
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    for config in [Config::Bert(bert()), roberta(), distilbert(), deberta(), gpt2()] {
        let model = RewardModel::new(config, 0).unwrap();
        let told = |rows: &[Vec<u32>]| format!("{:#}", model.scores(rows).unwrap_err());
        let long: Vec<u32> = (0..20).map(|t| t % 16).collect();
        let message = told(&[vec![1], long.clone()]);
        assert!(message.contains("sequence 1: 20 tokens do not fit the model's 16 positions"), "{message}");
        assert!(told(&[vec![1], vec![1, 2], vec![]]).contains("sequence 2: there are no tokens"));
        assert!(told(&[vec![16]]).contains("sequence 0: token 16 is beyond the vocabulary of 16"));
        let short = model.network.keep_end(&long);
        assert_eq!((short.len(), *short.last().unwrap()), (16, long[19]));
        assert_eq!(short[1..], long[5..]);
        // An encoder's head reads the first token.
        let first = if model.config.model_type() == "gpt2" { long[4] } else { long[0] };
        assert_eq!(short[0], first);
        assert_eq!(model.network.keep_end(&long[..16]), long[..16]);
        assert!(model.scores(&[short]).is_ok());
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    for name in FIXTURES {
        let all = tensors(name);
        let build = |tensors: HashMap<String, Tensor>| {
            RewardModel::from_params(config(name), Params::from_tensors(tensors).unwrap()).err()
        };
        for missing in all.keys() {
            let mut tensors = all.clone();
            let tensor = tensors.remove(missing).unwrap();
            let message = format!("{:#}", build(tensors.clone()).unwrap());
            assert!(message.contains(missing), "{name}: {message}");
            tensors.insert(missing.clone(), Tensor::cat(&[&tensor, &tensor], 0).unwrap());
            let message = format!("{:#}", build(tensors).unwrap());
            assert!(message.contains(missing) && message.contains("shape"), "{name}: {message}");
        }
        let mut surplus = all.clone();
        surplus.insert("cls.bias".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        assert!(format!("{:#}", build(surplus).unwrap()).contains("cls.bias"));
        assert!(build(all).is_none());
    }
}

#[test]
fn a_new_head_stands_on_given_layers() {
    let body = |name: &str| -> HashMap<String, Tensor> {
        let heads = ["pre_classifier", "classifier", "pooler", "bert.pooler", "score"];
        let head = |name: &str| heads.iter().any(|head| name.starts_with(head));
        tensors(name).into_iter().filter(|(name, _)| !head(name)).collect()
    };
    for name in FIXTURES {
        let make = |seed| RewardModel::with_new_head(config(name), body(name), seed).unwrap();
        let (a, b, same) = (make(1), make(2), make(1));
        assert_eq!(a.params.digest().unwrap(), same.params.digest().unwrap());
        for ((tensor, x), (_, y)) in a.params.iter().zip(b.params.iter()) {
            let gap = (x.as_tensor() - y.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
            let gap = gap.to_scalar::<f32>().unwrap();
            let drawn = !body(name).contains_key(tensor) && tensor.ends_with("weight");
            assert_eq!(gap > 0.0, drawn, "{name}: {tensor}");
        }
    }
    let language_model = LanguageModel::new(gpt2(), 4).unwrap();
    assert!(RewardModel::on(&language_model, 1).unwrap().params.get("score.weight").is_some());
    assert!(format!("{:#}", LanguageModel::new(distilbert(), 0).err().unwrap()).contains("distilbert is an encoder"));
    assert!(RewardModel::with_new_head(distilbert(), [], 0).is_err());
}

#[test]
fn what_is_saved_is_read_and_may_get_a_new_head() {
    for name in FIXTURES {
        let (model, out) = (fixture(name), tempfile::tempdir().unwrap());
        save_reward_folder(&model, out.path()).unwrap();
        let source = Source::Folder(out.path().to_path_buf());
        let again = load_reward_model(&source, Head::Stored).unwrap();
        assert_eq!(again.config, model.config, "{name}");
        assert_eq!(again.params.digest().unwrap(), model.params.digest().unwrap(), "{name}");
        let fresh = load_reward_model(&source, Head::Fresh(3)).unwrap();
        assert_ne!(fresh.params.digest().unwrap(), model.params.digest().unwrap(), "{name}");
        assert_ne!(fresh.scores(&rows()).unwrap(), model.scores(&rows()).unwrap());
    }
    // Of a language model's file the head over the vocabulary is dropped.
    let on_llama = load_reward_model(&Source::Folder(folder("llama-2")), Head::Fresh(3)).unwrap();
    assert!(on_llama.params.get("lm_head.weight").is_none() && on_llama.scores(&[vec![1, 2]]).is_ok());
    let message = format!("{:#}", load_reward_model(&Source::Folder(folder("llama-2")), Head::Stored).err().unwrap());
    assert!(message.contains("score.weight"), "{message}");
    // Absolute positions that are switched off may lie in the file.
    let out = tempfile::tempdir().unwrap();
    let mut all = tensors("deberta-v3");
    let positions = Tensor::zeros((24, 24), DType::F32, &Device::Cpu).unwrap();
    all.insert("deberta.embeddings.position_embeddings.weight".into(), positions);
    candle_core::safetensors::save(&all, out.path().join("model.safetensors")).unwrap();
    std::fs::copy(folder("deberta-v3").join("config.json"), out.path().join("config.json")).unwrap();
    let model = load_reward_model(&Source::Folder(out.path().to_path_buf()), Head::Stored).unwrap();
    assert_eq!(model.params.digest().unwrap(), fixture("deberta-v3").params.digest().unwrap());
}

/// bf16 holds 8 bits: scores move by some percent, and every variable still has a gradient, in f32.
#[test]
fn bf16_scores_and_gradients() {
    for name in ["bert", "roberta", "distilbert", "deberta-v3", "deberta-v2"] {
        let (model, half) = (fixture(name), fixture(name).to_dtype(DType::BF16).unwrap());
        let rows: Vec<Vec<u32>> = rows().into_iter().take(8).collect();
        let (wide, narrow) = (model.scores(&rows).unwrap(), half.scores(&rows).unwrap());
        let gap = wide.iter().zip(&narrow).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let size = wide.iter().map(|x| x.abs()).fold(0.0, f64::max);
        println!("{name}: in bf16 scores of up to {size:.2} differ by {gap:.3}");
        assert!(gap < 0.1 * size, "{name}: {gap} of {size}");
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let loss = half.network.scores(&rows).unwrap().to_dtype(DType::F32).unwrap().sum_all().unwrap();
        let gradient = Gradient::of(&loss, &half.params).unwrap();
        assert!(gradient.values().iter().all(|value| value.dtype() == DType::F32));
    }
}

/// What a ReLU gives nothing to learn from is not an error.
#[test]
fn relu_and_tanh_are_activations_of_any_layer() {
    let Config::DebertaV2(config) = deberta() else { panic!("a DeBERTa") };
    for activation in [Activation::Relu, Activation::Tanh] {
        let config = DebertaV2Config { hidden_act: activation, pooler_hidden_act: activation, ..config.clone() };
        let model = RewardModel::new(Config::DebertaV2(config), 0).unwrap();
        let loss = model.network.scores(&[&[1, 2, 3], &[4]]).unwrap().sum_all().unwrap();
        Gradient::of(&loss, &model.params).unwrap();
    }
}
