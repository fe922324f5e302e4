//! Models on a GPU against the same models on the CPU.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use qstar::method::maximum_likelihood_loss;
use qstar::models::{Config, Gpt2Config, GptNeoxConfig, LanguageModel, LlamaConfig, LoraConfig};
use qstar::nn;
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences, numbers};

/// How far a number in f32 may lie off, relative to the largest of its tensor.
const TOLERANCE: f64 = 1e-4;

/// How far a loss may lie off, in nats, over so many steps.
const LOSS_TOLERANCE: f64 = 1e-3;
const STEPS: usize = 50;

fn models() -> Result<Vec<(&'static str, LanguageModel)>> {
    let gpt2 =
        Gpt2Config { vocab_size: 1003, n_positions: 200, n_embd: 96, n_layer: 3, n_head: 4, ..Default::default() };
    let llama = LlamaConfig {
        vocab_size: 1003,
        max_position_embeddings: 200,
        hidden_size: 96,
        intermediate_size: 260,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        ..Default::default()
    };
    // A quarter of each head turns.
    let neox = GptNeoxConfig {
        vocab_size: 1003,
        max_position_embeddings: 200,
        hidden_size: 96,
        intermediate_size: 260,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        ..Default::default()
    };
    let model = |config| LanguageModel::new(config, 3);
    let adapters = LoraConfig { rank: 4, alpha: 8.0, dropout: 0.1, targets: vec!["c_attn".into(), "c_fc".into()] };
    Ok(vec![
        ("GPT-2", model(Config::Gpt2(gpt2.clone()))?),
        ("LLaMA", model(Config::Llama(llama))?),
        ("GPT-NeoX", model(Config::GptNeox(neox))?),
        ("GPT-2 with adapters", model(Config::Gpt2(gpt2))?.with_lora(&adapters, 5)?),
    ])
}

/// Rows of different lengths, in which some tokens come often.
fn sequences(step: usize) -> Result<Sequences> {
    let token = |i: usize| ((i * i + 31 * i + 97 * step) % if i.is_multiple_of(3) { 5 } else { 1003 }) as u32;
    let rows: Vec<Vec<u32>> =
        [150, 3, 77, 40].iter().enumerate().map(|(r, &n)| (0..n).map(|i| token(1 + i + 200 * r)).collect()).collect();
    let pairs: Vec<(&[u32], &[u32])> = rows.iter().map(|row| row.split_at(row.len() / 3)).collect();
    Sequences::new(&pairs)
}

/// Compares; the number of comparisons beyond their tolerance.
pub fn check(device: &Device) -> Result<usize> {
    let mut beyond = 0;
    for (name, on_cpu) in models()? {
        let mut on_gpu = on_cpu.to_device(device)?;
        let right = outcome(&on_cpu)?;
        let mut first: Option<Outcome> = None;
        for recompute in [false, true, false] {
            on_gpu.recompute(recompute);
            let found = outcome(&on_gpu)?;
            let (what, worst) = worst(&found, &right)?;
            println!("{name} in f32, recompute {recompute}: worst {worst:.1e} of the largest ({what})");
            beyond += usize::from(worst.is_nan() || worst > TOLERANCE);
            match &first {
                None => first = Some(found),
                Some(first) => {
                    let same = bits(first)? == bits(&found)?;
                    println!("{name} in f32, again: {} bits", if same { "the same" } else { "OTHER" });
                    beyond += usize::from(!same);
                }
            }
        }
        let rounded = on_cpu.to_dtype(DType::BF16)?.to_device(device)?;
        let (what, off) = worst(&outcome(&rounded)?, &right)?;
        println!("{name} in bf16 against the CPU in f32: worst {off:.1e} of the largest ({what}); no bound");
        on_gpu.recompute(false);
        let gap = cached(&on_gpu)?;
        println!("{name}: read in three parts with a cache against at once: {gap:.1e}");
        beyond += usize::from(gap.is_nan() || gap > TOLERANCE);
        let gap = trained(&on_cpu, &on_gpu)?;
        println!("{name}: losses of {STEPS} AdamW steps against the CPU's: {gap:.1e} nats");
        beyond += usize::from(gap.is_nan() || gap > LOSS_TOLERANCE);
    }
    Ok(beyond)
}

/// What a model makes of the sequences, by name, on the CPU.
type Outcome = Vec<(String, Tensor)>;

fn outcome(model: &LanguageModel) -> Result<Outcome> {
    let sequences = sequences(0)?;
    let hidden = sequences.hidden(&model.network)?;
    let logits = model.network.logits(&hidden.detach())?;
    let log_probs = sequences.log_probs(&model.network, &hidden)?;
    let weights: Vec<f32> = (0..sequences.token_count()).map(|i| (0.3 * i as f32).sin()).collect();
    let loss = (&log_probs * Tensor::new(weights, log_probs.device())?)?.sum_all()?;
    let gradient = Gradient::of(&loss.through(&log_probs)?, &model.params)?;
    let to_cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    let entropies = nn::entropies(&logits)?.into_iter().map(|h| h as f32).collect::<Vec<_>>();
    let mut outcome = vec![
        ("logits".to_string(), to_cpu(&logits)?),
        ("log-probabilities".to_string(), to_cpu(&log_probs)?),
        ("entropies".to_string(), Tensor::new(entropies, &Device::Cpu)?),
    ];
    for ((name, _), value) in model.params.iter().zip(gradient.values()) {
        outcome.push((format!("gradient of {name}"), to_cpu(value)?));
    }
    Ok(outcome)
}

/// The worst error relative to the largest value of its tensor, and whose it is.
fn worst(found: &Outcome, right: &Outcome) -> Result<(String, f64)> {
    let mut worst = (String::new(), 0.0);
    for ((name, found), (_, right)) in found.iter().zip(right) {
        let largest = |x: &Tensor| -> Result<f64> { Ok(f64::from(x.abs()?.max_all()?.to_scalar::<f32>()?)) };
        let error = largest(&(found - right)?)? / largest(right)?.max(1e-6);
        if error.is_nan() || error > worst.1 {
            worst = (name.clone(), error);
        }
    }
    Ok(worst)
}

fn bits(outcome: &Outcome) -> Result<Vec<u32>> {
    let mut bits = Vec::new();
    for (_, tensor) in outcome {
        bits.extend(tensor.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.to_bits()));
    }
    Ok(bits)
}

/// Rows that begin with prompts of different lengths, then go on with one token, then with two.
fn cached(model: &LanguageModel) -> Result<f64> {
    let network = model.frozen()?;
    let (lengths, time) = ([9usize, 4, 6], 9);
    let whole: Vec<Vec<u32>> =
        lengths.iter().map(|n| (0..n + 3).map(|i| ((i * 77 + n * 13) % 1003) as u32).collect()).collect();
    let mut cache = network.cache(3, time + 3);
    let padded: Vec<u32> =
        whole.iter().zip(lengths).flat_map(|(row, n)| (0..time).map(move |t| if t < n { row[t] } else { 0 })).collect();
    network.hidden(&Tensor::from_vec(padded, (3, time), &Device::Cpu)?, Some(&mut cache))?;
    cache.advance(lengths);
    // The rows in another order, one of them twice.
    let rows = [2usize, 0, 1, 0];
    let mut cache = cache.select(&rows);
    let mut parts = Vec::new();
    for (from, n) in [(0, 1), (1, 2)] {
        let next: Vec<u32> = rows.iter().flat_map(|&r| whole[r][lengths[r] + from..][..n].to_vec()).collect();
        parts.push(network.hidden(&Tensor::from_vec(next, (4, n), &Device::Cpu)?, Some(&mut cache))?);
        cache.advance([n; 4]);
    }
    let found = Tensor::cat(&parts, 1)?.to_device(&Device::Cpu)?;
    let mut gap = 0f64;
    for (place, &r) in rows.iter().enumerate() {
        let ids = Tensor::from_slice(&whole[r], (1, whole[r].len()), &Device::Cpu)?;
        let right = network.hidden(&ids, None)?.narrow(1, lengths[r], 3)?.to_device(&Device::Cpu)?;
        let own = found.narrow(0, place, 1)?;
        let error = f64::from((own - &right)?.abs()?.max_all()?.to_scalar::<f32>()?);
        gap = gap.max(error / f64::from(right.abs()?.max_all()?.to_scalar::<f32>()?));
        ensure!(!error.is_nan(), "row {r} is not a number");
    }
    Ok(gap)
}

/// The largest difference of the losses over a training of both.
fn trained(on_cpu: &LanguageModel, on_gpu: &LanguageModel) -> Result<f64> {
    let config = AdamWConfig { weight_decay: 0.01, ..Default::default() };
    let mut models = Vec::new();
    for model in [on_cpu, on_gpu] {
        let model = model.copy()?;
        let optimizer = AdamW::new(&model.params, config)?;
        models.push((model, optimizer));
    }
    let mut gap = 0f64;
    for step in 0..STEPS {
        let sequences = sequences(step)?;
        let mut losses = Vec::new();
        for (model, optimizer) in &mut models {
            let log_probs = sequences.log_probs(&model.network, &sequences.hidden(&model.network)?)?;
            let loss = maximum_likelihood_loss(&numbers(&log_probs)?, sequences.token_count() as f64);
            losses.push(loss.value);
            let mut gradient = Gradient::of(&loss.through(&log_probs)?, &model.params)?;
            gradient.clip(1.0)?;
            optimizer.step(&model.params, &gradient, 1e-3)?;
        }
        ensure!(losses.iter().all(|loss| loss.is_finite()), "step {step}: losses {losses:?}");
        gap = gap.max((losses[0] - losses[1]).abs());
    }
    Ok(gap)
}
