//! Every variable of every model gets a finite, non-zero gradient that agrees with finite differences.
//!
//! In f64: a central difference with step h has an error of order h², far below what is asked.

#[path = "gradients/differences.rs"]
mod differences;

use candle_core::{DType, Device, Tensor, Var};
use differences::{check, check_all, check_same, gradients, move_away};
use qstar::models::{Config, Gpt2Config, GptNeoxConfig, LanguageModel, LlamaConfig, RewardModel, RopeScaling};
use qstar::nn::{
    self, Activation, Conv1d, Embedding, Gelu, GradientSum, Heads, LayerNorm, Linear, Mask, Packing, Part,
    RelativePositions, RmsNorm, Rope, Traced, Weight,
};
use qstar::train::Sequences;

fn gpt2() -> Gpt2Config {
    Gpt2Config { vocab_size: 13, n_positions: 12, n_embd: 12, n_layer: 2, n_head: 3, ..Default::default() }
}

/// Half of each head turns.
fn gpt_neox() -> GptNeoxConfig {
    GptNeoxConfig {
        vocab_size: 13,
        max_position_embeddings: 12,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        rotary_pct: 0.5,
        rotary_emb_base: 100.0,
        ..Default::default()
    }
}

/// Grouped queries: two query heads read one key head.
fn llama() -> LlamaConfig {
    LlamaConfig {
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
        ..Default::default()
    }
}

/// The model in f64, every variable moved away from its special initial value (zero bias, unit norm).
fn model(config: Config) -> LanguageModel {
    let model = LanguageModel::new(config, 5).unwrap().to_dtype(DType::F64).unwrap();
    move_away(&model.params);
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

/// Log-probabilities of a batch's trained tokens, and the gradient of their weighted sum; the weights of the tokens are those
/// of the whole test, from `first` on.
fn weighted(model: &LanguageModel, sequences: &Sequences, first: usize) -> (Vec<f64>, Vec<Tensor>) {
    let log_probs = sequences.log_probs(&model.network, &sequences.hidden(&model.network).unwrap()).unwrap();
    let weights: Vec<f64> = (first..first + sequences.token_count()).map(|i| (0.3 + 1.7 * i as f64).sin()).collect();
    let loss = (&log_probs * Tensor::new(weights, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
    (log_probs.to_vec1().unwrap(), gradients(&model.params, &loss))
}

/// Responses that share a prompt read it once and give the log-probabilities and the gradients that each gives alone; so do
/// the trained turns of a dialogue.
#[test]
fn packed_sequences_are_as_each_alone() {
    let (a, b): (&[u32], &[u32]) = (&[1, 2, 3, 4], &[5]);
    let pairs: [(&[u32], &[u32]); 6] =
        [(a, &[6, 7, 8, 1]), (a, &[9]), (a, &[10, 3, 2, 11, 12]), (b, &[2, 3]), (b, &[4]), (a, &[1, 2])];
    let dialogue: &[u32] = &[1, 2, 3, 4, 6, 7, 5, 8, 9];
    let marks = [false, true, true, false, false, false, true, true, false];
    for config in [Config::Gpt2(gpt2()), Config::GptNeox(gpt_neox()), Config::Llama(llama())] {
        let model = model(config);
        let together = Sequences::new(&pairs).unwrap();
        assert_eq!(together.read_count(), (4 + 3 + 4) + (1 + 1) + 5);
        let marked = Sequences::marked(&[(dialogue, &marks), (a, &[true, false, false, true])]).unwrap();
        assert_eq!((marked.lengths(), marked.read_count()), (&[4, 1][..], 7 + 3));
        let turns: [(&[u32], &[u32]); 3] =
            [(&dialogue[..1], &dialogue[1..3]), (&dialogue[..6], &dialogue[6..8]), (&a[..3], &a[3..])];
        for (together, alone) in [(together, &pairs[..]), (marked, &turns)] {
            let (log_probs, whole) = weighted(&model, &together, 0);
            let (mut one_by_one, mut sums): (Vec<f64>, Vec<Tensor>) = (Vec::new(), Vec::new());
            for &pair in alone {
                let (log_probs, own) = weighted(&model, &Sequences::new(&[pair]).unwrap(), one_by_one.len());
                one_by_one.extend(log_probs);
                sums = match sums.is_empty() {
                    true => own,
                    false => sums.iter().zip(&own).map(|(sum, own)| (sum + own).unwrap()).collect(),
                };
            }
            let close =
                |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close(&log_probs, &one_by_one), "{log_probs:?}\n{one_by_one:?}");
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for ((name, _), (whole, sum)) in model.params.iter().zip(whole.iter().zip(&sums)) {
                assert!(close(&values(whole), &values(sum)), "{name}");
            }
        }
    }
}

/// Every variable of a model, with and without blocks that are computed again on the way back.
fn check_model(config: Config) {
    let mut model = model(config);
    let grads = gradients(&model.params, &loss(&model));
    check_all(&model.params, &grads, &[], &|| loss(&model));
    model.recompute(true);
    check_same(&model.params, &grads, &gradients(&model.params, &loss(&model)));
}

#[test]
fn every_variable_of_gpt2() {
    check_model(Config::Gpt2(gpt2()));
    check_model(Config::Gpt2(Gpt2Config {
        n_inner: Some(20),
        activation_function: Gelu::Erf,
        tie_word_embeddings: false,
        ..gpt2()
    }));
}

#[test]
fn every_variable_of_gpt_neox() {
    check_model(Config::GptNeox(gpt_neox()));
    check_model(Config::GptNeox(GptNeoxConfig {
        use_parallel_residual: false,
        attention_bias: false,
        tie_word_embeddings: true,
        hidden_act: Gelu::Tanh,
        rotary_pct: 1.0,
        rope_scaling: RopeScaling::Linear { factor: 2.0 },
        ..gpt_neox()
    }));
}

#[test]
fn every_variable_of_llama() {
    check_model(Config::Llama(llama()));
    check_model(Config::Llama(LlamaConfig {
        head_dim: Some(6),
        rope_scaling: RopeScaling::Llama3 {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 2.0,
            original_max_position_embeddings: 24,
        },
        attention_bias: true,
        mlp_bias: true,
        tie_word_embeddings: true,
        ..llama()
    }));
}

/// The head `score` on the last token, of rows of different lengths.
#[test]
fn every_variable_of_a_scoring_model() {
    let config = Config::GptNeox(gpt_neox());
    let model = RewardModel::on(&model(config), 9).unwrap();
    let f = || {
        let scores = model.network.scores(&[&[1, 2, 3, 4, 5], &[6, 7], &[8, 9, 10]]).unwrap();
        (scores.tanh().unwrap() * Tensor::new(&[1.0, -0.7, 0.4], &Device::Cpu).unwrap()).unwrap().sum_all().unwrap()
    };
    check_all(&model.params, &gradients(&model.params, &f()), &[], &f);
}

fn var(shape: &[usize], phase: f64) -> Var {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (phase + 0.9 * i as f64).sin() * 1.3).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A block's weights while its gradient is checked: variables whose gradients are summed beside them.
struct Weights(Vec<(Var, GradientSum)>);

impl Weights {
    fn new(vars: &[&Var]) -> Self {
        Self(vars.iter().map(|&var| (var.clone(), GradientSum::default())).collect())
    }

    fn get(&self, i: usize) -> Weight {
        Weight::trained(self.0[i].0.as_detached_tensor(), self.0[i].1.clone())
    }
}

/// Every element of every block's gradient, under a loss that weighs each output differently.
#[test]
fn every_block_against_finite_differences() {
    fn weigh(y: Tensor) -> Tensor {
        let weights: Vec<f64> = (0..y.elem_count()).map(|i| (0.4 + 1.1 * i as f64).cos()).collect();
        (y.flatten_all().unwrap() * Tensor::new(weights, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap()
    }
    /// `f` of an input and of weights.
    fn block(
        name: &str,
        x: &Var,
        weights: &[&Var],
        f: impl Fn(&Traced, &Weights) -> candle_core::Result<Traced> + Send + Sync + Clone + 'static,
    ) {
        let weights = std::sync::Arc::new(Weights::new(weights));
        let run = || {
            let (f, weights) = (f.clone(), weights.clone());
            weigh(nn::block(x, false, move |x| f(x, &weights)).unwrap())
        };
        let grads = run().backward().unwrap();
        check(&format!("{name} input"), x, grads.get(x).unwrap(), usize::MAX, &run);
        for (i, (var, sum)) in weights.0.iter().enumerate() {
            check(&format!("{name} weight {i}"), var, &sum.take().unwrap(), usize::MAX, &run);
        }
    }
    let (x, w, b) = (var(&[2, 3, 8], 0.1), var(&[8], 0.5), var(&[8], 0.7));
    block("layer_norm", &x, &[&w, &b], |x, w| LayerNorm::new(w.get(0), w.get(1), 1e-5).forward(x));
    block("rms_norm", &x, &[&w], |x, w| RmsNorm::new(w.get(0), 1e-5).forward(x));
    block("bias_gelu, tanh", &x, &[&b], |x, w| nn::bias_gelu(x, &w.get(0), Gelu::Tanh));
    block("bias_gelu, erf", &x, &[&b], |x, w| nn::bias_gelu(x, &w.get(0), Gelu::Erf));
    block("add_bias", &x, &[&b], |x, w| nn::add_bias(x, &w.get(0)));
    block("add", &x, &[&b], |x, w| x.add(&nn::add_bias(x, &w.get(0))?));
    let (weight, transposed) = (var(&[5, 8], 0.6), var(&[8, 5], 0.6));
    block("linear", &x, &[&weight], |x, w| Linear::new(w.get(0), None).forward(x));
    block("conv1d", &x, &[&transposed], |x, w| Linear::conv1d(w.get(0), None).forward(x));
    let (gate, up) = (var(&[8, 8], 1.9), var(&[8, 8], 0.4));
    block("swiglu", &x, &[&gate, &up], |x, w| {
        nn::swiglu(&Linear::new(w.get(0), None).forward(x)?, &Linear::new(w.get(1), None).forward(x)?)
    });
    // 67 positions: more than one block of queries. Two query heads read one key head.
    let grouped = Heads { query: 4, kv: 2, dim: 4, interleaved: false };
    let interleaved = Heads { query: 2, kv: 2, dim: 4, interleaved: true };
    let lengths = Mask::Lengths([66, 3].into());
    for (name, heads, mask) in [
        ("grouped causal", grouped, Mask::Causal),
        ("interleaved causal", interleaved, Mask::Causal),
        ("grouped lengths", grouped, lengths),
    ] {
        let packed = var(&[2, 67, heads.packed()], 0.2);
        let mask = mask.clone();
        block(&format!("attention, {name}"), &packed, &[], move |x, _| nn::attention(x, heads, &mask));
        // One pair of four values turns.
        let turned = var(&[2, 3, heads.packed()], 0.2);
        let table = Rope::new(&Rope::frequencies(2, 50.0), 10);
        block(&format!("rope, {name}"), &turned, &[], move |x, _| nn::rope(x, heads, &[0, 3], &table));
    }
    // A sequence of its own, a prompt with three responses (one of them of several blocks), and the shortest sequence.
    let parts =
        [Part::alone(5), Part::alone(9), Part::behind(1, 40), Part::behind(1, 1), Part::behind(1, 7), Part::alone(1)];
    let packing = Packing::new(&parts).unwrap();
    for (name, heads) in [("grouped", grouped), ("interleaved", interleaved)] {
        let mask = Mask::Packed(packing.clone());
        let packed = var(&[63, 1, heads.packed()], 0.2);
        block(&format!("attention, {name} packed"), &packed, &[], move |x, _| nn::attention(x, heads, &mask));
    }
    for (name, activation) in
        [("relu", Activation::Relu), ("tanh", Activation::Tanh), ("gelu", Activation::Gelu(Gelu::Erf))]
    {
        block(name, &x, &[], move |x, _| nn::activate(x, activation));
    }
    let (around, bias) = (var(&[4, 8, 3], 0.6), var(&[4], 0.2));
    block("conv1d over time", &var(&[2, 5, 8], 0.1), &[&around, &bias], |x, w| {
        Conv1d::new(w.get(0), w.get(1))?.forward(x, &[5, 3].into())
    });
    // More than one block of queries; far positions share rows of the table.
    let heads = Heads { query: 2, kv: 2, dim: 4, interleaved: false };
    let positions = RelativePositions::new(Some(6), 40).unwrap();
    let table = var(&[positions.rows(), 8], 0.7);
    for (keys, queries) in [(true, true), (true, false), (false, true)] {
        let packed = var(&[2, 67, heads.packed()], 0.2);
        block(&format!("disentangled attention, {keys} {queries}"), &packed, &[&table], move |x, w| {
            let reach = positions.reach(67);
            let rows = Embedding::new(w.get(0))?.rows(reach.first, reach.count, x)?;
            let (keys, queries) = (keys.then_some(&rows), queries.then_some(&rows));
            nn::disentangled_attention(x, keys, queries, heads, &reach, &[66, 3].into())
        });
    }
    let parts = [var(&[2, 8], 0.3), var(&[4, 8], 0.4), var(&[4, 8], 0.5)];
    block("pack", &x, &[&parts[0], &parts[1], &parts[2]], |x, w| {
        let part = |i| Linear::new(w.get(i), None).forward(x);
        nn::pack(&part(0)?, &part(1)?, &part(2)?)
    });
}

/// Two tables at once, with ids that repeat; and the head, whose entropies have gradients as well.
#[test]
fn embedding_and_head_against_finite_differences() {
    let (table, places) = (var(&[6, 4], 0.8), var(&[3, 4], 0.3));
    let weights = Weights::new(&[&table, &places]);
    for recompute in [false, true] {
        let run = || {
            let (tokens, positions) =
                (Embedding::new(weights.get(0)).unwrap(), Embedding::new(weights.get(1)).unwrap());
            let ids = Tensor::new(&[[0u32, 5, 5], [2, 1, 0]], &Device::Cpu).unwrap();
            let at = Tensor::new(&[[0u32, 1, 2], [0, 1, 2]], &Device::Cpu).unwrap();
            let hidden = nn::embed(&[(&tokens, &ids), (&positions, &at)], true).unwrap().flatten_to(1).unwrap();
            // More rows than are computed at once.
            let hidden = Tensor::cat(&vec![hidden; 90], 0).unwrap();
            let ids: Vec<u32> = (0..540).map(|i| i * i % 6).collect();
            let said = nn::token_log_probs(&hidden, &tokens.head(), &ids, recompute).unwrap();
            let weigh: Vec<f64> = (0..540).map(|i| (0.3 * i as f64).sin()).collect();
            let weigh = Tensor::new(weigh, &Device::Cpu).unwrap();
            let log_probs = (said.log_probs * &weigh).unwrap().sum_all().unwrap();
            (log_probs + (said.entropies * weigh.sqr().unwrap()).unwrap().sum_all().unwrap()).unwrap()
        };
        run().backward().unwrap();
        for (i, (var, sum)) in weights.0.iter().enumerate() {
            check(&format!("weight {i}"), var, &sum.take().unwrap(), usize::MAX, &run);
        }
    }
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
    let fixed = |tensor: &Tensor| Weight::frozen(tensor.clone());
    let traced = Traced::constant(x.clone());
    let fused = LayerNorm::new(fixed(&w), fixed(&b), 1e-5).forward(&traced).unwrap();
    assert!(gap(fused.tensor(), &naive) < 2e-6);
    let sum = x.broadcast_add(&b).unwrap();
    for (form, naive) in [(Gelu::Tanh, sum.gelu().unwrap()), (Gelu::Erf, sum.gelu_erf().unwrap())] {
        assert!(gap(nn::bias_gelu(&traced, &fixed(&b), form).unwrap().tensor(), &naive) < 2e-6);
    }
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
    let heads = Heads { query: 1, kv: 1, dim: d, interleaved: false };
    let fused = nn::attention(&Traced::constant(packed), heads, &Mask::Causal).unwrap();
    assert!(gap(&fused.tensor().squeeze(0).unwrap(), &naive) < 2e-6);
}
