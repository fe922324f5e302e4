//! Estimators of ∇J: their mean and their variance, summed over all that can be drawn.

use anyhow::{Result, ensure};

use super::setting::Setting;
use super::tabular::Tabular;
use crate::method::{Treatment, Weight, leave_one_out};

/// More batches than this are no longer summed in a moment.
const MOST_BATCHES: f64 = 2e6;

/// What is taken off the return of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    None,
    /// E_p\[R\], which no run knows: the best that a constant critic could learn.
    Mean,
    /// The mean return of the other responses.
    LeaveOneOut,
}

impl Baseline {
    /// Its name in frames.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::None => "none",
            Baseline::Mean => "mean",
            Baseline::LeaveOneOut => "leave_one_out",
        }
    }
}

/// REINFORCE with k responses to one prompt, drawn independently from q:
///
/// ```text
/// g = 1/k Σ_i Σ_t w_it (R_i − b_i) ∇log π_θ(y_it)        R = r − β log(π_θ/π_init)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimator {
    pub weight: Weight,
    pub baseline: Baseline,
    pub k: usize,
}

/// The first two moments of an estimator.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// E_q\[g\], `[prefixes × V]`.
    pub mean: Vec<f64>,
    /// tr Cov_q\[g\], the sum of the variances of all entries.
    pub variance: f64,
}

impl Estimator {
    /// Mean and variance, exact. Where every response is weighed by itself they follow from sums over single
    /// responses, for any k; weights normalised over the batch take [`Estimator::over_batches`].
    ///
    /// # Errors
    /// No responses; a leave-one-out baseline for a single one; as [`Estimator::over_batches`].
    pub fn estimate(&self, setting: &Setting, q: &Tabular) -> Result<Estimate> {
        self.check()?;
        if let Treatment::Normalized { .. } = self.weight.treatment {
            return self.over_batches(setting, q);
        }
        let draws = Draws::new(setting, q);
        let sums = Sums::new(&draws, self.weight, self.constant(&draws));
        Ok(if self.baseline == Baseline::LeaveOneOut { sums.leave_one_out(self.k) } else { sums.constant(self.k) })
    }

    /// Mean and variance, as sums over all batches of k responses, with the weights and the baseline that a step of
    /// training computes for a batch. A batch stands for all its orders.
    ///
    /// # Errors
    /// As [`Estimator::estimate`]; more than two million batches.
    pub fn over_batches(&self, setting: &Setting, q: &Tabular) -> Result<Estimate> {
        self.check()?;
        let draws = Draws::new(setting, q);
        let n = draws.returns.len();
        let batches: f64 = (0..self.k).map(|i| (n + i) as f64 / (i + 1) as f64).product();
        ensure!(
            batches <= MOST_BATCHES,
            "{} of {n} sequences make {batches:.0} batches, more than {MOST_BATCHES:.0}: take fewer responses or a smaller world",
            self.k
        );
        let constant = self.constant(&draws);
        let mut mean = vec![0.0; draws.size()];
        let (mut square, mut g) = (0.0, vec![0.0; draws.size()]);
        // Sequences in ascending order, one batch after the other.
        let mut batch = vec![0; self.k];
        loop {
            let of = |rows: &[Vec<f64>]| batch.iter().map(|y| rows[*y].clone()).collect::<Vec<_>>();
            let returns: Vec<f64> = batch.iter().map(|y| draws.returns[*y] - constant).collect();
            let advantages = match self.baseline {
                Baseline::LeaveOneOut => leave_one_out(&returns, self.k),
                Baseline::None | Baseline::Mean => returns,
            };
            let weights = weigh(self.weight, &of(&draws.log_p), &of(&draws.log_q));
            for ((y, weights), advantage) in batch.iter().zip(&weights).zip(&advantages) {
                let factor = advantage / self.k as f64;
                draws.add_scores(&mut g, *y, |t| factor * weights[t]);
            }
            let probability = orders(&batch) * batch.iter().map(|y| draws.probability[*y]).product::<f64>();
            // Rows that a batch has twice are empty the second time.
            for entry in batch.iter().flat_map(|y| draws.entries(*y)) {
                let x = std::mem::take(&mut g[entry]);
                mean[entry] += probability * x;
                square += probability * x * x;
            }
            let Some(last) = batch.iter().rposition(|y| y + 1 < n) else { break };
            let next = batch[last] + 1;
            batch[last..].fill(next);
        }
        let variance = (square - dot(&mean, &mean)).max(0.0);
        Ok(Estimate { mean, variance })
    }

    fn check(&self) -> Result<()> {
        ensure!(self.k >= 1, "an estimate needs a response");
        ensure!(
            self.k >= 2 || self.baseline != Baseline::LeaveOneOut,
            "a single response leaves no others for its baseline: take k of 2 or more, or another baseline"
        );
        Ok(())
    }

    fn constant(&self, draws: &Draws) -> f64 {
        match self.baseline {
            Baseline::Mean => draws.policy_mean,
            Baseline::None | Baseline::LeaveOneOut => 0.0,
        }
    }
}

/// The library's weights of a batch, one a token.
fn weigh(weight: Weight, log_p: &[Vec<f64>], log_q: &[Vec<f64>]) -> Vec<Vec<f64>> {
    weight.weights(log_p, log_q, log_p.len())
}

/// In how many orders a batch in ascending order can be drawn: k! over the factorials of how often each is there.
fn orders(batch: &[usize]) -> f64 {
    let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
    batch.chunk_by(|a, b| a == b).fold(factorial(batch.len()), |orders, same| orders / factorial(same.len()))
}

/// All that can be drawn from q.
struct Draws<'s> {
    setting: &'s Setting,
    log_p: Vec<Vec<f64>>,
    log_q: Vec<Vec<f64>>,
    probability: Vec<f64>,
    returns: Vec<f64>,
    policy_mean: f64,
}

impl<'s> Draws<'s> {
    fn new(setting: &'s Setting, q: &Tabular) -> Self {
        let log_q = q.along(&setting.tree);
        Self {
            setting,
            log_p: setting.policy.along(&setting.tree),
            probability: log_q.iter().map(|row| row.iter().sum::<f64>().exp()).collect(),
            log_q,
            returns: setting.returns(),
            policy_mean: setting.objective(),
        }
    }

    /// The number of parameters.
    fn size(&self) -> usize {
        self.setting.tree.prefixes() * self.setting.tree.vocabulary()
    }

    /// Adds `factor(t)` times ∇log π(y_t) for every token of a sequence: in the row of its prefix, 1 for the token less
    /// the probabilities.
    fn add_scores(&self, into: &mut [f64], sequence: usize, factor: impl Fn(usize) -> f64) {
        let v = self.setting.tree.vocabulary();
        for (t, step) in self.setting.tree.paths()[sequence].iter().enumerate() {
            let factor = factor(t);
            let row = &mut into[step.prefix * v..][..v];
            for (entry, log_p) in row.iter_mut().zip(self.setting.policy.row(step.prefix)) {
                *entry -= factor * log_p.exp();
            }
            row[step.token] += factor;
        }
    }

    /// The parameters that a sequence's scores touch.
    fn entries(&self, sequence: usize) -> impl Iterator<Item = usize> + '_ {
        let v = self.setting.tree.vocabulary();
        self.setting.tree.paths()[sequence].iter().flat_map(move |step| step.prefix * v..(step.prefix + 1) * v)
    }
}

/// Means over single responses of s = Σ_t w_t ∇log π(y_t) and of x = R less a constant.
struct Sums {
    s: Vec<f64>,
    sx: Vec<f64>,
    sxx: Vec<f64>,
    ss: f64,
    ssx: f64,
    ssxx: f64,
    x: f64,
    xx: f64,
}

impl Sums {
    fn new(draws: &Draws, weight: Weight, constant: f64) -> Self {
        let zeros = || vec![0.0; draws.size()];
        let mut sums = Self { s: zeros(), sx: zeros(), sxx: zeros(), ss: 0.0, ssx: 0.0, ssxx: 0.0, x: 0.0, xx: 0.0 };
        let mut s = zeros();
        for (y, probability) in draws.probability.iter().enumerate() {
            let one = |rows: &[Vec<f64>]| vec![rows[y].clone()];
            let weights = weigh(weight, &one(&draws.log_p), &one(&draws.log_q)).remove(0);
            draws.add_scores(&mut s, y, |t| weights[t]);
            let x = draws.returns[y] - constant;
            let mut square = 0.0;
            for entry in draws.entries(y) {
                let s = std::mem::take(&mut s[entry]);
                square += s * s;
                sums.s[entry] += probability * s;
                sums.sx[entry] += probability * s * x;
                sums.sxx[entry] += probability * s * x * x;
            }
            sums.ss += probability * square;
            sums.ssx += probability * square * x;
            sums.ssxx += probability * square * x * x;
            sums.x += probability * x;
            sums.xx += probability * x * x;
        }
        sums
    }

    /// The mean of k independent terms s·x.
    fn constant(self, k: usize) -> Estimate {
        let variance = (self.ssxx - dot(&self.sx, &self.sx)).max(0.0) / k as f64;
        Estimate { mean: self.sx, variance }
    }

    /// The leave-one-out estimator is the mean over all pairs of responses of h(i, j) = ½ (s_i − s_j)(x_i − x_j), a
    /// U-statistic (Hoeffding 1948): its variance is 2/(k(k−1))·(2(k−2) ζ₁ + ζ₂), with ζ₁ the variance of the mean of h
    /// given one of the two, and ζ₂ that of h.
    fn leave_one_out(self, k: usize) -> Estimate {
        // x less its mean.
        let m = self.x;
        let xx = self.xx - m * m;
        let mean: Vec<f64> = self.sx.iter().zip(&self.s).map(|(sx, s)| sx - m * s).collect();
        let sxx: Vec<f64> = (0..mean.len()).map(|i| self.sxx[i] - 2.0 * m * self.sx[i] + m * m * self.s[i]).collect();
        let ssxx = self.ssxx - 2.0 * m * self.ssx + m * m * self.ss;
        let (square, across) = (dot(&mean, &mean), dot(&sxx, &self.s));
        let zeta_1 = 0.25 * (ssxx + 3.0 * square + dot(&self.s, &self.s) * xx - 2.0 * across) - square;
        let zeta_2 = 0.5 * (ssxx + self.ss * xx) - across;
        let k = k as f64;
        let variance = (2.0 / (k * (k - 1.0)) * (2.0 * (k - 2.0) * zeta_1 + zeta_2)).max(0.0);
        Estimate { mean, variance }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
