//! Generation with a cache: the same as without, and the same whatever stands beside a row.

use candle_core::{Device, Tensor};
use qstar::mixture::{Rule, Temperature, Truncation};
use qstar::models::{Config, Gpt2Config, GptNeoxConfig, LanguageModel, LlamaConfig, Network};
use qstar::progress::Progress;
use qstar::rollout::{Proposal, Response, Sampler, StopStrings};
use qstar::target::Expert;
use qstar::train::Sequences;
use tokenizers::Tokenizer;

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
    Sampler { proposal, stop_tokens: &[0], max_response_tokens: 24, seed: 3, step: 1, ..Default::default() }
}

fn draw(
    policy: &LanguageModel,
    target: &LanguageModel,
    proposal: Proposal,
    prompts: &[Vec<u32>],
    k: usize,
) -> Vec<Response> {
    let (policy, target) = (policy.frozen().unwrap(), Expert::new(target).unwrap());
    sampler(proposal).draw(&policy, Some(&target), prompts, k).unwrap()
}

/// The log-probabilities that a cached rollout reports are those of one uncached pass over the whole text.
#[test]
fn cached_generation_equals_uncached() {
    for (policy, target) in models(1).iter().zip(&models(2)) {
        let prompts = prompts();
        let responses = draw(policy, target, Proposal::Mixture(Rule::Q_STAR), &prompts, 2);
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

/// A tokenizer for the models' 40 tokens: an end, letters, pieces of words, and a snowman in three bytes.
fn tokenizer() -> Tokenizer {
    let mut tokens: Vec<String> = vec!["</s>".into()];
    tokens.extend(('a'..='z').map(String::from));
    tokens.extend(["ab", "cd", "ef", " a", " b", "\n", "é", "zz", ".", " "].map(String::from));
    tokens.extend(["<0xE2>", "<0x98>", "<0x83>"].map(String::from));
    assert_eq!(tokens.len(), 40);
    let vocabulary: serde_json::Map<_, _> = tokens.into_iter().enumerate().map(|(i, t)| (t, i.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
    });
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// Every way of drawing: proposals, temperatures, truncations, stop strings.
fn samplers(tokenizer: &Tokenizer) -> Vec<Sampler<'_>> {
    let warm = Temperature { policy: 0.8, target: 1.3, mixture: 0.9 };
    let stop = StopStrings::new(tokenizer, ["ab", "☃", "x", "s."]).unwrap();
    let mut all = Vec::new();
    for proposal in [Proposal::Policy, Proposal::Target, Proposal::Mixture(Rule::Q_STAR)] {
        let plain = sampler(proposal);
        for truncation in [
            Truncation::NONE,
            Truncation { top_k: Some(7), top_p: None },
            Truncation { top_k: None, top_p: Some(0.8) },
            Truncation { top_k: Some(12), top_p: Some(0.6) },
            Truncation::GREEDY,
        ] {
            let cut = Sampler { truncation, ..plain.clone() };
            all.push(cut.clone());
            all.push(Sampler { temperature: warm, stop_strings: Some(stop.clone()), ..cut });
        }
    }
    all
}

fn assert_same(a: &Response, b: &Response) {
    assert_eq!((a.tokens(), a.ended), (b.tokens(), b.ended));
    for (a, b) in a.draws.iter().zip(&b.draws) {
        assert!((a.log_q - b.log_q).abs() < 1e-5);
    }
}

/// A row draws the same tokens alone, beside others, and with longer prompts padding it.
#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let tokenizer = tokenizer();
    for (policy, target) in models(1).iter().zip(&models(2)) {
        let (policy, expert) = (policy.frozen().unwrap(), Expert::new(target).unwrap());
        for sampler in samplers(&tokenizer) {
            let draw =
                |sampler: &Sampler, prompts: &[Vec<u32>], k| sampler.draw(&policy, Some(&expert), prompts, k).unwrap();
            let prompts = prompts();
            let together = draw(&sampler, &prompts, 2);
            // Prompts alone, without padding: each call is told of its first row.
            for (i, prompt) in prompts.iter().enumerate() {
                let part = Sampler { first_row: 2 * i as u64, ..sampler.clone() };
                let alone = draw(&part, std::slice::from_ref(prompt), 2);
                assert_same(&together[2 * i], &alone[0]);
                assert_same(&together[2 * i + 1], &alone[1]);
                // One response of the two.
                let second = Sampler { first_row: 2 * i as u64 + 1, ..sampler.clone() };
                assert_same(&together[2 * i + 1], &draw(&second, std::slice::from_ref(prompt), 1)[0]);
            }
            // Two ranks.
            let part = Sampler { first_row: 2, ..sampler.clone() };
            let split = [draw(&sampler, &prompts[..1], 2), draw(&part, &prompts[1..], 2)].concat();
            together.iter().zip(&split).for_each(|(a, b)| assert_same(a, b));
            let other_neighbours: Vec<_> = [prompts[0].clone(), vec![1; 33], vec![2; 2]].into();
            assert_same(&together[0], &draw(&sampler, &other_neighbours, 2)[0]);
        }
    }
}

/// The logits that predict each token of a response, from one pass without a cache.
fn uncached(network: &Network, prompt: &[u32], response: &[u32]) -> Vec<Vec<f32>> {
    let ids: Vec<u32> = prompt.iter().chain(response).copied().collect();
    let ids = Tensor::new(&ids[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = network.logits(&network.hidden(&ids, None).unwrap()).unwrap();
    logits.squeeze(0).unwrap().narrow(0, prompt.len() - 1, response.len()).unwrap().to_vec2().unwrap()
}

fn log_softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x) / temperature).collect();
    let log_z = scaled.iter().map(|x| x.exp()).sum::<f64>().ln();
    scaled.iter().map(|x| x - log_z).collect()
}

/// log q is of what was drawn from, log p and log t are of the models as they are.
#[test]
fn draws_say_the_log_probabilities_that_they_promise() {
    let tokenizer = tokenizer();
    for (policy, target) in models(1).iter().zip(&models(2)) {
        let (expert, policy, target) =
            (Expert::new(target).unwrap(), policy.frozen().unwrap(), target.frozen().unwrap());
        for sampler in samplers(&tokenizer) {
            let prompt = prompts().remove(0);
            let response = sampler.draw(&policy, Some(&expert), std::slice::from_ref(&prompt), 1).unwrap().remove(0);
            let rows = [&policy, &target].map(|network| uncached(network, &prompt, &response.tokens()));
            let temperature = sampler.temperature;
            for (i, draw) in response.draws.iter().enumerate() {
                let near = |a: f64, b: f64| assert!((a - b).abs() < 2e-5, "{sampler:?}, token {i}: {a} {b}");
                let [p, t] = [0, 1].map(|side: usize| log_softmax(&rows[side][i], 1.0));
                let token = draw.token as usize;
                assert_eq!(draw.log_p.is_some(), sampler.proposal != Proposal::Target);
                assert_eq!(draw.log_t.is_some(), sampler.proposal != Proposal::Policy);
                draw.log_p.inspect(|&log_p| near(log_p, p[token]));
                draw.log_t.inspect(|&log_t| near(log_t, t[token]));
                // q by its definition, before the truncation.
                let own = |side: usize, temperature| log_softmax(&rows[side][i], temperature);
                let q: Vec<f32> = match (sampler.proposal, draw.mixture) {
                    (Proposal::Mixture(_), Some(solution)) => {
                        let (p, t) = (own(0, temperature.policy), own(1, temperature.target));
                        p.iter().zip(t).map(|(p, t)| (solution.alpha * p + (1.0 - solution.alpha) * t) as f32).collect()
                    }
                    (Proposal::Target, _) => own(1, temperature.target).iter().map(|&x| x as f32).collect(),
                    _ => own(0, temperature.policy).iter().map(|&x| x as f32).collect(),
                };
                let q = log_softmax(&q, temperature.mixture);
                near(draw.log_q + draw.log_kept, q[token]);
                // What is kept, by sorting.
                let mut sorted = q.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                sorted.truncate(sampler.truncation.top_k.unwrap_or(40));
                let of_k: f64 = sorted.iter().map(|x| x.exp()).sum();
                let p = sampler.truncation.top_p.unwrap_or(1.0);
                let mut sum = 0.0;
                let count = sorted.iter().take_while(|x| {
                    let goes_on = sum < p * of_k;
                    sum += x.exp();
                    goes_on
                });
                let kept: Vec<f64> = count.copied().collect();
                near(draw.log_kept, kept.iter().map(|x| x.exp()).sum::<f64>().ln());
                assert!(q[token] >= kept[kept.len() - 1] - 2e-5, "a token that was cut");
            }
        }
    }
}

#[test]
fn greedy_responses_follow_the_argmax_without_a_cache() {
    for model in models(4) {
        let network = model.frozen().unwrap();
        let greedy = Sampler { truncation: Truncation::GREEDY, max_response_tokens: 20, ..Default::default() };
        for prompt in prompts() {
            let response = greedy.draw(&network, None, std::slice::from_ref(&prompt), 1).unwrap().remove(0);
            assert!(!response.ended);
            for (logits, draw) in uncached(&network, &prompt, &response.tokens()).iter().zip(&response.draws) {
                let argmax = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
                assert_eq!((draw.token as usize, draw.log_q), (argmax, 0.0));
                assert!((draw.log_p.unwrap() - log_softmax(logits, 1.0)[argmax]).abs() < 1e-5);
            }
        }
    }
}

/// The first tokens of `tokens` whose text holds a string, by decoding anew after each.
fn first_with(tokenizer: &Tokenizer, tokens: &[u32], strings: &[&str]) -> Option<usize> {
    (1..=tokens.len()).find(|&n| {
        let text = tokenizer.decode(&tokens[..n], false).unwrap();
        strings.iter().any(|string| text.contains(string))
    })
}

/// With stop strings a response is the one without, up to the token that completes one.
fn assert_stops(
    sampler: &Sampler,
    draw: impl Fn(&Sampler) -> Vec<Response>,
    whole: &[Response],
    tokenizer: &Tokenizer,
    strings: &[&str],
) -> usize {
    let stop = StopStrings::new(tokenizer, strings.iter().copied()).unwrap();
    let stopped = draw(&Sampler { stop_strings: Some(stop.clone()), ..sampler.clone() });
    let mut count = 0;
    for (whole, stopped) in whole.iter().zip(&stopped) {
        let tokens = whole.tokens();
        // The stop token itself ends a response before its text is looked at.
        let text = if whole.ended { &tokens[..tokens.len() - 1] } else { &tokens[..] };
        match first_with(tokenizer, text, strings) {
            Some(n) => {
                assert_eq!((stopped.tokens(), stopped.ended), (tokens[..n].to_vec(), true), "{strings:?}");
                let text = tokenizer.decode(&tokens[..n], false).unwrap();
                let start = strings.iter().filter_map(|string| text.find(string)).min().unwrap();
                assert_eq!(stop.text(&stopped.tokens()).unwrap(), text[..start]);
                count += 1;
            }
            None => {
                assert_eq!((stopped.tokens(), stopped.ended), (tokens.clone(), whole.ended));
                assert_eq!(stop.text(text).unwrap(), tokenizer.decode(text, false).unwrap());
            }
        }
    }
    count
}

#[test]
fn a_stop_string_ends_a_response_at_the_token_that_completes_it() {
    let tokenizer = tokenizer();
    let (policies, targets) = (models(1), models(2));
    for (policy, target) in policies.iter().zip(&targets) {
        let (policy, expert) = (policy.frozen().unwrap(), Expert::new(target).unwrap());
        for proposal in [Proposal::Policy, Proposal::Target, Proposal::Mixture(Rule::Q_STAR)] {
            let sampler =
                Sampler { seed: 5, temperature: Temperature { mixture: 1.5, ..Temperature::ONE }, ..sampler(proposal) };
            let draw = |sampler: &Sampler| sampler.draw(&policy, Some(&expert), &prompts(), 8).unwrap();
            let whole = draw(&sampler);
            let mut ended = 0;
            for strings in [&["q"][..], &["b"], &["ab", "zza"], &["b a"], &["e", "fg", "z"], &["nothing like it"]] {
                ended += assert_stops(&sampler, draw, &whole, &tokenizer, strings);
            }
            assert!(ended > 10, "{ended} responses held a stop string");
        }
    }
}

/// Strings that random responses really hold, across the borders of GPT-2's tokens.
#[test]
fn stop_strings_are_found_across_the_tokens_of_gpt2() {
    let Some(file) = cached("openai-community/gpt2", "tokenizer.json") else { return };
    let tokenizer = Tokenizer::from_file(file).unwrap();
    let config = Gpt2Config { n_positions: 64, n_embd: 16, n_layer: 1, n_head: 2, ..Default::default() };
    let network = LanguageModel::new(Config::Gpt2(config), 1).unwrap().frozen().unwrap();
    // Nearly uniform over the vocabulary, stray bytes of characters included.
    let sampler = Sampler { max_response_tokens: 24, seed: 1, ..Default::default() };
    let draw = |sampler: &Sampler| sampler.draw(&network, None, &[vec![464], vec![15, 50_000]], 8).unwrap();
    let whole = draw(&sampler);
    let mut tried = 0;
    for (row, response) in whole.iter().enumerate() {
        let tokens = response.tokens();
        // From the middle of one token to the middle of the next but one.
        let at = 3 + row;
        let [before, through] = [at, at + 3].map(|n| tokenizer.decode(&tokens[..n], false).unwrap());
        let from = before.char_indices().rev().nth(1).map_or(0, |(i, _)| i);
        let string: String = through[from.min(through.len())..].chars().take(9).collect();
        if string.chars().count() < 4 || string.contains('\u{FFFD}') {
            continue;
        }
        assert!(assert_stops(&sampler, draw, &whole, &tokenizer, &[&string]) > 0, "{string:?} was drawn and not found");
        tried += 1;
    }
    assert!(tried >= 8, "{tried} strings");
}

#[test]
fn progress_changes_no_draw() {
    let model = &models(1)[0];
    let network = model.frozen().unwrap();
    let progress = Progress::new("drawing", 0);
    let quiet = sampler(Proposal::Policy);
    let told = Sampler { progress: Some(&progress), ..quiet.clone() };
    let draw = |sampler: &Sampler| sampler.draw(&network, None, &prompts(), 3).unwrap();
    assert_eq!(draw(&quiet), draw(&told));
}

#[test]
fn bad_calls_are_errors() {
    let models = models(1);
    let network = models[0].frozen().unwrap();
    let failed =
        |sampler: Sampler, prompts: &[Vec<u32>]| format!("{:#}", sampler.draw(&network, None, prompts, 1).unwrap_err());
    let policy = || sampler(Proposal::Policy);
    assert!(failed(policy(), &[vec![3], vec![]]).contains("prompt 1 is empty"));
    assert!(failed(sampler(Proposal::Mixture(Rule::Q_STAR)), &[vec![1]]).contains("needs a target"));
    let error = failed(policy(), &[vec![1; 40], vec![1; 41]]);
    assert!(error.contains("prompt 1 has 41 tokens") && error.contains("policy has 64 positions"), "{error}");
    assert!(error.contains("prompt to 40 tokens, or lower max_response_tokens to 23"), "{error}");
    let error = failed(policy(), &[vec![1; 64]]);
    assert!(error.contains("prompt to 40 tokens") && !error.contains("lower"), "{error}");
    let error = failed(Sampler { max_response_tokens: 64, ..policy() }, &[vec![1; 10]]);
    assert!(error.contains("max_response_tokens to 54") && !error.contains("shorten"), "{error}");
    let error = failed(Sampler { proposal: Proposal::Target, ..policy() }, &[vec![1; 64]]);
    assert!(error.contains("needs a target"), "{error}");
    assert!(policy().draw(&network, None, &[vec![1; 40]], 1).is_ok(), "40 + 24 fit");
    let cut = |top_k, top_p| Sampler { truncation: Truncation { top_k, top_p }, ..policy() };
    assert!(failed(cut(Some(0), None), &[vec![1]]).contains("top_k is 0"));
    assert!(failed(cut(None, Some(1.5)), &[vec![1]]).contains("top_p must lie in (0, 1]: 1.5"));
    let cold = |policy_temperature| Sampler {
        temperature: Temperature { policy: policy_temperature, ..Temperature::ONE },
        ..policy()
    };
    assert!(failed(cold(f64::NAN), &[vec![1]]).contains("temperature of the policy"));
    assert!(failed(cold(0.0), &[vec![1]]).contains("temperature of the policy"));
    let tokenizer = tokenizer();
    let stop = |strings: &[&str]| StopStrings::new(&tokenizer, strings.iter().copied()).unwrap_err().to_string();
    assert!(stop(&["a", ""]).contains("stop string 1 is empty"));
    assert!(stop(&["\u{FFFD}"]).contains("U+FFFD"));
    assert!(policy().draw(&network, None, &[], 4).unwrap().is_empty());
}

/// A file of the hub's cache, or a printed reason.
fn cached(repository: &str, file: &str) -> Option<std::path::PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let path = hf_hub::Cache::from_env().model(repository.to_string()).get(file);
    if path.is_none() {
        println!("skipped: {file} of {repository} is not in the hub's cache");
    }
    path
}
