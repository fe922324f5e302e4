//! Frames of runs that never were, and columns of frames.

use polars::prelude::{Column, DataFrame, DataType, IdxCa, NamedFrom, Series};

/// One run: its label, and what is to be known of it.
#[derive(Debug, Clone)]
pub struct Made {
    pub method: &'static str,
    pub seed: i64,
    /// Held-out reward at 0, 100, 200, ... samples; that of prompt i lies `lift[i]` above or below.
    pub rewards: Vec<f64>,
    pub kl: f64,
    pub entropy: f64,
    /// Every held-out response; the more words, the more distinct bigrams and the lower its self-BLEU.
    pub words: usize,
    /// ESS_p/ESS_t and α of every step; none without a mixture.
    pub mixture: Option<(f64, f64)>,
    pub starved: bool,
    pub gradient_norm: f64,
}

impl Made {
    pub fn new(method: &'static str, seed: i64, rewards: &[f64]) -> Self {
        let mixture = (method == "qstar").then_some((1.0, 0.5));
        let rewards = rewards.to_vec();
        Self { method, seed, rewards, kl: 1.0, entropy: 1.0, words: 5, mixture, starved: false, gradient_norm: 1.0 }
    }
}

/// Prompts of every run, of two families; by how much a prompt's reward differs from the run's.
pub const PROMPTS: usize = 8;
const LIFT: [f64; PROMPTS] = [-0.08, -0.04, -0.02, 0.0, 0.0, 0.02, 0.04, 0.08];

/// (evaluations, samples, steps) of the task `t`, with all labels.
pub fn frames(runs: &[Made]) -> (DataFrame, DataFrame, DataFrame) {
    let rows = |of: &dyn Fn(&Made) -> Vec<usize>| -> Vec<(usize, usize)> {
        runs.iter().enumerate().flat_map(|(at, run)| of(run).into_iter().map(move |row| (at, row))).collect()
    };
    let labels = |rows: &[(usize, usize)]| {
        let run = |at: &(usize, usize)| &runs[at.0];
        vec![
            text("task", rows.iter().map(|_| "t".to_owned())),
            column("parameters", rows.iter().map(|_| 10i64).collect::<Vec<_>>()),
            text("target", rows.iter().map(|_| "expert".to_owned())),
            text("method", rows.iter().map(|at| run(at).method.to_owned())),
            text("setting", rows.iter().map(|_| "common".to_owned())),
            column("seed", rows.iter().map(|at| run(at).seed).collect::<Vec<_>>()),
        ]
    };
    let number = |rows: &[(usize, usize)], name: &str, of: &dyn Fn(&Made, usize) -> Option<f64>| {
        column(name, rows.iter().map(|(at, row)| of(&runs[*at], *row)).collect::<Vec<_>>())
    };
    let whole = |rows: &[(usize, usize)], name: &str, of: &dyn Fn(&Made, usize) -> i64| {
        column(name, rows.iter().map(|(at, row)| of(&runs[*at], *row)).collect::<Vec<_>>())
    };

    let at = rows(&|run| (0..run.rewards.len()).collect());
    let mut evaluations = labels(&at);
    evaluations.push(whole(&at, "step", &|_, k| 10 * k as i64));
    evaluations.push(whole(&at, "samples", &|_, k| 100 * k as i64));
    evaluations.push(whole(&at, "reward_calls", &|run, k| if run.method == "sft" { 0 } else { 100 * k as i64 }));
    evaluations
        .push(number(&at, "flops", &|run, k| Some(k as f64 * if run.method == "on_policy" { 2.0 } else { 1.0 })));
    evaluations.push(number(&at, "seconds_charged", &|_, k| Some(3.0 * k as f64)));
    evaluations.push(number(&at, "reward", &|run, k| Some(run.rewards[k])));
    evaluations.push(number(&at, "kl", &|run, k| Some(if k == 0 { 0.0 } else { run.kl })));
    evaluations.push(number(&at, "entropy", &|run, _| Some(run.entropy)));
    evaluations.push(number(&at, "distinct_2", &|run, _| Some(0.1 * run.words as f64)));

    let at = rows(&|run| (0..run.rewards.len() * PROMPTS).collect());
    let mut samples = labels(&at);
    samples.push(whole(&at, "step", &|_, row| 10 * (row / PROMPTS) as i64));
    samples.push(whole(&at, "index", &|_, row| (row % PROMPTS) as i64));
    samples.push(text("family", at.iter().map(|(_, row)| if row % 2 == 0 { "even" } else { "odd" }.to_owned())));
    samples.push(text("prompt", at.iter().map(|(_, row)| format!("p{}", row % PROMPTS))));
    let response = |(run, row): &(usize, usize)| {
        let words = (0..4).map(|word| format!("w{} ", (row + word * word) % runs[*run].words));
        words.collect::<String>()
    };
    samples.push(text("response", at.iter().map(response)));
    samples.push(number(&at, "reward", &|run, row| Some(run.rewards[row / PROMPTS] + LIFT[row % PROMPTS])));

    let at = rows(&|run| (0..10 * (run.rewards.len() - 1)).collect());
    let mut steps = labels(&at);
    steps.push(whole(&at, "step", &|_, row| row as i64));
    steps.push(whole(&at, "samples", &|_, row| 10 * (row as i64 + 1)));
    steps.push(number(&at, "loss", &|_, row| Some(2.0 - 0.01 * row as f64)));
    steps.push(number(&at, "q_reward", &|run, row| Some(run.rewards[0] + 0.01 * (row * row % 7) as f64)));
    steps.push(number(&at, "kl_coefficient", &|_, _| Some(0.02)));
    steps.push(number(&at, "learning_rate", &|_, _| Some(1e-3)));
    steps.push(number(&at, "peak_memory_mb", &|_, _| Some(100.0)));
    steps.push(number(&at, "gradient_norm", &|run, _| Some(run.gradient_norm)));
    steps.push(number(&at, "gradient_variance", &|run, _| Some(run.gradient_norm)));
    steps.push(column("starved", at.iter().map(|(run, _)| runs[*run].starved).collect::<Vec<_>>()));
    for name in ["ess_ratio_geometric", "ess_p", "ess_t", "q_kl_p", "q_kl_t"] {
        steps.push(number(&at, name, &|run, _| run.mixture.map(|(ratio, _)| ratio)));
    }
    let near = |run: &Made| run.mixture.map(|(ratio, _)| f64::from(u8::from((0.9..=1.1).contains(&ratio))));
    steps.push(number(&at, "ess_ratio_near_1", &|run, _| near(run)));
    steps.push(number(&at, "alpha_mean", &|run, _| run.mixture.map(|(_, alpha)| alpha)));
    for name in ["alpha_sd", "alpha_irregular"] {
        steps.push(number(&at, name, &|run, _| run.mixture.map(|_| 0.0)));
    }
    let weights = ["w_raw_mean", "w_raw_max", "w_raw_cv", "w_mean", "w_max", "w_cv"];
    let sizes = ["ess_token", "ess_prefix", "ess_sequence", "ess_token_raw", "ess_prefix_raw", "ess_sequence_raw"];
    for name in weights.into_iter().chain(sizes) {
        steps.push(number(&at, name, &|run, _| run.mixture.map(|_| if name == "w_raw_max" { 3.0 } else { 1.0 })));
    }
    let histogram = |(run, _): &(usize, usize)| {
        let alpha = runs[*run].mixture.map(|(_, alpha)| alpha);
        let bin = |bin: usize| f64::from(u8::from(alpha.is_some_and(|alpha| (20.0 * alpha) as usize == bin)));
        Series::new("".into(), (0..20).map(bin).collect::<Vec<f64>>())
    };
    steps.push(Series::new("alpha_histogram".into(), at.iter().map(histogram).collect::<Vec<_>>()).into());
    (frame(evaluations), frame(samples), frame(steps))
}

/// A frame of gradient noise on a task, at one θ: (method, seed, tr Cov(g)/‖E g‖²).
pub fn noise(task: &str, rows: &[(&str, i64, Option<f64>)]) -> DataFrame {
    frame(vec![
        text("task", rows.iter().map(|_| task.to_owned())),
        text("theta", rows.iter().map(|_| "π_init".to_owned())),
        text("method", rows.iter().map(|row| row.0.to_owned())),
        column("seed", rows.iter().map(|row| row.1).collect::<Vec<_>>()),
        column("noise", rows.iter().map(|row| row.2).collect::<Vec<_>>()),
    ])
}

fn frame(columns: Vec<Column>) -> DataFrame {
    DataFrame::new(columns[0].len(), columns).unwrap()
}

fn text(name: &str, values: impl Iterator<Item = String>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

fn column<T, P>(name: &str, values: T) -> Column
where
    Series: NamedFrom<T, P>,
    T: AsRef<P>,
    P: ?Sized,
{
    Column::from(Series::new(name.into(), values))
}

/// The numbers of a column.
pub fn numbers(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).unwrap().cast(&DataType::Float64).unwrap().f64().unwrap().iter().collect()
}

pub fn texts(frame: &DataFrame, name: &str) -> Vec<String> {
    frame.column(name).unwrap().str().unwrap().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

/// The rows in which columns have these texts.
pub fn only(frame: &DataFrame, wanted: &[(&str, &str)]) -> DataFrame {
    let columns: Vec<(Vec<String>, &str)> = wanted.iter().map(|(name, value)| (texts(frame, name), *value)).collect();
    let fits = |row: &usize| columns.iter().all(|(column, value)| column[*row] == *value);
    let rows: Vec<u32> = (0..frame.height()).filter(fits).map(|row| row as u32).collect();
    assert!(!rows.is_empty(), "no row has {wanted:?}");
    frame.take(&IdxCa::from_vec("".into(), rows)).unwrap()
}

/// The only number of a column in the rows in which columns have these texts.
pub fn number(frame: &DataFrame, wanted: &[(&str, &str)], name: &str) -> Option<f64> {
    let rows = only(frame, wanted);
    assert_eq!(rows.height(), 1, "{wanted:?}");
    numbers(&rows, name)[0]
}

pub fn word(frame: &DataFrame, wanted: &[(&str, &str)], name: &str) -> String {
    let rows = only(frame, wanted);
    assert_eq!(rows.height(), 1, "{wanted:?}");
    texts(&rows, name).remove(0)
}
