//! What draws cost, and that a cache changes nothing else.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qstar::mixture::Rule;
use qstar::models::{LanguageModel, RewardModel};
use qstar::rollout::{Proposal, Response, Rollout, Sampler};
use qstar::target::{Caching, RewardSoftmax, SequenceReward, SoftmaxConfig, Target};

use super::{contexts, gpt2, reward_of};

const K: usize = 4;
const RESPONSES: usize = 3;

fn rollout(policy: &LanguageModel, target: &dyn Target, step: u64) -> Rollout {
    let sampler = Sampler {
        proposal: Proposal::Mixture(Rule::Q_STAR),
        stop_tokens: &[0, 1],
        max_response_tokens: 8,
        step,
        ..Default::default()
    };
    sampler.rollout(&policy.frozen().unwrap(), Some(target), &contexts().0, RESPONSES).unwrap()
}

/// The contexts that responses went through: all, and each once.
fn passed(responses: &[Response]) -> (usize, HashSet<Vec<u32>>) {
    let prompts = contexts().0;
    let (mut all, mut distinct) = (0, HashSet::new());
    for (i, response) in responses.iter().enumerate() {
        for place in 0..response.draws.len() {
            all += 1;
            distinct.insert([&prompts[i / RESPONSES][..], &response.tokens()[..place]].concat());
        }
    }
    (all, distinct)
}

#[test]
fn a_cache_changes_no_bit_and_every_call_is_counted() {
    let (policy, model) = (gpt2(5), gpt2(6));
    let scorer = RewardModel::on(&gpt2(9), 2).unwrap();
    for learned in [false, true] {
        let mut first: Option<Vec<Vec<Response>>> = None;
        for caching in
            [Caching::Off, Caching::Rollout, Caching::Kept { entries: 100_000 }, Caching::Kept { entries: 20 }]
        {
            let calls = Arc::new(AtomicU64::new(0));
            let counter = calls.clone();
            let own = SequenceReward::learned(&scorer).unwrap();
            let reward = SequenceReward::of("counted", move |sequences| {
                counter.fetch_add(sequences.len() as u64, Ordering::Relaxed);
                if learned {
                    Ok(own.scores(sequences)?.0)
                } else {
                    Ok(sequences.iter().map(|s| reward_of(s)).collect())
                }
            });
            let config = SoftmaxConfig { k: K, caching, ..Default::default() };
            let target = RewardSoftmax::new(&model, reward, config).unwrap();
            let rounds = [0, 1, 0].map(|step| rollout(&policy, &target, step));
            let cost: Vec<(u64, u64)> = rounds.iter().map(|r| (r.cost.reward_calls, r.cost.reward_hits)).collect();
            assert_eq!(calls.load(Ordering::Relaxed), cost.iter().map(|(calls, _)| calls).sum::<u64>());
            let mut seen: HashSet<Vec<u32>> = HashSet::new();
            for (round, &(calls, hits)) in rounds.iter().zip(&cost) {
                let (all, distinct) = passed(&round.responses);
                let expected = match caching {
                    Caching::Off => all,
                    Caching::Rollout => distinct.len(),
                    Caching::Kept { entries: 20 } => continue,
                    Caching::Kept { .. } => distinct.difference(&seen).count(),
                };
                assert_eq!(calls, (K * expected) as u64, "{caching:?}");
                let hits_expected = if caching == Caching::Off { 0 } else { K * all - K * expected };
                assert_eq!(hits, hits_expected as u64, "{caching:?}");
                seen.extend(distinct);
            }
            println!("learned {learned}, {caching:?}: (calls, hits) {cost:?}");
            let responses: Vec<Vec<Response>> = rounds.into_iter().map(|round| round.responses).collect();
            assert_eq!(responses[0], responses[2], "the same draws");
            match &first {
                Some(first) => assert!(*first == responses, "{caching:?} drew something else, learned {learned}"),
                None => first = Some(responses),
            }
        }
    }
}

#[test]
fn identities_tell_targets_apart() {
    let (model, other) = (gpt2(6), gpt2(7));
    let scorer = RewardModel::on(&gpt2(9), 2).unwrap();
    let standard = SoftmaxConfig { k: K, ..Default::default() };
    let identity = |model: &LanguageModel, scorer: &RewardModel, config| {
        RewardSoftmax::new(model, SequenceReward::learned(scorer).unwrap(), config).unwrap().identity()
    };
    let all = [
        identity(&model, &scorer, standard),
        identity(&other, &scorer, standard),
        identity(&model, &RewardModel::on(&gpt2(9), 3).unwrap(), standard),
        identity(&model, &scorer, SoftmaxConfig { k: 5, ..standard }),
        identity(&model, &scorer, SoftmaxConfig { beta: 0.2, ..standard }),
        identity(&model, &scorer, SoftmaxConfig { base: qstar::target::Base::Uniform, ..standard }),
        identity(&model, &scorer, SoftmaxConfig { caching: Caching::Off, ..standard }),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:#?}");
    assert_eq!(all[0], identity(&gpt2(6), &scorer, standard));
}
