//! How far from equal the two effective sample sizes are where the two divergences are equal.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::third_cumulant;
use crate::metrics::{mean, sd};
use crate::mixture::{Pair, Rule};
use crate::record::record;
use crate::seed::{self, Purpose};

/// The ratios that count as balanced.
const BALANCED: std::ops::RangeInclusive<f64> = 0.9..=1.1;
/// The standard deviation of the policy's logits in [`tilts`]: an entropy near 6 nats over 50,257 tokens.
const POLICY_SCALE: f32 = 3.0;
/// The share of tokens that a rare reward pays.
const RARE: f64 = 0.05;

record! {
    /// One random pair at its q*.
    pub struct BalanceRow {
        /// Where policy and target come from, and the value of the setting's one number.
        pub setting: String,
        pub value: f64,
        pub draw: i64,
        /// α of KL symmetry and of ESS balance.
        pub alpha_kl: f64,
        pub alpha_ess: f64,
        /// At α_KL: both divergences, log ESS of both sides, log(ESS_p/ESS_t).
        pub kl: f64,
        pub log_ess_p: f64,
        pub log_ess_t: f64,
        pub log_ess_ratio: f64,
        /// K'''(1/2).
        pub third_cumulant: f64,
    }
}

record! {
    /// All draws of one setting.
    pub struct BalanceTableRow {
        pub setting: String,
        pub value: f64,
        pub draws: i64,
        /// The share of draws with ESS_p/ESS_t in [0.9, 1.1] at q*.
        pub near_1: f64,
        /// Geometric mean of the ratios; mean and standard deviation of their logarithms.
        pub ratio: f64,
        pub log_ratio: f64,
        pub log_ratio_sd: f64,
        /// Means over the draws.
        pub alpha_kl: f64,
        pub alpha_ess: f64,
        pub kl: f64,
        pub log_ess_p: f64,
        pub log_ess_t: f64,
    }
}

/// Policy and target with independent Gaussian logits of standard deviation `scale` over a vocabulary of this size. The
/// same seed and draw give the same Gaussians at every scale.
///
/// # Errors
/// A vocabulary of less than two tokens.
///
/// ```
/// assert_eq!(qstar::experiment::derivation::gaussian_pair(3.0, 100, 0, 0)?.size(), 100);
/// # anyhow::Ok(())
/// ```
pub fn gaussian_pair(scale: f64, vocabulary: usize, seed: u64, draw: u64) -> Result<Pair> {
    ensure!(vocabulary >= 2, "one token leaves nothing to choose");
    let mut rng = seed::rng(seed, Purpose::Derivation, 1, draw);
    let policy = logits(&mut rng, vocabulary, scale as f32);
    let target = logits(&mut rng, vocabulary, scale as f32);
    Pair::from_logits(&policy, &target)
}

/// `draws` pairs at each scale, each a [`gaussian_pair`], at their q*.
///
/// # Errors
/// A vocabulary of less than two tokens.
///
/// ```
/// use qstar::experiment::derivation::gaussian_gaps;
/// assert_eq!(gaussian_gaps(&[1.0, 3.0], 100, 5, 0)?.height(), 10);
/// # anyhow::Ok(())
/// ```
pub fn gaussian_gaps(scales: &[f64], vocabulary: usize, draws: u64, seed: u64) -> Result<DataFrame> {
    let all: Vec<(f64, u64)> = scales.iter().flat_map(|scale| (0..draws).map(move |draw| (*scale, draw))).collect();
    let row = |(scale, draw): &(f64, u64)| {
        measure(&gaussian_pair(*scale, vocabulary, seed, *draw)?, "Gaussian logits", *scale, *draw)
    };
    BalanceRow::frame(&all.par_iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// `draws` pairs at each β: the policy has Gaussian logits of standard deviation 3 over the vocabulary, the target is
/// t ∝ p·exp(r/β), and the reward r of a token is either uniform on \[0, 1\] or 1 for one token in twenty and 0 for
/// the others. The same draws at every β.
///
/// # Errors
/// A vocabulary of less than two tokens; a β that is not positive.
///
/// ```
/// use qstar::experiment::derivation::tilts;
/// // Two kinds of reward.
/// assert_eq!(tilts(&[1.0, 0.1], 100, 5, 0)?.height(), 20);
/// # anyhow::Ok(())
/// ```
pub fn tilts(betas: &[f64], vocabulary: usize, draws: u64, seed: u64) -> Result<DataFrame> {
    ensure!(vocabulary >= 2, "one token leaves nothing to choose");
    ensure!(betas.iter().all(|beta| *beta > 0.0), "β must be positive: {betas:?}");
    let all: Vec<(bool, f64, u64)> = [false, true]
        .into_iter()
        .flat_map(|rare| betas.iter().flat_map(move |beta| (0..draws).map(move |draw| (rare, *beta, draw))))
        .collect();
    let row = |(rare, beta, draw): &(bool, f64, u64)| {
        let mut rng = seed::rng(seed, Purpose::Derivation, 2, *draw);
        let policy = logits(&mut rng, vocabulary, POLICY_SCALE);
        let reward = |x: f64| if *rare { f64::from(x < RARE) } else { x };
        let tilted: Vec<f32> = policy.iter().map(|z| z + (reward(rng.random()) / beta) as f32).collect();
        let setting = if *rare { "rare reward" } else { "uniform reward" };
        measure(&Pair::from_logits(&policy, &tilted)?, setting, *beta, *draw)
    };
    BalanceRow::frame(&all.par_iter().map(row).collect::<Result<Vec<_>>>()?)
}

fn logits(rng: &mut ChaCha8Rng, vocabulary: usize, scale: f32) -> Vec<f32> {
    (0..vocabulary)
        .map(|_| {
            let z: f32 = StandardNormal.sample(rng);
            scale * z
        })
        .collect()
}

fn measure(pair: &Pair, setting: &str, value: f64, draw: u64) -> Result<BalanceRow> {
    let at = pair.solve(&Rule::Q_STAR)?;
    Ok(BalanceRow {
        setting: setting.to_owned(),
        value,
        draw: draw as i64,
        alpha_kl: at.alpha,
        alpha_ess: pair.solve(&Rule::EssBalance)?.alpha,
        kl: -at.k,
        log_ess_p: at.log_ess_p,
        log_ess_t: at.log_ess_t,
        log_ess_ratio: at.log_ess_p - at.log_ess_t,
        third_cumulant: third_cumulant(pair, 0.5),
    })
}

/// A row a setting and value of a frame of [`BalanceRow`]s, in the order in which they appear.
///
/// # Errors
/// A frame without these columns, or with a null in one.
///
/// ```
/// use qstar::experiment::derivation::{balance_table, gaussian_gaps};
/// let table = balance_table(&gaussian_gaps(&[0.1, 3.0], 1000, 10, 0)?)?;
/// assert_eq!(table.height(), 2);
/// assert_eq!(table.column("near_1")?.f64()?.get(0), Some(1.0));
/// # anyhow::Ok(())
/// ```
pub fn balance_table(rows: &DataFrame) -> Result<DataFrame> {
    let settings: Vec<String> = rows.column("setting")?.str()?.iter().map(|s| s.unwrap_or("").to_owned()).collect();
    let values = numbers(rows, "value")?;
    let mut groups: Vec<(String, f64, Vec<usize>)> = Vec::new();
    for (index, (setting, value)) in settings.into_iter().zip(values).enumerate() {
        match groups.iter_mut().find(|(s, v, _)| *s == setting && *v == value) {
            Some((_, _, members)) => members.push(index),
            None => groups.push((setting, value, vec![index])),
        }
    }
    let names = ["log_ess_ratio", "alpha_kl", "alpha_ess", "kl", "log_ess_p", "log_ess_t"];
    let columns = names.iter().map(|name| numbers(rows, name)).collect::<Result<Vec<_>>>()?;
    let table = groups.into_iter().map(|(setting, value, members)| {
        let of = |column: usize| members.iter().map(|i| columns[column][*i]).collect::<Vec<f64>>();
        let ratios = of(0);
        let near = ratios.iter().filter(|x| BALANCED.contains(&x.exp())).count();
        BalanceTableRow {
            setting,
            value,
            draws: members.len() as i64,
            near_1: near as f64 / members.len() as f64,
            ratio: mean(&ratios).exp(),
            log_ratio: mean(&ratios),
            log_ratio_sd: sd(&ratios),
            alpha_kl: mean(&of(1)),
            alpha_ess: mean(&of(2)),
            kl: mean(&of(3)),
            log_ess_p: mean(&of(4)),
            log_ess_t: mean(&of(5)),
        }
    });
    BalanceTableRow::frame(&table.collect::<Vec<_>>())
}

fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    let column = frame.column(name)?.f64()?;
    ensure!(column.null_count() == 0, "column `{name}` has a null");
    Ok(column.iter().flatten().collect())
}
