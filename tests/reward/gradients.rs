//! Every variable of every encoder gets a gradient that agrees with finite differences, in f64.

use candle_core::{DType, Device, Tensor};
use qstar::models::{
    BertConfig, Config, DebertaV2Config, DistilBertConfig, PositionTerm, RelativeNorm, RewardModel, RobertaConfig,
};
use qstar::nn::{Activation, Gelu};

use super::differences::{check_all, check_same, gradients, move_away};

fn distilbert() -> Config {
    Config::DistilBert(DistilBertConfig {
        vocab_size: 13,
        max_position_embeddings: 12,
        dim: 12,
        n_layers: 2,
        n_heads: 3,
        hidden_dim: 20,
        activation: Activation::Gelu(Gelu::Erf),
        initializer_range: 0.3,
    })
}

fn bert() -> BertConfig {
    BertConfig {
        vocab_size: 13,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 12,
        type_vocab_size: 1,
        initializer_range: 0.3,
        ..Default::default()
    }
}

/// Every part that a DeBERTa may have: absolute positions, token types, a convolution, maps of positions of its own.
fn deberta() -> DebertaV2Config {
    DebertaV2Config {
        vocab_size: 13,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 12,
        position_biased_input: true,
        type_vocab_size: 2,
        position_buckets: 4,
        norm_rel_ebd: RelativeNorm::LayerNorm,
        share_att_key: false,
        pos_att_type: vec![PositionTerm::C2p, PositionTerm::P2c],
        conv_kernel_size: 3,
        initializer_range: 0.3,
        ..Default::default()
    }
}

/// In f64, every variable moved away from its special initial value (zero bias, unit norm).
fn model(config: Config) -> RewardModel {
    let model = RewardModel::new(config, 5).unwrap().to_dtype(DType::F64).unwrap();
    move_away(&model.params);
    model
}

/// Four sequences of different lengths. No bias of the head cancels: the weights do not sum to zero.
fn loss(model: &RewardModel) -> Tensor {
    let rows: [&[u32]; 4] = [&[1, 2, 3, 4, 5, 6, 0], &[7, 8, 9], &[10, 11, 12, 1], &[5, 3, 2, 0, 0, 4, 1, 6, 9, 8, 7]];
    let weights = Tensor::new(&[0.5, -1.0, 2.0, 0.7], &Device::Cpu).unwrap();
    (model.network.scores(&rows).unwrap() * weights).unwrap().sum_all().unwrap()
}

/// Every variable, with and without blocks that are computed again on the way back. The gradient of a bias that is named
/// in `vanishing` is zero: it adds the same to all scores of a query.
fn check_model(config: Config, vanishing: &[&str]) {
    let mut model = model(config);
    let grads = gradients(&model.params, &loss(&model));
    check_all(&model.params, &grads, vanishing, &|| loss(&model));
    model.recompute(true);
    check_same(&model.params, &grads, &gradients(&model.params, &loss(&model)));
}

#[test]
fn every_variable_of_distilbert() {
    check_model(distilbert(), &["k_lin.bias"]);
}

#[test]
fn every_variable_of_bert_and_of_roberta() {
    check_model(Config::Bert(bert()), &["key.bias"]);
    // Token 4 is in the sequences: it takes no position.
    let roberta = RobertaConfig {
        vocab_size: 13,
        hidden_size: 12,
        num_hidden_layers: 1,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 16,
        pad_token_id: 4,
        initializer_range: 0.3,
        ..Default::default()
    };
    check_model(Config::Roberta(roberta), &["key.bias"]);
}

#[test]
fn every_variable_of_deberta() {
    use PositionTerm::{C2p, P2c};
    check_model(Config::DebertaV2(deberta()), &["pos_key_proj.bias"]);
    let shared = DebertaV2Config {
        position_biased_input: false,
        type_vocab_size: 0,
        share_att_key: true,
        conv_kernel_size: 0,
        position_buckets: -1,
        max_relative_positions: 3,
        norm_rel_ebd: RelativeNorm::None,
        ..deberta()
    };
    for (terms, vanishing) in [(vec![P2c, C2p], &[][..]), (vec![C2p], &["key_proj.bias"]), (vec![P2c], &[])] {
        check_model(Config::DebertaV2(DebertaV2Config { pos_att_type: terms, ..shared.clone() }), vanishing);
    }
}
