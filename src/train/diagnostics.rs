//! The diagnostics of one step, from what was drawn.

use crate::method::{Level, Treatment, Weight, ess, log_weights};
use crate::metrics::{mean, sd};
use crate::mixture::{Solution, Status};
use crate::record::StepRow;
use crate::rollout::Response;

/// The bins of the histogram of α.
const BINS: usize = 20;

/// What was drawn in one step, and the treated weights where the method has any.
pub(super) struct Drawn<'a> {
    pub weight: Weight,
    pub responses: &'a [Response],
    pub weights: Option<&'a [Vec<f64>]>,
}

impl Drawn<'_> {
    /// A row with all that follows from the draws; the rest is zero or null.
    pub fn row(&self, rewards: &[f64]) -> StepRow {
        let mixtures: Vec<Solution> = self.draws().filter_map(|draw| draw.mixture).collect();
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
        let lengths: Vec<f64> = self.responses.iter().map(|r| r.draws.len() as f64).collect();
        let ended: Vec<f64> = self.responses.iter().map(|r| f64::from(u8::from(r.ended))).collect();
        let raw = self.raw_weights(self.weight.level);
        let treated = self.weights.filter(|_| raw.is_some()).map(|w| w.concat());
        let raw_flat = raw.map(|w| w.concat());
        StepRow {
            step: 0,
            samples: 0,
            tokens: 0,
            q_reward: mean(rewards),
            q_reward_sd: sd(rewards),
            q_length: mean(&lengths),
            q_ended: mean(&ended),
            q_kl_init: None,
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
            w_raw_max: raw_flat.as_deref().map(max),
            w_raw_min: raw_flat.as_deref().map(min),
            w_raw_mean: raw_flat.as_deref().map(mean),
            w_raw_cv: raw_flat.as_deref().map(|w| sd(w) / mean(w)),
            w_max: treated.as_deref().map(max),
            w_min: treated.as_deref().map(min),
            w_mean: treated.as_deref().map(mean),
            w_cv: treated.as_deref().map(|w| sd(w) / mean(w)),
            ess_token_raw: self.ess(Level::Token, Treatment::Raw),
            ess_token: self.ess(Level::Token, self.weight.treatment),
            ess_prefix_raw: self.ess(Level::Prefix, Treatment::Raw),
            ess_prefix: self.ess(Level::Prefix, self.weight.treatment),
            ess_sequence_raw: self.ess(Level::Sequence, Treatment::Raw),
            ess_sequence: self.ess(Level::Sequence, self.weight.treatment),
            loss: 0.0,
            gradient_norm: 0.0,
            gradient_variance: None,
            learning_rate: 0.0,
            log_prob_gap: None,
            flops: 0.0,
            seconds_rollout: 0.0,
            seconds_reward: 0.0,
            seconds_reference: 0.0,
            seconds_update: 0.0,
            seconds: 0.0,
            peak_memory_mb: 0.0,
        }
    }

    /// The largest difference between log π_θ of the rollout and of the update's first pass.
    pub fn gap(&self, log_probs: &[f64]) -> Option<f64> {
        let gaps: Option<Vec<f64>> =
            self.draws().zip(log_probs).map(|(draw, trained)| Some((draw.log_p? - trained).abs())).collect();
        gaps.map(|gaps| max(&gaps))
    }

    /// The mean over responses of log π_θ − log π_init of what was drawn.
    pub fn kl_to_reference(&self, reference: &[Vec<f64>]) -> Option<f64> {
        let log_p: Option<f64> = self.draws().map(|draw| draw.log_p).sum();
        let reference: f64 = reference.iter().flatten().sum();
        log_p.map(|p| (p - reference) / self.responses.len() as f64)
    }

    fn draws(&self) -> impl Iterator<Item = &crate::rollout::Draw> {
        self.responses.iter().flat_map(|r| &r.draws)
    }

    /// (log π_θ, log q) of every response's tokens, where q is a mixture.
    fn log_probs(&self) -> Option<[Vec<Vec<f64>>; 2]> {
        self.draws().all(|draw| draw.mixture.is_some()).then_some(())?;
        let column = |of: &dyn Fn(&crate::rollout::Draw) -> f64| -> Vec<Vec<f64>> {
            self.responses.iter().map(|r| r.draws.iter().map(of).collect()).collect()
        };
        Some([column(&|d| d.log_p.unwrap_or(f64::NAN)), column(&|d| d.log_q)])
    }

    fn raw_weights(&self, level: Level) -> Option<Vec<Vec<f64>>> {
        let [p, q] = self.log_probs()?;
        Some(p.iter().zip(&q).map(|(p, q)| log_weights(level, p, q).iter().map(|w| w.exp()).collect()).collect())
    }

    fn ess(&self, level: Level, treatment: Treatment) -> Option<f64> {
        let [p, q] = self.log_probs()?;
        let weights = Weight { level, treatment }.weights(&p, &q);
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
