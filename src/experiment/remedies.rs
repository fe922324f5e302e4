//! The remedies against what a target costs, each with what it saves and what it gets wrong.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::World;
use super::targets::held_out;
use crate::metrics::mean;
use crate::mixture::{Pair, Rule, Solution};
use crate::record::record;
use crate::rollout::{Draw, Proposal, Rollout, Sampler};
use crate::target::{Caching, Expert, RewardSoftmax, Target, log_probs_along};
use crate::tasks::Split;

record! {
    /// One remedy.
    pub struct RemedyRow {
        pub remedy: String,
        /// What it saves, such as `reward calls`.
        pub unit: String,
        pub before: f64,
        pub after: f64,
        /// 1 − after / before.
        pub saving: f64,
        /// In nats. Of a remedy that should change nothing, the largest |Δ log π_t| of a drawn token, infinite where another
        /// token was drawn; of a draft, KL(π_t‖draft), the mean over contexts.
        pub error: f64,
    }
}

record! {
    /// What changes where a draft takes a target's place, over contexts that q\* of π_init and the target draws.
    pub struct DraftRow {
        pub contexts: i64,
        /// KL(π_t‖draft): mean over contexts, in nats.
        pub kl: f64,
        /// Means of α\* with the target and with the draft, and of the absolute difference.
        pub alpha: f64,
        pub alpha_draft: f64,
        pub alpha_shift: f64,
        /// The same of log ESS_p(q\*), ESS_p against π_init.
        pub log_ess_p: f64,
        pub log_ess_p_draft: f64,
        pub log_ess_p_shift: f64,
        /// The same of log ESS_t(q\*), each against its own target.
        pub log_ess_t: f64,
        pub log_ess_t_draft: f64,
        pub log_ess_t_shift: f64,
        /// For a context, prompts included: floating-point operations, and the rewards that the target asks for, those that
        /// it knew from before as well.
        pub flops: f64,
        pub flops_draft: f64,
        pub reward_calls: f64,
    }
}

/// Caching for one prompt: rewards computed while q\* draws `responses` to each of the first `prompts` held-out
/// prompts, twice. `softmax` makes the target with a caching; none is the standard that the others are held against.
///
/// # Errors
/// Those of the target.
pub fn caching(
    world: &World,
    softmax: impl Fn(Caching) -> Result<RewardSoftmax>,
    prompts: u64,
    responses: usize,
) -> Result<Vec<RemedyRow>> {
    let ids = prompt_tokens(world, prompts);
    let policy = world.models.initial.frozen()?;
    let twice = |caching| -> Result<Vec<Rollout>> {
        let target = softmax(caching)?;
        let rollout = |round| held_out(&*world.task, Q_STAR, round)?.rollout(&policy, Some(&target), &ids, responses);
        (0..2).map(rollout).collect()
    };
    let before = twice(Caching::Off)?;
    let calls = |rollouts: &[Rollout]| rollouts.iter().map(|rollout| rollout.cost.reward_calls).sum::<u64>() as f64;
    let ways = [("cache: one rollout", Caching::Rollout), ("cache: kept", Caching::Kept { entries: 1 << 20 })];
    let row = |(remedy, caching)| {
        let after = twice(caching)?;
        let error = before.iter().zip(&after).map(|(before, after)| difference(before, after)).fold(0.0, f64::max);
        Ok(RemedyRow::new(remedy, "reward calls", calls(&before), calls(&after), error))
    };
    ways.into_iter().map(row).collect()
}

/// Batching: wall time of one response of the target to each of the first `prompts` held-out prompts, one prompt at a
/// time and all at once.
///
/// # Errors
/// Those of the target.
pub fn batching(world: &World, target: &dyn Target, prompts: u64) -> Result<RemedyRow> {
    let ids = prompt_tokens(world, prompts);
    let policy = world.models.initial.frozen()?;
    let sampler = held_out(&*world.task, Proposal::Target, 0)?;
    let start = Instant::now();
    let mut one_by_one: Option<Rollout> = None;
    for (row, prompt) in ids.iter().enumerate() {
        let sampler = Sampler { first_row: row as u64, ..sampler.clone() };
        let rollout = sampler.rollout(&policy, Some(target), std::slice::from_ref(prompt), 1)?;
        match &mut one_by_one {
            Some(all) => all.responses.extend(rollout.responses),
            None => one_by_one = Some(rollout),
        }
    }
    let before = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let batched = sampler.rollout(&policy, Some(target), &ids, 1)?;
    let after = start.elapsed().as_secs_f64();
    let error = one_by_one.map_or(0.0, |one_by_one| difference(&one_by_one, &batched));
    Ok(RemedyRow::new("batch", "seconds", before, after, error))
}

/// Approximation: a draft in the target's place, over the contexts of one response to each of the first `prompts`
/// held-out prompts.
///
/// # Errors
/// Different vocabularies; those of the targets.
pub fn approximation(world: &World, target: &dyn Target, draft: &dyn Target, prompts: u64) -> Result<DraftRow> {
    let ids = prompt_tokens(world, prompts);
    let initial = Expert::named("initial", &world.models.initial)?;
    let policy = world.models.initial.frozen()?;
    let responses = held_out(&*world.task, Q_STAR, 0)?.draw(&policy, Some(target), &ids, 1)?;
    let responses: Vec<Vec<u32>> = responses.iter().map(|response| response.tokens()).collect();
    let along = |target: &dyn Target| log_probs_along(target, &ids, &responses);
    let (p, t, s) = (along(&initial)?, along(target)?, along(draft)?);
    let mut kl = Vec::with_capacity(t.log_probs.len());
    let (mut own, mut drafted): (Vec<Solution>, Vec<Solution>) = (Vec::new(), Vec::new());
    for ((p, t), s) in p.log_probs.iter().zip(&t.log_probs).zip(&s.log_probs) {
        ensure!(t.len() == s.len(), "the draft has a vocabulary of {} tokens, the target one of {}", s.len(), t.len());
        kl.push(t.iter().zip(s).filter(|(t, _)| t.is_finite()).map(|(t, s)| t.exp() * (t - s)).sum::<f64>());
        own.push(Pair::from_log_probs(p, t)?.solve(&Rule::Q_STAR)?);
        drafted.push(Pair::from_log_probs(p, s)?.solve(&Rule::Q_STAR)?);
    }
    let compare = |of: fn(&Solution) -> f64| {
        let (own, drafted): (Vec<f64>, Vec<f64>) = (own.iter().map(of).collect(), drafted.iter().map(of).collect());
        let shifts: Vec<f64> = own.iter().zip(&drafted).map(|(a, b)| (a - b).abs()).collect();
        [mean(&own), mean(&drafted), mean(&shifts)]
    };
    let [alpha, alpha_draft, alpha_shift] = compare(|solution| solution.alpha);
    let [log_ess_p, log_ess_p_draft, log_ess_p_shift] = compare(|solution| solution.log_ess_p);
    let [log_ess_t, log_ess_t_draft, log_ess_t_shift] = compare(|solution| solution.log_ess_t);
    let n = kl.len() as f64;
    Ok(DraftRow {
        contexts: kl.len() as i64,
        kl: mean(&kl),
        alpha,
        alpha_draft,
        alpha_shift,
        log_ess_p,
        log_ess_p_draft,
        log_ess_p_shift,
        log_ess_t,
        log_ess_t_draft,
        log_ess_t_shift,
        flops: t.cost.forward_flops / n,
        flops_draft: s.cost.forward_flops / n,
        reward_calls: (t.cost.reward_calls + t.cost.reward_hits) as f64 / n,
    })
}

const Q_STAR: Proposal = Proposal::Mixture(Rule::Q_STAR);

impl RemedyRow {
    fn new(remedy: &str, unit: &str, before: f64, after: f64, error: f64) -> Self {
        Self { remedy: remedy.into(), unit: unit.into(), before, after, saving: 1.0 - after / before, error }
    }
}

impl DraftRow {
    /// The draft beside the other remedies.
    pub fn remedies(&self) -> Vec<RemedyRow> {
        let mut rows = vec![RemedyRow::new("draft", "flops a context", self.flops, self.flops_draft, self.kl)];
        if self.reward_calls > 0.0 {
            rows.push(RemedyRow::new("draft", "reward calls a context", self.reward_calls, 0.0, self.kl));
        }
        rows
    }
}

fn prompt_tokens(world: &World, prompts: u64) -> Vec<Vec<u32>> {
    (0..prompts).map(|i| world.task.prompt(Split::Test, i).tokens).collect()
}

/// The largest |Δ log π_t| of a drawn token.
fn difference(a: &Rollout, b: &Rollout) -> f64 {
    let draws =
        |rollout: &Rollout| rollout.responses.iter().flat_map(|response| response.draws.clone()).collect::<Vec<_>>();
    let (a, b) = (draws(a), draws(b));
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let of = |(a, b): (&Draw, &Draw)| match (a.token == b.token, a.log_t, b.log_t) {
        (true, Some(a), Some(b)) => (a - b).abs(),
        _ => f64::INFINITY,
    };
    a.iter().zip(&b).map(of).fold(0.0, f64::max)
}
