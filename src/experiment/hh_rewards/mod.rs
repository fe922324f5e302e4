//! Reward models, and classifiers of responses, from the pairs of HH-RLHF (Bai et al. 2022, arXiv:2204.05862).

mod pairs;
mod saved;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tokenizers::Tokenizer;

pub use pairs::{Family, ReadFile, Split};

use crate::metrics::wilson_interval;
use crate::models::{BertConfig, Config, Head, RewardModel, RewardNetwork, Source, Vocabulary, load_reward_model};
use crate::progress::Progress;
use crate::record::record;
use crate::reward::{Preference, Preferences, evaluate_preferences};
use crate::tasks::data::hh_rlhf::Pair;
use crate::train::{BradleyTerry, RewardStepRow, train_response_classifier, train_reward_model};

/// What is trained, on what, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct HhRewards {
    /// HH-RLHF: a folder or a repository with its files.
    pub data: Source,
    /// The pairs of one family, or of both.
    pub only: Option<Family>,
    pub start: Start,
    pub loss: Loss,
    /// Dialogues with more tokens lose their beginning.
    pub max_tokens: usize,
    pub training: BradleyTerry,
}

/// What the training starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// The layers of a checkpoint with its tokenizer, and a fresh head.
    Base(Source),
    /// A BERT with fresh weights.
    Scratch { tokenizer: Source, layers: usize, width: usize },
}

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Rewards: which of two responses is the better one (Bradley and Terry).
    Pairs,
    /// A classifier: whether a response alone is of the chosen kind.
    Responses,
}

/// What came out.
pub struct TrainedHhRewards {
    pub model: RewardModel,
    pub vocabulary: Vocabulary,
    pub steps: Vec<RewardStepRow>,
    /// On the validation and the test pairs: each family, and both where there are two.
    pub held_out: Vec<HeldOutRow>,
    pub split: Split,
    /// Dialogues of the training that lost their beginning, and all of them.
    pub shortened: (usize, usize),
}

record! {
    /// A trained model on held-out pairs. Intervals are Wilson's of 95 % and take pairs for independent.
    pub struct HeldOutRow {
        /// `validation`, on which settings are chosen, or `test`.
        pub split: String,
        /// `helpful`, `harmless` or `both`.
        pub family: String,
        pub pairs: i64,
        /// Pairs that became equal when they were shortened; they are not among `pairs`.
        pub equal: i64,
        /// Dialogues that were shortened, of twice as many as pairs.
        pub shortened: i64,
        /// The share of pairs of which the chosen one got the higher reward; a tie counts half.
        pub accuracy: f64,
        pub accuracy_low: f64,
        pub accuracy_high: f64,
        /// The mean of −log σ(r(chosen) − r(rejected)), in nats. Guessing gets log 2.
        pub log_loss: f64,
        pub calibration_error: f64,
        /// Of a classifier: the share of responses that it puts on the right side of 1/2.
        pub response_accuracy: Option<f64>,
        pub response_accuracy_low: Option<f64>,
        pub response_accuracy_high: Option<f64>,
        /// The share of pairs of which the chosen one is the longer one, in tokens: what a rule without a model gets, or one
        /// less it.
        pub longer_accuracy: f64,
    }
}

impl HhRewards {
    /// Trains on the pairs for training and measures on those held out, each family apart. Same seed, same bits, whatever
    /// the number of threads.
    ///
    /// # Errors
    /// Files that are not there or cannot be read, a tokenizer that does not fit the model, no pairs on one of the sides;
    /// as [`train_reward_model`].
    pub fn train(&self) -> Result<TrainedHhRewards> {
        let split = Split::read(&self.data, self.only)?;
        split.notes.iter().for_each(|note| println!("{note}"));
        let vocabulary = self.start.vocabulary()?;
        let tokenizer = &vocabulary.tokenizer;
        let model = self.start.model(vocabulary.size(), self.max_tokens, self.training.seed)?;
        println!(
            "{} with {} weights, {} tokens of {}",
            model.config.model_type(),
            model.params.count(),
            self.max_tokens.min(model.config.max_positions()),
            model.config.vocab_size()
        );
        let all: Vec<&Pair> = split.train.iter().map(|(_, pair)| pair).collect();
        let (train, shortened) = self.tokens("tokens for training", tokenizer, &model.network, &all)?;
        let shortened = (shortened, 2 * all.len());
        println!("{} of {} dialogues are longer and lose their beginning", shortened.0, shortened.1);
        let preferences = Preferences::new(train)?;
        let name = self.only.map_or("helpful and harmless", Family::name);
        let steps = match self.loss {
            Loss::Pairs => train_reward_model(&model, &self.training, &format!("reward model, {name}"), &preferences)?,
            Loss::Responses => {
                train_response_classifier(&model, &self.training, &format!("classifier, {name}"), &preferences)?
            }
        };
        let mut held_out = self.measure("validation", tokenizer, &model, &split.validation)?;
        held_out.extend(self.measure("test", tokenizer, &model, &split.test)?);
        Ok(TrainedHhRewards { model, vocabulary, steps, held_out, split, shortened })
    }

    fn measure(
        &self,
        split: &str,
        tokenizer: &Tokenizer,
        model: &RewardModel,
        pairs: &[(Family, Pair)],
    ) -> Result<Vec<HeldOutRow>> {
        let mut rows = Vec::new();
        for families in [&[Family::Helpful][..], &[Family::Harmless], &Family::ALL] {
            let of_these = pairs.iter().filter(|(family, _)| families.contains(family)).map(|(_, pair)| pair);
            let of_these: Vec<&Pair> = of_these.collect();
            // Both together say nothing new of one.
            if of_these.is_empty() || families.len() == 2 && rows.len() < 2 {
                continue;
            }
            let name = if families.len() == 2 { "both" } else { families[0].name() };
            let (tokens, shortened) = self.tokens(&format!("{name}, {split}"), tokenizer, &model.network, &of_these)?;
            let preferences = Preferences::new(tokens)?;
            rows.push(self.held_out_row([split, name], model, &preferences, shortened)?);
        }
        Ok(rows)
    }

    fn held_out_row(
        &self,
        [split, family]: [&str; 2],
        model: &RewardModel,
        preferences: &Preferences,
        shortened: usize,
    ) -> Result<HeldOutRow> {
        let evaluation = evaluate_preferences(model, preferences)?.row;
        let pairs = preferences.pairs();
        let responses = match self.loss {
            Loss::Pairs => None,
            Loss::Responses => Some(response_accuracy(model, pairs)?),
        };
        let longer = |pair: &Preference| match pair.chosen.len().cmp(&pair.rejected.len()) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        Ok(HeldOutRow {
            split: split.to_string(),
            family: family.to_string(),
            pairs: evaluation.pairs,
            equal: evaluation.equal,
            shortened: shortened as i64,
            accuracy: evaluation.accuracy,
            accuracy_low: evaluation.accuracy_low,
            accuracy_high: evaluation.accuracy_high,
            log_loss: evaluation.log_loss,
            calibration_error: evaluation.calibration_error,
            response_accuracy: responses.map(|interval| interval.mean),
            response_accuracy_low: responses.map(|interval| interval.low),
            response_accuracy_high: responses.map(|interval| interval.high),
            longer_accuracy: pairs.iter().map(longer).sum::<f64>() / pairs.len() as f64,
        })
    }

    /// The pairs as tokens, shortened, and how many dialogues were.
    fn tokens(
        &self,
        label: &str,
        tokenizer: &Tokenizer,
        network: &RewardNetwork,
        pairs: &[&Pair],
    ) -> Result<(Vec<Preference>, usize)> {
        let (mut preferences, mut shortened) = (Vec::with_capacity(pairs.len()), 0);
        let progress = Progress::new(label, pairs.len() as u64);
        for pairs in pairs.chunks(1024) {
            let texts: Vec<&str> = pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
            let encoded =
                tokenizer.encode_batch(texts, true).map_err(|error| anyhow::anyhow!("tokenizing: {error}"))?;
            let mut sides = encoded.iter().map(|side| {
                let kept = network.keep_last(side.get_ids(), self.max_tokens);
                shortened += usize::from(kept.len() < side.get_ids().len());
                kept
            });
            while let (Some(chosen), Some(rejected)) = (sides.next(), sides.next()) {
                preferences.push(Preference::new(chosen, rejected));
            }
            progress.inc(pairs.len() as u64);
        }
        progress.finish();
        Ok((preferences, shortened))
    }
}

impl Start {
    fn vocabulary(&self) -> Result<Vocabulary> {
        let (Start::Base(source) | Start::Scratch { tokenizer: source, .. }) = self;
        Vocabulary::read(source)
    }

    /// `known` is the number of the tokenizer's ids.
    fn model(&self, known: usize, max_tokens: usize, seed: u64) -> Result<RewardModel> {
        match self {
            Start::Base(source) => {
                let model = load_reward_model(source, Head::Fresh(seed))?;
                let rows = model.config.vocab_size();
                ensure!(known <= rows, "{source}: the tokenizer has {known} tokens, and the model {rows}");
                Ok(model)
            }
            Start::Scratch { layers, width, .. } => {
                let config = BertConfig {
                    vocab_size: known,
                    hidden_size: *width,
                    num_hidden_layers: *layers,
                    num_attention_heads: (width / HEAD_WIDTH).max(1),
                    intermediate_size: 4 * width,
                    max_position_embeddings: max_tokens,
                    type_vocab_size: 1,
                    // BERT's 0.02 suits its width: in a narrow model the first token would hardly see the others.
                    initializer_range: 1.0 / (*width as f64).sqrt(),
                    ..Default::default()
                };
                RewardModel::new(Config::Bert(config), seed).context("a model from scratch")
            }
        }
    }
}

/// Of a model from scratch.
const HEAD_WIDTH: usize = 32;

/// The share of responses on the right side of a reward of 0, with Wilson's interval.
fn response_accuracy(model: &RewardModel, pairs: &[Preference]) -> Result<crate::metrics::Interval> {
    let sides = |side: fn(&Preference) -> &Vec<u32>| pairs.iter().map(|pair| side(pair).clone()).collect::<Vec<_>>();
    let right = |score: f64| if score == 0.0 { 0.5 } else { f64::from(score > 0.0) };
    let chosen = model.scores(&sides(|pair| &pair.chosen))?;
    let rejected = model.scores(&sides(|pair| &pair.rejected))?;
    let successes = chosen.into_iter().map(right).sum::<f64>() + rejected.into_iter().map(|r| right(-r)).sum::<f64>();
    wilson_interval(successes, 2 * pairs.len(), 0.95)
}
