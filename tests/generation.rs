//! Generation with a cache: the same as without, and the same whatever stands beside a row.

use candle_core::{Device, Tensor};
use qstar::method::QSTAR;
use qstar::models::{Config, Gpt2Config, GptNeoxConfig, LanguageModel, LlamaConfig};
use qstar::rollout::{Proposal, Response, Sampler};
use qstar::seed::Purpose;
use qstar::train::Sequences;

fn models(seed: u64) -> Vec<LanguageModel> {
    let gpt2 = Gpt2Config {
        vocab_size: 40,
        n_positions: 64,
        n_embd: 48,
        n_layer: 2,
        n_head: 3,
        initializer_range: 0.2,
        ..Default::default()
    };
    let llama = LlamaConfig {
        vocab_size: 40,
        max_position_embeddings: 64,
        hidden_size: 48,
        intermediate_size: 80,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: true,
        ..Default::default()
    };
    let gpt_neox = GptNeoxConfig {
        vocab_size: 40,
        max_position_embeddings: 64,
        hidden_size: 48,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        initializer_range: 0.2,
        ..Default::default()
    };
    [Config::Gpt2(gpt2), Config::GptNeox(gpt_neox), Config::Llama(llama)]
        .map(|config| LanguageModel::new(config, seed).unwrap())
        .into()
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![3, 7, 9, 11, 20, 33, 2], vec![5], (1..30).collect(), vec![8, 8, 8, 8]]
}

fn sampler(proposal: Proposal) -> Sampler<'static> {
    Sampler { proposal, stop_tokens: &[0], max_response_tokens: 24, seed: 3, purpose: Purpose::Rollout, step: 1 }
}

fn draw(
    policy: &LanguageModel,
    target: &LanguageModel,
    proposal: Proposal,
    prompts: &[Vec<u32>],
    k: usize,
) -> Vec<Response> {
    let (policy, target) = (policy.frozen().unwrap(), target.frozen().unwrap());
    sampler(proposal).draw(&policy, Some(&target), prompts, k).unwrap()
}

/// The log-probabilities that a cached rollout reports are those of one uncached pass over the whole text.
#[test]
fn cached_generation_equals_uncached() {
    for (policy, target) in models(1).iter().zip(&models(2)) {
        let prompts = prompts();
        let responses = draw(policy, target, QSTAR.proposal, &prompts, 2);
        assert!(responses.iter().any(|r| r.ended) && responses.iter().any(|r| !r.ended), "both kinds occur");
        for (i, response) in responses.iter().enumerate() {
            for (model, reported) in [
                (policy, response.draws.iter().map(|d| d.log_p.unwrap()).collect::<Vec<_>>()),
                (target, response.draws.iter().map(|d| d.log_t.unwrap()).collect()),
            ] {
                let sequences = Sequences::new(&[(&prompts[i / 2], &response.tokens())]).unwrap();
                let hidden = sequences.hidden(&model.network).unwrap();
                let log_probs = sequences.log_probs(&model.network, &hidden).unwrap().to_vec1::<f32>().unwrap();
                for (a, b) in reported.iter().zip(log_probs) {
                    assert!((a - f64::from(b)).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }
}

/// Greedy text, token by token without a cache, against the cached decoder's logits through a peaked policy.
#[test]
fn a_cache_that_is_fed_in_pieces_gives_the_logits_of_one_pass() {
    for model in models(4) {
        let network = model.frozen().unwrap();
        let ids: Vec<u32> = (0..20).map(|i| i * 7 % 40).collect();
        let all = Tensor::new(&ids[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let whole = network.hidden(&all, None).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        let mut cache = network.cache(1, 20);
        let mut pieces = Vec::new();
        for (from, to) in [(0, 5), (5, 6), (6, 13), (13, 20)] {
            let part = all.narrow(1, from, to - from).unwrap();
            let hidden = network.hidden(&part, Some(&mut cache)).unwrap();
            cache.advance([to - from]);
            pieces.extend(hidden.squeeze(0).unwrap().to_vec2::<f32>().unwrap());
        }
        for (a, b) in whole.iter().flatten().zip(pieces.iter().flatten()) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

/// A row draws the same tokens alone, beside others, and with longer prompts padding it.
#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    for (policy, target) in models(1).iter().zip(&models(2)) {
        for proposal in [Proposal::Policy, Proposal::Target, QSTAR.proposal] {
            let prompts = prompts();
            let together = draw(policy, target, proposal, &prompts, 1);
            // Row 0 alone has no padding; in the batch it is padded to 29 tokens.
            let alone = draw(policy, target, proposal, &prompts[..1], 1);
            assert_eq!(together[0].tokens(), alone[0].tokens());
            for (a, b) in together[0].draws.iter().zip(&alone[0].draws) {
                assert!((a.log_q - b.log_q).abs() < 1e-5);
            }
            let other_neighbours: Vec<_> = [prompts[0].clone(), vec![1; 33], vec![2; 2]].into();
            assert_eq!(together[0].tokens(), draw(policy, target, proposal, &other_neighbours, 1)[0].tokens());
        }
    }
}

#[test]
fn bad_calls_are_errors() {
    let models = models(1);
    let network = models[0].frozen().unwrap();
    let error =
        |proposal, prompts: &[Vec<u32>]| sampler(proposal).draw(&network, None, prompts, 1).unwrap_err().to_string();
    assert!(error(Proposal::Policy, &[vec![]]).contains("prompt is empty"));
    assert!(error(QSTAR.proposal, &[vec![1]]).contains("needs a target"));
}
