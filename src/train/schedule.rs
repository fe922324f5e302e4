//! Learning rates over a training.

/// A linear warm-up to `peak` over `warmup_steps`, times a cosine decay to zero over all steps.
pub(super) fn warm_up_and_cosine(step: usize, steps: usize, warmup_steps: usize, peak: f64) -> f64 {
    let warm = ((step + 1) as f64 / warmup_steps.max(1) as f64).min(1.0);
    let progress = step as f64 / steps as f64;
    peak * warm * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}
