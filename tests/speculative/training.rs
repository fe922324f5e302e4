//! Training with speculation: the same law of what is learned from, the same weights, runs that resume to the bit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;
use qstar::experiment::World;
use qstar::method::{ALL, Method, OFF_POLICY, QSTAR};
use qstar::metrics::welch_t;
use qstar::progress::Progress;
use qstar::record::Kind;
use qstar::rollout::{Gamma, Speculation};
use qstar::target::{Contexts, Target};
use qstar::train::{Batch, HeldOut, Models, Run, RunConfig, RunSpec, StepConfig, Trainer};

fn world() -> World {
    World::micro(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap()
}

const ADAPTIVE: Speculation =
    Speculation { gamma: Gamma::Adaptive { most: 4, draft_cost: 0.2, token_cost: 0.05 }, ..Speculation::fixed(3) };

fn trainer<'a>(
    world: &'a World,
    reference: &'a qstar::models::Network,
    method: &Method,
    speculation: Option<Speculation>,
    seed: u64,
) -> Result<Trainer<'a>> {
    let config = StepConfig { prompts: 16, responses: 2, microbatches: 4, speculation, ..Default::default() };
    let target = Some(&*world.models.target);
    Trainer::new(&*world.task, method.clone(), config, seed, &world.models.initial, reference, target)
}

/// What is learned from, response by response: length, reward, the logs of q and of the whole weight, the mean α.
fn seen(batch: &Batch) -> Vec<[f64; 5]> {
    let of = |sample: &qstar::train::Sample| {
        let sum = |x: &Option<Vec<f64>>| x.as_ref().unwrap().iter().sum::<f64>();
        let alphas = sample.draws.iter().map(|draw| draw.mixture.map_or(0.0, |mixture| mixture.alpha));
        let length = sample.tokens.len() as f64;
        let (log_q, log_p) = (sum(&sample.log_q), sum(&sample.log_p));
        [length, sample.reward, log_q, log_p - log_q, alphas.sum::<f64>() / length]
    };
    batch.samples.iter().map(of).collect()
}

#[test]
fn what_is_learned_from_has_one_law() {
    let world = world();
    let reference = world.models.initial.frozen().unwrap();
    for method in [&QSTAR, &OFF_POLICY] {
        let draw = |speculation, seeds: std::ops::Range<u64>| -> Vec<[f64; 5]> {
            let batch = |seed| trainer(&world, &reference, method, speculation, seed).unwrap().draw().unwrap();
            seeds.flat_map(|seed| seen(&batch(seed))).collect()
        };
        // The same prompts: what differs between them is not the samplers' doing.
        let plain = draw(None, 0..12);
        for speculation in [Speculation::fixed(3), ADAPTIVE] {
            let speculative = draw(Some(speculation), 0..12);
            for (column, name) in ["length", "reward", "log q", "log weight", "alpha"].into_iter().enumerate() {
                let of = |rows: &[[f64; 5]]| rows.iter().map(|row| row[column]).collect::<Vec<f64>>();
                let (a, b) = (of(&plain), of(&speculative));
                if a.iter().chain(&b).all(|x| *x == 0.0) {
                    continue;
                }
                assert_ne!(a, b, "{}: other random numbers give other responses", method.name);
                let p = welch_t(&a, &b).unwrap().p;
                println!("{}, {:?}: {name}, p = {p:.3}", method.name, speculation.gamma);
                assert!(p > 0.001, "{}: {name}, p = {p}", method.name);
            }
        }
    }
}

#[test]
fn a_step_knows_what_it_knows_without_and_is_charged_for_what_was_read() {
    let world = world();
    let reference = world.models.initial.frozen().unwrap();
    let step = |speculation| {
        let mut trainer = trainer(&world, &reference, &QSTAR, speculation, 5).unwrap();
        let batch = trainer.draw().unwrap();
        let tokens: usize = batch.samples.iter().map(|sample| sample.tokens.len()).sum();
        (batch.cost.forward_flops / tokens as f64, batch.speculation, trainer.update(&batch).unwrap())
    };
    let (plain, none, plain_row) = step(None);
    let (cost, counts, row) = step(Some(Speculation::fixed(4)));
    let counts = counts.unwrap();
    assert!(none.is_none() && plain_row.draft_acceptance.is_none() && plain_row.tokens_per_verification.is_none());
    assert_eq!(row.draft_acceptance, counts.acceptance());
    assert_eq!(row.tokens_per_verification, counts.tokens_per_round());
    assert!(
        counts.tokens_per_round().unwrap() > 1.2 && (0.2..1.0).contains(&counts.acceptance().unwrap()),
        "{counts:?}"
    );
    assert!(row.log_prob_gap.unwrap() < 1e-4, "{:?}", row.log_prob_gap);
    // What is drafted and thrown away was read by the target, and by the policy but for the last of a draft.
    let rejected = (counts.drafted - counts.accepted) as f64 / counts.tokens as f64;
    let read_twice = rejected * 2.0 * 2.0 * reference.parameters() as f64;
    assert!(rejected > 0.3, "{rejected}");
    assert!((0.5..1.0).contains(&((cost - plain) / read_twice)), "{cost} {plain} {read_twice}");
}

#[test]
fn methods_without_anything_to_verify_refuse() {
    let world = world();
    let reference = world.models.initial.frozen().unwrap();
    for method in &ALL {
        match trainer(&world, &reference, method, Some(Speculation::fixed(2)), 0) {
            Ok(_) => assert!(method.source.needs_target(), "{}", method.name),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!method.source.needs_target(), "{error}");
                assert!(error.contains("nothing to verify") && error.contains(&*method.name), "{error}");
            }
        }
    }
    let config = StepConfig { speculation: Some(Speculation::fixed(0)), ..Default::default() };
    assert!(config.check().unwrap_err().to_string().contains("γ is 0"));
}

#[test]
fn a_spec_without_speculation_is_as_before() {
    let plain = StepConfig::default();
    assert!(!serde_json::to_string(&plain).unwrap().contains("speculation"));
    let with = StepConfig { speculation: Some(ADAPTIVE), ..plain };
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<StepConfig>(&text).unwrap(), with);
    let short: Speculation = toml::from_str("gamma = { fixed = 3 }").unwrap();
    assert_eq!(short, Speculation::fixed(3));
}

/// A target that fails when it is read for the `fails_at`th time.
struct Failing {
    target: Arc<dyn Target>,
    reads: AtomicUsize,
    fails_at: usize,
}

impl Target for Failing {
    fn identity(&self) -> String {
        self.target.identity()
    }

    fn max_positions(&self) -> usize {
        self.target.max_positions()
    }

    fn read<'a>(&'a self, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Box<dyn Contexts + 'a>> {
        ensure!(self.reads.fetch_add(1, Ordering::Relaxed) != self.fails_at, "the lights went out");
        self.target.read(prompts, k, max_new)
    }
}

#[test]
fn a_run_that_was_cut_off_ends_with_the_same_bits() {
    let world = world();
    let step =
        StepConfig { prompts: 4, responses: 2, microbatches: 2, speculation: Some(ADAPTIVE), ..Default::default() };
    let config = RunConfig {
        steps: 5,
        budget: None,
        max_kl: None,
        patience: None,
        keep_best: false,
        evaluate_every: 2,
        evaluation_prompts: 10,
        evaluate_on: HeldOut::Test,
        checkpoint_every: 2,
        step,
    };
    let folder = tempfile::tempdir().unwrap();
    let train = |runs: &str, fails_at: usize| {
        let target = Failing { target: world.models.target.clone(), reads: AtomicUsize::new(0), fails_at };
        let models = Models { initial: world.models.initial.clone(), target: Arc::new(target) };
        let spec = RunSpec::new(&*world.task, QSTAR, 1, config, &models).unwrap();
        let run = Run::new(&folder.path().join(runs), spec).unwrap();
        (run.train(&*world.task, &models, &Progress::new("a run", 5)), run)
    };
    let (whole, never) = train("whole", usize::MAX);
    whole.unwrap();
    let error = train("cut", 3).0.unwrap_err();
    assert!(format!("{error:#}").contains("the lights went out"), "{error:#}");
    let (rest, resumed) = train("cut", usize::MAX);
    rest.unwrap();
    for kind in Kind::ALL {
        assert_eq!(bits(&never.folder.rows(kind).unwrap()), bits(&resumed.folder.rows(kind).unwrap()));
    }
    let weights = |run: &Run| run.trained(&world.models.initial).unwrap().digest().unwrap();
    assert_eq!(weights(&never), weights(&resumed));
}

/// The rows without the columns of time and memory, as text that distinguishes every bit of a number.
fn bits(frame: &DataFrame) -> String {
    let kept = frame.columns().iter().filter(|c| !c.name().starts_with("seconds") && c.name() != "peak_memory_mb");
    let column = |column: &polars::prelude::Column| {
        let values: Vec<String> = (0..frame.height()).map(|row| format!("{:?}", column.get(row).unwrap())).collect();
        format!("{}: {}\n", column.name(), values.join(" "))
    };
    kept.map(column).collect()
}
