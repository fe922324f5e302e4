//! Learning rates over a training.

use serde::{Deserialize, Serialize};

/// What becomes of the learning rate after its warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    #[default]
    Constant,
    /// It falls to 0 at step `steps`, in a straight line.
    Linear { steps: u64 },
    /// It falls to 0 at step `steps`, along a cosine.
    Cosine { steps: u64 },
}

impl Schedule {
    /// The rate of a step, the first being 0: a linear warm-up to `peak` over `warmup_steps`, times the schedule.
    pub fn rate(self, step: u64, warmup_steps: u64, peak: f64) -> f64 {
        let warm = ((step + 1) as f64 / warmup_steps.max(1) as f64).min(1.0);
        let progress = |steps: u64| (step as f64 / steps.max(1) as f64).min(1.0);
        let left = match self {
            Schedule::Constant => 1.0,
            Schedule::Linear { steps } => 1.0 - progress(steps),
            Schedule::Cosine { steps } => 0.5 * (1.0 + (std::f64::consts::PI * progress(steps)).cos()),
        };
        peak * warm * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let rates = |schedule: Schedule| [0, 1, 5, 10, 12].map(|step| schedule.rate(step, 2, 0.1));
        assert_eq!(rates(Schedule::Constant), [0.05, 0.1, 0.1, 0.1, 0.1]);
        assert_eq!(rates(Schedule::Linear { steps: 10 }), [0.05, 0.1 * 0.9, 0.05, 0.0, 0.0]);
        let cosine = rates(Schedule::Cosine { steps: 10 });
        assert!((cosine[2] - 0.05).abs() < 1e-15 && cosine[3].abs() < 1e-15 && cosine[1] > 0.09);
    }
}
