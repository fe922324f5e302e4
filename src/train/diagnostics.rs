//! The diagnostics of one step, from what was drawn and what the update reports.

use super::{Batch, Sample, Update};
use crate::method::{Level, Method, Source, Treatment, ess, log_weights};
use crate::metrics::{mean, sd};
use crate::mixture::{Solution, Status};
use crate::record::StepRow;
use crate::rollout::Proposal;

/// The bins of the histogram of α.
const BINS: usize = 20;

/// A step starves where less than this share of its samples is accepted, or where their raw weights are worth less than this
/// share of them, or than two of them.
pub(super) const STARVED: f64 = 0.01;

/// One step: what was drawn, and what was learned from it.
pub(super) struct Diagnosed<'a> {
    pub method: &'a Method,
    pub batch: &'a Batch,
    pub update: Option<&'a Update>,
}

impl Diagnosed<'_> {
    /// A row with all that follows from the draws; the rest is zero or null.
    pub fn row(&self) -> StepRow {
        let samples = &self.batch.samples;
        let rewards: Vec<f64> = samples.iter().map(|sample| sample.reward).collect();
        let shaped: Vec<f64> = samples.iter().map(|sample| sample.shaped).collect();
        let mut mixtures: Vec<Solution> =
            samples.iter().flat_map(|sample| &sample.draws).filter_map(|draw| draw.mixture).collect();
        mixtures.extend(&self.batch.picks);
        let of = |f: &dyn Fn(&Solution) -> f64| -> Option<f64> {
            (!mixtures.is_empty()).then(|| mean(&mixtures.iter().map(f).collect::<Vec<_>>()))
        };
        let mut alphas: Vec<f64> = mixtures.iter().map(|m| m.alpha).collect();
        alphas.sort_by(f64::total_cmp);
        let quantile = |p: f64| (!alphas.is_empty()).then(|| alphas[((alphas.len() - 1) as f64 * p).round() as usize]);
        let mut alpha_histogram = vec![0.0; BINS];
        for &alpha in &alphas {
            alpha_histogram[((alpha * BINS as f64) as usize).min(BINS - 1)] += 1.0;
        }
        let ratio = |m: &Solution| (m.log_ess_p - m.log_ess_t).exp();
        let ratios: Vec<f64> = mixtures.iter().map(ratio).collect();
        let lengths: Vec<f64> = samples.iter().map(|sample| sample.tokens.len() as f64).collect();
        let ended: Vec<f64> = samples.iter().map(|sample| f64::from(u8::from(sample.ended))).collect();
        let level = self.method.weight.level;
        let raw = self.log_weights(level).map(|rows| rows.concat().iter().map(|w| w.exp()).collect::<Vec<f64>>());
        let treated = self.update.and_then(|update| update.weights.as_ref()).filter(|_| raw.is_some());
        let treated = treated.map(|weights| weights.concat());
        let acceptance = matches!(self.method.source, Source::Accepted(_))
            .then(|| self.batch.learned.len() as f64 / samples.len() as f64);
        let worth = raw.as_ref().and_then(|weights| {
            let count = if level == Level::Sequence { self.batch.learned.len() } else { weights.len() };
            Some((self.ess(level, Treatment::Raw)?, count))
        });
        let starved = acceptance.is_some_and(|share| share < STARVED)
            || worth.is_some_and(|(share, count)| share < STARVED || share * (count as f64) < 2.0);
        StepRow {
            step: 0,
            samples: 0,
            reward_calls: 0,
            flops_forward: 0.0,
            flops_backward: 0.0,
            seconds_charged: 0.0,
            tokens: samples.iter().map(|sample| sample.tokens.len() as i64).sum(),
            learned: self.batch.learned.len() as i64,
            acceptance,
            starved,
            q_reward: mean(&rewards),
            q_reward_sd: sd(&rewards),
            q_reward_shaped: mean(&shaped),
            q_reward_shaped_sd: sd(&shaped),
            q_length: mean(&lengths),
            q_ended: mean(&ended),
            q_kl_init: self.kl_to_reference(),
            alpha_mean: of(&|m| m.alpha),
            alpha_sd: (!alphas.is_empty()).then(|| sd(&alphas)),
            alpha_q05: quantile(0.05),
            alpha_q25: quantile(0.25),
            alpha_q50: quantile(0.5),
            alpha_q75: quantile(0.75),
            alpha_q95: quantile(0.95),
            alpha_histogram,
            alpha_irregular: of(&|m| f64::from(u8::from(m.status != Status::Ok))),
            ess_p: of(&|m| m.log_ess_p.exp()),
            ess_t: of(&|m| m.log_ess_t.exp()),
            log_ess_p: of(&|m| m.log_ess_p),
            log_ess_t: of(&|m| m.log_ess_t),
            ess_ratio: of(&ratio),
            ess_ratio_sd: (!ratios.is_empty()).then(|| sd(&ratios)),
            ess_ratio_geometric: of(&|m| m.log_ess_p - m.log_ess_t).map(f64::exp),
            ess_ratio_near_1: of(&|m| f64::from(u8::from((0.9..=1.1).contains(&ratio(m))))),
            q_kl_p: of(&|m| m.kl_p),
            q_kl_t: of(&|m| m.kl_t),
            entropy_p: of(&|m| m.entropy_p),
            entropy_t: of(&|m| m.entropy_t),
            entropy_q: of(&|m| m.entropy_q),
            w_raw_max: raw.as_deref().map(max),
            w_raw_min: raw.as_deref().map(min),
            w_raw_mean: raw.as_deref().map(mean),
            w_raw_cv: raw.as_deref().map(|w| sd(w) / mean(w)),
            w_max: treated.as_deref().map(max),
            w_min: treated.as_deref().map(min),
            w_mean: treated.as_deref().map(mean),
            w_cv: treated.as_deref().map(|w| sd(w) / mean(w)),
            ess_token_raw: self.ess(Level::Token, Treatment::Raw),
            ess_token: self.ess(Level::Token, self.method.weight.treatment),
            ess_prefix_raw: self.ess(Level::Prefix, Treatment::Raw),
            ess_prefix: self.ess(Level::Prefix, self.method.weight.treatment),
            ess_sequence_raw: self.ess(Level::Sequence, Treatment::Raw),
            ess_sequence: self.ess(Level::Sequence, self.method.weight.treatment),
            loss: self.update.map(|update| update.loss),
            gradient_norm: self.update.map(|update| update.gradient_norm),
            gradient_variance: self.update.and_then(|update| update.gradient_variance),
            learning_rate: 0.0,
            kl_coefficient: 0.0,
            log_prob_gap: self.gap(),
            draft_acceptance: self.batch.speculation.and_then(|counts| counts.acceptance()),
            tokens_per_verification: self.batch.speculation.and_then(|counts| counts.tokens_per_round()),
            target_reward_calls: self.batch.cost.reward_calls as i64,
            target_reward_hits: self.batch.cost.reward_hits as i64,
            seconds_rollout: self.batch.seconds_rollout,
            seconds_reward: self.batch.seconds_reward,
            seconds_reference: self.batch.seconds_reference,
            seconds_update: 0.0,
            seconds: 0.0,
            peak_memory_mb: 0.0,
        }
    }

    /// The largest difference between log π_θ of before the update and of its first pass.
    fn gap(&self) -> Option<f64> {
        let before: Option<Vec<f64>> =
            self.learned().map(|sample| sample.log_p.clone()).collect::<Option<Vec<_>>>().map(|rows| rows.concat());
        let (before, trained) = (before?, &self.update?.log_probs);
        Some(before.iter().zip(trained).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
    }

    /// The mean over responses of log π_θ − log π_init of what was drawn.
    fn kl_to_reference(&self) -> Option<f64> {
        let samples = &self.batch.samples;
        let sum = |x: &[f64]| x.iter().sum::<f64>();
        let known = samples.iter().all(|sample| sample.log_init.len() == sample.tokens.len());
        let log_p: Option<f64> = samples.iter().map(|sample| sample.log_p.as_deref().map(sum)).sum();
        let log_init: f64 = samples.iter().map(|sample| sum(&sample.log_init)).sum();
        log_p.filter(|_| known).map(|log_p| (log_p - log_init) / samples.len() as f64)
    }

    fn learned(&self) -> impl Iterator<Item = &Sample> {
        self.batch.learned_samples()
    }

    /// The logarithms of the raw weights of every response's tokens, where the responses come from elsewhere than the policy.
    fn log_weights(&self, level: Level) -> Option<Vec<Vec<f64>>> {
        match self.method.source {
            Source::Drawn(Proposal::Target | Proposal::Mixture(_)) => self
                .learned()
                .map(|sample| Some(log_weights(level, sample.log_p.as_ref()?, sample.log_q.as_ref()?)))
                .collect(),
            // A response was picked as a whole: its tokens share one weight.
            Source::Picked(_) => {
                let picked = self.batch.learned.iter().zip(self.learned());
                picked.map(|(learned, sample)| Some(vec![learned.picked?.0; sample.tokens.len()])).collect()
            }
            _ => None,
        }
    }

    fn ess(&self, level: Level, treatment: Treatment) -> Option<f64> {
        // Normalisation over a prompt needs its number of responses; the learned ones have that of the method.
        let k = self.batch.learned.len() / self.batch.prompts.len().max(1);
        let weights = treatment.treat(level, &self.log_weights(level)?, k);
        Some(match level {
            // A response has one weight, which all its tokens share.
            Level::Sequence => ess(weights.iter().map(|w| w[0])),
            _ => ess(weights.into_iter().flatten()),
        })
    }
}

/// The largest resident memory of this process so far, in MB.
pub(super) fn peak_memory_mb() -> f64 {
    // SAFETY: getrusage only fills the struct that it is given.
    let kilobytes = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_maxrss
    };
    kilobytes as f64 / 1024.0
}

fn max(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn min(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::INFINITY, f64::min)
}
