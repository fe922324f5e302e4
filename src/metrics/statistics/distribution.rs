//! Tails of the normal and of Student's distribution, to twelve digits also far out.
//!
//! statrs has them to about ten, and Student's quantile of 100,000 degrees of freedom to five; of it only the quantile of
//! the normal distribution is used, which is good to the last digits.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use statrs::distribution::{ContinuousCDF, Normal};

/// P(Z > z) of a standard normal Z.
pub(super) fn normal_sf(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// P(Z < z).
pub(super) fn normal_cdf(z: f64) -> f64 {
    normal_sf(-z)
}

/// The z with P(Z < z) = p; infinite at p = 0 and 1.
pub(in crate::metrics) fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Student's t with `df` degrees of freedom, a positive number, not necessarily a whole one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Student {
    pub df: f64,
}

impl Student {
    /// P(T > t).
    pub fn sf(self, t: f64) -> f64 {
        let tail = 0.5 * self.beyond(t.abs());
        if t < 0.0 { 1.0 - tail } else { tail }
    }

    /// P(|T| > t) for t from 0.
    pub fn beyond(self, t: f64) -> f64 {
        let (x, y) = self.shares(t);
        beta_share(0.5 * self.df, 0.5, y, x)
    }

    /// The t with P(T > t) = q, for 0 < q < 1.
    pub fn upper(self, q: f64) -> f64 {
        if q > 0.5 {
            return -self.upper(1.0 - q);
        }
        if q == 0.5 {
            return 0.0;
        }
        // The logarithm of the tail is concave in ln t, so that Newton's steps overshoot at most once.
        let mut log_t = (-normal_quantile(q)).ln();
        for _ in 0..100 {
            let t = log_t.exp();
            let (x, y) = self.shares(t);
            let tail = self.sf(t);
            // t times the density is this factor.
            let step = tail * (tail / q).ln() / beta_factor(0.5, 0.5 * self.df, x, y);
            log_t += step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        log_t.exp()
    }

    /// P(T > t) of the noncentral distribution: T = (Z + shift)/√(χ²/df). To about 1e-12, absolutely.
    ///
    /// The integral over ln √(χ²/df) by the trapezoidal rule, which converges exponentially: the integrand is analytic and
    /// falls off fast on both sides.
    pub fn noncentral_sf(self, t: f64, shift: f64) -> f64 {
        let h = (0.33 / (2.0 * self.df).sqrt()).min(0.1 / (1.0 + t.abs()));
        let (mut weights, mut total) = (0.0, 0.0);
        for direction in [1.0, -1.0] {
            // The middle is counted on the right.
            let first = if direction > 0.0 { 0 } else { 1 };
            for k in first.. {
                let s = direction * h * f64::from(k);
                let weight = (self.df * (s - 0.5 * (2.0 * s).exp_m1())).exp();
                weights += weight;
                total += weight * normal_sf(t * s.exp() - shift);
                if weight < 1e-18 {
                    break;
                }
            }
        }
        total / weights
    }

    /// t²/(df + t²) and df/(df + t²), without overflow.
    fn shares(self, t: f64) -> (f64, f64) {
        let r = t / self.df.sqrt();
        if r > 1.0 {
            let square = (1.0 / r).powi(2);
            (1.0 / (1.0 + square), square / (1.0 + square))
        } else {
            (r * r / (1.0 + r * r), 1.0 / (1.0 + r * r))
        }
    }
}

/// J(df) = Γ(df/2)/(√(df/2) Γ((df − 1)/2)): what makes a standardised difference unbiased (Hedges 1981, J. Educ. Stat. 6,
/// 107-128). NaN for one degree of freedom, where nothing does.
pub(super) fn hedges_factor(df: f64) -> f64 {
    if df <= 1.0 {
        return f64::NAN;
    }
    let k = 0.5 * df;
    (-(k - 1.0) * (-0.5 / k).ln_1p() - 0.5 + stirling_rest(k) - stirling_rest(k - 0.5)).exp()
}

/// The regularised incomplete beta function I_x(a, b) with y = 1 − x: the continued fraction of Didonato and Morris 1992
/// (ACM Trans. Math. Softw. 18, 360-373), in which nothing cancels, on the side where it converges fast.
fn beta_share(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if y <= 0.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_share(b, a, y, x);
    }
    let slope = a * y - b * x;
    let below = |n: f64| {
        let first = if n == 0.0 { 0.0 } else { n * (b - n) * x / (a + 2.0 * n - 1.0) };
        n + first + (a + n) * (slope + 1.0 + n * (1.0 + y)) / (a + 2.0 * n + 1.0)
    };
    // Lentz's algorithm.
    const TINY: f64 = 1e-300;
    let guard = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut fraction = guard(below(0.0));
    let (mut c, mut d) = (fraction, 0.0);
    for n in 1..100_000 {
        let n = f64::from(n);
        let share = x / (a + 2.0 * n - 1.0);
        let above = (a + n - 1.0) * (a + b + n - 1.0) * n * (b - n) * share * share;
        d = 1.0 / guard(below(n) + above * d);
        c = guard(below(n) + above / c);
        fraction *= c * d;
        if (c * d - 1.0).abs() <= 1e-16 {
            break;
        }
    }
    beta_factor(a, b, x, y) / fraction
}

/// x^a y^b / B(a, b) with y = 1 − x, around the largest value that it has in x, so that large terms do not cancel.
fn beta_factor(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let sum = a + b;
    // ln(x·sum/a), from its distance to 1 where that is small.
    let log = |share: f64, part: f64, excess: f64| {
        if excess.abs() < 0.5 { excess.ln_1p() } else { (share * sum / part).ln() }
    };
    let away = x * b - y * a;
    let exponent = a * log(x, a, away / a) + b * log(y, b, -away / b);
    let rest = stirling_rest(sum) - stirling_rest(a) - stirling_rest(b);
    (exponent + rest).exp() * (a * b / (2.0 * PI * sum)).sqrt()
}

/// ln Γ(z) less Stirling's (z − 1/2) ln z − z + ln √(2π).
fn stirling_rest(z: f64) -> f64 {
    if z < 16.0 {
        return libm::lgamma(z) - ((z - 0.5) * z.ln() - z + 0.5 * (2.0 * PI).ln());
    }
    let square = 1.0 / (z * z);
    let series = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    series.iter().rev().fold(0.0, |sum, term| sum * square + term) / z
}
