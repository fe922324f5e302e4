//! What a step learns from: responses with all that is known of them before the update.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::sequences::numbers;
use super::{Sequences, StepConfig};
use crate::method::{Method, Rejection, Source, leave_one_out};
use crate::mixture::{Solution, Temperature};
use crate::models::Network;
use crate::ranks::Ranks;
use crate::rollout::speculative::Counts;
use crate::rollout::{Draft, Draw, Proposal, Response, Sampler};
use crate::seed::{Purpose, rng};
use crate::target::{BestOfN, Cost, Target};
use crate::tasks::{Prompt, Split, Task};

/// One response, drawn or read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Its prompt, by the place among the batch's prompts. The samples of one prompt stand together.
    pub prompt: usize,
    pub tokens: Vec<u32>,
    pub ended: bool,
    /// How its tokens were drawn; none where it was read.
    pub draws: Vec<Draw>,
    /// The true reward, and what was made of it.
    pub reward: f64,
    pub shaped: f64,
    /// Log-probabilities of the tokens: under the distribution that they were drawn from, under π_θ before the update
    /// where the method looks at it, under π_init likewise (else empty, also where the divergence from it costs nothing).
    pub log_q: Option<Vec<f64>>,
    pub log_p: Option<Vec<f64>>,
    pub log_init: Vec<f64>,
}

/// A sample that the update learns from.
#[derive(Debug, Clone, Copy)]
pub struct Learned {
    pub sample: usize,
    /// Where it was picked from several: the log of its weight, and the mean return of the others.
    pub picked: Option<(f64, f64)>,
}

/// The samples of one step.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub prompts: Vec<Prompt>,
    pub samples: Vec<Sample>,
    pub learned: Vec<Learned>,
    /// α and diagnostics of mixtures over whole responses.
    pub picks: Vec<Solution>,
    /// What drawing and scoring have cost.
    pub cost: Cost,
    /// What speculation came to, where it drew.
    pub speculation: Option<Counts>,
    pub seconds_rollout: f64,
    pub seconds_reward: f64,
    pub seconds_reference: f64,
}

impl Sample {
    /// A response of which nothing else is known yet.
    pub fn new(prompt: usize, tokens: Vec<u32>, ended: bool) -> Self {
        Self {
            prompt,
            tokens,
            ended,
            draws: Vec::new(),
            reward: 0.0,
            shaped: 0.0,
            log_q: None,
            log_p: None,
            log_init: Vec::new(),
        }
    }

    /// The return: the shaped reward less β log π_θ/π_init.
    pub(super) fn value(&self, beta: f64) -> Result<f64> {
        let sum = |x: &[f64]| x.iter().sum::<f64>();
        Ok(self.shaped - beta * (sum(self.log_p()?) - sum(self.reference()?)))
    }

    /// What the divergence from π_init is measured with: log π_init, or where that costs nothing log π_θ, which gives 0.
    pub(super) fn reference(&self) -> Result<&[f64]> {
        if self.log_init.is_empty() { self.log_p() } else { Ok(&self.log_init) }
    }

    pub(super) fn log_p(&self) -> Result<&[f64]> {
        self.log_p.as_deref().context("the update needs the policy's log-probabilities of the responses")
    }

    pub(super) fn log_q(&self) -> Result<&[f64]> {
        self.log_q.as_deref().context("the update needs the log-probabilities that the responses were drawn with")
    }
}

/// What responses are made from.
pub(super) struct Origin<'a> {
    pub task: &'a dyn Task,
    pub method: &'a Method,
    pub config: &'a StepConfig,
    pub seed: u64,
    pub step: u64,
    pub policy: &'a Network,
    pub target: Option<&'a dyn Target>,
    pub ranks: &'a Ranks,
}

/// Responses to all prompts, and what drawing them has cost.
#[derive(Default)]
pub(super) struct Drawn {
    pub samples: Vec<Sample>,
    pub cost: Cost,
    pub speculation: Option<Counts>,
}

impl Origin<'_> {
    pub fn prompts(&self) -> Vec<Prompt> {
        let first = (self.seed << 32) + self.step * self.config.prompts as u64;
        (0..self.config.prompts as u64).map(|i| self.task.prompt(Split::Train, first + i)).collect()
    }

    /// The responses to the prompts `own` of all, without rewards.
    pub fn samples(&self, all: &[Prompt], own: Range<usize>) -> Result<Drawn> {
        let (k, first) = (self.config.responses, own.start);
        let prompts = &all[own];
        let (proposal, k) = match self.method.source {
            Source::Demonstrations => {
                let one = |prompt: &Prompt, draw| Some(vec![self.task.demonstration(prompt, draw)?]);
                return Ok(Drawn { samples: self.read(prompts, first, k, one), ..Drawn::default() });
            }
            Source::Preferences => {
                let both = |prompt: &Prompt, draw| {
                    let pair = self.task.preference(prompt, draw)?;
                    Some(vec![pair.chosen, pair.rejected])
                };
                return Ok(Drawn { samples: self.read(prompts, first, k / 2, both), ..Drawn::default() });
            }
            Source::Drawn(proposal) => (proposal, k),
            Source::Accepted(_) => (Proposal::Policy, k),
            Source::Picked(best) => (Proposal::Policy, best.n),
        };
        let ids: Vec<Vec<u32>> = prompts.iter().map(|p| p.tokens.clone()).collect();
        let sampler = Sampler {
            proposal,
            seed: self.seed,
            purpose: Purpose::Rollout,
            step: self.step,
            first_row: (first * k) as u64,
            in_step: self.policy.is_spread().then_some(self.ranks),
            temperature: Temperature { mixture: self.config.temperature, ..Temperature::ONE },
            ..Sampler::of(self.task)?
        };
        let (responses, cost, speculation) = match &self.config.speculation {
            Some(speculation) => {
                let drawn = sampler.speculate(self.policy, self.target, Draft::Policy, speculation, &ids, k)?;
                (drawn.responses, drawn.cost, Some(drawn.counts))
            }
            None => {
                let drawn = sampler.rollout(self.policy, self.target, &ids, k)?;
                (drawn.responses, drawn.cost, None)
            }
        };
        let drawn = |(i, response): (usize, Response)| {
            let column = |of: &dyn Fn(&Draw) -> f64| response.draws.iter().map(of).collect::<Vec<f64>>();
            let log_p: Option<Vec<f64>> = response.draws.iter().map(|draw| draw.log_p).collect();
            Sample {
                log_q: Some(column(&|draw| draw.log_q)),
                log_p,
                draws: response.draws.clone(),
                ..Sample::new(first + i / k, response.tokens(), response.ended)
            }
        };
        Ok(Drawn { samples: responses.into_iter().enumerate().map(drawn).collect(), cost, speculation })
    }

    /// What the task has for every prompt, of which the first has the number `first`: `of(prompt, draw)` for so many draws,
    /// or as many as there are.
    fn read(
        &self,
        prompts: &[Prompt],
        first: usize,
        draws: usize,
        of: impl Fn(&Prompt, u64) -> Option<Vec<Vec<u32>>>,
    ) -> Vec<Sample> {
        let mut samples: Vec<Sample> = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let ends = |tokens: &[u32]| tokens.last().is_some_and(|last| self.task.stop_tokens().contains(last));
            for found in (0..draws as u64).map_while(|draw| of(prompt, draw)).flatten() {
                samples.push(Sample::new(first + i, found.clone(), ends(&found)));
            }
        }
        samples
    }
}

/// What one rank has of a batch.
#[derive(Serialize, Deserialize)]
struct Share {
    samples: Vec<Sample>,
    cost: Cost,
    speculation: Option<Counts>,
    /// Of drawing, of the rewards, and of the reference.
    seconds: [f64; 3],
}

impl Batch {
    /// Makes of the shares of all ranks the whole batch, which each of them gets. The ranks wait for each other: seconds are
    /// those of the slowest.
    pub(super) fn exchange(&mut self, ranks: &Ranks) -> Result<()> {
        let share = Share {
            samples: std::mem::take(&mut self.samples),
            cost: self.cost,
            speculation: self.speculation,
            seconds: [self.seconds_rollout, self.seconds_reward, self.seconds_reference],
        };
        self.cost = Cost::default();
        self.speculation = None;
        let mut slowest = [0.0; 3];
        for share in ranks.exchange(share)? {
            self.samples.extend(share.samples);
            self.cost += share.cost;
            if let Some(counts) = share.speculation {
                *self.speculation.get_or_insert_default() += counts;
            }
            slowest
                .iter_mut()
                .zip(share.seconds)
                .for_each(|(most, seconds): (&mut f64, f64)| *most = most.max(seconds));
        }
        [self.seconds_rollout, self.seconds_reward, self.seconds_reference] = slowest;
        Ok(())
    }

    /// What the method learns from, of samples that have rewards and log-probabilities.
    pub(super) fn learn(
        &mut self,
        method: &Method,
        config: &StepConfig,
        beta: f64,
        seed: u64,
        step: u64,
    ) -> Result<()> {
        match method.source {
            Source::Accepted(rejection) => self.accept(&rejection, config.responses, seed, step),
            Source::Picked(best) => self.pick(&best, config.responses, beta, seed, step),
            _ => {
                self.learned = (0..self.samples.len()).map(|sample| Learned { sample, picked: None }).collect();
                Ok(())
            }
        }
    }

    fn accept(&mut self, rejection: &Rejection, k: usize, seed: u64, step: u64) -> Result<()> {
        let sum = |x: &[f64]| x.iter().sum::<f64>();
        let rewards: Vec<f64> = self.samples.iter().map(|sample| sample.reward).collect();
        let log_p: Vec<f64> = self.samples.iter().map(|s| Ok(sum(s.log_p()?))).collect::<Result<_>>()?;
        let log_init: Vec<f64> = self.samples.iter().map(|s| sum(&s.log_init)).collect();
        let accepted = rejection.log_acceptance(&rewards, &log_p, &log_init, k);
        let passes = |(sample, log_probability): (usize, f64)| {
            let uniform: f64 = rng(seed, Purpose::Accept, step, sample as u64).random();
            (uniform < log_probability.exp()).then_some(Learned { sample, picked: None })
        };
        self.learned = accepted.into_iter().enumerate().filter_map(passes).collect();
        Ok(())
    }

    fn pick(&mut self, best: &BestOfN, k: usize, beta: f64, seed: u64, step: u64) -> Result<()> {
        for prompt in 0..self.prompts.len() {
            let first = prompt * best.n;
            let samples = &self.samples[first..first + best.n];
            let rewards: Vec<f64> = samples.iter().map(|sample| sample.reward).collect();
            let returns: Vec<f64> = samples.iter().map(|sample| sample.value(beta)).collect::<Result<_>>()?;
            // The baseline of a response comes from the other draws: the other picks depend on it.
            let advantages = leave_one_out(&returns, best.n);
            let picks = best.pick(&rewards, k, &mut rng(seed, Purpose::Pick, step, prompt as u64))?;
            self.learned.extend(picks.picks.iter().map(|&(i, log_weight)| Learned {
                sample: first + i,
                picked: Some((log_weight, returns[i] - advantages[i])),
            }));
            self.picks.push(picks.solution);
        }
        Ok(())
    }

    /// (prompt, response) of all samples, and of those that are learned from.
    pub(super) fn pairs(&self) -> Vec<(&[u32], &[u32])> {
        self.samples.iter().map(|sample| self.pair(sample)).collect()
    }

    pub(super) fn learned_pairs(&self) -> Vec<(&[u32], &[u32])> {
        self.learned_samples().map(|sample| self.pair(sample)).collect()
    }

    pub(super) fn learned_samples(&self) -> impl Iterator<Item = &Sample> {
        self.learned.iter().map(|learned| &self.samples[learned.sample])
    }

    fn pair<'b>(&'b self, sample: &'b Sample) -> (&'b [u32], &'b [u32]) {
        (&self.prompts[sample.prompt].tokens, &sample.tokens)
    }
}

/// log-probabilities of every response's tokens under a model.
pub(super) fn log_probs_under(network: &Network, pairs: &[(&[u32], &[u32])]) -> Result<Vec<Vec<f64>>> {
    ensure!(!pairs.is_empty(), "there are no responses");
    let sequences = Sequences::new(pairs)?;
    Ok(sequences.by_response(&numbers(&sequences.log_probs(network, &sequences.hidden(network)?)?)?))
}
