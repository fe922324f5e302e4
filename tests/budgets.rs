//! What methods are charged, when runs end, and the search for settings.

use std::path::Path;

use qstar::experiment::{Part, Plan, Preset, Search, World, report};
use qstar::method::{DPO, GRPO, Level, Method, ON_POLICY, QSTAR, REINFORCE, REJECTION, SFT, Source, Treatment, Weight};
use qstar::mixture::Rule;
use qstar::progress::Progress;
use qstar::ranks::Ranks;
use qstar::record::{Kind, StepRow};
use qstar::target::BestOfN;
use qstar::tasks::Split;
use qstar::train::{Budget, HeldOut, Run, RunConfig, RunSpec, StepConfig, Trainer};

fn world() -> World {
    World::micro(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap()
}

fn config() -> RunConfig {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let run = Preset::load(&data, "smoke").unwrap().run;
    RunConfig { steps: 6, evaluation_prompts: 10, ..run }
}

fn plan(part: Part, runs: &Path) -> Plan {
    Plan { name: "test".to_string(), parts: vec![part], runs: runs.to_path_buf(), ranks: Ranks::alone() }
}

const STEP: StepConfig = StepConfig { prompts: 5, responses: 2, microbatches: 5, ..plain() };

const fn plain() -> StepConfig {
    StepConfig {
        prompts: 0,
        responses: 0,
        microbatches: 0,
        learning_rate: 1e-4,
        warmup_steps: 1,
        schedule: qstar::train::Schedule::Constant,
        kl_coefficient: 0.02,
        kl_control: qstar::train::KlControl::Fixed,
        max_gradient_norm: 1.0,
        shaping: qstar::train::Shaping { length_penalty: 0.0, cut_penalty: 0.0, normalize: false, clip: None },
        temperature: 1.0,
        speculation: None,
    }
}

/// One step of a method, and the tokens that its sequences give a model to read.
fn step(world: &World, method: &Method) -> (StepRow, f64) {
    let reference = world.models.initial.frozen().unwrap();
    let target = Some(&*world.models.target);
    let mut trainer =
        Trainer::new(&*world.task, method.clone(), STEP, 0, &world.models.initial, &reference, target).unwrap();
    let batch = trainer.draw().unwrap();
    let prompts: usize = batch.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let responses: usize = batch.samples.iter().map(|sample| sample.tokens.len() - 1).sum();
    (trainer.update(&batch).unwrap(), (prompts + responses) as f64)
}

#[test]
fn samples_and_rewards_are_charged_as_defined() {
    let world = world();
    let best = BestOfN { n: 6, beta: 0.1, rule: Rule::Q_STAR };
    let best_of_n = Method { name: "best_of_n".into(), source: Source::Picked(best), ..QSTAR };
    for (method, samples, rewards, learned) in [
        (&REINFORCE, 10, 10, Some(10)),
        (&ON_POLICY, 10, 10, Some(10)),
        (&QSTAR, 10, 10, Some(10)),
        (&SFT, 10, 0, Some(10)),
        // Five pairs.
        (&DPO, 10, 0, Some(10)),
        // Accepted or not.
        (&REJECTION, 10, 10, None),
        // Six draws a prompt, of which two are picked.
        (&best_of_n, 30, 30, Some(10)),
    ] {
        let (row, _) = step(&world, method);
        assert_eq!((row.samples, row.reward_calls), (samples, rewards), "{}", method.name);
        match learned {
            Some(learned) => assert_eq!(row.learned, learned, "{}", method.name),
            None => assert_eq!(row.acceptance, Some(row.learned as f64 / 10.0)),
        }
    }
}

#[test]
fn flops_are_two_a_parameter_and_token_forward_and_four_back() {
    let world = world();
    let parameters = world.models.initial.params.count() as f64;
    // Drawing, π_init, the update; PPO also reads the values once and updates four times; q* draws with two models. A prompt
    // is read once for all its responses.
    for (method, drawing, forward, backward) in [
        (REINFORCE, 1.0, 2.0, 1.0),
        (GRPO, 1.0, 2.0, 1.0),
        (ON_POLICY, 1.0, 6.0, 4.0),
        (QSTAR, 2.0, 2.0, 1.0),
        (SFT, 1.0, 1.0, 1.0),
    ] {
        let (row, tokens) = step(&world, &method);
        let expected = 2.0 * parameters * (drawing + forward) * tokens;
        assert!(
            (row.flops_forward / expected - 1.0).abs() < 1e-12,
            "{}: {} {expected}",
            method.name,
            row.flops_forward
        );
        let expected = 4.0 * parameters * backward * tokens;
        assert!((row.flops_backward / expected - 1.0).abs() < 1e-12, "{}", method.name);
    }
}

fn run(world: &World, method: Method, config: RunConfig, runs: &Path) -> (i64, String) {
    let spec = RunSpec::new(&*world.task, method, 0, config, &world.models).unwrap();
    let run = Run::new(runs, spec).unwrap();
    run.train(&*world.task, &world.models, &Progress::new("budget", 1)).unwrap();
    let done: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(run.folder.file("done.json")).unwrap()).unwrap();
    let steps = run.folder.rows(Kind::Steps).unwrap().height() as i64;
    let last = run.folder.rows(Kind::Evaluations).unwrap().column("step").unwrap().i64().unwrap().last();
    assert_eq!(last, Some(steps), "the end is evaluated");
    assert_eq!(done["steps"], steps);
    (steps, done["end"].as_str().unwrap().to_string())
}

#[test]
fn a_run_ends_with_the_step_that_reaches_its_budget() {
    let (world, runs) = (world(), tempfile::tempdir().unwrap());
    // 64 samples a step, of at most 6 steps.
    for (method, budget, steps, end) in [
        (REINFORCE, Budget::Samples(128), 2, "budget"),
        (REINFORCE, Budget::Samples(129), 3, "budget"),
        (REINFORCE, Budget::RewardCalls(64), 1, "budget"),
        (SFT, Budget::RewardCalls(64), 6, "steps"),
        (REINFORCE, Budget::Flops(1.0), 1, "budget"),
        (REINFORCE, Budget::Seconds(1e-9), 1, "budget"),
        (REINFORCE, Budget::Samples(1_000_000), 6, "steps"),
    ] {
        let config = RunConfig { budget: Some(budget), ..config() };
        assert_eq!(run(&world, method, config, runs.path()), (steps, end.to_string()), "{budget}");
    }
    let config = RunConfig { max_kl: Some(1e-9), evaluate_every: 2, ..config() };
    assert_eq!(run(&world, REINFORCE, config, runs.path()), (2, "kl".to_string()));
}

/// At a budget of reward calls: REINFORCE spends 64 a step, SFT none and goes on to the last step.
#[test]
fn the_final_table_says_what_was_spent_and_why_runs_ended() {
    let runs = tempfile::tempdir().unwrap();
    let config = RunConfig { budget: Some(Budget::RewardCalls(100)), steps: 3, ..config() };
    let plan = plan(Part::new(world(), &[REINFORCE, SFT], config, 2), runs.path());
    let results = plan.train().unwrap();
    assert_eq!(results.ends("reinforce").unwrap(), ["budget", "budget"]);
    let table = report::final_table(&results).unwrap();
    let numbers = |name: &str| table.column(name).unwrap().f64().unwrap().to_vec_null_aware().left().unwrap();
    assert_eq!(numbers("samples"), [128.0, 192.0]);
    assert_eq!(numbers("reward_calls"), [128.0, 0.0]);
    let ends: Vec<_> = table.column("end").unwrap().str().unwrap().iter().flatten().map(str::to_string).collect();
    assert_eq!(ends, ["budget", "steps"]);
    // FLOPs and seconds are those of the last steps' rows.
    let steps = results.steps().unwrap();
    let of = |name: &str| steps.column(name).unwrap().f64().unwrap().to_vec_null_aware().left().unwrap();
    let (forward, backward, seconds) = (of("flops_forward"), of("flops_backward"), of("seconds_charged"));
    // Rows of seed 0: two of REINFORCE, three of SFT; then the same of seed 1.
    for (row, [first, second]) in [[1, 6], [4, 9]].into_iter().enumerate() {
        let flops = 0.5 * (forward[first] + backward[first] + forward[second] + backward[second]);
        assert!((numbers("flops")[row] / flops - 1.0).abs() < 1e-12 && flops > 0.0);
        let spent = 0.5 * (seconds[first] + seconds[second]);
        assert!((numbers("seconds")[row] / spent - 1.0).abs() < 1e-12 && spent > 0.0);
    }
}

#[test]
fn what_cannot_be_is_named() {
    let world = world();
    let error = |method: Method, config: RunConfig| {
        format!("{:#}", RunSpec::new(&*world.task, method, 0, config, &world.models).err().unwrap())
    };
    for (change, said) in [
        (RunConfig { steps: 0, ..config() }, "steps is 0"),
        (RunConfig { patience: Some(0), ..config() }, "patience"),
        (RunConfig { budget: Some(Budget::Samples(0)), ..config() }, "budget is 0"),
        (RunConfig { step: StepConfig { learning_rate: f64::NAN, ..STEP }, ..config() }, "learning_rate"),
    ] {
        let found = error(REINFORCE, change);
        assert!(found.contains(said), "{found}");
    }
    let clipped = |low, high| Weight { level: Level::Token, treatment: Treatment::Clipped { low, high } };
    let best = BestOfN { n: 1, beta: 0.1, rule: Rule::Q_STAR };
    for (method, said) in [
        (Method { weight: clipped(2.0, 1.0), ..QSTAR }, "clipped into an interval"),
        (Method { source: Source::Picked(best), ..QSTAR }, "two responses"),
        (Method { source: Source::Picked(BestOfN { n: 2, ..best }), ..REINFORCE }, "without their weights"),
        (Method { source: Source::Preferences, ..SFT }, "preference pairs are for DPO"),
        (Method { weight: clipped(0.1, 10.0), ..ON_POLICY }, "only REINFORCE weighs"),
        (Method { source: Source::Demonstrations, ..DPO }, "from the source Preferences alone"),
    ] {
        let found = error(method, config());
        assert!(found.contains(said), "{found}");
    }
    // One response to a prompt has no group, and no pair.
    let reference = world.models.initial.frozen().unwrap();
    for method in [GRPO, DPO] {
        let step = StepConfig { responses: 1, ..STEP };
        let target = Some(&*world.models.target);
        assert!(Trainer::new(&*world.task, method, step, 0, &world.models.initial, &reference, target).is_err());
    }
}

#[test]
fn the_best_policy_is_kept_and_patience_ends_a_run() {
    let (world, runs) = (world(), tempfile::tempdir().unwrap());
    // A rate that ruins the policy: after the first evaluations none is the best.
    let step = StepConfig { learning_rate: 0.03, warmup_steps: 1, ..config().step };
    let config = RunConfig { evaluate_every: 1, patience: Some(2), keep_best: true, step, steps: 6, ..config() };
    let spec = RunSpec::new(&*world.task, SFT, 0, config, &world.models).unwrap();
    let run = Run::new(runs.path(), spec).unwrap();
    assert!(run.trained(&world.models.initial).is_err(), "it is not done");
    run.train(&*world.task, &world.models, &Progress::new("best", 1)).unwrap();
    let done = std::fs::read_to_string(run.folder.file("done.json")).unwrap();
    assert!(done.contains("patience"), "{done}");
    let rewards = run.folder.rows(Kind::Evaluations).unwrap().column("reward").unwrap().f64().unwrap().to_vec();
    let rewards: Vec<f64> = rewards.into_iter().flatten().collect();
    let best = rewards.iter().copied().fold(f64::MIN, f64::max);
    let at = rewards.iter().position(|reward| *reward == best).unwrap();
    assert_eq!(rewards.len(), at + 3, "two evaluations after the best: {rewards:?}");
    let digest = |model: qstar::models::LanguageModel| model.digest().unwrap();
    let (last, kept) =
        (digest(run.trained(&world.models.initial).unwrap()), digest(run.best(&world.models.initial).unwrap()));
    assert!(done.contains(&last) && last != kept);
    assert_eq!(at == 0, kept == world.models.initial.digest().unwrap());
}

#[test]
fn a_search_tries_the_common_setting_first_and_names_the_best() {
    let runs = tempfile::tempdir().unwrap();
    let run = RunConfig { steps: 2, evaluation_prompts: 20, ..config() };
    let common = run.step;
    let search = Search { trials: 3, steps: 2, ..Search::around(&common) };
    let with = |search: &Search| {
        plan(Part { search: Some(search.clone()), ..Part::new(world(), &[QSTAR, DPO], run, 1) }, runs.path())
    };
    let found = with(&search);
    // Before the trials a tuned arm has no name.
    let names = |plan: &Plan| plan.frame().unwrap().column("run").unwrap().null_count();
    assert_eq!((names(&found), found.jobs().len()), (2, 2 + 6 + 2));
    let frame = found.search().unwrap();
    assert_eq!(names(&found), 0);
    assert_eq!(frame.height(), 6);
    let column = |name: &str| -> Vec<Option<f64>> { frame.column(name).unwrap().f64().unwrap().iter().collect() };
    let rates = column("learning_rate");
    assert_eq!([rates[0], rates[3]], [Some(common.learning_rate); 2]);
    assert_eq!(rates[1], rates[4], "the same draws for every method");
    assert!(rates[1] != rates[2] && rates[1].unwrap() >= 1e-4 && rates[1].unwrap() <= 3e-3);
    let (clip, beta) = (column("clip"), column("beta"));
    assert!(clip[0] == Some(10.0) && clip[1] != clip[0] && clip[4].is_none() && beta[1].is_none());
    assert!(beta[3] == Some(0.1) && beta[4] != beta[3]);
    let rewards = column("reward");
    let flags: Vec<bool> = frame.column("best").unwrap().bool().unwrap().iter().flatten().collect();
    for (rewards, flags) in rewards.chunks(3).zip(flags.chunks(3)) {
        let largest = rewards.iter().flatten().copied().fold(f64::MIN, f64::max);
        let named = flags.iter().position(|best| *best).unwrap();
        assert_eq!((rewards[named], flags.iter().filter(|best| **best).count()), (Some(largest), 1));
    }
    // What is found is trained beside the common setting, and only its trials decide what it is.
    let results = found.train().unwrap();
    let settings: Vec<(&str, &str)> =
        results.runs().iter().map(|(label, _)| (&*label.method, &*label.setting)).collect();
    assert_eq!(settings, [("qstar", "common"), ("dpo", "common"), ("qstar", "tuned"), ("dpo", "tuned")]);
    let best = flags.iter().position(|best| *best).unwrap();
    let tuned = &results.runs()[2].1.spec;
    assert_eq!(tuned.config.step.learning_rate, rates[best].unwrap());
    assert_eq!((tuned.config.steps, tuned.config.evaluate_on), (2, HeldOut::Test));
    // A rate far beyond any sensible one: the trial fails, the search does not, and what failed is not tried again.
    let wild = Search { learning_rate: [1e30, 1e31], trials: 2, ..search.clone() };
    for _ in 0..2 {
        let frame = with(&wild).search().unwrap();
        let errors: Vec<bool> =
            frame.column("error").unwrap().str().unwrap().iter().map(|error| error.is_some()).collect();
        assert_eq!(errors, [false, true, false, true]);
    }
    assert!(with(&wild).train().is_ok());
    let bad = Search { clip: [0.5, 0.1], ..search };
    let error = format!("{:#}", with(&bad).search().err().unwrap());
    assert!(error.contains("clip") && error.contains("[0.5, 0.1]"), "{error}");
}

#[test]
fn validation_prompts_are_those_of_no_run() {
    let world = world();
    let prompt = HeldOut::Validation.prompt(&*world.task, 3);
    assert_eq!((prompt.split, prompt.index), (Split::Validation, 3));
    // The generator of a split is its own: the same index is another prompt.
    let text = |split| world.task.prompt(split, 3).text;
    assert!(text(Split::Validation) != text(Split::Train) && text(Split::Validation) != text(Split::Test));
    // A run's prompts begin at seed · 2^32.
    let spec = |seed| RunSpec::new(&*world.task, REINFORCE, seed, config(), &world.models);
    assert!(spec(19_999).is_ok() && spec(20_000).is_err());
}
