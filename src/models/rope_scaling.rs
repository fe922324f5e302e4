//! Rotary frequencies, stretched so that a model reads longer texts than it was trained on.

use super::RopeScaling;
use crate::nn::Rope;

impl RopeScaling {
    /// The frequencies, in radians a position, for the pairs of `dim` values: theta^(−2i / dim), each times its stretch.
    pub fn frequencies(&self, dim: usize, theta: f64) -> Vec<f64> {
        let mut frequencies = Rope::frequencies(dim, theta);
        for frequency in &mut frequencies {
            *frequency *= self.stretch(*frequency);
        }
        frequencies
    }

    /// What a frequency is multiplied by.
    fn stretch(&self, frequency: f64) -> f64 {
        match *self {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => 1.0 / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                // How often the pair turns within the length of pretraining.
                let turns = original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                kept + (1.0 - kept) / factor
            }
        }
    }
}
