//! The targets in the embedded world: what their own responses are worth, what the remedies save, whether methods train with them.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use qstar::experiment::{HELD_OUT_PAIRS, LearnedReward, TargetName, World, measure_targets, remedies};
use qstar::method;
use qstar::models::{Config, Gpt2Config, LanguageModel};
use qstar::rollout::Proposal;
use qstar::target::{Caching, Expert, PrefixScorer, RewardSoftmax, SequenceReward, SoftmaxConfig, Target};
use qstar::tasks::Split;
use qstar::train::{
    Conditional, Distillation, PrefixTraining, StepConfig, Supervised, Trainer, TrainingReward, distill,
    train_conditional, train_prefix_values,
};
use tempfile::TempDir;

fn world() -> World {
    World::micro(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap()
}

/// A cheap reward: 1 where the last token stood in the sequence before.
fn overlap() -> SequenceReward {
    SequenceReward::of("overlap", |sequences| {
        let of =
            |tokens: &Vec<u32>| tokens.last().map_or(0.0, |last| f64::from(tokens[..tokens.len() - 1].contains(last)));
        Ok(sequences.iter().map(of).collect())
    })
}

/// The learned reward of the embedded world, made once for all tests, the folder of its data, and the seconds it took.
fn learned() -> &'static (LearnedReward, TempDir, f64) {
    static LEARNED: OnceLock<(LearnedReward, TempDir, f64)> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let (data, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let learned = world().reward_model(data.path()).unwrap();
        (learned, data, start.elapsed().as_secs_f64())
    })
}

#[test]
fn a_learned_reward_is_made_once() {
    let (first, data, seconds) = learned();
    let (world, row) = (world(), &first.evaluation.row);
    // What the true reward reaches on the same pairs: their labels are drawn, so it errs as well.
    let right = |i| {
        let prompt = world.task.prompt(Split::Test, i);
        let pair = world.task.preference(&prompt, 0).unwrap();
        let rewards = world.task.rewards(&[(&prompt, &pair.chosen), (&prompt, &pair.rejected)]).unwrap();
        let margin = rewards[0] - rewards[1];
        if margin == 0.0 { 0.5 } else { f64::from(u8::from(margin > 0.0)) }
    };
    let ceiling = (0..HELD_OUT_PAIRS).map(right).sum::<f64>() / HELD_OUT_PAIRS as f64;
    println!(
        "{seconds:.1} s; accuracy {:.3} ({:.3} to {:.3}), of the true reward {ceiling:.3}; log loss {:.3}, calibration \
         error {:.3} on {} pairs",
        row.accuracy, row.accuracy_low, row.accuracy_high, row.log_loss, row.calibration_error, row.pairs
    );
    assert!(row.accuracy_low > 0.6 && row.log_loss < 2f64.ln());
    let start = Instant::now();
    let second = world.reward_model(data.path()).unwrap();
    assert_eq!(first.model.params.digest().unwrap(), second.model.params.digest().unwrap());
    assert_eq!(first.evaluation, second.evaluation);
    println!("again: {:.1} s", start.elapsed().as_secs_f64());
    let kept = std::fs::read_dir(data.path().join("cache")).unwrap();
    assert_eq!(kept.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 1);
}

#[test]
fn qstar_trains_with_every_target() {
    let world = world();
    let initial = &world.models.initial;
    let training = PrefixTraining { prompts: 64, responses: 2, steps: 20, ..Default::default() };
    let values = train_prefix_values(initial, &*world.task, TrainingReward::True, &training, "values").unwrap().values;
    let training = Supervised { steps: 4, batch: 16, learning_rate: 1e-4, warmup_steps: 1 };
    let conditional = Conditional { prompts: 16, responses: 4, training, ..Default::default() };
    let conditional =
        train_conditional(initial, &*world.task, TrainingReward::True, &conditional, "conditional").unwrap();
    let softmax = RewardSoftmax::new(initial, overlap(), SoftmaxConfig { k: 4, ..Default::default() }).unwrap();
    let targets: [(&str, Box<dyn Target>); 3] = [
        ("prefix_scorer", Box::new(PrefixScorer::new(initial, &values, 0.1).unwrap())),
        ("reward_softmax", Box::new(softmax)),
        ("conditional", Box::new(conditional.target().unwrap())),
    ];
    let config = StepConfig { prompts: 8, responses: 2, microbatches: 2, ..Default::default() };
    let reference = initial.frozen().unwrap();
    for (name, target) in &targets {
        let target = Some(&**target);
        let mut trainer = Trainer::new(&*world.task, method::QSTAR, config, 0, initial, &reference, target).unwrap();
        let before = trainer.policy.digest().unwrap();
        for _ in 0..3 {
            let row = trainer.step().unwrap();
            assert!(
                row.loss.is_some_and(f64::is_finite) && row.alpha_mean.is_some_and(|alpha| alpha > 0.0 && alpha < 1.0),
                "{name}: {row:?}"
            );
        }
        assert_ne!(trainer.policy.digest().unwrap(), before);
        let calls = trainer.spent().reward_calls;
        println!("{name}: {calls} reward calls for {} samples", trainer.spent().samples);
        if *name == "reward_softmax" {
            assert!(calls > 2 * 48, "the target's rewards are charged: {calls}");
        } else {
            assert_eq!(calls, 48);
        }
    }
}

#[test]
fn a_target_by_name_is_made_once() {
    let data = tempfile::tempdir().unwrap();
    // The one that trains fastest; the others go the same way.
    let identity = || {
        let start = Instant::now();
        let world = world().with_target_named(data.path(), TargetName::PrefixScorer).unwrap();
        (world.models.target.identity(), start.elapsed().as_secs_f64())
    };
    let (first, slow) = identity();
    let (second, fast) = identity();
    assert_eq!(first, second);
    assert!(first.starts_with("prefix_scorer") && fast < slow, "{slow} s, then {fast} s");
    assert!("oracle".parse::<TargetName>().unwrap_err().to_string().contains("expert, prefix_scorer"));
}

#[test]
fn a_world_takes_another_target() {
    let world = world();
    let standard = SoftmaxConfig { k: 4, ..Default::default() };
    let softmax = RewardSoftmax::new(&world.models.initial, overlap(), standard).unwrap();
    let identity = softmax.identity();
    let world = world.with_target(softmax);
    assert_eq!(world.models.target.identity(), identity);
}

/// Prompts that are measured here; `QSTAR_TARGET_PROMPTS` asks for more.
fn prompts() -> u64 {
    std::env::var("QSTAR_TARGET_PROMPTS").map_or(200, |count| count.parse().expect("a number of prompts"))
}

#[test]
fn targets_are_worth_more_than_where_they_come_from() {
    let (world, learned) = (world(), &learned().0);
    let (initial, task) = (&world.models.initial, &*world.task);
    let reward = || SequenceReward::learned(&learned.model).unwrap();
    let mut spent = Vec::new();
    let mut named: Vec<(String, Box<dyn Target>)> = vec![
        ("π_init".into(), Box::new(Expert::named("initial", initial).unwrap())),
        ("expert".into(), Box::new(Expert::new(&world.expert).unwrap())),
    ];
    let whole = reward();
    for (which, source) in [("true", TrainingReward::True), ("learned", TrainingReward::Learned(&whole))] {
        let config = PrefixTraining::default();
        let values = train_prefix_values(initial, task, source, &config, "prefix scorer").unwrap();
        let means =
            |rows: &[qstar::train::PrefixStepRow]| rows.iter().map(|row| row.loss).sum::<f64>() / rows.len() as f64;
        let rows = &values.rows;
        println!(
            "prefix scorer, {which} reward: loss {:.4} to {:.4}, held out explained {:.3}",
            means(&rows[..50]),
            means(&rows[rows.len() - 50..]),
            values.held_out_explained_variance
        );
        assert!(means(&rows[rows.len() - 50..]) < means(&rows[..50]) && values.held_out_explained_variance > 0.0);
        spent.push((format!("prefix_scorer, {which}"), values.spent));
        // The learned reward is in nats of preference already: exp(r) are its odds.
        for beta in if which == "true" { [0.3, 0.1, 0.05] } else { [2.0, 1.0, 0.5] } {
            let target = PrefixScorer::new(initial, &values.values, beta).unwrap();
            named.push((format!("prefix_scorer, {which}, β {beta}"), Box::new(target)));
        }
        let trained = train_conditional(initial, task, source, &Conditional::default(), "conditional").unwrap();
        println!(
            "conditional, {which} reward: drawn {:.3}, kept {} with {:.3}, {:.3} nats a token",
            trained.drawn_reward, trained.kept, trained.kept_reward, trained.loss
        );
        spent.push((format!("conditional, {which}"), trained.spent));
        named.push((format!("conditional, {which}"), Box::new(trained.target().unwrap())));
    }
    for beta in [2.0, 1.0, 0.3] {
        let config = SoftmaxConfig { beta, ..Default::default() };
        let target = RewardSoftmax::new(initial, reward(), config).unwrap();
        named.push((format!("reward_softmax, k 8, β {beta}"), Box::new(target)));
    }
    let config = SoftmaxConfig { beta: 1.0, base: qstar::target::Base::Uniform, ..Default::default() };
    named.push((
        "reward_softmax, uniform, k 8, β 1".into(),
        Box::new(RewardSoftmax::new(initial, reward(), config).unwrap()),
    ));
    let targets: Vec<(&str, &dyn Target)> = named.iter().map(|(name, target)| (&name[..], &**target)).collect();
    let rows = measure_targets(&world, &targets, prompts()).unwrap();
    for row in &rows {
        println!(
            "{:36} reward {:.3} ({:.3} to {:.3}), length {:.2}, ended {:.2}; a token: {:.2e} flops, {:.2} calls, {:.2} hits, {:.0} us",
            row.target,
            row.reward,
            row.reward_low,
            row.reward_high,
            row.length,
            row.ended,
            row.flops,
            row.reward_calls,
            row.reward_hits,
            row.microseconds
        );
    }
    for (name, spent) in &spent {
        println!(
            "{name}: {} samples, {} reward calls, {:.2e} + {:.2e} flops, {:.1} s",
            spent.samples, spent.reward_calls, spent.forward_flops, spent.backward_flops, spent.seconds
        );
    }
    let of = |name: &str| rows.iter().find(|row| row.target == name).unwrap();
    for name in ["expert", "prefix_scorer, true, β 0.1", "conditional, true"] {
        assert!(of(name).reward_low > of("π_init").reward, "{name} is not above π_init: {:?}", of(name));
    }
    assert_eq!(of("expert").reward_calls, 0.0);
    let both = of("reward_softmax, k 8, β 1");
    assert!((both.reward_calls + both.reward_hits - 8.0).abs() < 1e-9, "eight candidates a token");
}

#[test]
fn remedies_save_and_say_what_they_get_wrong() {
    let (world, learned) = (world(), &learned().0.model);
    let initial = &world.models.initial;
    let softmax = |caching| {
        let config = SoftmaxConfig { beta: 1.0, caching, ..Default::default() };
        RewardSoftmax::new(initial, SequenceReward::learned(learned)?, config)
    };
    let mut rows = remedies::caching(&world, softmax, 16, 4).unwrap();
    assert!(rows.iter().all(|row| row.saving > 0.0 && row.saving < 1.0), "{rows:?}");
    assert!(rows[1].after < rows[0].after, "what is kept for the second round is not asked for again");
    let target = softmax(Caching::Kept { entries: 1 << 20 }).unwrap();
    rows.push(remedies::batching(&world, &softmax(Caching::Off).unwrap(), 32).unwrap());
    let config = Gpt2Config {
        n_embd: 48,
        n_layer: 1,
        n_head: 2,
        vocab_size: initial.config.vocab_size(),
        n_positions: initial.config.max_positions(),
        initializer_range: 0.14,
        ..Default::default()
    };
    let draft = LanguageModel::new(Config::Gpt2(config), 1).unwrap();
    let measure = |draft: &LanguageModel| {
        remedies::approximation(&world, &target, &Expert::named("draft", draft).unwrap(), 64).unwrap()
    };
    let before = measure(&draft);
    // First on π_init, which asks for no rewards, then on the target.
    let (steps, policy) = (prompts() as usize, initial.frozen().unwrap());
    let near = Distillation { steps: 2 * steps, contexts: Proposal::Policy, ..Default::default() };
    let reference = Expert::named("initial", initial).unwrap();
    let first = distill(&reference, &policy, &draft, &*world.task, &near, "draft of π_init").unwrap().spent;
    assert_eq!(first.reward_calls, 0);
    let config = Distillation { steps: steps / 10, prompts: 16, learning_rate: 1e-3, ..Default::default() };
    let second = distill(&target, &policy, &draft, &*world.task, &config, "draft of the target").unwrap().spent;
    let after = measure(&draft);
    println!("draft: {first:?}, then {second:?}\nbefore {before:?}\nafter {after:?}");
    assert!(after.kl < 0.3 * before.kl, "{} and after {}", before.kl, after.kl);
    assert!(after.log_ess_p_shift < before.log_ess_p_shift && after.log_ess_t_shift < before.log_ess_t_shift);
    assert!(after.flops_draft < after.flops && after.reward_calls > 0.0);
    rows.extend(after.remedies());
    for row in &rows {
        println!(
            "{:20} {:26} {:.4e} to {:.4e}, saves {:.3}; error {:.1e} nats",
            row.remedy, row.unit, row.before, row.after, row.saving, row.error
        );
    }
    // What should change nothing changes nothing beyond rounding.
    assert!(rows[..3].iter().all(|row| row.error < 1e-4), "{rows:?}");
}
