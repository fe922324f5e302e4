//! The polynomial of degree five that has K, K' and K'' of two points.

use super::Moments;

/// K between (and, less reliably, beyond) two points of α.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quintic {
    from: f64,
    width: f64,
    /// Coefficients of u = (α − from) / width, constant first.
    c: [f64; 6],
}

impl Quintic {
    /// Through the moments `a` at α = `from` and `b` at α = `to`.
    pub fn through(from: f64, a: Moments, to: f64, b: Moments) -> Self {
        let h = to - from;
        let [k0, s0, v0] = [a.k, a.k1 * h, 0.5 * a.k2 * h * h];
        let value = b.k - k0 - s0 - v0;
        let slope = b.k1 * h - s0 - 2.0 * v0;
        let curvature = b.k2 * h * h - 2.0 * v0;
        let c3 = 10.0 * value - 4.0 * slope + 0.5 * curvature;
        let c4 = -15.0 * value + 7.0 * slope - curvature;
        let c5 = 6.0 * value - 3.0 * slope + 0.5 * curvature;
        Self { from, width: h, c: [k0, s0, v0, c3, c4, c5] }
    }

    pub fn value(&self, alpha: f64) -> f64 {
        let u = (alpha - self.from) / self.width;
        self.c.iter().rev().fold(0.0, |sum, c| sum * u + c)
    }

    fn slope(&self, u: f64) -> f64 {
        let [_, c1, c2, c3, c4, c5] = self.c;
        (((5.0 * c5 * u + 4.0 * c4) * u + 3.0 * c3) * u + 2.0 * c2) * u + c1
    }

    /// The root of the slope between the two points; the slope must rise from below zero to above.
    pub fn minimum(&self) -> f64 {
        self.from + self.width * rising_root(|u| self.slope(u))
    }
}

/// A root in (0, 1) of a function that is negative at 0 and positive at 1, by halving.
pub(super) fn rising_root(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..54 {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 { high = middle } else { low = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quintic_is_found_again() {
        let k = |a: f64| 0.3 - a + 0.7 * a.powi(2) + 0.2 * a.powi(3) - 0.1 * a.powi(4) + 0.05 * a.powi(5);
        let k1 = |a: f64| -1.0 + 1.4 * a + 0.6 * a.powi(2) - 0.4 * a.powi(3) + 0.25 * a.powi(4);
        let k2 = |a: f64| 1.4 + 1.2 * a - 1.2 * a.powi(2) + a.powi(3);
        let at = |a: f64| Moments { k: k(a), k1: k1(a), k2: k2(a) };
        let quintic = Quintic::through(0.2, at(0.2), 0.9, at(0.9));
        for a in [0.0, 0.3, 0.5, 0.77, 1.5] {
            assert!((quintic.value(a) - k(a)).abs() < 1e-13);
        }
        assert!(k1(quintic.minimum()).abs() < 1e-13);
    }
}
