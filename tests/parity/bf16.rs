//! Models in bf16, trained with master copies in f32.

use candle_core::DType;
use qstar::models::LanguageModel;

use crate::fixture::{Fixture, gap, language_model};
use crate::steps::{TRAINED, apart, steps, train};
use crate::{CAUSAL, PIECES, cached_logits, logits};

fn bf16(name: &str) -> LanguageModel {
    language_model(name).to_dtype(DType::BF16).unwrap()
}

#[test]
fn logits_in_bf16() {
    for name in CAUSAL {
        let (rows, half) = (Fixture::new(name).rows(""), bf16(name).frozen().unwrap());
        let whole = logits(&language_model(name).frozen().unwrap(), &rows);
        let off = gap(&logits(&half, &rows), &whole);
        let largest = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
        let cached: Vec<f64> =
            PIECES.iter().map(|pieces| gap(&cached_logits(&half, &rows, pieces), &logits(&half, &rows))).collect();
        println!("{name}: of logits up to {largest:.1}, bf16 changes {off:.3}; cached differ by {cached:.3?}");
    }
}

#[test]
fn fifty_steps_in_bf16() {
    for name in TRAINED {
        let steps = steps(name);
        let model = bf16(name);
        let course = train(&model, steps.tensor("input_ids"));
        let single = train(&language_model(name), steps.tensor("input_ids"));
        let (off, at) = apart(&course.losses, &single.losses);
        let (norm_off, norm_at) = apart(&course.norms, &single.norms);
        println!(
            "{name}: bf16 from f32: losses {off:.4} (step {at}), norms {norm_off:.4} (step {norm_at}), last {:.4} {:.4}",
            course.losses[49], single.losses[49]
        );
    }
}
