//! On models with KV caches: what is known of a drawn token, what responses are drawn, and where they end.

use anyhow::Result;
use qstar::mixture::{Rule, Temperature, Truncation, distribution, distribution_softmax};
use qstar::models::{Config, Gpt2Config, LanguageModel, LlamaConfig, Network};
use qstar::rollout::{Draft, Gamma, Proposal, Response, Sampler, Speculated, Speculation, StopStrings};
use qstar::target::{Expert, RewardSoftmax, SequenceReward, SoftmaxConfig, Target};
use statrs::distribution::{ChiSquared, ContinuousCDF};
use tokenizers::Tokenizer;

pub const VOCABULARY: usize = 13;

pub fn gpt2(seed: u64, width: usize) -> LanguageModel {
    let config = Gpt2Config {
        vocab_size: VOCABULARY,
        n_positions: 48,
        n_embd: width,
        n_layer: 2,
        n_head: 2,
        initializer_range: 0.25,
        ..Default::default()
    };
    LanguageModel::new(Config::Gpt2(config), seed).unwrap()
}

pub fn llama(seed: u64) -> LanguageModel {
    let config = LlamaConfig {
        vocab_size: VOCABULARY,
        max_position_embeddings: 48,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        initializer_range: 0.3,
        ..Default::default()
    };
    LanguageModel::new(Config::Llama(config), seed).unwrap()
}

pub fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3], vec![4], vec![5, 6, 7, 8, 9]]
}

pub fn sampler(proposal: Proposal) -> Sampler<'static> {
    Sampler { proposal, stop_tokens: &[0], max_response_tokens: 12, seed: 3, ..Default::default() }
}

pub const Q_STAR: Proposal = Proposal::Mixture(Rule::Q_STAR);

/// The model's logits before every token of a response, read at once without a cache.
pub fn logits(network: &Network, prompt: &[u32], response: &[u32]) -> Vec<Vec<f32>> {
    let all = [prompt, &response[..response.len() - 1]].concat();
    let ids = candle_core::Tensor::new(&all[..], &candle_core::Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let rows = network.logits(&network.hidden(&ids, None).unwrap()).unwrap().squeeze(0).unwrap().to_vec2().unwrap();
    rows[prompt.len() - 1..].to_vec()
}

/// Every way of speculating that a pair of models allows. The dear draft soon leaves most rows to the standard sampler.
fn speculations(draft: &Network) -> Vec<(Draft<'_>, Speculation)> {
    let base = Speculation::fixed(3);
    let adaptive = |draft_cost, token_cost| Gamma::Adaptive { most: 6, draft_cost, token_cost };
    vec![
        (Draft::Policy, Speculation::fixed(1)),
        (Draft::Policy, base),
        (Draft::Policy, Speculation::fixed(20)),
        (Draft::Policy, Speculation { candidates: 3, ..base }),
        (Draft::Policy, Speculation { draft_temperature: 1.4, ..base }),
        (Draft::Policy, Speculation { gamma: adaptive(0.1, 0.0), ..base }),
        (Draft::Policy, Speculation { gamma: adaptive(0.5, 0.2), ..base }),
        (Draft::Model(draft), base),
        (Draft::Model(draft), Speculation { candidates: 2, ..Speculation::fixed(2) }),
        (Draft::Model(draft), Speculation { gamma: adaptive(0.3, 0.1), candidates: 2, ..base }),
    ]
}

#[test]
fn what_is_known_of_a_token_is_what_its_prefix_says() {
    let policies = [gpt2(1, 16), llama(1)];
    for (policy, expert) in policies.iter().zip([gpt2(2, 24), llama(2)]) {
        let (policy, small) = (policy.frozen().unwrap(), gpt2(7, 8).frozen().unwrap());
        let target = Expert::new(&expert).unwrap();
        let expert = expert.frozen().unwrap();
        for (i, (draft, speculation)) in speculations(&small).iter().enumerate() {
            for proposal in [Q_STAR, Proposal::Target, Proposal::Mixture(Rule::EssBalance)] {
                let Speculated { responses, counts, .. } =
                    sampler(proposal).speculate(&policy, Some(&target), *draft, speculation, &prompts(), 4).unwrap();
                assert_eq!(responses.len(), 12);
                assert_eq!(counts.tokens, responses.iter().map(|r| r.draws.len() as u64).sum::<u64>());
                assert!(counts.accepted <= counts.tested && counts.tested <= counts.drafted);
                for (row, response) in responses.iter().enumerate() {
                    let tokens = response.tokens();
                    let ends = tokens.iter().position(|token| *token == 0);
                    assert_eq!(response.ended, ends.is_some());
                    assert!(tokens.len() <= 12 && ends.is_none_or(|end| end + 1 == tokens.len()));
                    assert!(response.ended || tokens.len() == 12);
                    let prompt = &prompts()[row / 4];
                    let (p, t) = (logits(&policy, prompt, &tokens), logits(&expert, prompt, &tokens));
                    for (j, draw) in response.draws.iter().enumerate() {
                        let q = match proposal {
                            Proposal::Mixture(rule) => {
                                distribution(&p[j], &t[j], &rule, &Temperature::ONE, &Truncation::NONE).unwrap()
                            }
                            _ => distribution_softmax(&t[j], 1.0, &Truncation::NONE).unwrap(),
                        };
                        let near =
                            |a: f64, b: f64| assert!((a - b).abs() < 2e-5, "way {i}, row {row}, token {j}: {a}, {b}");
                        let token = draw.token as usize;
                        near(draw.log_q, q.probabilities[token].ln());
                        near(draw.log_t.unwrap(), qstar::mixture::log_prob(&t[j], draw.token).unwrap());
                        if proposal != Proposal::Target {
                            near(draw.log_p.unwrap(), qstar::mixture::log_prob(&p[j], draw.token).unwrap());
                            near(draw.mixture.unwrap().alpha, q.solution.unwrap().alpha);
                        }
                    }
                }
            }
        }
    }
}

/// Whether the policy drafts, or another model that happens to be the policy: the same numbers lead to the same tokens. What
/// a draft that is not the policy has read, and goes back by, is different.
#[test]
fn the_policy_as_another_model_drafts_the_same() {
    for policy in [gpt2(1, 16), llama(1)] {
        let policy = policy.frozen().unwrap();
        let target = Expert::new(&gpt2(2, 24)).unwrap();
        let tokens = |draft: Draft, speculation: &Speculation, sampler: &Sampler| -> Vec<Vec<u32>> {
            let drawn = sampler.speculate(&policy, Some(&target), draft, speculation, &prompts(), 4).unwrap();
            drawn.responses.iter().map(Response::tokens).collect()
        };
        for (gamma, candidates) in [(1, 1), (3, 1), (20, 1), (2, 3), (3, 5)] {
            let speculation = Speculation { candidates, draft_temperature: 1.4, ..Speculation::fixed(gamma) };
            let sampler = sampler(Q_STAR);
            let by_policy = tokens(Draft::Policy, &speculation, &sampler);
            assert_eq!(by_policy, tokens(Draft::Model(&policy), &speculation, &sampler), "γ {gamma}, k {candidates}");
        }
    }
    // The target as its own draft, and the policy as its own: everything is accepted.
    let (policy, expert) = (gpt2(1, 16).frozen().unwrap(), gpt2(2, 24));
    let (target, own) = (Expert::new(&expert).unwrap(), expert.frozen().unwrap());
    for (proposal, draft) in [(Proposal::Target, &own), (Proposal::Policy, &policy)] {
        let (draft, speculation) = (Draft::Model(draft), Speculation::fixed(3));
        let drawn = sampler(proposal).speculate(&policy, Some(&target), draft, &speculation, &prompts(), 4).unwrap();
        let counts = drawn.counts;
        assert!(counts.tested > 20 && counts.acceptance().unwrap() > 0.98, "{counts:?}");
    }
}

/// Prompt and response fill the model's positions; rows that stand at different places are padded beyond them.
#[test]
fn positions_can_be_filled() {
    for policy in [gpt2(1, 16), llama(1)] {
        let policy = policy.frozen().unwrap();
        let target = Expert::new(&llama(2)).unwrap();
        let sampler = Sampler { stop_tokens: &[], max_response_tokens: 43, ..sampler(Q_STAR) };
        let prompts = vec![vec![5, 6, 7, 8, 9]; 3];
        let speculation = Speculation::fixed(5);
        let drawn = sampler.speculate(&policy, Some(&target), Draft::Policy, &speculation, &prompts, 4).unwrap();
        assert!(drawn.responses.iter().all(|response| response.draws.len() == 43));
    }
}

/// A tokenizer for the models' tokens: an end, and letters.
fn tokenizer() -> Tokenizer {
    let tokens = std::iter::once("</s>".to_string()).chain(('a'..='l').map(String::from));
    let vocabulary: serde_json::Map<_, _> = tokens.enumerate().map(|(i, token)| (token, i.into())).collect();
    assert_eq!(vocabulary.len(), VOCABULARY);
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
    });
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// Greedy, so that both samplers draw the same: a response ends with the token that completes a string, wherever that stands
/// in a draft.
#[test]
fn stop_strings_end_responses_as_without() {
    let (policy, small) = (gpt2(1, 16).frozen().unwrap(), gpt2(7, 8).frozen().unwrap());
    let expert = gpt2(2, 24);
    let (target, own) = (Expert::new(&expert).unwrap(), expert.frozen().unwrap());
    let tokenizer = tokenizer();
    let ends = |responses: &[Response]| responses.iter().map(|r| (r.tokens(), r.ended)).collect::<Vec<_>>();
    for proposal in [Q_STAR, Proposal::Target] {
        let greedy = Sampler { truncation: Truncation::GREEDY, stop_tokens: &[], ..sampler(proposal) };
        let whole = greedy.draw(&policy, Some(&target), &prompts(), 1).unwrap()[0].tokens();
        assert_eq!(whole.len(), 12);
        // Two neighbouring tokens of the first response, which may stand in it and in others before.
        for last in 2..11 {
            let string = tokenizer.decode(&whole[last - 2..last], false).unwrap();
            let stop = StopStrings::new(&tokenizer, [string.clone()]).unwrap();
            let stopping = Sampler { stop_strings: Some(stop), ..greedy.clone() };
            let plain = stopping.draw(&policy, Some(&target), &prompts(), 1).unwrap();
            assert!(plain[0].ended && plain[0].draws.len() <= last, "{string:?}");
            for (draft, speculation) in speculations(&small) {
                let drawn = stopping.speculate(&policy, Some(&target), draft, &speculation, &prompts(), 1).unwrap();
                assert_eq!(ends(&drawn.responses), ends(&plain), "{string:?} with {speculation:?}");
            }
            if proposal == Proposal::Target {
                // The target drafts for itself, and all of the response at once: further tokens stand behind the string.
                let (draft, speculation) = (Draft::Model(&own), Speculation::fixed(20));
                let prompt = &prompts()[..1];
                let drawn = stopping.speculate(&policy, Some(&target), draft, &speculation, prompt, 1).unwrap();
                assert_eq!(ends(&drawn.responses), ends(&plain[..1]), "{string:?}");
                let counts = drawn.counts;
                assert_eq!((counts.rounds, counts.drafted, counts.accepted), (1, 11, counts.tokens), "{counts:?}");
                assert!(counts.tokens < 11, "{counts:?}");
            }
        }
    }
}

/// A greedy draft for a greedy q: what is drawn is the argmax, as without speculation.
#[test]
fn greedy_is_as_without() {
    let (policy, small) = (gpt2(1, 16).frozen().unwrap(), gpt2(7, 8).frozen().unwrap());
    let target = Expert::new(&gpt2(2, 24)).unwrap();
    let greedy = Sampler { truncation: Truncation::GREEDY, ..sampler(Q_STAR) };
    let tokens = |responses: Vec<Response>| responses.iter().map(Response::tokens).collect::<Vec<_>>();
    let plain = tokens(greedy.draw(&policy, Some(&target), &prompts(), 1).unwrap());
    for (draft, speculation) in speculations(&small) {
        let drawn = greedy.speculate(&policy, Some(&target), draft, &speculation, &prompts(), 1).unwrap();
        assert_eq!(tokens(drawn.responses), plain);
    }
    let none = Sampler { max_response_tokens: 0, ..greedy };
    let speculation = Speculation::fixed(3);
    let drawn = none.speculate(&policy, Some(&target), Draft::Policy, &speculation, &prompts(), 2).unwrap();
    assert!(drawn.responses.len() == 6 && drawn.responses.iter().all(|response| response.draws.is_empty()));
    assert_eq!((drawn.counts.tokens_per_round(), drawn.counts.acceptance()), (None, None));
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (policy, small) = (gpt2(1, 16).frozen().unwrap(), gpt2(7, 8).frozen().unwrap());
    let target = Expert::new(&gpt2(2, 24)).unwrap();
    for (by, speculation) in speculations(&small) {
        let draw = |prompts: &[Vec<u32>], first_row| -> Vec<Response> {
            let sampler = Sampler { first_row, ..sampler(Q_STAR) };
            sampler.speculate(&policy, Some(&target), by, &speculation, prompts, 2).unwrap().responses
        };
        let all = draw(&prompts(), 0);
        for (i, prompt) in prompts().iter().enumerate() {
            let alone = draw(std::slice::from_ref(prompt), 2 * i as u64);
            let tokens = |responses: &[Response]| responses.iter().map(Response::tokens).collect::<Vec<_>>();
            assert_eq!(tokens(&alone), tokens(&all[2 * i..2 * i + 2]));
        }
    }
}

/// Texts of the standard sampler and of speculation are of one law: counts of their first and last tokens.
#[test]
fn texts_of_both_samplers_are_of_one_law() {
    let (policy, small) = (gpt2(1, 16).frozen().unwrap(), gpt2(7, 8).frozen().unwrap());
    let target = Expert::new(&gpt2(2, 24)).unwrap();
    let standard = Sampler { seed: 100, max_response_tokens: 4, ..sampler(Q_STAR) };
    let rows = 4000;
    let prompt = vec![vec![1, 2, 3]];
    let counts = |responses: &[Response]| -> Vec<f64> {
        let mut counts = vec![0.0; VOCABULARY * VOCABULARY];
        for response in responses {
            let tokens = response.tokens();
            let pair = (tokens[0] as usize, tokens[tokens.len() - 1] as usize);
            counts[pair.0 * VOCABULARY + pair.1] += 1.0;
        }
        counts
    };
    let first = counts(&standard.draw(&policy, Some(&target), &prompt, rows).unwrap());
    for (i, (draft, speculation)) in speculations(&small).iter().enumerate() {
        let sampler = Sampler { seed: 200 + i as u64, ..standard.clone() };
        let drawn = sampler.speculate(&policy, Some(&target), *draft, speculation, &prompt, rows).unwrap();
        let second = counts(&drawn.responses);
        // Chi-squared of two samples of one size; rare cells are put together.
        let (mut statistic, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
        let mut add = |a: f64, b: f64| {
            statistic += (a - b) * (a - b) / (a + b);
            cells += 1.0;
        };
        for (a, b) in first.iter().zip(&second) {
            if a + b < 10.0 { rare = (rare.0 + a, rare.1 + b) } else { add(*a, *b) }
        }
        if rare.0 + rare.1 >= 10.0 {
            add(rare.0, rare.1);
        }
        let p = 1.0 - ChiSquared::new(cells - 1.0).unwrap().cdf(statistic);
        println!("way {i}: {cells} cells, p = {p:.3}");
        assert!(p > 0.001, "way {i}: p = {p}");
    }
}

#[test]
fn every_target_speculates() -> Result<()> {
    let (policy, base) = (gpt2(1, 16), gpt2(2, 24));
    let reward = SequenceReward::of("length", |sequences| {
        Ok(sequences.iter().map(|tokens| (tokens.iter().sum::<u32>() % 7) as f64 / 7.0).collect())
    });
    let softmax = RewardSoftmax::new(&base, reward, SoftmaxConfig { k: 4, ..Default::default() })?;
    let network = policy.frozen()?;
    for candidates in [1, 2] {
        let speculation = Speculation { candidates, ..Speculation::fixed(3) };
        let speculated =
            sampler(Q_STAR).speculate(&network, Some(&softmax), Draft::Policy, &speculation, &prompts(), 3)?;
        assert!(speculated.cost.reward_calls > 0);
        for (row, response) in speculated.responses.iter().enumerate() {
            let along = qstar::target::log_probs_along(&softmax, &[prompts()[row / 3].clone()], &[response.tokens()])?;
            for (draw, log_t) in response.draws.iter().zip(&along.log_probs) {
                assert!((draw.log_t.unwrap() - log_t[draw.token as usize]).abs() < 2e-5);
            }
        }
    }
    Ok(())
}

/// A token whose embedding is not a number, in whichever model: the row that reads it is named.
#[test]
fn logits_that_are_not_numbers_name_their_row() {
    let (broken, whole) = (llama(1), llama(2));
    let embedding = broken.params.get("model.embed_tokens.weight").unwrap();
    let mut rows: Vec<Vec<f32>> = embedding.to_vec2().unwrap();
    rows[9].fill(f32::NAN);
    let rows = candle_core::Tensor::from_vec(rows.concat(), (VOCABULARY, 16), &candle_core::Device::Cpu).unwrap();
    embedding.set(&rows).unwrap();
    let (broken_target, whole_target) = (Expert::new(&broken).unwrap(), Expert::new(&whole).unwrap());
    let (broken, whole) = (broken.frozen().unwrap(), whole.frozen().unwrap());
    // The prompt ends with that token.
    let (prompt, sampler) = (&prompts()[2..], Sampler { first_row: 42, ..sampler(Q_STAR) });
    let error = |policy: &Network, target: &dyn Target, draft: Draft| {
        let speculated = sampler.speculate(policy, Some(target), draft, &Speculation::fixed(3), prompt, 1);
        format!("{:#}", speculated.unwrap_err())
    };
    let errors = [
        error(&broken, &whole_target, Draft::Policy),
        error(&whole, &whole_target, Draft::Model(&broken)),
        error(&whole, &broken_target, Draft::Policy),
        format!("{:#}", sampler.draw(&broken, Some(&whole_target), prompt, 1).unwrap_err()),
    ];
    for error in errors {
        assert!(error.contains("row 42") && error.contains("NaN"), "{error}");
    }
}

#[test]
fn what_cannot_be_speculated_is_said() {
    let policy = gpt2(1, 16).frozen().unwrap();
    let target = Expert::new(&gpt2(2, 24)).unwrap();
    let failed = |proposal, speculation: Speculation, target: Option<&dyn Target>| {
        let drawn = sampler(proposal).speculate(&policy, target, Draft::Policy, &speculation, &prompts(), 1);
        let error = drawn.unwrap_err();
        format!("{error:#}")
    };
    let base = Speculation::fixed(3);
    assert!(failed(Proposal::Policy, base, None).contains("drafts for itself"));
    assert!(failed(Q_STAR, base, None).contains("needs a target"));
    assert!(failed(Q_STAR, Speculation::fixed(0), Some(&target)).contains("γ is 0"));
    assert!(failed(Q_STAR, Speculation { candidates: 0, ..base }, Some(&target)).contains("candidates is 0"));
    let cold = Speculation { draft_temperature: 0.0, ..base };
    assert!(failed(Q_STAR, cold, Some(&target)).contains("temperature"));
}
