//! The rounds of speculative sampling, for a batch of responses that accept different lengths.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rayon::prelude::*;

use super::super::sampler::{Row, Sampler};
use super::super::{Draw, Proposal, Response};
use super::reader::Reader;
use super::verify::{Place, Verified, invert, verify};
use super::{Counts, Draft, Round, Speculated, Speculation};
use crate::mixture::{self, Distribution, Temperature};
use crate::models::{Decoder, Network};
use crate::target::{Cost, Target};

impl Sampler<'_> {
    /// As [`rollout`](Self::rollout), with the same law of the responses and other random numbers: tokens are drafted, then
    /// verified.
    ///
    /// # Errors
    /// As there, and those of [`Speculation::check`]; a draft with another vocabulary, or that is what is drawn from.
    pub fn speculate(
        &self,
        policy: &Network,
        target: Option<&dyn Target>,
        draft: Draft,
        speculation: &Speculation,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Speculated> {
        // Inside the pool, so that its threads are not woken and waited for at every product.
        rayon::scope(|_| self.speculate_in_pool(policy, target, draft, speculation, prompts, k))
    }

    fn speculate_in_pool(
        &self,
        policy: &Network,
        target: Option<&dyn Target>,
        draft: Draft,
        speculation: &Speculation,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Speculated> {
        self.temperature.check()?;
        self.truncation.check()?;
        speculation.check()?;
        ensure!(self.in_step.is_none(), "speculation and weights that are spread over ranks do not go together");
        let (draft, policy_drafts) = match draft {
            Draft::Policy => (policy, true),
            Draft::Model(model) => (model, false),
        };
        ensure!(
            !(policy_drafts && self.proposal == Proposal::Policy),
            "the policy drafts for itself: that saves nothing; draft with a smaller model"
        );
        ensure!(
            draft.vocabulary() == policy.vocabulary(),
            "draft and policy have vocabularies of different sizes, {} and {}: they must share a tokenizer",
            draft.vocabulary(),
            policy.vocabulary()
        );
        let target = match self.proposal {
            Proposal::Policy => None,
            _ => Some(target.with_context(|| format!("the proposal {:?} needs a target model", self.proposal))?),
        };
        // Its logits are part of q, and behind the last drafted token too.
        let drafted_by_policy = policy_drafts && self.proposal != Proposal::Target;
        let verifies = !policy_drafts && self.proposal != Proposal::Target;
        let models = [
            (if policy_drafts { "policy" } else { "draft" }, Some(draft.max_positions())),
            ("policy", verifies.then(|| policy.max_positions())),
            ("target", target.map(Target::max_positions)),
        ];
        for (name, positions) in models {
            positions.map_or(Ok(()), |positions| self.check_lengths(name, positions, prompts))?;
        }
        let rows = prompts.len() * k;
        let empty = || Response { draws: Vec::new(), ended: false };
        if rows == 0 || self.max_response_tokens == 0 {
            let responses = (0..rows).map(|_| empty()).collect();
            let (cost, counts) = (Cost::default(), Counts::default());
            return Ok(Speculated { responses, cost, counts, rounds: Vec::new() });
        }
        let start = Instant::now();
        let chains = speculation.candidates;
        // Beside the response there is room for what is drafted beyond its end, as padding.
        let room = self.max_response_tokens + speculation.gamma.most().min(self.max_response_tokens) + 2;
        let all = rows * chains;
        let decoder = |network| -> Result<Reader> {
            Ok(Reader::new(Box::new(Decoder::prefill(network, prompts, k * chains, room)?), all))
        };
        let mut rounds = Rounds {
            sampler: self,
            speculation,
            drafted_by_policy,
            draft: decoder(draft)?,
            policy: verifies.then(|| decoder(policy)).transpose()?,
            target: target
                .map(|target| Ok::<_, anyhow::Error>(Reader::new(target.read(prompts, k * chains, room)?, all)))
                .transpose()?,
            responses: (0..rows).map(|_| empty()).collect(),
            counts: Counts::default(),
            rounds: Vec::new(),
        };
        rounds.counts.seconds_prompts = start.elapsed().as_secs_f64();
        if let Some(target) = &rounds.target {
            let (own, other) = (policy.vocabulary(), target.contexts().vocabulary());
            ensure!(
                own == other,
                "policy and target have vocabularies of different sizes, {own} and {other}: they must share a tokenizer"
            );
        }
        let mut going: Vec<Going> = (0..rows).map(|row| Going { row: self.row(row), tested: 0, accepted: 0 }).collect();
        while !going.is_empty() {
            going = rounds.round(going)?;
        }
        let mut cost = Cost::default();
        let Rounds { draft, policy, target, responses, counts, rounds, .. } = rounds;
        [Some(draft), policy, target].into_iter().flatten().for_each(|reader| cost += reader.contexts().cost());
        Ok(Speculated { responses, cost, counts, rounds })
    }
}

/// A response that is still going, with what became of the tokens drafted for it.
struct Going<'a> {
    row: Row<'a>,
    tested: usize,
    accepted: usize,
}

/// The models, and the responses so far. A response's chains are rows of the models, side by side.
struct Rounds<'s, 'a> {
    sampler: &'s Sampler<'s>,
    speculation: &'s Speculation,
    drafted_by_policy: bool,
    draft: Reader<'a>,
    /// The policy, where another model drafts and q needs it.
    policy: Option<Reader<'a>>,
    target: Option<Reader<'a>>,
    responses: Vec<Response>,
    counts: Counts,
    rounds: Vec<Round>,
}

/// What one round drafted for one response.
struct Drafted {
    /// γ tokens of each chain; fewer where one of them would end the response.
    chains: Vec<Vec<u32>>,
    /// Of each chain the draft's logits before every token, and behind the last one where the policy drafts.
    logits: Vec<Vec<Vec<f32>>>,
    /// How many tokens of each chain the draft has read, and the models that verify.
    read_by_draft: Vec<usize>,
    read: Vec<usize>,
}

/// What one round gave one response.
struct Kept {
    verified: Verified,
    draws: Vec<Draw>,
    ended: bool,
}

impl Rounds<'_, '_> {
    /// Drafts, verifies, and leaves the models where every response stands; gives those that go on.
    fn round<'r>(&mut self, mut going: Vec<Going<'r>>) -> Result<Vec<Going<'r>>> {
        let (start, passes_before, rows) = (Instant::now(), self.counts.draft_passes, going.len());
        let drafted = self.draft_tokens(&mut going)?;
        let seconds_draft = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let read = |drafted: &Drafted| -> Vec<Vec<u32>> {
            drafted.chains.iter().zip(&drafted.read).map(|(chain, &read)| chain[..read].to_vec()).collect()
        };
        let chains: Vec<Vec<u32>> = drafted.iter().flat_map(read).collect();
        let mut passes = 0;
        for reader in [&mut self.policy, &mut self.target].into_iter().flatten() {
            passes = u64::from(reader.read(&chains)?).max(passes);
        }
        self.counts.verify_passes += passes;
        let this = &*self;
        let kept: Vec<Kept> = going
            .par_iter_mut()
            .zip(&drafted)
            .enumerate()
            .map(|(place, (going, drafted))| {
                let number = going.row.number;
                this.keep_tokens(place, going, drafted).with_context(|| format!("row {number}"))
            })
            .collect::<Result<_>>()?;
        let next = self.turn(going, &drafted, kept)?;
        let seconds_verify = start.elapsed().as_secs_f64();
        self.counts.seconds_draft += seconds_draft;
        self.counts.seconds_verify += seconds_verify;
        let gammas = || drafted.iter().flat_map(|drafted| &drafted.chains).map(Vec::len);
        let (gamma, least) = (gammas().max().unwrap_or(0), gammas().min().unwrap_or(0));
        let draft_passes = self.counts.draft_passes - passes_before;
        self.rounds.push(Round { rows, gamma, least, draft_passes, seconds_draft, seconds_verify });
        Ok(next)
    }

    /// γ tokens for each chain of each response; fewer where the response has no room for more, or ends.
    fn draft_tokens(&mut self, going: &mut [Going]) -> Result<Vec<Drafted>> {
        let count = self.speculation.candidates;
        let gammas: Vec<usize> = going.iter().map(|going| self.gamma(going)).collect();
        let numbers: Vec<u64> = going.iter().map(|going| going.row.number).collect();
        let rows = going.len() * count;
        let longest = gammas.iter().copied().max().unwrap_or(0);
        // A draft that nothing asks for can read later what was kept.
        if longest > 0 || self.drafted_by_policy {
            self.counts.draft_passes += u64::from(self.draft.read(&vec![Vec::new(); rows])?);
        }
        let mut chains: Vec<Vec<u32>> = vec![Vec::new(); rows];
        let mut logits: Vec<Vec<Vec<f32>>> = vec![Vec::new(); rows];
        let mut ended = vec![false; rows];
        for j in 0..=longest {
            // Behind the last token the policy's logits are part of q.
            let wanted = |row: usize| j < gammas[row / count] || (self.drafted_by_policy && j == gammas[row / count]);
            for (row, logits) in logits.iter_mut().enumerate().filter(|(row, _)| wanted(*row) && !ended[*row]) {
                logits.push(if j == 0 {
                    self.draft.at(row, 0).to_vec()
                } else {
                    self.draft.contexts().row(row).to_vec()
                });
            }
            let mut uniforms = Vec::with_capacity(rows);
            for (place, going) in going.iter_mut().enumerate() {
                for ended in &ended[place * count..(place + 1) * count] {
                    uniforms.push((j < gammas[place] && !ended).then(|| going.row.rng.random::<f64>()));
                }
            }
            let draw = |(row, (logits, uniform)): (usize, (&Vec<Vec<f32>>, Option<f64>))| -> Result<Option<u32>> {
                let (Some(uniform), Some(last)) = (uniform, logits.last()) else { return Ok(None) };
                let draft =
                    self.draft_distribution(last).with_context(|| format!("row {}: drafting", numbers[row / count]))?;
                Ok(Some(invert(&draft, uniform) as u32))
            };
            let tokens: Vec<Option<u32>> =
                logits.par_iter().zip(uniforms).enumerate().map(draw).collect::<Result<_>>()?;
            for ((chain, token), ended) in chains.iter_mut().zip(&tokens).zip(&mut ended) {
                chain.extend(token);
                *ended |= token.is_some_and(|token| self.sampler.stop_tokens.contains(&token));
            }
            // Another model need not read the last one: whether it is kept is not known yet. Behind one that ends the response
            // nobody needs to know what follows.
            let is_read = |row: usize| !ended[row] && (j + 1 < gammas[row / count] || self.drafted_by_policy);
            let read: Vec<Vec<u32>> = tokens
                .iter()
                .enumerate()
                .map(|(row, token)| token.filter(|_| is_read(row)).into_iter().collect())
                .collect();
            self.counts.draft_passes += u64::from(self.draft.go_on(&read)?);
        }
        self.counts.drafted += chains.iter().map(|chain| chain.len() as u64).sum::<u64>();
        let read: Vec<usize> =
            chains.iter().zip(&ended).map(|(chain, ended)| chain.len() - usize::from(*ended)).collect();
        let read_by_draft = |row: usize| {
            let unread = usize::from(!self.drafted_by_policy && !ended[row]);
            read[row].saturating_sub(unread)
        };
        let (mut chains, mut logits) = (chains.into_iter(), logits.into_iter());
        let take = |place: usize| Drafted {
            chains: chains.by_ref().take(count).collect(),
            logits: logits.by_ref().take(count).collect(),
            read_by_draft: (place * count..(place + 1) * count).map(read_by_draft).collect(),
            read: read[place * count..(place + 1) * count].to_vec(),
        };
        Ok((0..going.len()).map(take).collect())
    }

    /// At most one less than the response has room for: the last one is never a drafted one.
    fn gamma(&self, going: &Going) -> usize {
        let left = self.sampler.max_response_tokens - self.responses[going.row.place].draws.len();
        let further = usize::from(self.drafted_by_policy);
        self.speculation.gamma.next(going.tested, going.accepted, further, left - 1)
    }

    /// What is kept for the response at a place of the batch.
    fn keep_tokens(&self, place: usize, going: &mut Going, drafted: &Drafted) -> Result<Kept> {
        let first = place * self.speculation.candidates;
        let (mut draws, mut ended) = (Vec::new(), false);
        let row = &mut going.row;
        let mut rng = row.rng.clone();
        let verified = verify(
            &drafted.chains,
            |chain, j| {
                let logits = &drafted.logits[chain];
                let draft =
                    (j < drafted.chains[chain].len()).then(|| self.draft_distribution(&logits[j])).transpose()?;
                Ok(Place { q: self.q(first + chain, logits, j)?, draft })
            },
            |probabilities| invert(probabilities, rng.random()),
            |chain, j, token, q| {
                draws.push(self.draw(first + chain, &drafted.logits[chain], j, token, q)?);
                ended = row.ends(self.sampler, token)?;
                Ok(ended)
            },
        )?;
        row.rng = rng;
        going.tested += verified.tested;
        going.accepted += verified.accepted;
        Ok(Kept { verified, draws, ended })
    }

    fn draft_distribution(&self, logits: &[f32]) -> Result<Vec<f64>> {
        let Temperature { policy, target, mixture } = self.sampler.temperature;
        let of_model = if self.sampler.proposal == Proposal::Target { target } else { policy };
        let temperature = self.speculation.draft_temperature * of_model * mixture;
        Ok(mixture::distribution_softmax(logits, temperature, &self.sampler.truncation)?.probabilities)
    }

    /// The logits of policy and target before token j of a chain.
    fn logits<'l>(&'l self, row: usize, drafted: &'l [Vec<f32>], j: usize) -> (Option<&'l [f32]>, Option<&'l [f32]>) {
        let policy = match &self.policy {
            Some(policy) => Some(policy.at(row, j)),
            None => self.drafted_by_policy.then(|| &drafted[j][..]),
        };
        (policy, self.target.as_ref().map(|target| target.at(row, j)))
    }

    fn q(&self, row: usize, drafted: &[Vec<f32>], j: usize) -> Result<Distribution> {
        let Sampler { temperature, truncation, .. } = self.sampler;
        match (self.sampler.proposal, self.logits(row, drafted, j)) {
            (Proposal::Mixture(rule), (Some(p), Some(t))) => {
                mixture::distribution(p, t, &rule, temperature, truncation)
            }
            (Proposal::Policy, (Some(p), _)) => {
                mixture::distribution_softmax(p, temperature.policy * temperature.mixture, truncation)
            }
            (Proposal::Target, (_, Some(t))) => {
                mixture::distribution_softmax(t, temperature.target * temperature.mixture, truncation)
            }
            (proposal, _) => bail!("the proposal {proposal:?} needs a model that was not run"),
        }
    }

    /// What is known of a token that was kept: the same as of one that was drawn from q at once.
    fn draw(&self, row: usize, drafted: &[Vec<f32>], j: usize, token: u32, q: &Distribution) -> Result<Draw> {
        let (policy, target) = self.logits(row, drafted, j);
        let policy = policy.filter(|_| self.sampler.proposal != Proposal::Target);
        Ok(Draw {
            token,
            log_q: q.probabilities[token as usize].ln(),
            log_kept: q.log_kept,
            log_p: policy.map(|logits| mixture::log_prob(logits, token)).transpose()?,
            log_t: target.map(|logits| mixture::log_prob(logits, token)).transpose()?,
            mixture: q.solution,
        })
    }

    /// Takes the models back to what was kept and notes it; what goes on has all its chains on the accepted one.
    fn turn<'r>(&mut self, going: Vec<Going<'r>>, drafted: &[Drafted], kept: Vec<Kept>) -> Result<Vec<Going<'r>>> {
        let before = self.counts.tokens;
        let count = self.speculation.candidates;
        let (mut back, mut draft_back, mut pending, mut draft_pending) = (vec![], vec![], vec![], vec![]);
        let (mut places, mut next) = (Vec::new(), Vec::new());
        for (place, ((going, drafted), kept)) in going.into_iter().zip(drafted).zip(kept).enumerate() {
            let Verified { chain, accepted, tested, last } = kept.verified;
            self.counts.rounds += 1;
            self.counts.tested += tested as u64;
            self.counts.accepted += accepted as u64;
            self.counts.tested_first += u64::from(tested > 0);
            self.counts.accepted_first += u64::from(accepted > 0);
            self.counts.tokens += kept.draws.len() as u64;
            let response = &mut self.responses[going.row.place];
            response.draws.extend(kept.draws);
            response.ended = kept.ended;
            // What a draft that is not the policy read of the chain: all but its last token.
            let unread = &drafted.chains[chain][accepted.min(drafted.read_by_draft[chain])..accepted];
            let rest: Vec<u32> = last.into_iter().collect();
            for (&read, &read_by_draft) in drafted.read.iter().zip(&drafted.read_by_draft) {
                back.push(read.saturating_sub(accepted));
                pending.push(rest.clone());
                draft_back.push(read_by_draft.saturating_sub(accepted));
                draft_pending.push([unread, &rest].concat());
            }
            if !response.ended && response.draws.len() < self.sampler.max_response_tokens {
                places.extend(std::iter::repeat_n(place * count + chain, count));
                next.push(going);
            }
        }
        self.draft.turn(&draft_back, draft_pending);
        for reader in [&mut self.policy, &mut self.target].into_iter().flatten() {
            reader.turn(&back, pending.clone());
        }
        if !next.is_empty() {
            for reader in [Some(&mut self.draft), self.policy.as_mut(), self.target.as_mut()].into_iter().flatten() {
                reader.keep(&places);
            }
        }
        if let Some(progress) = self.sampler.progress {
            let tokens = self.counts.tokens;
            // This round is counted.
            let a_round = self.counts.tokens_per_round().unwrap_or_default();
            progress.message(format!("{tokens} tokens, {a_round:.2} a round"));
            progress.inc(tokens - before);
        }
        Ok(next)
    }
}
