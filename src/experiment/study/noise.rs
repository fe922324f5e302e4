//! The noise of gradients at one θ: what H3 is about.

use std::num::NonZero;

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::estimates::{CONFIDENCE, Estimate};
use super::frames::{Labels, arms_of_noise, labelled};
use crate::experiment::World;
use crate::machine::{in_parallel, keep_memory};
use crate::method::{Method, Objective};
use crate::metrics::{mean, t_interval};
use crate::models::{LanguageModel, Network};
use crate::progress::Progress;
use crate::record::{StepRow, record};
use crate::train::{KlControl, StepConfig, Trainer};

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
        /// Steps that were drawn, and those whose variance could be measured: of equal microbatches, two or more.
        pub steps: i64,
        pub used: i64,
        /// tr Cov(g)/‖E g‖², with an interval of 95% by the jackknife over steps, on the logarithm. Null where ‖E g‖² is not
        /// found to be positive: then more steps are needed.
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
const FIRST_SEED: u64 = 10_000;

/// A row a θ, method and seed: `steps` steps of `config` at learning rate 0, each with prompts and draws of its own, from
/// every one of `thetas` (a name and a policy: π_init, or what [`Run::trained`](crate::train::Run::trained) gives). The
/// divergence is from the world's π_init. Add the column `target` with [`with_labels`](crate::record::with_labels)
/// before frames of several targets are stacked.
///
/// From the m microbatches of a step: their variance v estimates that of one without bias, v/m that of their mean g, and
/// ‖g‖² − v/m estimates ‖E g‖² without bias (both before clipping); noise is the ratio of the means over steps.
///
/// Microbatches must be independent. Those of `rejection` are not quite, for responses to one prompt may fall on two of them:
/// its noise comes out too low. Whitening (`on_policy`) and the group's deviation tie them weakly. The gradient of `on_policy`
/// holds that of its value head, which is untrained here.
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
    let config = StepConfig { learning_rate: 0.0, kl_control: KlControl::Fixed, ..config };
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
        let rows = drawn.with_context(|| format!("the gradient noise of {} at {name}, seed {seed}", method.name))?;
        let row = row(method, config.microbatches, &rows)?;
        let parameters = world.models.initial.params.count() as i64;
        Ok(NoiseRow {
            task: world.task.name().to_owned(),
            parameters,
            theta: name.to_owned(),
            seed: seed as i64,
            ..row
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
) -> Result<Vec<StepRow>> {
    let target = Some(&*world.models.target);
    let seed = FIRST_SEED + seed;
    let mut trainer = Trainer::new(&*world.task, method.clone(), config, seed, theta, reference, target)?;
    let before = trainer.policy.digest()?;
    let mut rows = Vec::new();
    for _ in 0..steps {
        rows.push(rayon::scope(|_| trainer.step())?);
        progress.inc(1);
    }
    ensure!(trainer.policy.digest()? == before, "θ moved at learning rate 0");
    Ok(rows)
}

/// What the steps come to; where they are from is left open.
fn row(method: &Method, microbatches: usize, rows: &[StepRow]) -> Result<NoiseRow> {
    let step = |row: &StepRow| {
        let (norm, variance) = (row.gradient_norm?, row.gradient_variance?);
        Some(Step { square: norm * norm, variance: variance / parts(method, row.learned as usize, microbatches) })
    };
    let steps: Vec<Step> = rows.iter().filter_map(step).collect();
    let norms: Vec<f64> = rows.iter().filter_map(|row| row.gradient_norm).collect();
    let found = (!steps.is_empty()).then(|| Noise::of(&steps));
    let ends = interval(&steps)?;
    Ok(NoiseRow {
        task: String::new(),
        parameters: 0,
        theta: String::new(),
        method: method.name.to_string(),
        seed: 0,
        steps: rows.len() as i64,
        used: steps.len() as i64,
        noise: found.and_then(|found| found.ratio()),
        noise_low: ends.map(|ends| ends.0),
        noise_high: ends.map(|ends| ends.1),
        signal: found.map(|found| found.signal),
        variance: found.map(|found| found.variance),
        gradient_norm: (!norms.is_empty()).then(|| mean(&norms)),
    })
}

/// How many microbatches a step of so many responses had.
fn parts(method: &Method, learned: usize, microbatches: usize) -> f64 {
    let size = learned.div_ceil(microbatches);
    // DPO's pairs stay together.
    let size = if let Objective::Dpo(_) = method.objective { size.next_multiple_of(2) } else { size };
    learned.div_ceil(size.max(1)) as f64
}

/// What one step tells: ‖g‖², and an unbiased estimate of tr Cov(g).
#[derive(Debug, Clone, Copy)]
struct Step {
    square: f64,
    variance: f64,
}

#[derive(Debug, Clone, Copy)]
struct Noise {
    signal: f64,
    variance: f64,
}

impl Noise {
    fn of(steps: &[Step]) -> Self {
        let variance = mean(&steps.iter().map(|step| step.variance).collect::<Vec<_>>());
        let square = mean(&steps.iter().map(|step| step.square).collect::<Vec<_>>());
        Self { signal: square - variance, variance }
    }

    fn ratio(self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.variance / self.signal)
    }
}

/// The jackknife's interval of the ratio, from pseudo-values of its logarithm, centred at the estimate (Tukey 1958; Efron,
/// Tibshirani 1993, An Introduction to the Bootstrap, chapter 11). None where a ratio without one of the steps is not known.
fn interval(steps: &[Step]) -> Result<Option<(f64, f64)>> {
    let positive = |noise: Noise| noise.ratio().filter(|ratio| *ratio > 0.0).map(f64::ln);
    let Some(whole) = (steps.len() > 2).then(|| positive(Noise::of(steps))).flatten() else { return Ok(None) };
    let n = steps.len() as f64;
    let without = |left_out: usize| {
        let kept: Vec<Step> =
            steps.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, step)| *step).collect();
        Some(n * whole - (n - 1.0) * positive(Noise::of(&kept))?)
    };
    let Some(pseudo) = (0..steps.len()).map(without).collect::<Option<Vec<f64>>>() else { return Ok(None) };
    let found = t_interval(&pseudo, CONFIDENCE)?;
    let half = 0.5 * (found.high - found.low);
    Ok(Some(((whole - half).exp(), (whole + half).exp())))
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::seed::{Purpose, rng};

    /// Steps of eight microbatches whose gradients are μ plus normal noise with a different deviation in every direction.
    fn gaussian(steps: u64, seed: u64) -> (Vec<Step>, f64) {
        const M: usize = 8;
        let centre: Vec<f64> = (0..30).map(|i| 0.1 * f64::from(i % 4)).collect();
        let spread: Vec<f64> = (0..30).map(|i| 0.2 + 0.05 * f64::from(i % 7)).collect();
        let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let step = |number| {
            let mut rng = rng(seed, Purpose::Exact, number, 0);
            let mut draw = || -> Vec<f64> {
                let noise = spread
                    .iter()
                    .map(|sd| sd * <StandardNormal as Distribution<f64>>::sample(&StandardNormal, &mut rng));
                centre.iter().zip(noise).map(|(c, e)| c + e).collect()
            };
            let parts: Vec<Vec<f64>> = (0..M).map(|_| draw()).collect();
            let mean: Vec<f64> = (0..30).map(|i| parts.iter().map(|g| g[i]).sum::<f64>() / M as f64).collect();
            let away = parts.iter().map(|g| square(&g.iter().zip(&mean).map(|(g, m)| g - m).collect::<Vec<_>>()));
            let variance = away.sum::<f64>() / (M - 1) as f64;
            Step { square: square(&mean), variance: variance / M as f64 }
        };
        ((0..steps).map(step).collect(), square(&spread) / M as f64 / square(&centre))
    }

    #[test]
    fn the_noise_of_gaussian_gradients_is_found_and_covered() {
        let (steps, truth) = gaussian(4_000, 1);
        let found = Noise::of(&steps).ratio().unwrap();
        assert!((found / truth - 1.0).abs() < 0.02, "{found} instead of {truth}");
        // Intervals of 24 steps each: 95% of 400 is 380, with a deviation of 4.4.
        let covers = |seed: &u64| {
            let (low, high) = interval(&gaussian(24, *seed).0).unwrap().unwrap();
            low <= truth && truth <= high
        };
        let covered = (0..400).filter(covers).count();
        assert!((362..=396).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn a_signal_that_is_not_found_gives_no_noise() {
        let steps = [Step { square: 1.0, variance: 2.0 }; 5];
        assert!(Noise::of(&steps).ratio().is_none() && interval(&steps).unwrap().is_none());
        // Found with all steps, but not without the first.
        let mut steps = steps.to_vec();
        steps[0].square = 20.0;
        assert!(Noise::of(&steps).ratio().is_some() && interval(&steps).unwrap().is_none());
        assert!(interval(&steps[..2]).unwrap().is_none());
    }

    #[test]
    fn microbatches_are_counted_as_they_are_made() {
        use crate::method::{DPO, QSTAR};
        assert_eq!((parts(&QSTAR, 64, 8), parts(&QSTAR, 10, 8), parts(&QSTAR, 5, 8)), (8.0, 5.0, 5.0));
        // Pairs of two responses: parts of four.
        assert_eq!(parts(&DPO, 24, 8), 6.0);
    }
}
