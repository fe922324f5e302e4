//! Low-rank adapters: PEFT's numbers, their gradients, merging, saving, what they cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use qstar::models::{LanguageModel, LoraConfig, load_folder};
use qstar::nn::{Dropout, DropoutClock, Linear, Lora, Weight};
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences};

fn fixture(name: &str) -> PathBuf {
    Path::new("tests/fixtures/models").join(name)
}

fn lora(rank: usize, dropout: f64, targets: &[&str]) -> LoraConfig {
    LoraConfig { rank, alpha: 8.0, dropout, targets: targets.iter().map(|t| t.to_string()).collect() }
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The rows of a fixture without their padding.
fn rows(expected: &HashMap<String, Tensor>) -> Vec<Vec<u32>> {
    let ids = expected["input_ids"].to_vec2::<u32>().unwrap();
    let mask = expected["attention_mask"].to_vec2::<u32>().unwrap();
    ids.iter().zip(mask).map(|(ids, mask)| ids[..mask.iter().sum::<u32>() as usize].to_vec()).collect()
}

/// The largest difference of the logits at real tokens.
fn logits_gap(model: &LanguageModel, expected: &HashMap<String, Tensor>, name: &str) -> f64 {
    let network = model.frozen().unwrap();
    let logits = network.logits(&network.hidden(&expected["input_ids"], None).unwrap()).unwrap();
    let lengths: Vec<usize> = rows(expected).iter().map(Vec::len).collect();
    let part = |x: &Tensor, row: usize| x.get(row).unwrap().narrow(0, 0, lengths[row]).unwrap();
    (0..lengths.len()).map(|row| gap(&part(&logits, row), &part(&expected[name], row))).fold(0.0, f64::max)
}

/// The mean cross-entropy of all next tokens.
fn loss(model: &LanguageModel, rows: &[Vec<u32>]) -> Tensor {
    let pairs: Vec<(&[u32], &[u32])> = rows.iter().map(|row| (&row[..1], &row[1..])).collect();
    let sequences = Sequences::new(&pairs).unwrap();
    let hidden = sequences.hidden(&model.network).unwrap();
    let log_probs = sequences.log_probs(&model.network, &hidden).unwrap();
    log_probs.mean_all().unwrap().neg().unwrap()
}

#[test]
fn adapters_of_peft_give_its_numbers() {
    for (base, name) in [("gpt2", "gpt2-lora"), ("llama-2", "llama-2-lora")] {
        let folder = fixture(name);
        let expected = tensors(&folder.join("expected.safetensors"));
        let model = load_folder(&fixture(base)).unwrap().with_saved_adapters(&folder, 0).unwrap();
        let worst = logits_gap(&model, &expected, "logits");
        println!("{name}: logits {worst:.1e}");
        assert!(worst < 1e-4);
        let value = loss(&model, &rows(&expected));
        let wanted = expected["loss"].flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((value.to_scalar::<f32>().unwrap() - wanted).abs() < 1e-5);
        for recompute in [false, true] {
            let mut model = load_folder(&fixture(base)).unwrap().with_saved_adapters(&folder, 0).unwrap();
            model.recompute(recompute);
            loss(&model, &rows(&expected)).backward().unwrap();
            for (tensor, sum) in model.params.gradients() {
                let wanted = &expected[&format!("grad.base_model.model.{tensor}")];
                let scale = wanted.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let error = gap(&sum.take().unwrap(), wanted) / f64::from(scale);
                assert!(error < 1e-4, "{tensor}: {error}");
            }
        }
        // Merged, it is a model like any other, with the weights that PEFT merges.
        let merged = model.merged().unwrap();
        assert!(logits_gap(&merged, &expected, "merged.logits") < 1e-4);
        for (tensor, wanted) in expected.iter().filter_map(|(k, v)| Some((k.strip_prefix("merged.")?, v))) {
            if tensor != "logits" {
                assert!(gap(merged.params.get(tensor).unwrap(), wanted) < 1e-6, "{tensor}");
            }
        }
        // Saved and read again, the same bits.
        let saved = tempfile::tempdir().unwrap();
        model.save_adapters(saved.path(), base).unwrap();
        let again = load_folder(&fixture(base)).unwrap().with_saved_adapters(saved.path(), 0).unwrap();
        assert_eq!(model.digest().unwrap(), again.digest().unwrap());
    }
}

#[test]
fn fresh_adapters_add_nothing_and_leave_the_base_alone() {
    let base = load_folder(&fixture("llama-2")).unwrap();
    let expected = tensors(&fixture("llama-2").join("expected.safetensors"));
    let before = base.digest().unwrap();
    let model = base.with_lora(&lora(2, 0.0, &["q_proj", "mlp.down_proj"]), 7).unwrap();
    assert!(logits_gap(&model, &expected, "logits") < 1e-4);
    let mut optimizer = AdamW::new(&model.params, AdamWConfig::default()).unwrap();
    let rows = rows(&expected);
    let first = loss(&model, &rows).to_scalar::<f32>().unwrap();
    for _ in 0..20 {
        let gradient = Gradient::of(&loss(&model, &rows), &model.params).unwrap();
        optimizer.step(&model.params, &gradient, 1e-2).unwrap();
    }
    assert!(loss(&model, &rows).to_scalar::<f32>().unwrap() < first - 0.1, "adapters learn");
    assert_eq!(base.digest().unwrap(), before);
}

/// Moments take eight bytes a trained number, which is proportional to the rank and independent of the base's size.
/// Moved to another device, adapters and what is below them go together; here to the same one.
#[test]
fn a_moved_model_keeps_its_adapters() {
    let folder = fixture("gpt2-lora");
    let expected = tensors(&folder.join("expected.safetensors"));
    let model = load_folder(&fixture("gpt2")).unwrap().with_saved_adapters(&folder, 0).unwrap();
    let moved = model.to_device(&Device::Cpu).unwrap();
    assert_eq!(moved.digest().unwrap(), model.digest().unwrap());
    let rows = rows(&expected);
    assert_eq!(gap(&loss(&moved, &rows), &loss(&model, &rows)), 0.0);
    // Its variables are its own.
    let (_, var) = moved.params.iter().next().unwrap();
    var.set(&var.zeros_like().unwrap()).unwrap();
    assert_ne!(moved.digest().unwrap(), model.digest().unwrap());
}

#[test]
fn the_optimizer_is_as_large_as_the_adapters() {
    let base = load_folder(&fixture("gpt2")).unwrap();
    let bytes = |rank| {
        let model = base.with_lora(&lora(rank, 0.0, &["c_attn", "c_proj", "c_fc"]), 0).unwrap();
        AdamW::new(&model.params, AdamWConfig::default()).unwrap().bytes()
    };
    let sizes: usize = base
        .network
        .linears()
        .iter()
        .filter(|linear| !linear.name.ends_with("lm_head"))
        .map(|linear| linear.input + linear.output)
        .sum();
    for rank in [1, 2, 3, 8] {
        assert_eq!(bytes(rank), 8 * rank * sizes);
    }
}

#[test]
fn dropout_depends_on_the_batch_and_on_nothing_else() {
    let base = load_folder(&fixture("gpt2")).unwrap();
    let expected = tensors(&fixture("gpt2").join("expected.safetensors"));
    let rows = rows(&expected);
    let saved = fixture("gpt2-lora");
    // PEFT's adapter with another dropout.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(saved.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors")).unwrap();
    let config = std::fs::read_to_string(saved.join("adapter_config.json")).unwrap();
    let config = config.replace("\"lora_dropout\": 0.0", "\"lora_dropout\": 0.5");
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let model = base.with_saved_adapters(folder.path(), 3).unwrap();
    let value = |batch| {
        model.set_dropout_batch(batch);
        loss(&model, &rows).to_scalar::<f32>().unwrap()
    };
    assert_eq!(value(1).to_bits(), value(1).to_bits());
    assert_ne!(value(1).to_bits(), value(2).to_bits());
    // Without gradients nothing is dropped.
    assert!(logits_gap(&model, &tensors(&saved.join("expected.safetensors")), "logits") < 1e-4);
}

/// What an adapter adds is on average what it adds without dropout, to four standard errors of each output.
#[test]
fn dropout_changes_no_mean() {
    let weight = |shape: &[usize], phase: f64| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|i| (phase + 1.3 * i as f64).sin()).collect();
        Weight::frozen(Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let clock = DropoutClock::new(11);
    let map = |probability| {
        let dropout = Dropout { probability, layer: 2, clock: clock.clone() };
        let lora = Lora::new(weight(&[3, 6], 0.1), weight(&[4, 3], 0.7), 1.5, Some(dropout));
        Linear::new(weight(&[4, 6], 0.4), None).with_lora(lora)
    };
    let x = weight(&[1, 6], 0.9).value().clone();
    let apply = |map: &Linear| map.apply(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (plain, dropped) = (apply(&map(0.0)), map(0.3));
    let draws: Vec<Vec<f64>> = (0..4000)
        .map(|batch| {
            clock.set(batch);
            apply(&dropped)
        })
        .collect();
    let n = draws.len() as f64;
    for (i, plain) in plain.iter().enumerate() {
        let mean = draws.iter().map(|y| y[i]).sum::<f64>() / n;
        let variance = draws.iter().map(|y| (y[i] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!(variance > 1e-3, "something is dropped");
        assert!((mean - plain).abs() < 4.0 * (variance / n).sqrt(), "output {i}: {mean} and {plain}");
    }
}

/// The bits of a gradient with dropout are the same when blocks are computed again.
#[test]
fn a_mask_is_drawn_again_when_a_block_is() {
    let base = load_folder(&fixture("llama-2")).unwrap();
    let rows = rows(&tensors(&fixture("llama-2").join("expected.safetensors")));
    let mut model = base.with_lora(&lora(2, 0.3, &["v_proj", "o_proj"]), 5).unwrap();
    for (name, var) in model.params.iter().filter(|(name, _)| name.contains("lora_B")) {
        let values = Tensor::full(0.05f32, var.shape(), &Device::Cpu).unwrap();
        var.set(&values).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let mut gradients = Vec::new();
    for recompute in [false, true] {
        model.recompute(recompute);
        model.set_dropout_batch(9);
        gradients.push(Gradient::of(&loss(&model, &rows), &model.params).unwrap());
    }
    for (a, b) in gradients[0].values().iter().zip(gradients[1].values()) {
        assert_eq!(gap(a, b), 0.0);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let base = load_folder(&fixture("gpt2")).unwrap();
    let error = |lora: &LoraConfig| format!("{:#}", base.with_lora(lora, 0).err().unwrap());
    assert!(error(&lora(2, 0.0, &["q_proj"])).contains("named q_proj; there are c_attn, c_fc, c_proj"));
    assert!(error(&lora(0, 0.0, &["c_attn"])).contains("rank"));
    assert!(error(&lora(2, 1.0, &["c_attn"])).contains("lora_dropout"));
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(fixture("gpt2-lora").join("adapter_config.json")).unwrap();
    let read = |config: &str| {
        std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
        format!("{:#}", base.with_saved_adapters(folder.path(), 0).err().unwrap())
    };
    let dora = read(&config.replace("\"use_dora\": false", "\"use_dora\": true"));
    assert!(dora.contains("adapter_config.json") && dora.contains("use_dora"), "{dora}");
    assert!(read(&config.replace("\"bias\": \"none\"", "\"bias\": \"all\"")).contains("bias"));
    assert!(read(&config).contains("adapter_model.safetensors"));
    let other = load_folder(&fixture("llama-2")).unwrap().with_saved_adapters(&fixture("gpt2-lora"), 0).err().unwrap();
    assert!(format!("{other:#}").contains("c_attn"), "{other:#}");
}
