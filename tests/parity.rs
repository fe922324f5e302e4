//! The models beside transformers: logits, losses, every gradient, cached steps, training, scores.
//!
//! `fixtures/models.py` and `fixtures/real.py` wrote transformers' numbers; they are exact to f32. Every test prints the
//! worst difference that it found.

#[path = "parity/bf16.rs"]
mod bf16;
#[path = "parity/fixture.rs"]
mod fixture;
#[path = "parity/real.rs"]
mod real;
#[path = "parity/steps.rs"]
mod steps;

use candle_core::{Device, Tensor};
use fixture::{Fixture, Rows, gap, language_model, reward_model, values};
use qstar::models::{Config, LanguageModel, Network, RewardModel, Source, load_encoder};
use qstar::nn::Params;
use qstar::train::{Gradient, Sequences};

const CAUSAL: [&str; 9] = [
    "gpt2",
    "gpt2-gelu",
    "gpt-neox",
    "gpt-neox-sequential",
    "llama-1",
    "llama-2",
    "llama-3",
    "llama-linear",
    "llama-bias",
];

const REWARD: [&str; 9] = [
    "gpt2-reward",
    "gpt-neox-reward",
    "llama-reward",
    "bert",
    "roberta",
    "distilbert",
    "deberta-v3",
    "deberta-v2",
    "deberta-plain",
];

/// Logits of every real token, row after row.
fn logits(network: &Network, rows: &Rows) -> Vec<f32> {
    let logits = network.logits(&network.hidden(&rows.ids(), None).unwrap()).unwrap();
    let of_row = |(row, ids): (usize, &Vec<u32>)| values(&logits.get(row).unwrap().narrow(0, 0, ids.len()).unwrap());
    rows.rows.iter().enumerate().flat_map(of_row).collect()
}

/// What the fixture says at the places of the real tokens.
fn expected_logits(fixture: &Fixture, key: &str, rows: &Rows) -> Vec<f32> {
    let logits = fixture.tensor(key).flatten(0, 1).unwrap();
    rows.places.iter().flat_map(|&place| values(&logits.get(place).unwrap())).collect()
}

/// Sums in another order differ in the last digits of f32, which are those of the largest: 2e-6 are 17 of its roundings.
fn largest(logits: &[f32]) -> f64 {
    f64::from(logits.iter().fold(0.0, |most: f32, x| most.max(x.abs())))
}

/// The mean cross-entropy of all next tokens of the batch.
pub fn loss(network: &Network, rows: &[Vec<u32>]) -> Tensor {
    let pairs: Vec<_> = rows.iter().map(|row| row.split_at(1)).collect();
    let sequences = Sequences::new(&pairs).unwrap();
    let hidden = sequences.hidden(network).unwrap();
    sequences.log_probs(network, &hidden).unwrap().mean_all().unwrap().neg().unwrap()
}

#[test]
fn logits_at_every_real_position() {
    for name in CAUSAL {
        let (fixture, network) = (Fixture::new(name), language_model(name).frozen().unwrap());
        for (prefix, key) in [("", "logits"), ("left.", "left.logits")] {
            let rows = fixture.rows(prefix);
            let off = gap(&logits(&network, &rows), &expected_logits(&fixture, key, &rows));
            println!("{name}: {key} differ by {off:.1e}");
            assert!(off < 1e-4, "{name}: {key} differ by {off:e}");
        }
    }
}

/// The largest difference of a gradient from the fixture's, relative to each tensor's largest element, and the tensor.
///
/// Below 1e-3 a bias's gradient vanishes for a reason and is rounding noise on both sides (see `models.py`): what is
/// compared is then relative to the gradient of the weight beside it, whose terms are those that cancel.
fn worst_gradient(fixture: &Fixture, params: &Params, gradient: &Gradient) -> (f64, String) {
    let names: Vec<_> = params.iter().map(|(name, _)| name).collect();
    assert_eq!(names, fixture.gradient_names(), "{}: other variables", fixture.name);
    let largest = |name: &str| fixture.values(&format!("grad.{name}")).iter().fold(0f32, |m, g| m.max(g.abs()));
    let compare = |(name, ours): (&str, &Tensor)| {
        let (ours, theirs) = (values(ours), fixture.values(&format!("grad.{name}")));
        let vanishes = largest(name) < 1e-3;
        assert!(vanishes || ours.iter().any(|&g| g != 0.0), "{}: {name} has a zero gradient", fixture.name);
        let scale = largest(&if vanishes { name.replace(".bias", ".weight") } else { name.to_string() });
        (gap(&ours, &theirs) / f64::from(scale), name.to_string())
    };
    names.into_iter().zip(gradient.values()).map(compare).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

fn assert_same_bits(name: &str, a: &Gradient, b: &Gradient) {
    for (a, b) in a.values().iter().zip(b.values()) {
        let (a, b) = (values(a), values(b));
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: computed again, a bit differs");
    }
}

#[test]
fn losses_and_every_gradient() {
    for name in CAUSAL {
        let (fixture, mut model) = (Fixture::new(name), language_model(name));
        let rows = fixture.rows("").rows;
        let value = loss(&model.network, &rows);
        let off = (f64::from(values(&value)[0]) - fixture.scalar("loss")).abs();
        let gradient = Gradient::of(&value, &model.params).unwrap();
        let (worst, tensor) = worst_gradient(&fixture, &model.params, &gradient);
        println!("{name}: loss differs by {off:.1e}, gradients by {worst:.1e} of the largest (worst: {tensor})");
        assert!(off < 1e-5, "{name}: loss differs by {off:e}");
        assert!(worst < 1e-4, "{name}: the gradient of {tensor} differs by {worst:e} of its largest element");
        model.recompute(true);
        let again = Gradient::of(&loss(&model.network, &rows), &model.params).unwrap();
        assert_same_bits(name, &gradient, &again);
    }
}

/// Bradley-Terry: rows 0 and 2 are chosen, 1 and 3 rejected.
fn preference_loss(scores: &Tensor) -> Tensor {
    let pairs = scores.reshape((2, 2)).unwrap();
    let margin = (pairs.narrow(1, 0, 1).unwrap() - pairs.narrow(1, 1, 1).unwrap()).unwrap();
    // -log sigmoid(x) = log(1 + e^-x)
    (margin.neg().unwrap().exp().unwrap() + 1.0).unwrap().log().unwrap().mean_all().unwrap()
}

#[test]
fn scores_of_whole_sequences_and_every_gradient() {
    for name in REWARD {
        let (fixture, mut model) = (Fixture::new(name), reward_model(name));
        let rows = fixture.rows("").rows;
        let sequences: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let scores = model.network.scores(&sequences).unwrap();
        let off = gap(&values(&scores), &fixture.values("rewards"));
        assert!(off < 1e-4, "{name}: scores differ by {off:e}");
        let frozen = model.frozen().unwrap();
        let alone: Vec<f32> = sequences.iter().map(|&s| values(&frozen.scores(&[s]).unwrap())[0]).collect();
        let from_alone = gap(&values(&scores), &alone);
        assert!(from_alone < 1e-5, "{name}: alone, scores differ by {from_alone:e}");
        let value = preference_loss(&scores);
        let loss_off = (f64::from(values(&value)[0]) - fixture.scalar("loss")).abs();
        assert!(loss_off < 1e-5, "{name}: loss differs by {loss_off:e}");
        let gradient = Gradient::of(&value, &model.params).unwrap();
        let (worst, tensor) = worst_gradient(&fixture, &model.params, &gradient);
        println!("{name}: scores differ by {off:.1e}, alone by {from_alone:.1e}, gradients by {worst:.1e} ({tensor})");
        assert!(worst < 1e-4, "{name}: the gradient of {tensor} differs by {worst:e} of its largest element");
        model.recompute(true);
        let value = preference_loss(&model.network.scores(&sequences).unwrap());
        assert_same_bits(name, &gradient, &Gradient::of(&value, &model.params).unwrap());
    }
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let (model, words) = (reward_model("gpt2-reward"), language_model("gpt2"));
    let error = |result: anyhow::Result<Tensor>| format!("{:#}", result.unwrap_err());
    assert!(error(model.network.scores(&[])).contains("needs a sequence"));
    assert!(error(model.network.scores(&[&[1, 2], &[]])).contains("sequence 1: there are no tokens"));
    assert!(error(model.network.scores(&[&[1; 21]])).contains("21 tokens do not fit the model's 20 positions"));
    let headless = RewardModel::from_params(words.config.clone(), words.params.clone()).err().unwrap();
    assert!(format!("{headless:#}").contains("score.weight is missing"));
    assert_eq!(RewardModel::on(&words, 0).unwrap().network.scores(&[&[1], &[2, 3]]).unwrap().dims(), [2]);
}

/// Behind the embeddings and behind every layer, at every real token.
#[test]
fn hidden_states_of_every_layer() {
    for name in ["bert", "roberta", "distilbert", "deberta-v3", "deberta-v2", "deberta-plain"] {
        let (fixture, encoder) = (Fixture::new(name), load_encoder(&Source::Folder(fixture::folder(name))).unwrap());
        let rows = fixture.rows("");
        let sequences: Vec<&[u32]> = rows.rows.iter().map(Vec::as_slice).collect();
        assert_eq!(encoder.layers(), 2);
        for layer in 0..=2 {
            let ours = encoder.states(&sequences, layer).unwrap().concat();
            let theirs = expected_logits(&fixture, &format!("hidden.{layer}"), &rows);
            let off = gap(&ours, &theirs);
            println!("{name}: hidden states behind {layer} layers differ by {off:.1e}");
            assert!(off < 1e-5, "{name}: hidden states behind {layer} layers differ by {off:e}");
        }
        let told = format!("{:#}", encoder.states(&sequences, 3).unwrap_err());
        assert!(told.contains("layer 3 is asked for, and the model has 2"), "{told}");
    }
}

/// transformers has spelled the rotary fields in two ways.
#[test]
fn an_old_configuration_gives_the_same_bits() {
    let old = |name: &str| fixture::folder(name).join("config.v4.json");
    let both: Vec<_> = CAUSAL.into_iter().filter(|name| old(name).exists()).collect();
    assert_eq!(both.len(), 7, "all but GPT-2's two");
    for name in both {
        let (rows, new) = (Fixture::new(name).rows(""), language_model(name));
        let old = LanguageModel::from_params(Config::read(&old(name)).unwrap(), new.params.clone()).unwrap();
        assert_eq!(logits(&old.network, &rows), logits(&new.network, &rows), "{name}");
    }
}

/// Logits of every real token from a cache that is fed in pieces: of each row as many tokens at once as the next piece
/// says, if it still has so many.
pub fn cached_logits(network: &Network, rows: &Rows, pieces: &[[usize; 3]]) -> Vec<f32> {
    let lengths: Vec<usize> = rows.rows.iter().map(Vec::len).collect();
    let mut cache = network.cache(rows.rows.len(), *lengths.iter().max().unwrap());
    let mut said = vec![Vec::new(); rows.rows.len()];
    for piece in pieces {
        let held = cache.lengths().to_vec();
        let take: Vec<usize> = (0..held.len()).map(|row| piece[row].min(lengths[row] - held[row])).collect();
        let time = *take.iter().max().unwrap();
        let mut ids = vec![0u32; take.len() * time];
        for (row, &n) in take.iter().enumerate() {
            ids[row * time..][..n].copy_from_slice(&rows.rows[row][held[row]..][..n]);
        }
        let ids = Tensor::from_vec(ids, (take.len(), time), &Device::Cpu).unwrap();
        let logits = network.logits(&network.hidden(&ids, Some(&mut cache)).unwrap()).unwrap();
        for (row, &n) in take.iter().enumerate() {
            said[row].extend(values(&logits.get(row).unwrap().narrow(0, 0, n).unwrap()));
        }
        cache.advance(take);
    }
    assert_eq!(cache.lengths(), lengths, "the pieces are the rows");
    said.concat()
}

/// Rows of 16, 9 and 4 tokens: a piece may be padding alone for a row, and rows run ahead of each other.
pub const PIECES: [&[[usize; 3]]; 3] =
    [&[[3, 5, 1], [1, 1, 1], [1, 0, 2], [5, 3, 0], [6, 0, 0]], &[[16, 9, 4]], &[[1, 1, 1]; 16]];

#[test]
fn cached_is_uncached() {
    for name in CAUSAL {
        let (fixture, network) = (Fixture::new(name), language_model(name).frozen().unwrap());
        let rows = fixture.rows("");
        let whole = logits(&network, &rows);
        for pieces in PIECES {
            let off = gap(&cached_logits(&network, &rows, pieces), &whole) / largest(&whole);
            println!("{name}: in {} pieces logits differ by {off:.1e} of the largest", pieces.len());
            assert!(off < 2e-6, "{name}: in {} pieces logits differ by {off:e} of the largest", pieces.len());
        }
    }
}

#[test]
fn a_batch_of_one_is_a_batch_of_many() {
    for name in CAUSAL {
        let (fixture, network) = (Fixture::new(name), language_model(name).frozen().unwrap());
        let rows = fixture.rows("");
        let alone = rows.rows.iter().map(|row| Rows { rows: vec![row.clone()], places: Vec::new() });
        let alone: Vec<f32> = alone.flat_map(|row| logits(&network, &row)).collect();
        let whole = logits(&network, &rows);
        let off = gap(&alone, &whole) / largest(&whole);
        println!("{name}: alone, logits differ by {off:.1e} of the largest");
        assert!(off < 2e-6, "{name}: alone, logits differ by {off:e} of the largest");
    }
}
