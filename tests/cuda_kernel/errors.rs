//! How far one solution lies from another, field by field, and how far the CUDA kernel's may lie from the CPU's.

use qstar::mixture::{Solution, Status};

/// Below this standard deviation of log p − log t, α itself means little: any α gives nearly the same q.
const MEANT: f64 = 0.1;

type Field = (&'static str, fn(&Solution) -> f64);

/// Logarithms and entropies: errors are relative to the largest of 1, sd(d) and their size.
const LOGARITHMS: [Field; 9] = [
    ("K", |s| s.k),
    ("K'", |s| s.k1),
    ("KL(q|p)", |s| s.kl_p),
    ("KL(q|t)", |s| s.kl_t),
    ("log ESS_p", |s| s.log_ess_p),
    ("log ESS_t", |s| s.log_ess_t),
    ("H(p)", |s| s.entropy_p),
    ("H(t)", |s| s.entropy_t),
    ("H(q)", |s| s.entropy_q),
];

/// Errors by name, the worst so far.
#[derive(Debug, Clone, Default)]
pub struct Errors(pub Vec<(&'static str, f64)>);

impl Errors {
    /// The bounds that the kernel's documentation states, by the names that `of` uses.
    pub fn tolerance(name: &str) -> f64 {
        match name {
            "alpha" => 1e-5,
            "alpha sd(d)" => 2e-6,
            "K / sd(d)" => 2e-6,
            "K''" => 1e-4,
            "status" => 0.0,
            _ => 1e-5,
        }
    }

    /// What `found` misses `right` by.
    pub fn of(found: &Solution, right: &Solution) -> Self {
        let apart = |a: f64, b: f64| if a == b { 0.0 } else { (a - b).abs() };
        let sd = right.k2.sqrt();
        let alpha = apart(found.alpha, right.alpha);
        let small = right.status == Status::Ok && right.kl_p.max(right.kl_t) < 0.1;
        let mut errors = vec![
            ("status", f64::from(u8::from(found.status != right.status))),
            ("alpha", if sd >= MEANT { alpha } else { 0.0 }),
            ("alpha sd(d)", alpha * sd.min(1.0)),
            ("TV(p,t)", apart(found.total_variation, right.total_variation)),
            // Relative to what it is the difference of.
            ("K''", if sd >= MEANT { apart(found.k2, right.k2) / (right.k2 + right.k1 * right.k1) } else { 0.0 }),
            // Small divergences have digits of their own.
            ("K / sd(d)", if small { apart(found.k, right.k) / sd.clamp(1e-8, 1.0) } else { 0.0 }),
        ];
        for (name, of) in LOGARITHMS {
            // K' and both divergences move with α, whose error is counted above.
            let moved = if ["K'", "KL(q|p)", "KL(q|t)"].contains(&name) { alpha * right.k2 } else { 0.0 };
            let error = apart(of(found), of(right)) - moved;
            let error = if error < 0.0 { 0.0 } else { error };
            errors.push((name, error / of(right).abs().max(sd).max(1.0)));
        }
        Self(errors)
    }

    /// Keeps the worse of both, name by name.
    pub fn worst(&mut self, other: Self) {
        for (name, error) in other.0 {
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, worst)) => *worst = if error.is_nan() { error } else { worst.max(error) },
                None => self.0.push((name, error)),
            }
        }
    }

    /// The fields beyond their tolerance.
    pub fn beyond(&self) -> Vec<(&'static str, f64)> {
        self.0.iter().copied().filter(|(name, error)| error.is_nan() || *error > Self::tolerance(name)).collect()
    }
}
