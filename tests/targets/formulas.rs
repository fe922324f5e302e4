//! Next-token distributions against the formulas, prefix by prefix, in f64.

use candle_core::{Device, Tensor};
use qstar::models::{Config, Gpt2Config, LanguageModel, RewardModel};
use qstar::nn::Params;
use qstar::target::{
    Base, Caching, Expert, PrefixScorer, PrefixValues, RewardSoftmax, SequenceReward, SoftmaxConfig, Target,
    log_probs_along,
};

use super::{VOCABULARY, after, contexts, gpt2, llama, reward, reward_of, softmax};

/// Values as training might leave them: all four variables differ from zero, and V has a spread of about 0.1 over the tokens.
fn values(model: &LanguageModel, seed: u64) -> PrefixValues {
    let width = model.config.hidden_size();
    let mut params = Params::default();
    params.add_normal("token.weight", &[VOCABULARY, width], 0.025, seed).unwrap();
    params.add_normal("token.bias", &[VOCABULARY, 1], 0.025, seed).unwrap();
    params.add_normal("prefix.weight", &[1, width], 0.1, seed).unwrap();
    params.add_normal("prefix.bias", &[1, 1], 0.5, seed).unwrap();
    PrefixValues::from_params(params).unwrap()
}

/// The largest difference of a probability from what `expected(prefix)` says, over all places of the contexts; and every
/// token that has mass there has mass in the target.
fn furthest(target: &dyn Target, expected: impl Fn(&[u32]) -> Vec<f64>) -> f64 {
    let (prompts, responses) = contexts();
    let along = log_probs_along(target, &prompts, &responses).unwrap();
    let mut rows = along.log_probs.iter();
    let mut most: f64 = 0.0;
    for (prompt, response) in prompts.iter().zip(&responses) {
        for place in 0..response.len() {
            let row = rows.next().unwrap();
            for (log_t, expected) in row.iter().zip(expected(&[&prompt[..], &response[..place]].concat())) {
                assert!(log_t.is_finite() || expected == 0.0, "a token of mass {expected} has none in the target");
                most = most.max((log_t.exp() - expected).abs());
            }
        }
    }
    assert!(rows.next().is_none());
    most
}

#[test]
fn a_prefix_scorer_is_its_formula() {
    for model in [gpt2(1), llama(1)] {
        let network = model.frozen().unwrap();
        let (before, head) = (model.digest().unwrap(), after(&network, &[1, 2]).1);
        for beta in [1.0, 0.1, 0.03] {
            let values = values(&model, 5);
            let target = PrefixScorer::new(&model, &values, beta).unwrap();
            let wide = |name: &str| -> Vec<Vec<f64>> {
                let rows: Vec<Vec<f32>> = values.params.get(name).unwrap().to_vec2().unwrap();
                rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (u, b, v, c) = (wide("token.weight"), wide("token.bias"), wide("prefix.weight"), wide("prefix.bias"));
            let most = furthest(&target, |prefix| {
                let (hidden, logits) = after(&network, prefix);
                let value = |z: usize| dot(&u[z], &hidden) + b[z][0] + dot(&v[0], &hidden) + c[0][0];
                // V as the values themselves say it is the same.
                let own = Tensor::from_slice(&hidden, (1, hidden.len()), &Device::Cpu).unwrap();
                let own = values.of_all(&own).unwrap();
                assert!((0..VOCABULARY).all(|z| (own[0][z] - value(z)).abs() < 1e-9));
                softmax(&(0..VOCABULARY).map(|z| logits[z] + value(z) / beta).collect::<Vec<_>>())
            });
            println!("{}, β {beta}: within {most:.1e}", model.config.model_type());
            // f32 rounds h, and what it rounds comes in times 1/β.
            assert!(most < 1e-6 * f64::max(1.0, 0.1 / beta), "{most}");
        }
        assert_eq!(model.digest().unwrap(), before, "the reference's weights are its own");
        assert_eq!(after(&network, &[1, 2]).1, head);
    }
}

#[test]
fn a_reward_softmax_is_its_formula() {
    let model = gpt2(2);
    let network = model.frozen().unwrap();
    let scorer = RewardModel::on(&gpt2(8), 4).unwrap();
    for base in [Base::Reference, Base::Uniform] {
        for (k, beta) in [(1, 0.1), (3, 1.0), (3, 0.02), (VOCABULARY, 0.1)] {
            for learned in [false, true] {
                let config = SoftmaxConfig { base, k, beta, caching: Caching::Rollout };
                let reward = if learned { SequenceReward::learned(&scorer).unwrap() } else { reward() };
                let target = RewardSoftmax::new(&model, reward, config).unwrap();
                let most = furthest(&target, |prefix| {
                    let logits = after(&network, prefix).1;
                    let mut order: Vec<usize> = (0..VOCABULARY).collect();
                    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
                    let score = |&z: &usize| {
                        let sequence = [prefix, &[z as u32]].concat();
                        if learned { scorer.scores(&[sequence]).unwrap()[0] } else { reward_of(&sequence) }
                    };
                    let scores: Vec<f64> = order[..k].iter().map(score).collect();
                    let mean = scores.iter().sum::<f64>() / k as f64;
                    let mut mass = vec![0.0; VOCABULARY];
                    for (rank, &z) in order.iter().enumerate() {
                        let reward = scores.get(rank).copied().unwrap_or(mean);
                        mass[z] = if base == Base::Reference { logits[z] } else { 0.0 } + reward / beta;
                    }
                    softmax(&mass)
                });
                println!("{base:?}, k {k}, β {beta}, learned {learned}: within {most:.1e}");
                assert!(most < 1e-6, "{most}");
            }
        }
    }
}

/// Rows of one prompt that part, stop at any time, and change their places.
#[test]
fn rows_may_leave_and_go_on_as_they_like() {
    let (model, others) = (gpt2(2), contexts().1);
    let values = values(&model, 3);
    let targets: [Box<dyn Target>; 3] = [
        Box::new(Expert::new(&model).unwrap()),
        Box::new(PrefixScorer::new(&model, &values, 0.2).unwrap()),
        Box::new(RewardSoftmax::new(&model, reward(), SoftmaxConfig { k: 4, ..Default::default() }).unwrap()),
    ];
    for target in &targets {
        let prompts = &others[..3];
        let mut prefixes: Vec<Vec<u32>> = prompts.iter().flat_map(|p| [p.clone(), p.clone(), p.clone()]).collect();
        let mut contexts = target.read(prompts, 3, 8).unwrap();
        for (round, places) in
            [vec![0, 1, 2, 4, 5, 7, 8], vec![1, 2, 4, 6], vec![0, 1, 2, 3], vec![3]].iter().enumerate()
        {
            prefixes = places.iter().map(|&place| prefixes[place].clone()).collect();
            let tokens: Vec<u32> = (0..places.len()).map(|i| ((3 * i + 5 * round + 1) % VOCABULARY) as u32).collect();
            prefixes.iter_mut().zip(&tokens).for_each(|(prefix, &token)| prefix.push(token));
            contexts.keep(places);
            contexts.feed(&tokens.chunks(1).collect::<Vec<_>>()).unwrap();
            for (place, prefix) in prefixes.iter().enumerate() {
                let alone = target.read(std::slice::from_ref(prefix), 1, 1).unwrap();
                let wide = |row: &[f32]| softmax(&row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
                for (a, b) in wide(contexts.row(place)).iter().zip(wide(alone.row(0))) {
                    assert!((a - b).abs() < 1e-6, "{}: {a} and alone {b}", target.identity());
                }
            }
        }
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let model = gpt2(1);
    let softmax = |config| RewardSoftmax::new(&model, reward(), config).map(|_| ()).unwrap_err().to_string();
    let standard = SoftmaxConfig::default();
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(softmax(SoftmaxConfig { beta, ..standard }).contains("β must be a positive number"));
        let error = PrefixScorer::new(&model, &values(&model, 1), beta).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("β must be a positive number"), "{error}");
    }
    for k in [0, VOCABULARY + 1] {
        assert!(softmax(SoftmaxConfig { k, ..standard }).contains(&format!("k is {k}")));
    }
    assert!(softmax(SoftmaxConfig { caching: Caching::Kept { entries: 0 }, ..standard }).contains("room"));
    let small = |vocab_size| {
        let config = Gpt2Config { vocab_size, n_positions: 9, n_embd: 8, n_layer: 1, n_head: 1, ..Default::default() };
        LanguageModel::new(Config::Gpt2(config), 0).unwrap()
    };
    let stranger = SequenceReward::learned(&RewardModel::on(&small(7), 0).unwrap()).unwrap();
    let error = RewardSoftmax::new(&model, stranger, SoftmaxConfig { k: 2, ..standard }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("vocabulary of 7") && error.to_string().contains("11"), "{error}");
    let strange = PrefixValues::constant(&small(7), 0.5).unwrap();
    let error = PrefixScorer::new(&model, &strange, 0.1).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("[7, 8]") && error.contains("[11, 16]"), "{error}");
    // A reward that is not a number, and a wrong number of them.
    let rewards: [fn(usize) -> Vec<f64>; 2] = [|n| vec![f64::NAN; n], |n| vec![0.5; n + 1]];
    for (rewards, expected) in rewards.into_iter().zip(["the reward of sequence 0 is NaN", "3 rewards for 2 sequences"])
    {
        let reward = SequenceReward::of("bad", move |sequences| Ok(rewards(sequences.len())));
        let target = RewardSoftmax::new(&model, reward, SoftmaxConfig { k: 2, ..standard }).unwrap();
        let error = target.read(&[vec![1, 2]], 1, 2).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    // Too few positions: the reward model's count as well.
    let short = RewardModel::on(&small(VOCABULARY), 0).unwrap();
    let target = RewardSoftmax::new(&model, SequenceReward::learned(&short).unwrap(), standard).unwrap();
    assert_eq!(target.max_positions(), 9);
}
