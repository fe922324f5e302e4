//! The figures from frames to pixels.

use polars::df;
use polars::prelude::*;
use resvg::tiny_skia::Pixmap;

use super::*;

const METHODS: [&str; 4] = ["reinforce", "on_policy", "sft", "qstar"];

fn evaluations(tasks: &[&str], seeds: i64) -> DataFrame {
    let (mut task, mut method, mut seed, mut samples, mut reward) = (vec![], vec![], vec![], vec![], vec![]);
    for t in tasks {
        for (m, name) in METHODS.iter().enumerate() {
            for s in 0..seeds {
                for k in 0..5i64 {
                    task.push(*t);
                    method.push(*name);
                    seed.push(s);
                    samples.push(512 * k);
                    reward.push(0.1 * (m as f64 + 1.0) * k as f64 + 0.01 * s as f64);
                }
            }
        }
    }
    df!("task" => task, "method" => method, "seed" => seed, "samples" => samples, "reward" => reward).unwrap()
}

fn steps(tasks: &[&str], smallest_ess: f64) -> DataFrame {
    let (mut task, mut method, mut seed, mut step) = (vec![], vec![], vec![], vec![]);
    let (mut ess, mut low, mut middle, mut high) = (vec![], vec![], vec![], vec![]);
    let mut counts: Vec<Option<Series>> = vec![];
    for t in tasks {
        for name in ["reinforce", "qstar"] {
            for s in 0..2i64 {
                for k in 0..10i64 {
                    task.push(*t);
                    method.push(name);
                    seed.push(s);
                    step.push(k);
                    let mixed = |x: f64| (name == "qstar").then_some(x);
                    let done = k as f64 / 10.0;
                    ess.push(mixed(smallest_ess + (1.0 - smallest_ess) * done));
                    low.push(mixed(0.3 * done));
                    middle.push(mixed(0.5 * done));
                    high.push(mixed(0.9 * done));
                    let bins = Series::new("".into(), (0..20).map(f64::from).collect::<Vec<_>>());
                    counts.push((name == "qstar").then_some(bins));
                }
            }
        }
    }
    let mut frame = df!(
        "task" => task, "method" => method, "seed" => seed, "step" => step,
        "ess_p" => &ess, "ess_t" => &ess,
        "alpha_q05" => low, "alpha_q50" => middle, "alpha_q95" => high,
    )
    .unwrap();
    let counts = ListChunked::from_iter(counts).into_series();
    frame.with_column(counts.with_name("alpha_histogram".into()).into()).unwrap();
    frame
}

/// The figure has these texts, is an image of this size in pixels, and its ink reaches into all quarters.
pub(super) fn check(figure: &Figure, labels: &[&str], width: u32, height: u32) {
    for label in labels {
        assert!(figure.svg.contains(label), "no {label} in {}", figure.svg);
    }
    let image = Pixmap::decode_png(&figure.png().unwrap()).unwrap();
    assert_eq!((image.width(), image.height()), (3 * width, 3 * height));
    let mut quarters = [0; 4];
    for (index, pixel) in image.pixels().iter().enumerate() {
        let (x, y) = (index as u32 % image.width(), index as u32 / image.width());
        if pixel.red() < 200 {
            quarters[(2 * x / image.width() + 2 * (2 * y / image.height())) as usize] += 1;
        }
    }
    assert!(quarters.iter().all(|ink| *ink > 1000), "{quarters:?}");
}

pub(super) fn error(result: anyhow::Result<Figure>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn reward_curves_show_methods_tasks_and_units() {
    let labels = ["reinforce", "on_policy", "sft", "qstar", "summary", "Held-out reward"];
    let figure = reward_curves(&evaluations(&["summary"], 5)).unwrap();
    check(&figure, &labels, 432, 338);
    assert!(figure.svg.contains("t-interval") && figure.svg.contains("<polygon"));
    assert!(figure.svg.contains("font-family=\"DejaVu Sans, sans-serif\""));
    let five = reward_curves(&evaluations(&["a", "b", "c", "d", "e"], 5)).unwrap();
    check(&five, &labels[..4], 864, 608);
    assert_eq!(five.svg.matches("Samples (responses used)").count(), 5);
}

#[test]
fn one_seed_has_no_band() {
    let figure = reward_curves(&evaluations(&["summary"], 1)).unwrap();
    assert!(!figure.svg.contains("t-interval"));
    let one_row = evaluations(&["summary"], 1).head(Some(1));
    check(&reward_curves(&one_row).unwrap(), &["reinforce"], 432, 318);
}

#[test]
fn a_method_has_one_colour_in_all_figures() {
    let steps = steps(&["summary"], 0.4);
    let figures = [
        reward_curves(&evaluations(&["summary"], 2)).unwrap(),
        ess_scatter(&steps).unwrap(),
        alpha_over_training(&steps).unwrap(),
    ];
    for figure in figures {
        assert!(figure.svg.contains("#D55E00"));
    }
}

#[test]
fn names_from_the_data_are_escaped() {
    let frame = evaluations(&["<img src=x>&\u{1}\u{e000}"], 1);
    let figure = reward_curves(&frame).unwrap();
    assert!(figure.svg.contains("&lt;img src=x&gt;&amp;"), "{}", figure.svg);
    assert!(!figure.svg.contains("<img") && !figure.svg.contains('\u{1}'));
    assert!(figure.png().is_ok());
}

#[test]
fn ess_scatter_has_a_point_a_step_of_each_seed() {
    let figure = ess_scatter(&steps(&["summary"], 0.4)).unwrap();
    check(&figure, &["qstar, first to last step", "ratio 0.9 to 1.1", "\n0.6\n"], 432, 484);
    assert!(!figure.svg.contains("reinforce"));
    assert_eq!(figure.svg.matches("<circle").count(), 20);
}

#[test]
fn ess_over_decades_is_logarithmic() {
    let figure = ess_scatter(&steps(&["summary", "code"], 0.003)).unwrap();
    check(&figure, &["\n0.01\n", "\n0.1\n", "\n1\n"], 864, 464);
    assert!(!figure.svg.contains("\n0.6\n"));
}

#[test]
fn alpha_has_a_row_a_task() {
    let figure = alpha_over_training(&steps(&["summary", "code"], 0.4)).unwrap();
    check(&figure, &["Training step", "qstar, median", "Share of tokens", "code"], 864, 528);
    assert_eq!(figure.svg.matches("Training step").count(), 2);
    // Counts 0 to 19 of 190: the largest share is a tenth.
    assert!(figure.svg.contains("\n0.10\n"), "{}", figure.svg);
}

fn bins() -> DataFrame {
    df!(
        "low" => [0.5, 0.75], "high" => [0.75, 1.0], "pairs" => [40i64, 60],
        "predicted" => [0.62, 0.91], "observed" => [0.55, 0.9],
        "observed_low" => [0.4, 0.81], "observed_high" => [0.7, 0.96],
    )
    .unwrap()
}

#[test]
fn calibration_has_a_point_and_a_bar_a_bin() {
    let labels = ["Predicted probability", "Observed frequency", "calibrated", "Pairs", "observed, with its interval"];
    let figure = calibration(&bins()).unwrap();
    check(&figure, &labels, 864, 318);
    let empty = df!(
        "low" => [0.5, 0.75], "high" => [0.75, 1.0], "pairs" => [40i64, 0],
        "predicted" => [Some(0.62), None], "observed" => [Some(0.55), None],
        "observed_low" => [Some(0.4), None], "observed_high" => [Some(0.7), None],
    );
    let fewer = calibration(&empty.unwrap()).unwrap();
    assert!(fewer.svg.matches("<polygon").count() < figure.svg.matches("<polygon").count());
    let outside = error(calibration(&with(&bins(), "observed_high", 1.2)));
    assert!(outside.contains("lie in [0, 1]: 1.2"), "{outside}");
    let negative = error(calibration(&with(&bins(), "pairs", -1i64)));
    assert!(negative.contains("`pairs` is -1 in row 0"), "{negative}");
    let lacking = df!(
        "low" => [0.5, 0.75], "high" => [0.75, 1.0], "pairs" => [40i64, 60],
        "predicted" => [Some(0.62), None], "observed" => [0.55, 0.9],
        "observed_low" => [0.4, 0.81], "observed_high" => [0.7, 0.96],
    );
    let lacking = error(calibration(&lacking.unwrap()));
    assert!(lacking.contains("row 1 has 60 pairs and a null"), "{lacking}");
}

/// Two aggregates of four methods, of which `reinforce` has one run.
fn aggregates() -> DataFrame {
    let (mut aggregate, mut method, mut value) = (vec![], vec![], vec![]);
    let (mut low, mut high) = (vec![], vec![]);
    for name in ["IQM", "Optimality gap (lower is better)"] {
        for (m, of) in METHODS.iter().enumerate() {
            let found = if name == "IQM" { 0.3 + 0.05 * m as f64 } else { 0.7 - 0.05 * m as f64 };
            aggregate.push(name);
            method.push(*of);
            value.push(found);
            low.push((m > 0).then_some(found - 0.04));
            high.push((m > 0).then_some(found + 0.02));
        }
    }
    df!("aggregate" => aggregate, "method" => method, "value" => value, "low" => low, "high" => high).unwrap()
}

#[test]
fn aggregates_have_a_row_a_method_and_a_panel_an_aggregate() {
    let labels = ["IQM", "Optimality gap (lower is better)", "reinforce", "qstar", "Score", "bootstrap interval"];
    let figure = aggregate_intervals(&aggregates()).unwrap();
    check(&figure, &labels, 864, 214);
    let marks = figure.svg.matches("<polygon").count();
    let fewer = aggregate_intervals(&aggregates().head(Some(6))).unwrap();
    assert_eq!(marks - fewer.svg.matches("<polygon").count(), 2, "a mark a row");
    let mixed = error(aggregate_intervals(&crate::record::stack([aggregates(), aggregates()]).unwrap()));
    assert!(mixed.contains("two rows of reinforce and IQM"), "{mixed}");
    let turned = error(aggregate_intervals(&with(&aggregates(), "high", -1.0)));
    assert!(turned.contains("ends below its beginning"), "{turned}");
    let bare = aggregate_intervals(&with(&with(&aggregates(), "low", None::<f64>), "high", None::<f64>)).unwrap();
    check(&bare, &labels[..5], 864, 194);
    assert!(!bare.svg.contains("bootstrap interval"));
}

fn improvements() -> DataFrame {
    df!(
        "method" => ["qstar"; 3], "other" => ["on_policy", "sft", "reinforce"],
        "probability" => [0.5, 0.31, 0.9], "low" => [0.4, 0.2, 0.8], "high" => [0.6, 0.45, 1.0],
    )
    .unwrap()
}

#[test]
fn improvements_have_a_row_a_rival_in_the_order_of_legends() {
    let figure = probability_of_improvement(&improvements()).unwrap();
    check(&figure, &["P(qstar &gt; other)", "neither is better", "Probability of improvement"], 432, 190);
    // Where a text stands, from above.
    let place = |name: &str| {
        let before = figure.svg.split(&format!("\n{name}\n")).next().unwrap();
        let height = before.rsplit(" y=\"").next().unwrap().split('"').next().unwrap();
        height.parse::<i32>().unwrap()
    };
    assert!(place("reinforce") < place("on_policy") && place("on_policy") < place("sft"));
    let outside = error(probability_of_improvement(&with(&improvements(), "high", 1.2)));
    assert!(outside.contains("lie in [0, 1]: 1.2"), "{outside}");
}

fn points(x: &str, y: &str) -> DataFrame {
    let (mut method, mut xs, mut ys, mut low, mut high) = (vec![], vec![], vec![], vec![], vec![]);
    for (m, name) in METHODS.iter().enumerate() {
        for k in 0..8 {
            let share = 1.0 - f64::from(k) / (7.0 + m as f64);
            method.push(*name);
            xs.push(0.1 * f64::from(k));
            ys.push(share);
            low.push(0.8 * share);
            high.push(0.2 + 0.8 * share);
        }
    }
    df!("method" => method, x => xs, y => ys, "low" => low, "high" => high).unwrap()
}

#[test]
fn profiles_and_efficiency_curves_have_a_line_and_a_band_a_method() {
    let profile = points("threshold", "share");
    let figure = performance_profile(&profile).unwrap();
    check(&figure, &["Performance profile", "Share of runs above τ", "qstar", "bootstrap interval"], 432, 338);
    let curves = points("samples", "iqm");
    let efficiency = sample_efficiency(&curves).unwrap();
    check(&efficiency, &["Interquartile mean of scores", "Samples (responses used)", "sft"], 432, 338);
    let bare = with(&with(&profile, "low", None::<f64>), "high", None::<f64>);
    assert!(!performance_profile(&bare).unwrap().svg.contains("bootstrap interval"));
    let outside = error(performance_profile(&with(&profile, "share", 1.5)));
    assert!(outside.contains("lie in [0, 1]: 1.5"), "{outside}");
    let mixed = error(sample_efficiency(&with(&curves, "samples", 1i64)));
    assert!(mixed.contains("two rows of reinforce at samples = 1"), "{mixed}");
}

fn speedups() -> DataFrame {
    df!(
        "pair" => ["equal", "equal", "deeper", "deeper"], "gamma" => [3i64, 10, 3, 10],
        "candidates" => [1i64, 1, 1, 3], "acceptance" => [0.8, 0.7, 0.85, 0.9],
        "cost_ratio" => [0.9, 0.9, 0.15, 0.16], "token_cost" => [0.1, 0.1, 0.04, 0.05],
        "predicted" => [0.9, 0.6, 2.1, 0.8], "speedup" => [0.95, 0.55, 2.0, 0.9],
    )
    .unwrap()
}

#[test]
fn speedups_stand_beside_what_was_predicted() {
    let figure = measured_speedup(&speedups()).unwrap();
    check(&figure, &["equal", "deeper", "within 15 %", "Predicted speed-up"], 480, 512);
    let figure = break_even(&speedups()).unwrap();
    check(&figure, &["equal", "deeper", "a token more in a reading is free", "Acceptance"], 648, 368);
    let candidates = error(break_even(&with(&speedups(), "candidates", 3i64)));
    assert!(candidates.contains("measure with k = 1"), "{candidates}");
    for ratio in [0.0, -0.2] {
        let free = error(break_even(&with(&speedups(), "cost_ratio", ratio)));
        assert!(free.contains("`cost_ratio` must be positive"), "{free}");
    }
    let negative = error(measured_speedup(&with(&speedups(), "speedup", -1.0)));
    assert!(negative.contains("speed-ups are positive"), "{negative}");
}

type Draw = fn(&DataFrame) -> anyhow::Result<Figure>;

#[test]
fn every_missing_column_is_named() {
    let figures: [(Draw, DataFrame); 12] = [
        (aggregate_intervals, aggregates()),
        (probability_of_improvement, improvements()),
        (performance_profile, points("threshold", "share")),
        (sample_efficiency, points("samples", "iqm")),
        (calibration, bins()),
        (gradient_noise, super::study_tests::noise()),
        (targets_by_family, super::study_tests::gains()),
        (break_even, speedups().drop_many(["predicted", "speedup"])),
        (measured_speedup, speedups().select(["pair", "predicted", "speedup"]).unwrap()),
        (reward_curves, evaluations(&["a"], 2)),
        (ess_scatter, steps(&["a"], 0.4).drop_many(["alpha_q05", "alpha_q50", "alpha_q95", "alpha_histogram"])),
        (alpha_over_training, steps(&["a"], 0.4).drop_many(["ess_p", "ess_t"])),
    ];
    for (draw, frame) in figures {
        for name in frame.get_column_names_owned() {
            let told = error(draw(&frame.drop(&name).unwrap()));
            assert!(told.contains(&format!("needs a column `{name}`")), "{told}");
        }
        assert!(error(draw(&frame.head(Some(0)))).contains("without rows"));
    }
}

pub(super) fn with<T>(frame: &DataFrame, name: &str, value: T) -> DataFrame
where
    Series: NamedFrom<Vec<T>, [T]>,
    T: Clone,
{
    let mut frame = frame.clone();
    let column = Series::new(name.into(), vec![value; frame.height()]);
    frame.with_column(column.into()).unwrap();
    frame
}

#[test]
fn values_that_cannot_be_drawn_are_named() {
    let (rewards, steps) = (evaluations(&["a"], 2), steps(&["a"], 0.4));
    let null = error(reward_curves(&with(&rewards, "reward", None::<f64>)));
    assert!(null.contains("`reward` is null in every row"), "{null}");
    let nan = error(reward_curves(&with(&rewards, "reward", f64::NAN)));
    assert!(nan.contains("`reward` is not finite in row 0"), "{nan}");
    let text = error(reward_curves(&with(&rewards, "samples", 0.5)));
    assert!(text.contains("`samples` holds f64") && text.contains("whole numbers"), "{text}");
    let mixed = error(reward_curves(&with(&rewards, "samples", 1i64)));
    assert!(mixed.contains("reinforce on a") && mixed.contains("mixes runs"), "{mixed}");
    let key = error(reward_curves(&with(&rewards, "seed", None::<i64>)));
    assert!(key.contains("`seed` has a null"), "{key}");
    let ess = error(ess_scatter(&with(&steps, "ess_t", 1.5)));
    assert!(ess.contains("shares in (0, 1]") && ess.contains("1.5"), "{ess}");
    let null = error(ess_scatter(&with(&steps, "ess_p", None::<f64>)));
    assert!(null.contains("`ess_p` is null in every row"), "{null}");
    let falling = error(alpha_over_training(&with(&steps, "alpha_q05", 0.99)));
    assert!(falling.contains("rise within [0, 1]"), "{falling}");
    let list = error(alpha_over_training(&with(&steps, "alpha_histogram", 1.0)));
    assert!(list.contains("`alpha_histogram` holds f64"), "{list}");
}
