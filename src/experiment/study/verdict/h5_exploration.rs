//! H5: no method explores more and is more stable at once.

use anyhow::{Result, ensure};
use rand::Rng;

use super::{Evidence, Finding, Outcome, RivalRow};
use crate::experiment::study::estimates::{BOOTSTRAP_SEED, BySeed, RESAMPLES};
use crate::experiment::study::frames::OneRun;
use crate::experiment::study::scores::QSTAR;
use crate::metrics::{Bleu, self_bleu, tokenize};
use crate::seed::{Purpose, rng};

pub(super) const RULE: &str = "Statistic: the bootstrap probability, over the seeds of runs and of gradient noise, that some method \
    beats qstar in all of these at once: more distinct bigrams, a lower self-BLEU and a higher entropy of its policy's own \
    held-out responses at the end, and less gradient noise (H3's, geometric mean over θ). Supported below 0.05 where every method \
    was measured, refuted above 0.95, else undecided.";

const STATISTIC: &str = "probability that some method beats qstar in exploration and in noise";
/// Below it H5 is supported; above one less it is refuted.
const RARE: f64 = 0.05;

/// What one method has in common with the others, a number a seed: the larger the better.
struct Explorer<'a> {
    method: &'a str,
    /// Distinct bigrams, self-BLEU with the other sign, entropy.
    exploration: [BySeed; 3],
    /// The logarithm of the noise with the other sign, mean over θ.
    stability: BySeed,
}

pub(super) fn judge(evidence: &Evidence) -> Result<Finding> {
    let mut explorers = Vec::new();
    for (scored, runs) in evidence.scored.iter().zip(&evidence.comparison.methods) {
        let mut repetition = Vec::new();
        for run in &runs.samples {
            repetition.push((run.seed, -last_self_bleu(run)?));
        }
        let exploration = [scored.distinct_2.clone(), repetition, scored.entropy.clone()];
        explorers.push(Explorer {
            method: &scored.method,
            exploration,
            stability: stability(evidence, &scored.method),
        });
    }
    let seeds = evidence.qstar.after.len();
    let (own, others): (Vec<Explorer>, Vec<Explorer>) = explorers.into_iter().partition(|e| e.method == QSTAR);
    let Some(own) = own.first() else {
        return Ok(Finding::unknown(STATISTIC, seeds, "there are no runs of qstar here"));
    };
    if own.stability.is_empty() {
        return Ok(Finding::unknown(
            STATISTIC,
            seeds,
            "gradient noise at one θ was not measured here: see `gradient_noise`",
        ));
    }
    let (measured, left_out): (Vec<Explorer>, Vec<Explorer>) = others
        .into_iter()
        .partition(|other| other.stability.len() > 1 && other.exploration.iter().all(|x| x.len() > 1));
    let without = left_out.iter().map(|other| other.method).collect::<Vec<_>>().join(", ");
    // Seeds that all have: a resample draws the same ones for every method.
    let common = |of: &dyn Fn(&Explorer) -> Vec<BySeed>| -> Vec<i64> {
        let columns: Vec<BySeed> = measured.iter().chain([own]).flat_map(of).collect();
        let everywhere = |seed: &i64| columns.iter().all(|column| column.iter().any(|(known, _)| known == seed));
        own.exploration[0]
            .iter()
            .map(|(seed, _)| *seed)
            .chain(own.stability.iter().map(|(seed, _)| *seed))
            .collect::<std::collections::BTreeSet<i64>>()
            .into_iter()
            .filter(everywhere)
            .collect()
    };
    let runs = common(&|explorer| explorer.exploration.to_vec());
    let draws = common(&|explorer| vec![explorer.stability.clone()]);
    if measured.is_empty() || runs.len() < 2 || draws.len() < 2 {
        let why = "a method to compare with needs two seeds of runs, with samples, and two of gradient noise";
        return Ok(Finding::unknown(STATISTIC, runs.len(), why));
    }
    let mut beaten = vec![0usize; measured.len()];
    let mut any = 0;
    for resample in 0..RESAMPLES as u64 {
        let mut rng = rng(BOOTSTRAP_SEED, Purpose::Bootstrap, resample, 0);
        let mut draw =
            |from: &[i64]| (0..from.len()).map(|_| from[rng.random_range(0..from.len())]).collect::<Vec<_>>();
        let (runs, draws) = (draw(&runs), draw(&draws));
        let beats: Vec<bool> = measured.iter().map(|other| other.beats(own, &runs, &draws)).collect();
        beats.iter().zip(&mut beaten).filter(|(beats, _)| **beats).for_each(|(_, count)| *count += 1);
        any += usize::from(beats.contains(&true));
    }
    let share = |count: usize| count as f64 / RESAMPLES as f64;
    let probability = share(any);
    let verdict = match probability {
        p if p < RARE && left_out.is_empty() => Outcome::Supported,
        p if p > 1.0 - RARE => Outcome::Refuted,
        _ => Outcome::Undecided,
    };
    let now: Vec<&str> =
        measured.iter().filter(|other| other.beats(own, &runs, &draws)).map(|other| other.method).collect();
    let mut why = match now.is_empty() {
        true => format!("by the means none of {} methods beats qstar in all four", measured.len()),
        false => format!("by the means {} beats qstar in all four", now.join(", ")),
    };
    if !without.is_empty() {
        why += &format!("; not measured: {without}");
    }
    if evidence.noise.iter().any(|noise| noise.log.len() < noise.seeds) {
        why += "; seeds of noise in which no signal was found are left out";
    }
    let row = |(other, count): (&Explorer, &usize)| RivalRow {
        hypothesis: "H5".to_owned(),
        statistic: "probability that it beats qstar in exploration and in noise".to_owned(),
        theta: None,
        rival: other.method.to_owned(),
        value: Some(share(*count)),
        low: None,
        high: None,
        seeds: runs.len() as i64,
        p: None,
        p_holm: None,
        detectable: None,
        better: if share(*count) > 1.0 - RARE { "rival" } else { "not distinguished" }.to_owned(),
    };
    let rivals: Vec<RivalRow> = measured.iter().zip(&beaten).map(row).collect();
    let worst = measured.iter().zip(&beaten).max_by_key(|(_, count)| **count).map(|(other, _)| other.method.to_owned());
    Ok(Finding {
        against: worst,
        value: Some(probability),
        verdict,
        rivals,
        ..Finding::unknown(STATISTIC, runs.len(), why)
    })
}

impl Explorer<'_> {
    /// By the means over these seeds of runs and of noise.
    fn beats(&self, other: &Explorer, runs: &[i64], draws: &[i64]) -> bool {
        let more = |own: &BySeed, theirs: &BySeed, seeds: &[i64]| sum(own, seeds) > sum(theirs, seeds);
        self.exploration.iter().zip(&other.exploration).all(|(own, theirs)| more(own, theirs, runs))
            && more(&self.stability, &other.stability, draws)
    }
}

fn sum(by_seed: &BySeed, seeds: &[i64]) -> f64 {
    let of = |seed: &i64| by_seed.iter().find(|(known, _)| known == seed).map_or(f64::NAN, |(_, value)| *value);
    seeds.iter().map(of).sum()
}

/// −ln noise of every seed that has it at every θ at which `qstar` has, mean over θ.
fn stability(evidence: &Evidence, method: &str) -> BySeed {
    let thetas: Vec<&str> =
        evidence.noise.iter().filter(|noise| noise.method == QSTAR).map(|noise| noise.theta.as_str()).collect();
    let of_theta = |theta: &&str| {
        evidence.noise.iter().find(|noise| noise.method == method && noise.theta == **theta).map(|noise| &noise.log)
    };
    let Some(logs) = thetas.iter().map(of_theta).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let Some(first) = logs.first() else { return Vec::new() };
    let of_seed = |(seed, _): &(i64, f64)| {
        let all: Option<Vec<f64>> =
            logs.iter().map(|log| log.iter().find(|(known, _)| known == seed).map(|(_, value)| *value)).collect();
        all.map(|all| (*seed, -all.iter().sum::<f64>() / all.len() as f64))
    };
    first.iter().filter_map(of_seed).collect()
}

/// Self-BLEU of the responses of the last evaluation.
fn last_self_bleu(run: &OneRun) -> Result<f64> {
    let (steps, responses) = (run.all("step")?, run.texts("response")?);
    let last = steps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let texts: Vec<String> =
        steps.iter().zip(responses).filter(|(step, _)| **step == last).map(|(_, response)| response).collect();
    ensure!(texts.len() > 1, "self-BLEU of seed {} needs two held-out responses", run.seed);
    let bleu = Bleu { effective_order: true, ..Bleu::default() };
    self_bleu(&tokenize(&texts, &bleu), &bleu)
}
