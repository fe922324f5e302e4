//! The noise of gradients at one θ: what H3 is about.

use std::num::NonZero;

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use polars::prelude::DataFrame;

use super::estimates::{CONFIDENCE, Estimate};
use super::frames::{Labels, arms_of_noise, labelled};
use crate::experiment::World;
use crate::machine::{in_parallel, keep_memory};
use crate::method::Method;
use crate::metrics::{mean, t_interval};
use crate::models::{LanguageModel, Network};
use crate::progress::Progress;
use crate::record::record;
use crate::train::{Gradient, KlControl, StepConfig, Trainer};

record! {
    /// The noise of one update's gradient g, all of its samples together, where θ stays. A gradient is that of the method's
    /// own loss, so that scales differ between methods; the noise has none.
    pub struct NoiseRow {
        pub task: String,
        /// Of π_init.
        pub parameters: i64,
        /// Where θ is.
        pub theta: String,
        pub method: String,
        /// Of the prompts and draws, which no training has seen.
        pub seed: i64,
        /// Batches that were drawn, and those of which anything was to be learned.
        pub steps: i64,
        pub used: i64,
        /// tr Cov(g)/‖E g‖², with an interval of 95% by the jackknife over groups of steps, on the logarithm. Null where
        /// ‖E g‖² is not found to be positive: then more steps are needed.
        pub noise: Option<f64>,
        pub noise_low: Option<f64>,
        pub noise_high: Option<f64>,
        /// ‖E g‖², unbiased, so that it may be negative; tr Cov(g); and the mean of ‖g‖, biased upwards by the noise.
        pub signal: Option<f64>,
        pub variance: Option<f64>,
        pub gradient_norm: Option<f64>,
    }
}

/// The first seed: far from those of any run, so that θ has not learned from these prompts.
const FIRST_SEED: u64 = 20_000;

/// A row a θ, method and seed: the gradients of `steps` batches, each with prompts and draws of its own, from every one of
/// `thetas` (a name and a policy: π_init, or what [`Run::trained`](crate::train::Run::trained) gives). The divergence is from
/// the world's π_init. Add the column `target` with [`with_labels`](crate::record::with_labels) before frames of
/// several targets are stacked.
///
/// The batches are independent: of n gradients g before clipping, (‖Σ g‖² − Σ ‖g‖²)/(n(n − 1)) estimates ‖E g‖² without bias, and
/// what the mean of ‖g‖² has above it is tr Cov(g), whatever ties the responses of one batch.
///
/// Every batch is that of a first step: where a method trains a value head (`on_policy`), it is a fresh one each time, and
/// the gradient is the policy's alone.
///
/// # Errors
/// No methods, θ, steps or seeds; as [`Trainer::new`] and [`Trainer::step`].
pub fn gradient_noise(
    world: &World,
    methods: &[Method],
    thetas: &[(&str, &LanguageModel)],
    config: StepConfig,
    steps: u64,
    seeds: u64,
) -> Result<DataFrame> {
    ensure!(!methods.is_empty() && !thetas.is_empty(), "gradient noise needs a method and a policy");
    ensure!(steps > 1 && seeds > 0, "gradient noise needs two steps and a seed: there are {steps} and {seeds}");
    keep_memory();
    let config = StepConfig { kl_control: KlControl::Fixed, ..config };
    let mut jobs = Vec::new();
    for theta in thetas {
        for method in methods {
            jobs.extend((0..seeds).map(|seed| (*theta, method, seed)));
        }
    }
    let reference = world.models.initial.frozen()?;
    let progress = Progress::new(format!("{}: noise of {} gradients", world.task.name(), jobs.len()), {
        jobs.len() as u64 * steps
    });
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let work = |((name, theta), method, seed): ((&str, &LanguageModel), &Method, u64)| -> Result<NoiseRow> {
        let drawn = draw(world, method, (theta, &reference), config, (steps, seed), &progress);
        let sums = drawn.with_context(|| format!("the gradient noise of {} at {name}, seed {seed}", method.name))?;
        let found = sums.noise(None);
        let ends = interval(&sums)?;
        Ok(NoiseRow {
            task: world.task.name().to_owned(),
            parameters: world.models.initial.params.count() as i64,
            theta: name.to_owned(),
            method: method.name.to_string(),
            seed: seed as i64,
            steps: steps as i64,
            used: sums.norms.len() as i64,
            noise: found.and_then(Noise::ratio),
            noise_low: ends.map(|ends| ends.0),
            noise_high: ends.map(|ends| ends.1),
            signal: found.map(|found| found.signal),
            variance: found.map(|found| found.variance),
            gradient_norm: (!sums.norms.is_empty()).then(|| mean(&sums.norms)),
        })
    };
    let rows = in_parallel(workers, jobs, work)?;
    progress.finish();
    NoiseRow::frame(&rows)
}

record! {
    /// The noise of a method at one θ, over the seeds of [`gradient_noise`].
    pub struct NoiseTableRow {
        /// Where θ is.
        pub at: String,
        pub seeds: i64,
        /// Of these seeds, so many had a signal; the others were the noisiest, and are missing in the mean.
        pub found: i64,
        /// Geometric mean, with Student's interval of 95% of the logarithms; one seed has none.
        pub noise: Option<f64>,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

/// A row a θ and method from the frame of [`gradient_noise`].
///
/// # Errors
/// Another frame; two rows of one seed.
pub fn noise_table(noise: &DataFrame) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for (at, arm) in arms_of_noise(noise)? {
        let mut logs = Vec::new();
        for run in &arm.runs {
            logs.extend(run.series("noise")?.into_iter().flatten().map(f64::ln));
        }
        let mean = Estimate::geometric(&logs);
        labels.push(Labels::of_method(&arm.place, &arm.method));
        rows.push(NoiseTableRow {
            at,
            seeds: arm.runs.len() as i64,
            found: logs.len() as i64,
            noise: mean.map(|mean| mean.value),
            low: mean.and_then(|mean| mean.low),
            high: mean.and_then(|mean| mean.high),
        });
    }
    labelled(&NoiseTableRow::frame(&rows)?, &labels)
}

fn draw(
    world: &World,
    method: &Method,
    (theta, reference): (&LanguageModel, &Network),
    config: StepConfig,
    (steps, seed): (u64, u64),
    progress: &Progress,
) -> Result<Sums> {
    let target = Some(&*world.models.target);
    let groups = steps.min(GROUPS);
    let mut sums = Sums { groups: vec![Group::default(); groups as usize], norms: Vec::new() };
    for step in 0..steps {
        let seed = FIRST_SEED + seed * steps + step;
        let mut trainer = Trainer::new(&*world.task, method.clone(), config, seed, theta, reference, target)?;
        let gradient = rayon::scope(|_| -> Result<_> {
            let batch = trainer.draw()?;
            trainer.gradient(&batch)
        })?;
        if let Some((gradient, _)) = gradient {
            let values = of_the_policy(&trainer, &gradient)?;
            sums.norms.push(sums.groups[(step % groups) as usize].add(&values).sqrt());
        }
        progress.inc(1);
    }
    Ok(sums)
}

/// The gradient of the policy's variables, one after the other, without those of a value head.
fn of_the_policy(trainer: &Trainer, gradient: &Gradient) -> Result<Vec<f32>> {
    let of_policy: Vec<&str> = trainer.policy.params.gradients().map(|(name, _)| name).collect();
    let mut values = Vec::new();
    for ((name, _), tensor) in trainer.params().gradients().zip(gradient.values()) {
        if of_policy.contains(&name) {
            values.extend(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
    }
    let scale = gradient.scale() as f32;
    values.iter_mut().for_each(|x| *x *= scale);
    Ok(values)
}

/// The most groups of steps: the memory of so many gradients is held.
const GROUPS: u64 = 20;

/// Gradients of independent batches, summed in groups that the jackknife leaves out.
struct Sums {
    groups: Vec<Group>,
    /// ‖g‖ of every batch.
    norms: Vec<f64>,
}

#[derive(Clone, Default)]
struct Group {
    count: usize,
    sum: Vec<f32>,
    /// Σ ‖g‖².
    squares: f64,
}

impl Group {
    /// Returns ‖g‖².
    fn add(&mut self, gradient: &[f32]) -> f64 {
        self.sum.resize(gradient.len(), 0.0);
        self.sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
        self.count += 1;
        let square = inner(gradient, gradient);
        self.squares += square;
        square
    }
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[derive(Debug, Clone, Copy)]
struct Noise {
    signal: f64,
    variance: f64,
}

impl Noise {
    /// From n gradients: ‖Σ g‖², and Σ ‖g‖².
    fn of(count: usize, squared_sum: f64, squares: f64) -> Option<Self> {
        let n = count as f64;
        let signal = (squared_sum - squares) / (n * (n - 1.0));
        (count > 1).then(|| Self { signal, variance: squares / n - signal })
    }

    fn ratio(self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.variance / self.signal)
    }
}

impl Sums {
    /// Of all groups but one.
    fn noise(&self, without: Option<usize>) -> Option<Noise> {
        let kept = || self.groups.iter().enumerate().filter(|(at, _)| Some(*at) != without).map(|(_, group)| group);
        let mut sum: Vec<f32> = Vec::new();
        for group in kept().filter(|group| group.count > 0) {
            sum.resize(group.sum.len(), 0.0);
            sum.iter_mut().zip(&group.sum).for_each(|(sum, x)| *sum += x);
        }
        Noise::of(kept().map(|g| g.count).sum(), inner(&sum, &sum), kept().map(|g| g.squares).sum())
    }
}

/// The jackknife's interval of the ratio, from pseudo-values of its logarithm, centred at the estimate (Tukey 1958; Efron,
/// Tibshirani 1993, An Introduction to the Bootstrap, chapter 11). None where a ratio without one of the groups is not known.
fn interval(sums: &Sums) -> Result<Option<(f64, f64)>> {
    let log_ratio = |without| sums.noise(without)?.ratio().filter(|ratio| *ratio > 0.0).map(f64::ln);
    let groups: Vec<usize> = (0..sums.groups.len()).filter(|at| sums.groups[*at].count > 0).collect();
    let Some(whole) = (groups.len() > 2).then(|| log_ratio(None)).flatten() else { return Ok(None) };
    let n = groups.len() as f64;
    let pseudo = |at: usize| Some(n * whole - (n - 1.0) * log_ratio(Some(at))?);
    let Some(pseudo) = groups.into_iter().map(pseudo).collect::<Option<Vec<f64>>>() else { return Ok(None) };
    let found = t_interval(&pseudo, CONFIDENCE)?;
    let half = 0.5 * (found.high - found.low);
    Ok(Some(((whole - half).exp(), (whole + half).exp())))
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::seed::{Purpose, rng};

    /// Gradients that are μ plus normal noise with a different deviation in every direction, and their noise.
    fn gaussian(steps: usize, seed: u64) -> (Sums, f64) {
        let centre: Vec<f64> = (0..30).map(|i| 0.1 * f64::from(i % 4)).collect();
        let spread: Vec<f64> = (0..30).map(|i| 0.1 + 0.02 * f64::from(i % 7)).collect();
        let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let mut rng = rng(seed, Purpose::Exact, 0, 0);
        let mut sums = Sums { groups: vec![Group::default(); steps.min(20)], norms: Vec::new() };
        for step in 0..steps {
            let noise: Vec<f64> = (0..30).map(|_| StandardNormal.sample(&mut rng)).collect();
            let g: Vec<f32> = (0..30).map(|i| (centre[i] + spread[i] * noise[i]) as f32).collect();
            sums.groups[step % 20].add(&g);
        }
        (sums, square(&spread) / square(&centre))
    }

    #[test]
    fn the_noise_of_gaussian_gradients_is_found_and_covered() {
        let (sums, truth) = gaussian(20_000, 1);
        let found = sums.noise(None).unwrap().ratio().unwrap();
        assert!((found / truth - 1.0).abs() < 0.02, "{found} instead of {truth}");
        // Intervals of 60 steps each: 95% of 400 is 380, with a deviation of 4.4.
        let covers = |seed: &u64| {
            let (low, high) = interval(&gaussian(60, *seed).0).unwrap().unwrap();
            low <= truth && truth <= high
        };
        let covered = (0..400).filter(covers).count();
        assert!((362..=396).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn a_signal_that_is_not_found_gives_no_noise() {
        let sums = |gradients: &[f32]| {
            let mut sums = Sums { groups: vec![Group::default(); gradients.len()], norms: Vec::new() };
            for (g, group) in gradients.iter().zip(&mut sums.groups) {
                group.add(&[*g]);
            }
            sums
        };
        let none = sums(&[1.0, -1.0, 1.0, -1.0]);
        assert!(none.noise(None).unwrap().ratio().is_none() && interval(&none).unwrap().is_none());
        // Found with all, but not without the first.
        let one = sums(&[9.0, 1.0, -1.0, 0.0, 0.5]);
        assert!(one.noise(None).unwrap().ratio().is_some() && one.noise(Some(0)).unwrap().ratio().is_none());
        assert!(interval(&one).unwrap().is_none());
        assert!(interval(&sums(&[1.0, 2.0])).unwrap().is_none() && sums(&[1.0]).noise(None).is_none());
    }
}
