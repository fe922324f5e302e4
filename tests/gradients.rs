//! Every variable of every model gets a finite, non-zero gradient that agrees with finite differences.
//!
//! In f64: a central difference with step h has an error of order h², far below what is asked.

use candle_core::{DType, Device, Tensor, Var};
use qstar::models::{Config, Gpt2Config, LanguageModel, LlamaConfig};
use qstar::nn::{self, Heads, Linear, Rope};
use qstar::train::Sequences;

fn gpt2() -> Config {
    Config::Gpt2(Gpt2Config {
        vocab_size: 13,
        n_positions: 12,
        n_embd: 12,
        n_layer: 2,
        n_head: 3,
        ..Default::default()
    })
}

/// Grouped queries: two query heads read one key head.
fn llama() -> Config {
    Config::Llama(LlamaConfig {
        vocab_size: 13,
        max_position_embeddings: 12,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings: false,
    })
}

/// The model in f64, every variable moved away from its special initial value (zero bias, unit norm).
fn model(config: Config) -> LanguageModel {
    let model = LanguageModel::new(config, 5).unwrap().to_dtype(DType::F64).unwrap();
    for (i, (_, var)) in model.params.iter().enumerate() {
        let noise: Vec<f64> =
            (0..var.elem_count()).map(|j| (0.3 * (1 + i) as f64 + 1.7 * j as f64).sin() * 0.2).collect();
        let noise = Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap();
        var.set(&(var.as_tensor() + noise).unwrap()).unwrap();
    }
    model
}

/// Two sequences of different lengths, their response tokens weighted unequally.
fn loss(model: &LanguageModel) -> Tensor {
    let sequences = Sequences::new(&[(&[1, 2, 3, 4, 5], &[6, 7, 8, 1]), (&[9, 10], &[11, 12, 0])]).unwrap();
    let hidden = sequences.hidden(&model.network).unwrap();
    let log_probs = sequences.log_probs(&model.network, &hidden).unwrap();
    let weights = Tensor::new(&[0.5, -1.0, 2.0, 0.3, 1.0, -0.7, 0.9], &Device::Cpu).unwrap();
    (log_probs * weights).unwrap().sum_all().unwrap()
}

/// Moves one element of a variable and returns f there.
fn at(var: &Var, index: usize, by: f64, f: &dyn Fn() -> Tensor) -> f64 {
    let original = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut moved = original.clone();
    moved[index] += by;
    let set = |values: Vec<f64>| var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
    set(moved);
    let value = f().to_scalar::<f64>().unwrap();
    set(original);
    value
}

/// Compares up to `most` elements of each variable's gradient with central differences.
fn check<'a>(vars: impl Iterator<Item = (String, &'a Var)>, most: usize, f: &dyn Fn() -> Tensor) {
    let grads = f().backward().unwrap();
    for (name, var) in vars {
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{name} has a gradient that is not finite");
        assert!(grad.iter().any(|g| *g != 0.0), "{name} has a zero gradient");
        let scale = grad.iter().fold(0f64, |m, g| m.max(g.abs()));
        let h = 1e-5;
        for index in (0..grad.len()).step_by(grad.len().div_ceil(most)) {
            let difference = (at(var, index, h, f) - at(var, index, -h, f)) / (2.0 * h);
            let error = (difference - grad[index]).abs() / scale;
            assert!(error < 1e-6, "{name}[{index}]: backward {}, finite difference {difference}", grad[index]);
        }
    }
}

#[test]
fn every_variable_of_gpt2() {
    let model = model(gpt2());
    check(model.params.iter().map(|(n, v)| (n.to_string(), v)), 12, &|| loss(&model));
}

#[test]
fn every_variable_of_llama() {
    let model = model(llama());
    check(model.params.iter().map(|(n, v)| (n.to_string(), v)), 12, &|| loss(&model));
}

fn var(shape: &[usize], phase: f64) -> Var {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (phase + 0.9 * i as f64).sin() * 1.3).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Every element of every block's gradient, under a loss that weighs each output differently.
#[test]
fn every_block_against_finite_differences() {
    fn weigh(y: Tensor) -> Tensor {
        let weights: Vec<f64> = (0..y.elem_count()).map(|i| (0.4 + 1.1 * i as f64).cos()).collect();
        (y.flatten_all().unwrap() * Tensor::new(weights, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap()
    }
    fn block(name: &str, vars: &[&Var], f: &dyn Fn() -> Tensor) {
        check(vars.iter().enumerate().map(|(i, v)| (format!("{name} input {i}"), *v)), usize::MAX, &|| weigh(f()));
    }
    let (x, w, b) = (var(&[2, 3, 8], 0.1), var(&[8], 0.5), var(&[8], 0.7));
    block("layer_norm", &[&x, &w, &b], &|| nn::layer_norm(&x, &w, &b, 1e-5).unwrap());
    block("rms_norm", &[&x, &w], &|| nn::rms_norm(&x, &w, 1e-5).unwrap());
    block("bias_gelu", &[&x, &b], &|| nn::bias_gelu(&x, &b).unwrap());
    block("add_bias", &[&x, &b], &|| nn::add_bias(&x, &b).unwrap());
    let up = var(&[2, 3, 8], 1.9);
    block("swiglu", &[&x, &up], &|| nn::swiglu(&x, &up).unwrap());
    let rope = Rope::new(4, 10, 50.0);
    block("rope", &[&x], &|| nn::rope(&x, &[0, 3], &rope).unwrap());
    // 19 positions: more than one block of 16.
    let packed = var(&[2, 19, (4 + 2 * 2) * 3], 0.2);
    block("causal_attention", &[&packed], &|| {
        nn::causal_attention(&packed, Heads { query: 4, kv: 2, dim: 3 }).unwrap()
    });
    let logits = var(&[5, 7], 0.3);
    block("token_log_probs", &[&logits], &|| nn::token_log_probs(&logits, &[0, 6, 3, 3, 1]).unwrap());
    let (weight, table) = (var(&[5, 8], 0.6), var(&[6, 8], 0.8));
    block("linear", &[&x, &weight], &|| Linear::new(&weight, None).unwrap().forward(&x).unwrap());
    let ids = Tensor::new(&[[0u32, 5, 5], [2, 1, 0]], &Device::Cpu).unwrap();
    block("embedding", &[&table], &|| nn::embedding(&table, &ids).unwrap().narrow(1, 0, 3).unwrap());
}

/// The fused blocks in f32 against candle's differentiable naive forms.
#[test]
fn fused_blocks_agree_with_naive_ones_in_f32() {
    let dev = &Device::Cpu;
    let f32_of = |v: &Var| v.to_dtype(DType::F32).unwrap();
    let (x, w, b) = (f32_of(&var(&[4, 33], 0.1)), f32_of(&var(&[33], 0.5)), f32_of(&var(&[33], 0.7)));
    let gap =
        |a: &Tensor, b: &Tensor| -> f32 { (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap() };
    let mean = x.mean_keepdim(1).unwrap();
    let centred = x.broadcast_sub(&mean).unwrap();
    let variance = centred.sqr().unwrap().mean_keepdim(1).unwrap();
    let naive = centred.broadcast_div(&(variance + 1e-5).unwrap().sqrt().unwrap()).unwrap();
    let naive = naive.broadcast_mul(&w).unwrap().broadcast_add(&b).unwrap();
    assert!(gap(&nn::layer_norm(&x, &w, &b, 1e-5).unwrap(), &naive) < 2e-6);
    let naive = x.broadcast_add(&b).unwrap().gelu().unwrap();
    assert!(gap(&nn::bias_gelu(&x, &b).unwrap(), &naive) < 2e-6);
    // Attention, one head: softmax of masked scores.
    let (t, d) = (21, 5);
    let packed = f32_of(&var(&[1, t, 3 * d], 0.2));
    let part = |i: usize| packed.narrow(2, i * d, d).unwrap().squeeze(0).unwrap().contiguous().unwrap();
    let scores = (part(0).matmul(&part(1).t().unwrap()).unwrap() / (d as f64).sqrt()).unwrap();
    let mask: Vec<f32> = (0..t * t).map(|i| if i % t <= i / t { 0.0 } else { f32::NEG_INFINITY }).collect();
    let scores = (scores + Tensor::from_vec(mask, (t, t), dev).unwrap()).unwrap();
    let max = scores.max_keepdim(1).unwrap();
    let e = scores.broadcast_sub(&max).unwrap().exp().unwrap();
    let naive = e.broadcast_div(&e.sum_keepdim(1).unwrap()).unwrap().matmul(&part(2)).unwrap();
    let fused = nn::causal_attention(&packed, Heads { query: 1, kv: 1, dim: d }).unwrap().squeeze(0).unwrap();
    assert!(gap(&fused, &naive) < 2e-6);
}
