//! Fifty steps of AdamW beside PyTorch's, from the same weights, on the same batches.

use candle_core::Tensor;
use qstar::models::LanguageModel;
use qstar::train::{AdamW, AdamWConfig, Gradient};

use crate::fixture::{Fixture, folder, language_model, values};
use crate::loss;

pub const TRAINED: [&str; 2] = ["gpt2", "llama-2"];

/// The loss before each step's update and the norm of its gradient before clipping.
pub struct Course {
    pub losses: Vec<f64>,
    pub norms: Vec<f64>,
}

/// The steps that `models.py` made, on the batches `[steps, B, T]`.
pub fn train(model: &LanguageModel, batches: &Tensor) -> Course {
    let config = AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(&model.params, config).unwrap();
    let mut course = Course { losses: Vec::new(), norms: Vec::new() };
    for rows in batches.to_vec3::<u32>().unwrap() {
        let value = loss(&model.network, &rows);
        let mut gradient = Gradient::of(&value, &model.params).unwrap();
        let norm = gradient.norm().unwrap();
        gradient.clip(1.0).unwrap();
        optimizer.step(&model.params, &gradient, 1e-3).unwrap();
        course.losses.push(f64::from(values(&value)[0]));
        course.norms.push(norm);
    }
    course
}

pub fn steps(name: &'static str) -> Fixture {
    Fixture::read(name, &folder(name).join("steps.safetensors"))
}

/// The largest difference of two curves, and the step.
pub fn apart(a: &[f64], b: &[f64]) -> (f64, usize) {
    assert_eq!(a.len(), b.len());
    let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    gaps.zip(0..).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn fifty_steps_of_adamw() {
    for name in TRAINED {
        let steps = steps(name);
        let course = train(&language_model(name), steps.tensor("input_ids"));
        let theirs = |key: &str| steps.values(key).into_iter().map(f64::from).collect::<Vec<_>>();
        let (losses, norms) = (theirs("losses"), theirs("grad_norms"));
        assert_eq!(losses.len(), 50);
        let ((off, at), (norm_off, norm_at)) = (apart(&course.losses, &losses), apart(&course.norms, &norms));
        println!(
            "{name}: loss {:.3} to {:.3}; losses differ by {off:.1e} (step {at}), norms by {norm_off:.1e} (step {norm_at})",
            losses[0], losses[49]
        );
        assert!(losses[49] < 0.8 * losses[0], "{name}: the fixture learns something");
        assert!(off < 1e-3, "{name}: at step {at} losses differ by {off:e}");
        assert!(norm_off < 1e-3, "{name}: at step {norm_at} gradient norms differ by {norm_off:e}");
    }
}
