//! Frames whose answers are known: a method that is better, equal, starved, censored, absent, not a number, of one seed.

use polars::prelude::DataFrame;
use qstar::experiment::study;

use super::frames::{Made, frames, noise, number, numbers, only, texts, word};

const LEVELS: [(&str, f64); 1] = [("t", 0.5)];

/// The rewards of a run that begins at 0.2 and goes to `last` in a straight line, five evaluations.
fn line(last: f64) -> Vec<f64> {
    (0..5).map(|k| 0.2 + (last - 0.2) * f64::from(k) / 4.0).collect()
}

/// By how much seeds differ, so that a test has some spread.
fn jitter(seed: i64) -> f64 {
    0.001 * ((seed * 7) % 5) as f64
}

/// Methods that end at these rewards, with so many seeds.
fn runs(methods: &[(&'static str, f64)], seeds: i64) -> Vec<Made> {
    let run = |(at, (method, last)): (usize, &(&'static str, f64)), seed: i64| {
        // The differences between two methods differ over the seeds as well.
        Made::new(method, seed, &line(last + jitter(seed * (at as i64 + 1))))
    };
    methods.iter().enumerate().flat_map(|method| (0..seeds).map(move |seed| run(method, seed))).collect()
}

fn verdict(runs: &[Made], noise: Option<&DataFrame>) -> DataFrame {
    let (evaluations, samples, steps) = frames(runs);
    study::verdict(&evaluations, &samples, &steps, noise, &LEVELS).unwrap()
}

fn says(verdict: &DataFrame, hypothesis: &str) -> String {
    word(verdict, &[("hypothesis", hypothesis)], "verdict")
}

#[test]
fn a_method_that_is_better_is_found_and_one_that_is_equal_is_not() {
    let mut made = runs(&[("sft", 0.5), ("on_policy", 0.55), ("reinforce", 0.6), ("qstar", 0.9)], 5);
    // The same runs under another name.
    let twins: Vec<Made> = made.iter().filter(|run| run.method == "qstar").cloned().collect();
    made.extend(twins.into_iter().map(|run| Made { method: "twin", mixture: None, ..run }));
    let (evaluations, samples, steps) = frames(&made);
    let table = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap();
    assert_eq!(table.get_column_names_owned()[..5], ["task", "parameters", "target", "method", "setting"]);
    let of = |method: &str, name: &str| number(&table, &[("method", method)], name);
    // Every response of qstar is better than that of sft to the same prompt, and none of the twin than its own.
    assert_eq!((of("qstar", "win_rate"), of("qstar", "win_rate_low")), (Some(1.0), Some(1.0)));
    assert_eq!((of("twin", "qstar_minus"), of("twin", "p_paired")), (Some(0.0), Some(1.0)));
    assert!(of("reinforce", "p_paired_holm").unwrap() < 1e-4 && of("reinforce", "qstar_minus").unwrap() > 0.29);
    assert_eq!((of("qstar", "qstar_minus"), of("sft", "win_rate")), (None, None));
    // To 0.5 from 0.2: qstar, which ends at 0.9, passes it at its second evaluation of four, on_policy at its last.
    assert_eq!((of("qstar", "efficiency"), of("on_policy", "efficiency")), (Some(2.0), Some(1.0)));
    assert_eq!(word(&table, &[("method", "qstar")], "efficiency_reading"), "exact");
    // A straight line's mean height is that of its middle.
    assert!(
        (of("sft", "area").unwrap() - 0.5 * (of("sft", "reward_before").unwrap() + of("sft", "reward").unwrap())).abs()
            < 1e-12
    );
    assert_eq!(
        (of("qstar", "ess_ratio"), of("sft", "ess_ratio"), of("qstar", "drop_from_best")),
        (Some(1.0), None, Some(0.0))
    );

    let beside = study::beside_expected(&table).unwrap();
    assert_eq!(number(&beside, &[("method", "qstar")], "expected_win_rate"), Some(0.68));
    assert_eq!(number(&beside, &[("method", "twin")], "expected_win_rate"), None);

    // With its twin q* is not the fastest for certain; without it, it is.
    assert_eq!(says(&verdict(&made, None), "H2"), "undecided");
    let alone: Vec<Made> = made.into_iter().filter(|run| run.method != "twin").collect();
    let judged = verdict(&alone, None);
    assert_eq!((says(&judged, "H1"), says(&judged, "H2")), ("supported".to_owned(), "supported".to_owned()));
    let html = study::in_words(&judged, &table).unwrap().0;
    assert!(html.contains("“q* converges fastest”, is <b>supported</b>"), "{html}");
    assert!(
        html.contains("qstar ended above reinforce") && html.contains("did not end distinguishably from twin"),
        "{html}"
    );
}

#[test]
fn what_speaks_against_q_star_is_said_as_plainly() {
    let mut made = runs(&[("sft", 0.5), ("reinforce", 0.9), ("qstar", 0.6)], 5);
    for run in &mut made {
        // Farther from π_init with less reward than reinforce; out of balance.
        run.kl = if run.method == "qstar" { 5.0 } else { 1.0 } + jitter(run.seed);
        run.mixture = run.mixture.map(|(_, alpha)| (1.5 + jitter(run.seed), alpha));
    }
    let log = |seed: i64, centre: f64| Some(centre * (1.0 + 10.0 * jitter(seed)));
    let rows: Vec<_> = (0..4)
        .flat_map(|seed| {
            [("qstar", seed, log(seed, 3.0)), ("sft", seed, log(seed + 1, 1.0)), ("reinforce", seed, log(seed, 9.0))]
        })
        .collect();
    let judged = verdict(&made, Some(&noise("t", &rows)));
    for hypothesis in ["H1", "H2", "H3", "H4"] {
        assert_eq!(says(&judged, hypothesis), "refuted", "{hypothesis}");
    }
    assert_eq!(word(&judged, &[("hypothesis", "H3")], "against"), "sft at π_init");
    let (evaluations, samples, steps) = frames(&made);
    let table = study::main_table(&evaluations, &samples, &steps, &[]).unwrap();
    let html = study::in_words(&judged, &table).unwrap().0;
    assert!(html.contains("is <b>refuted</b>") && html.contains("ended <b>below</b> reinforce"), "{html}");
    // No level, no efficiency.
    assert_eq!(numbers(&table, "efficiency"), [None; 3]);
    let stages = study::stages(&evaluations, &samples, &steps, &LEVELS, Some(1.2)).unwrap();
    let result = |criterion: &str| word(&stages, &[("criterion", criterion)], "result");
    assert_eq!(result("ESS_p/ESS_t of q* in [0.8, 1.2]"), "not met");
    assert_eq!(result("speculative sampling more than 1.3 times faster"), "not met");
    assert_eq!(result("10,000 steps of q* are stable"), "not measured");
    assert_eq!(result("sample efficiency of q* above on_policy"), "not measured");
}

#[test]
fn noise_that_is_smaller_everywhere_supports_h3_and_what_was_not_found_does_not() {
    let made = runs(&[("sft", 0.5), ("qstar", 0.6)], 3);
    let rows = |of_sft: &dyn Fn(i64) -> Option<f64>| -> DataFrame {
        let both = |seed| [("qstar", seed, Some(1.0 + jitter(seed))), ("sft", seed, of_sft(seed))];
        noise("t", &(0..4).flat_map(both).collect::<Vec<_>>())
    };
    let larger = rows(&|seed| Some(8.0 + 40.0 * jitter(seed)));
    let judged = verdict(&made, Some(&larger));
    assert_eq!(says(&judged, "H3"), "supported");
    let value = number(&judged, &[("hypothesis", "H3")], "value").unwrap();
    let expected: f64 = (0..4).map(|s| ((8.0 + 40.0 * jitter(s)) / (1.0 + jitter(s))).ln()).sum::<f64>() / 4.0;
    assert!((value - expected.exp()).abs() < 1e-12 * value, "{value}");
    let table = study::noise_table(&rows(&|seed| (seed != 1).then_some(8.0))).unwrap();
    let of = |name: &str| number(&table, &[("method", "sft"), ("at", "π_init")], name);
    assert_eq!((of("seeds"), of("found")), (Some(4.0), Some(3.0)));
    assert!((of("noise").unwrap() - 8.0).abs() < 1e-12 && (of("high").unwrap() - 8.0).abs() < 1e-9);
    // Of one seed nothing is certain; of none nothing is known.
    assert_eq!(says(&verdict(&made, Some(&rows(&|seed| (seed == 0).then_some(8.0)))), "H3"), "undecided");
    let nowhere = verdict(&made, Some(&rows(&|_| None)));
    assert_eq!(says(&nowhere, "H3"), "undecided");
    assert!(word(&nowhere, &[("hypothesis", "H3")], "why").contains("more steps"));
    // A seed of qstar without a signal: what is left of it is flattered.
    let of_qstar = |seed: i64| (seed > 0).then(|| 1.0 + jitter(seed));
    let both = |seed| [("qstar", seed, of_qstar(seed)), ("sft", seed, Some(8.0 + 40.0 * jitter(seed)))];
    let flattered = noise("t", &(0..5).flat_map(both).collect::<Vec<_>>());
    assert_eq!(says(&verdict(&made, Some(&flattered)), "H3"), "undecided");
    let twice = noise("t", &[("qstar", 0, Some(1.0)), ("qstar", 0, Some(2.0))]);
    let (evaluations, samples, steps) = frames(&made);
    let error = study::verdict(&evaluations, &samples, &steps, Some(&twice), &LEVELS).unwrap_err();
    assert!(format!("{error:#}").contains("two rows of one seed"), "{error:#}");
}

/// A method whose noise is now far below that of q*, now far above it: by the mean it may be the least noisy of all, and
/// decides nothing.
#[test]
fn the_comparison_that_is_shown_is_the_one_that_decides() {
    let made = runs(&[("sft", 0.5), ("qstar", 0.6)], 3);
    let judged = |of_sft: f64, wild: [f64; 2]| {
        let steady = |seed: i64, centre: f64| Some(centre * (1.0 + 10.0 * jitter(seed)));
        let of_seed = |seed: i64| {
            let of_dpo = Some(wild[seed as usize % 2]);
            [("qstar", seed, steady(seed, 3.0)), ("sft", seed, steady(seed + 1, of_sft)), ("dpo", seed, of_dpo)]
        };
        let judged = verdict(&made, Some(&noise("t", &(0..4).flat_map(of_seed).collect::<Vec<_>>())));
        let row = [("hypothesis", "H3")];
        let p_holm = number(&judged, &row, "p_holm").unwrap();
        (says(&judged, "H3"), word(&judged, &row, "against"), p_holm < 0.05)
    };
    assert_eq!(judged(1.0, [1e-4, 10.0]), ("refuted".to_owned(), "sft at π_init".to_owned(), true));
    assert_eq!(judged(3.6, [1.0, 100.0]), ("undecided".to_owned(), "dpo at π_init".to_owned(), false));
}

#[test]
fn a_moderate_distance_lies_between_others() {
    let mut made = runs(&[("sft", 0.5), ("reinforce", 0.55), ("qstar", 0.6)], 4);
    for run in &mut made {
        run.kl = if run.method == "sft" {
            1.0
        } else if run.method == "qstar" {
            2.0
        } else {
            4.0
        };
        run.kl += jitter(run.seed * if run.method == "qstar" { 2 } else { 1 });
    }
    let judged = verdict(&made, None);
    assert_eq!(says(&judged, "H4"), "supported");
    // Without the one that goes farther q* goes the farthest.
    let near: Vec<Made> = made.into_iter().filter(|run| run.method != "reinforce").collect();
    assert_eq!(says(&verdict(&near, None), "H4"), "refuted");
}

/// One method explores more in every seed: H5 hangs on its noise.
#[test]
fn exploration_counts_only_with_stability() {
    let mut made = runs(&[("reinforce", 0.5), ("qstar", 0.6)], 3);
    for run in &mut made {
        (run.words, run.entropy) = if run.method == "qstar" { (4, 1.0) } else { (9, 2.0) };
    }
    let with = |of_reinforce: [f64; 2]| {
        let rows = [
            ("qstar", 0, Some(1.0)),
            ("qstar", 1, Some(1.0)),
            ("reinforce", 0, Some(of_reinforce[0])),
            ("reinforce", 1, Some(of_reinforce[1])),
        ];
        let judged = verdict(&made, Some(&noise("t", &rows)));
        (says(&judged, "H5"), number(&judged, &[("hypothesis", "H5")], "value").unwrap())
    };
    assert_eq!(with([0.5, 0.6]), ("refuted".to_owned(), 1.0));
    assert_eq!(with([1.5, 1.6]), ("supported".to_owned(), 0.0));
    // Better by the first seed and by the mean of both, worse by the second: three quarters of all resamples.
    let (says, probability) = with([0.1, 2.0]);
    assert!(says == "undecided" && (probability - 0.75).abs() < 0.04, "{probability}");
}

#[test]
fn one_seed_gives_nulls_and_is_undecided() {
    let made = runs(&[("sft", 0.5), ("on_policy", 0.55), ("qstar", 0.9)], 1);
    let (evaluations, samples, steps) = frames(&made);
    let table = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap();
    for name in
        ["reward_low", "gain_high", "win_rate_low", "efficiency_low", "reward_sd", "p_paired", "p_welch", "detectable"]
    {
        assert_eq!(numbers(&table, name), [None; 3], "{name}");
    }
    assert_eq!(number(&table, &[("method", "qstar")], "win_rate"), Some(1.0));
    let judged = verdict(&made, Some(&noise("t", &[("qstar", 0, Some(1.0)), ("sft", 0, Some(9.0))])));
    assert_eq!(texts(&judged, "verdict"), ["undecided"; 5]);
    let stages = study::stages(&evaluations, &samples, &steps, &LEVELS, None).unwrap();
    assert!(texts(&stages, "result").iter().all(|result| result != "met"), "{stages}");
    for frame in [
        study::rules_table(&evaluations, &samples, &steps, &LEVELS),
        study::weight_table(&evaluations, &samples, &steps),
        study::target_table(&evaluations, &samples, &steps),
        study::scale_table(&evaluations, &samples, &steps, &[200.0]),
        study::efficiency_table(&evaluations, &samples, &steps),
        study::checklist(&steps, &evaluations, &samples),
    ] {
        assert!(frame.unwrap().height() > 0);
    }
}

#[test]
fn what_is_missing_is_null() {
    // No sft, no on_policy, no reinforce.
    let (evaluations, samples, steps) = frames(&runs(&[("entropy", 0.5), ("qstar", 0.6)], 3));
    let table = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap();
    for name in ["win_rate", "efficiency", "reached"] {
        assert_eq!(numbers(&table, name), [None; 2], "{name}");
    }
    let scale = study::scale_table(&evaluations, &samples, &steps, &[]).unwrap();
    assert_eq!(texts(&scale, "family"), ["all", "even", "odd"]);
    assert!(numbers(&scale, "over_reinforce").iter().all(Option::is_none));
    assert!(
        numbers(&scale, "over_best").iter().all(|over| over.is_some_and(|over| (over - 0.1).abs() < 0.01)),
        "{scale}"
    );
    let costs = study::efficiency_table(&evaluations, &samples, &steps).unwrap();
    assert_eq!(numbers(&costs, "relative_flops"), [None; 2]);
    // No qstar: every verdict is open; no row of scale.
    let (evaluations, samples, steps) = frames(&runs(&[("sft", 0.5), ("dpo", 0.6)], 3));
    let judged = study::verdict(&evaluations, &samples, &steps, None, &LEVELS).unwrap();
    assert_eq!(texts(&judged, "verdict"), ["undecided"; 5]);
    assert!(texts(&judged, "why").iter().all(|why| why.contains("no runs of qstar")));
    assert_eq!(study::scale_table(&evaluations, &samples, &steps, &[]).unwrap().height(), 0);
    assert_eq!(study::stages(&evaluations, &samples, &steps, &LEVELS, None).unwrap().height(), 0);
    // Without labels that do not vary the same numbers come out.
    let fewer = |frame: &DataFrame| frame.drop_many(["parameters", "target", "setting"]);
    let plain = study::main_table(&fewer(&evaluations), &fewer(&samples), &fewer(&steps), &LEVELS).unwrap();
    let table = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap();
    assert!(plain.equals_missing(&fewer(&table)));
}

/// One of three runs of `on_policy` never gets to the level, and none of `dpo`.
#[test]
fn censored_runs_count_as_censored() {
    let mut made = runs(&[("on_policy", 0.6), ("dpo", 0.3), ("qstar", 0.9)], 3);
    made.iter_mut().filter(|run| run.method == "on_policy" && run.seed == 1).for_each(|run| run.rewards = line(0.4));
    let (evaluations, samples, steps) = frames(&made);
    let table = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap();
    let of = |method: &str, name: &str| number(&table, &[("method", method)], name);
    let reading = |method: &str| word(&table, &[("method", method)], "efficiency_reading");
    // on_policy: 300 samples twice, and 400 at least; qstar: 200 in every run.
    assert!((of("qstar", "efficiency").unwrap() - 1000.0 / 600.0).abs() < 1e-12);
    assert_eq!((reading("qstar"), of("qstar", "reached")), ("at least".to_owned(), Some(3.0)));
    assert!((of("dpo", "efficiency").unwrap() - 1000.0 / 1200.0).abs() < 1e-12);
    assert_eq!((reading("dpo"), of("dpo", "reached")), ("restricted".to_owned(), Some(0.0)));
    // A level that nobody reaches gives no ratio, one below the start an error that says so.
    let table = study::main_table(&evaluations, &samples, &steps, &[("t", 5.0)]).unwrap();
    assert_eq!(numbers(&table, "efficiency"), [None; 3]);
    let error = study::main_table(&evaluations, &samples, &steps, &[("t", 0.1)]).unwrap_err();
    assert!(format!("{error:#}").contains("choose a level above the start"), "{error:#}");
}

#[test]
fn what_is_wrong_with_a_run_is_an_error_of_tables_and_a_failed_check() {
    let mut made = runs(&[("sft", 0.5), ("qstar", 0.6)], 2);
    made[3].rewards[2] = f64::NAN;
    made[2].starved = true;
    made[2].mixture = Some((2.0, 0.95));
    let (evaluations, samples, steps) = frames(&made);
    let error = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("`reward` is NaN in row 2 of seed 1") || error.contains("of seed 1"), "{error}");
    assert!(error.contains("qstar") && error.contains("checklist"), "{error}");
    let list = study::checklist(&steps, &evaluations, &samples).unwrap();
    assert_eq!(list.height(), 4 * 14);
    let of = |method: &str, seed: i64, check: &str| {
        let rows = only(&list, &[("method", method), ("check", check)]);
        let at = numbers(&rows, "seed").iter().position(|found| *found == Some(seed as f64)).unwrap();
        (texts(&rows, "result").remove(at), texts(&rows, "reason").remove(at))
    };
    let (result, reason) = of("qstar", 1, "no NaN or Inf");
    assert!(result == "FAILED" && reason.contains("`reward` of the evaluations"), "{result}: {reason}");
    assert_eq!(of("qstar", 0, "no NaN or Inf").0, "passed");
    assert_eq!(of("qstar", 0, "does not starve").0, "FAILED");
    assert_eq!(of("qstar", 0, "ESS ratio near 1").0, "FAILED");
    assert_eq!(of("qstar", 0, "α* in [0.2, 0.8]").0, "FAILED");
    assert_eq!(
        (of("qstar", 1, "ESS ratio near 1").0, of("qstar", 1, "α* in [0.2, 0.8]").0),
        ("passed".into(), "passed".into())
    );
    assert_eq!(
        (of("qstar", 0, "a metric above the baseline").0, of("qstar", 0, "p < 0.05").0),
        ("passed".into(), "passed".into())
    );
    assert_eq!(of("sft", 0, "ESS ratio near 1").0, "not applicable");
    assert_eq!((of("sft", 0, "loss falls").0, of("qstar", 0, "loss falls").0), ("passed".into(), "passed".into()));
    let summary = study::checklist_summary(&list).unwrap();
    let count = |method: &str, name: &str| number(&summary, &[("method", method)], name);
    assert_eq!(
        (count("qstar", "runs"), count("qstar", "does not starve"), count("sft", "failures")),
        (Some(2.0), Some(1.0), Some(0.0))
    );
    assert_eq!((count("sft", "ESS ratio near 1"), count("qstar", "no NaN or Inf")), (None, Some(1.0)));
    let failed = texts(&list, "result").iter().filter(|result| *result == "FAILED").count() as f64;
    assert_eq!(numbers(&summary, "failures").into_iter().flatten().sum::<f64>(), failed);
}

#[test]
fn runs_mixed_up_are_refused() {
    let made = runs(&[("sft", 0.5), ("qstar", 0.6)], 2);
    let twice: Vec<Made> = made.iter().chain(&made[..1]).cloned().collect();
    let (evaluations, samples, steps) = frames(&twice);
    let error = study::main_table(&evaluations, &samples, &steps, &LEVELS).unwrap_err();
    assert!(format!("{error:#}").contains("mixes runs"), "{error:#}");
    let (evaluations, samples, steps) = frames(&made);
    let other = samples.head(Some(samples.height() - 3));
    let error = study::main_table(&evaluations, &other, &steps, &LEVELS).unwrap_err();
    assert!(format!("{error:#}").contains("different held-out prompts"), "{error:#}");
    let error = study::main_table(&evaluations.drop("seed").unwrap(), &samples, &steps, &LEVELS).unwrap_err();
    assert!(format!("{error:#}").contains("`seed`"), "{error:#}");
    assert!(study::main_table(&evaluations, &samples, &steps, &[("t", f64::NAN)]).is_err());
    assert!(study::scale_table(&evaluations, &samples, &steps, &[0.0]).is_err());
}

/// The same runs with two targets: one gains more in one family alone.
#[test]
fn a_target_is_best_only_where_it_is_distinguishable() {
    let (evaluations, samples, steps) = frames(&runs(&[("qstar", 0.6)], 4));
    let renamed = |frame: &DataFrame| {
        let mut frame = frame.clone();
        let names = vec!["conditional"; frame.height()];
        frame.with_column(polars::prelude::Column::new("target".into(), names)).unwrap();
        frame
    };
    let mut lifted = renamed(&samples);
    let (family, step, seed) = (texts(&lifted, "family"), numbers(&lifted, "step"), numbers(&lifted, "seed"));
    let lift = |(row, reward): (usize, Option<f64>)| {
        let last = family[row] == "odd" && step[row] == Some(40.0);
        reward.map(|reward| reward + if last { 0.1 + 0.01 * seed[row].unwrap_or_default() } else { 0.0 })
    };
    let rewards: Vec<Option<f64>> = numbers(&lifted, "reward").into_iter().enumerate().map(lift).collect();
    lifted.with_column(polars::prelude::Column::new("reward".into(), rewards)).unwrap();
    let both = |a: &DataFrame, b: &DataFrame| qstar::record::stack([a.clone(), b.clone()]).unwrap();
    let table = study::target_table(
        &both(&evaluations, &renamed(&evaluations)),
        &both(&samples, &lifted),
        &both(&steps, &renamed(&steps)),
    )
    .unwrap();
    let standing = |target: &str, family: &str| word(&table, &[("target", target), ("family", family)], "standing");
    assert_eq!((standing("conditional", "odd"), standing("expert", "odd")), ("best".into(), "below the best".into()));
    assert_eq!(
        (standing("conditional", "even"), standing("expert", "even")),
        ("not distinguished".into(), "not distinguished".into())
    );
    let over = number(&table, &[("target", "expert"), ("family", "odd")], "best_minus").unwrap();
    assert!((over - 0.115).abs() < 1e-12, "{over}");
}

#[test]
fn costs_are_relative_and_the_front_is_what_nothing_dominates() {
    let (evaluations, samples, steps) = frames(&runs(&[("sft", 0.5), ("on_policy", 0.5), ("qstar", 0.6)], 2));
    let table = study::efficiency_table(&evaluations, &samples, &steps).unwrap();
    let of = |method: &str, name: &str| number(&table, &[("method", method)], name);
    assert_eq!((of("qstar", "relative_flops"), of("sft", "relative_reward_calls")), (Some(0.5), Some(0.0)));
    assert_eq!(of("qstar", "relative_seconds"), Some(1.0));
    assert!((of("qstar", "score_flops").unwrap() - 2.0 * of("qstar", "gain").unwrap()).abs() < 1e-12);
    let front = table.column("pareto_flops").unwrap().bool().unwrap();
    assert_eq!(front.iter().collect::<Vec<_>>(), [Some(false), Some(false), Some(true)]);
}
