//! A whole PPO update: four passes over eight responses, variable by variable.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use qstar::method::ON_POLICY;
use qstar::models::{LanguageModel, load_folder};
use qstar::tasks::micro::MicroWorld;
use qstar::tasks::{Prompt, Split};
use qstar::train::{Batch, Learned, Sample, StepConfig, Trainer};

use super::{fixture, numbers, rows};

fn model(name: &str) -> LanguageModel {
    load_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn a_whole_ppo_update_equals_trls() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trl_ppo.safetensors");
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let fixture = fixture("trl_ppo.json");
    let task = MicroWorld::new().unwrap();
    let mut compared = 0;
    for update in fixture["updates"].as_array().unwrap() {
        let name = update["name"].as_str().unwrap();
        let (policy, reference) =
            (model(update["policy"].as_str().unwrap()), model(update["reference"].as_str().unwrap()));
        let reference = reference.frozen().unwrap();
        let number = |name: &str| update[name].as_f64().unwrap();
        let prompts: Vec<Vec<u32>> = update["prompts"].as_array().unwrap().iter().map(ids).collect();
        let config = StepConfig {
            prompts: prompts.len() / 2,
            responses: 2,
            microbatches: 1,
            learning_rate: number("learning_rate"),
            warmup_steps: 1,
            kl_coefficient: fixture["constants"]["kl_coefficient"].as_f64().unwrap(),
            max_gradient_norm: number("max_gradient_norm"),
            ..StepConfig::default()
        };
        let mut trainer = Trainer::new(&task, ON_POLICY, config, 0, &policy, &reference, None).unwrap();
        for part in ["weight", "bias"] {
            trainer
                .params()
                .get(&format!("value_head.{part}"))
                .unwrap()
                .set(&tensors[&format!("head.{part}")])
                .unwrap();
        }
        let (log_p, log_init) = (rows(&update["log_probs"]), rows(&update["reference_log_probs"]));
        let (scores, responses) = (numbers(&update["scores"]), update["responses"].as_array().unwrap());
        let sample = |i: usize| Sample {
            reward: scores[i],
            shaped: scores[i],
            log_q: Some(log_p[i].clone()),
            log_p: Some(log_p[i].clone()),
            log_init: log_init[i].clone(),
            ..Sample::new(i / 2, ids(&responses[i]), true)
        };
        let prompt = |tokens: &[u32]| Prompt {
            split: Split::Train,
            index: 0,
            family: "trl",
            text: String::new(),
            tokens: tokens.to_vec(),
        };
        let batch = Batch {
            prompts: prompts.chunks(2).map(|two| prompt(&two[0])).collect(),
            samples: (0..scores.len()).map(sample).collect(),
            learned: (0..scores.len()).map(|sample| Learned { sample, picked: None }).collect(),
            ..Batch::default()
        };
        let row = trainer.update(&batch).unwrap();
        let first = [row.loss.unwrap(), row.gradient_norm.unwrap()];
        let theirs = ["loss", "gradient_norm"].map(|name| numbers(&update[name])[0]);
        assert!(first.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-5), "{name}: {first:?} and {theirs:?}");
        let (mut off, mut moved) = (0f64, 0f64);
        for (variable, var) in trainer.params().iter() {
            let own = variable.strip_prefix("value_").map_or(variable.to_string(), str::to_string);
            let wide = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (ours, theirs) = (wide(var), wide(&tensors[&format!("{name}.after.{own}")]));
            let before = match policy.params.get(variable) {
                Some(var) => wide(var),
                None => wide(&tensors[&own]),
            };
            for ((a, b), c) in ours.iter().zip(&theirs).zip(&before) {
                off = off.max(f64::from((a - b).abs()));
                moved = moved.max(f64::from((a - c).abs()));
            }
        }
        println!("{name}: variables moved by up to {moved:.1e} and differ by up to {off:.1e}");
        assert!(off < 1e-4 && moved > 1e-3, "{name}: {off}, {moved}");
        compared += 1;
    }
    assert_eq!(compared, 2);
}
