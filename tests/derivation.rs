//! Notebook 00: every number that its text and the answers to its exercises state is computed again here, and the text
//! must really say it. Where a formula is short it is summed by hand.

use std::path::Path;

use anyhow::Result;
use polars::prelude::DataFrame;
use qstar::experiment::derivation;
use qstar::mixture::{Pair, Rule};
use qstar::plot::{self, Figure};

/// All markdown of the notebook on one line.
struct Text(String);

impl Text {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/00-derivation.ipynb");
        let notebook: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cells = notebook["cells"].as_array().unwrap().iter().filter(|cell| cell["cell_type"] == "markdown");
        let lines = cells.flat_map(|cell| cell["source"].as_array().unwrap().iter().chain([&cell["id"]]));
        let text: Vec<&str> = lines.flat_map(|line| line.as_str().unwrap().split_whitespace()).collect();
        Self(text.join(" "))
    }

    fn says(&self, what: &str) {
        // Negative numbers have a true minus sign in the text, powers of ten and formulas have not.
        let minus =
            (0..10).fold(what.to_owned(), |text, digit| text.replace(&format!(" -{digit}"), &format!(" −{digit}")));
        assert!(self.0.contains(&minus), "the notebook does not say: {minus}");
    }
}

fn logs(p: &[f64]) -> Vec<f64> {
    p.iter().map(|x| x.ln()).collect()
}

fn pair(p: &[f64], t: &[f64]) -> Pair {
    Pair::from_log_probs(&logs(p), &logs(t)).unwrap()
}

/// The pair of exercises 2, 3, 5 and 8.
const P: [f64; 2] = [0.9, 0.1];
const T: [f64; 2] = [0.4, 0.6];

/// The pair of exercises 4 and 7.
fn peaked() -> Pair {
    let mut logits = [0.0; 10];
    logits[0] = 10.0;
    Pair::from_logits(&logits, &[0.0; 10]).unwrap()
}

/// Sections 1 to 9.
fn example() -> Pair {
    pair(&[0.70, 0.28, 0.02], &[0.10, 0.20, 0.70])
}

fn kl(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum()
}

fn ess(p: &[f64], q: &[f64]) -> f64 {
    1.0 / p.iter().zip(q).map(|(p, q)| p * p / q).sum::<f64>()
}

fn probabilities(pair: &Pair, alpha: f64) -> Vec<f64> {
    pair.log_q(alpha).into_iter().map(f64::exp).collect()
}

fn alpha(pair: &Pair, rule: Rule) -> f64 {
    pair.solve(&rule).unwrap().alpha
}

fn number(frame: &DataFrame, column: &str, row: usize) -> f64 {
    frame.column(column).unwrap().f64().unwrap().get(row).unwrap()
}

#[test]
fn exercise_1_the_mirror_image() {
    let (text, p, t) = (Text::read(), [0.7, 0.3], [0.3, 0.7]);
    let found = pair(&p, &t).solve(&Rule::Q_STAR).unwrap();
    assert!((found.alpha - 0.5).abs() < 1e-12);
    let q = [0.5, 0.5];
    let divergence = -(2.0 * 0.21f64.sqrt()).ln();
    for same in [found.kl_p, found.kl_t, kl(&q, &p), kl(&q, &t)] {
        assert!((same - divergence).abs() < 1e-12);
    }
    assert!((ess(&p, &q) - ess(&t, &q)).abs() < 1e-12 && (ess(&p, &q) - 1.0 / 1.16).abs() < 1e-12);
    text.says(&format!(r"Both divergences are $-K(\tfrac12) = -\log(2\sqrt{{0.21}})$ = {divergence:.4}."));
    text.says(&format!("both ESS are $1/1.16$ = {:.4}.", ess(&p, &q)));
}

#[test]
fn exercise_2_draws_from_the_target() {
    let text = Text::read();
    let sum = 1.0 / ess(&P, &T);
    assert!(sum.ln() > kl(&P, &T));
    text.says(&format!("$ = {sum:.4}, so 100 draws from $p$ are worth about {:.0} draws from $t$.", 100.0 * sum));
    text.says(&format!(
        r"$D_2(p\Vert t)$ = {:.4} is larger than $\mathrm{{KL}}(p\Vert t)$ = {:.4},",
        sum.ln(),
        kl(&P, &T)
    ));
}

#[test]
fn exercise_3_one_step_of_newton() {
    let text = Text::read();
    let d = [0, 1].map(|i| (P[i] / T[i]).ln());
    let weights = [0, 1].map(|i| (P[i] * T[i]).sqrt());
    let z = weights[0] + weights[1];
    let k1 = (weights[0] * d[0] + weights[1] * d[1]) / z;
    let k2 = (0..2).map(|i| weights[i] / z * (d[i] - k1).powi(2)).sum::<f64>();
    let (next, star) = (0.5 - k1 / k2, alpha(&pair(&P, &T), Rule::Q_STAR));
    text.says(&format!("At 1/2, $K'$ = {k1:.4} and $K''$ = {k2:.4}, so the next α is {next:.4}. α\\* is {star:.4}:"));
    text.says(&format!("the error is {:.4}, from {:.4} before.", (next - star).abs(), (0.5 - star).abs()));
}

#[test]
fn exercise_4_the_middle_is_not_the_middle() {
    let (text, pair) = (Text::read(), peaked());
    let (middle, star) = (pair.solve(&Rule::Fixed(0.5)).unwrap(), pair.solve(&Rule::Q_STAR).unwrap());
    let (p, t, q) = (probabilities(&pair, 1.0), probabilities(&pair, 0.0), probabilities(&pair, 0.5));
    assert!((middle.kl_p - kl(&q, &p)).abs() < 1e-12 && (middle.kl_t - kl(&q, &t)).abs() < 1e-12);
    text.says(&format!("At α = 1/2 the divergences are {:.4} to $p$ and {:.4} to $t$:", middle.kl_p, middle.kl_t));
    text.says(&format!("At α\\* = {:.4} both are {:.4}.", star.alpha, star.kl_p));
    text.says(&format!("The larger one falls by {:.4} nats.", middle.kl_t - star.kl_t));
}

#[test]
fn exercise_5_the_third_balance() {
    let (text, pair) = (Text::read(), pair(&P, &T));
    let (forward, backward) = (kl(&P, &T), kl(&T, &P));
    let alpha = forward / (forward + backward);
    let q = probabilities(&pair, alpha);
    let k = pair.moments(alpha).k;
    assert!((kl(&P, &q) - kl(&T, &q)).abs() < 1e-12);
    assert!((kl(&P, &q) - ((1.0 - alpha) * forward + k)).abs() < 1e-12);
    assert!((kl(&T, &q) - (alpha * backward + k)).abs() < 1e-12);
    text.says(&format!("For the pair of exercise 2 it is α = {alpha:.4}, and both are {:.4}.", kl(&P, &q)));
}

/// Success has probability 0.01 under the policy; t ∝ p·exp(r/β).
fn rare_success(beta: f64) -> Pair {
    let log_p = logs(&[0.01, 0.99]);
    let (success, failure) = (log_p[0] + 1.0 / beta, log_p[1]);
    let log_z = success + (failure - success).exp().ln_1p();
    Pair::from_log_probs(&log_p, &[success - log_z, failure - log_z]).unwrap()
}

#[test]
fn exercise_6_a_rare_success() {
    let (text, pair) = (Text::read(), rare_success(0.1));
    let star = pair.solve(&Rule::Q_STAR).unwrap();
    let (t, q) = (probabilities(&pair, 0.0), probabilities(&pair, star.alpha));
    assert!((ess(&t, &q) - star.log_ess_t.exp()).abs() < 1e-12);
    text.says(&format!("The target succeeds with probability {:.4}.", t[0]));
    text.says(&format!("α\\* = {:.4}, where $q^*$ succeeds with probability {:.4}, and", star.alpha, q[0]));
    let (ess_p, ess_t) = (star.log_ess_p.exp(), star.log_ess_t.exp());
    text.says(&format!(r"$\mathrm{{ESS}}_p$ = {ess_p:.4}, $\mathrm{{ESS}}_t$ = {ess_t:.4}."));

    let near = rare_success(0.01).solve(&Rule::Q_STAR).unwrap();
    text.says(&format!(r"goes to $\log 100$ = {:.4}. At β = 0.01 it is {:.4}, with", 100f64.ln(), near.kl_p));
    let (ess_p, ess_t) = (near.log_ess_p.exp(), near.log_ess_t.exp());
    text.says(&format!(r"with $\mathrm{{ESS}}_p$ = {ess_p:.4} and $\mathrm{{ESS}}_t$ = {ess_t:.4}: very unequal"));

    let almost = rare_success(1e-4);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if almost.moments(middle).k1 < 0.0 { low = middle } else { high = middle }
    }
    assert!(low > 0.99 && (-almost.moments(low).k - 100f64.ln()).abs() < 0.01);
}

#[test]
fn exercise_7_the_coin_toss() {
    let (text, pair) = (Text::read(), peaked());
    let star = pair.solve(&Rule::Q_STAR).unwrap();
    let (p, t) = (probabilities(&pair, 1.0), probabilities(&pair, 0.0));
    let both: Vec<f64> = p.iter().zip(&t).map(|(p, t)| 0.5 * (p + t)).collect();
    let mixed = [ess(&p, &both), ess(&t, &both)].map(|ess| format!("{ess:.4}"));
    assert_eq!(mixed[0], mixed[1]);
    let (ess_p, ess_t) = (star.log_ess_p.exp(), star.log_ess_t.exp());
    text.says(&format!("q\\* has ESS {ess_p:.4} and {ess_t:.4}, the arithmetic mixture {} on both sides", mixed[0]));
}

#[test]
fn exercise_8_three_times_as_far() {
    let (text, pair) = (Text::read(), pair(&P, &T));
    let both = |pair: &Pair| [Rule::Q_STAR, Rule::EssBalance].map(|rule| alpha(pair, rule) - 0.5);
    let [star, balance] = both(&pair);
    let near = Pair::from_log_probs(&logs(&P), &pair.log_q(0.9)).unwrap();
    let [near_star, near_balance] = both(&near);
    let middle = kl(&P, &T) / (kl(&P, &T) + kl(&T, &P));
    text.says(&format!("α\\* = {:.4} and α of ESS balance = {:.4}:", star + 0.5, balance + 0.5));
    text.says(&format!(
        "{:.2} times as far. With $s = 0.1$ it is {:.2} times.",
        balance / star,
        near_balance / near_star
    ));
    text.says(&format!("The third α is {middle:.4}, between the two."));

    // Twice and three times as far, in the limit.
    let tiny = Pair::from_log_probs(&logs(&P), &pair.log_q(0.999)).unwrap();
    let [tiny_star, tiny_balance] = both(&tiny);
    let (forward, backward) = (tiny.moments(1.0).k1, -tiny.moments(0.0).k1);
    let tiny_middle = forward / (forward + backward) - 0.5;
    assert!((tiny_balance / tiny_star - 3.0).abs() < 1e-3 && (tiny_middle / tiny_star - 2.0).abs() < 1e-3);
}

#[test]
fn what_a_draw_is_worth() -> Result<()> {
    let frame = derivation::estimates(&example(), &[0.0, 1.0, 3.0], 20, 20_000, 0)?;
    let of = |column: &str| number(&frame, column, 2);
    let text = Text::read();
    text.says(&format!("is worth {:.2} draws from $p$ where ESS says {:.2}:", of("worth_p"), of("ess_p")));
    text.says(&format!("it is worth {:.3} draws, where ESS says {:.2}.", of("worth_t"), of("ess_t")));
    for row in 0..4 {
        for side in ["sd_p", "sd_t"] {
            let (exact, simulated) = (number(&frame, side, row), number(&frame, &format!("{side}_simulated"), row));
            assert!((simulated / exact - 1.0).abs() < 0.03, "{side}: {simulated} is not {exact}");
        }
    }
    Ok(())
}

#[test]
fn no_distribution_of_a_grid_is_better_than_the_family() -> Result<()> {
    let bounded = derivation::nearest_within(&example(), 0.3, 400)?;
    assert!(number(&bounded, "kl_t", 0) >= number(&bounded, "kl_t", 1));
    assert!(number(&bounded, "kl_t", 0) < number(&bounded, "kl_t", 1) + 0.01);
    let fair = derivation::least_worst_kl(&example(), 400)?;
    let worst = |row| number(&fair, "kl_p", row).max(number(&fair, "kl_t", row));
    assert!(worst(1) <= worst(0) && worst(0) < worst(1) + 0.005);
    Ok(())
}

#[test]
fn the_best_test_is_wrong_as_chernoff_says() -> Result<()> {
    let errors = derivation::testing_errors(&example(), &[1, 200])?;
    let by_hand = 0.5 * (0.10 + 0.20 + 0.02);
    assert!((number(&errors, "error", 0) - by_hand).abs() < 1e-12);
    let information = -example().solve(&Rule::Q_STAR)?.k;
    assert!((number(&errors, "rate_to_double", 1) - information).abs() < 0.005);
    Ok(())
}

#[test]
fn a_figure_names_the_column_that_is_missing() -> Result<()> {
    let pair = example();
    let (curves, newton) = (derivation::curves(&pair, 21)?, derivation::newton(&pair, 0.75, 1)?);
    let gaps = derivation::small_gaps(&pair, &[0.1, 1.0])?;
    let pairs = derivation::gaussian_gaps(&[1.0], 100, 3, 0)?;
    type Draw<'a> = Box<dyn Fn(&DataFrame) -> Result<Figure> + 'a>;
    let figures: [(Draw, &DataFrame, &[&str]); 7] = [
        (Box::new(|frame| plot::k_and_newton(frame, &newton)), &curves, &["alpha", "k", "k1"]),
        (Box::new(|frame| plot::k_and_newton(&curves, frame)), &newton, &["alpha", "k", "k1", "k2", "next"]),
        (Box::new(plot::kl_crossing), &curves, &["alpha", "kl_p", "kl_t", "k"]),
        (Box::new(plot::ess_over_alpha), &curves, &["alpha", "kl_p", "kl_t", "log_ess_p", "log_ess_t"]),
        (Box::new(plot::simplex_paths), &derivation::paths(&pair, 20)?, &["path", "q1", "q2", "q3", "label"]),
        (Box::new(|frame| plot::ess_ratios(frame, "scale")), &pairs, &["setting", "value", "log_ess_ratio"]),
        (Box::new(plot::log_ess_over_kl), &gaps, &["kl", "log_ess_p", "log_ess_t"]),
    ];
    for (draw, frame, columns) in figures {
        assert!(draw(frame)?.png()?.len() > 10_000);
        for column in columns {
            let error = format!("{:#}", draw(&frame.drop(column)?).unwrap_err());
            assert!(error.contains(&format!("needs a column `{column}`")), "{error}");
        }
    }
    Ok(())
}

#[test]
fn bare_newton_can_leave_the_interval() -> Result<()> {
    let far = number(&derivation::newton(&example(), 0.9, 1)?, "next", 0);
    Text::read().says(&format!("from α = 0.9 the first step of this pair leads to {far:.3}, outside"));
    let steps = derivation::newton(&example(), 0.75, 6)?;
    assert!(number(&steps, "error", 5).abs() < 1e-9);
    Ok(())
}

#[test]
fn the_expansion_holds_for_small_gaps() -> Result<()> {
    let gaps = derivation::small_gaps(&example(), &[1.0, 0.01])?;
    for what in ["alpha_kl", "alpha_ess", "log_ratio"] {
        let of = |row| number(&gaps, &format!("found_over_predicted_{what}"), row);
        assert!((of(1) - 1.0).abs() < 1e-3, "{what}: {}", of(1));
        assert!((of(0) - 1.0).abs() > 0.2, "the text says that it is not good at s = 1");
    }
    let (of_p, of_t) = (number(&gaps, "minus_log_ess_p_over_kl", 1), number(&gaps, "minus_log_ess_t_over_kl", 1));
    assert!(1.9 < of_p && of_p < 2.0 && 2.0 < of_t && of_t < 2.1);
    assert!(number(&gaps, "minus_log_ess_p_over_kl", 0) < 1.0);
    Ok(())
}

#[test]
fn the_table_over_scales() -> Result<()> {
    let table = derivation::balance_table(&derivation::gaussian_gaps(&[1.0, 3.0, 6.0], 50_257, 200, 0)?)?;
    let of = |column: &str, row: usize| number(&table, column, row);
    let text = Text::read();
    assert_eq!(of("near_1", 0), 1.0);
    let (at_3, at_6) = (100.0 * of("near_1", 1), 100.0 * of("near_1", 2));
    text.says(&format!("Only {at_3:.1}% do at scale 3, and {at_6:.1}% at scale 6."));
    let sd = of("log_ratio_sd", 2);
    text.says(&format!("has a standard deviation of {sd:.2}, a factor of {:.0} up or down.", sd.exp()));
    assert!((0.95..1.05).contains(&of("ratio", 0)) && (0.95..1.05).contains(&of("ratio", 1)));
    let error = sd / 200f64.sqrt();
    text.says(&format!("the mean logarithm is {:.2} with a standard error of {error:.2}.", of("log_ratio", 2)));
    Ok(())
}

#[test]
fn the_table_over_tilts() -> Result<()> {
    let table = derivation::balance_table(&derivation::tilts(&[1.0, 0.3, 0.1, 0.03, 0.01], 50_257, 50, 0)?)?;
    let of = |column: &str, row: usize| number(&table, column, row);
    let text = Text::read();
    // Rows 0 to 4 are the uniform reward, 5 to 9 the rare one.
    assert_eq!([of("near_1", 0), of("near_1", 5), of("near_1", 2), of("near_1", 7)], [1.0, 1.0, 0.0, 0.0]);
    let (uniform, rare) = (of("ratio", 2), of("ratio", 7));
    text.says(&format!("is {uniform:.2} for the uniform reward and {rare:.2} for the rare one"));
    let (uniform, rare) = (of("log_ratio", 4), of("log_ratio", 9));
    text.says(&format!("the mean logarithm of the ratio is {uniform:.1} and {rare:.2}."));
    let (uniform, rare) = (of("log_ess_t", 4), of("log_ess_t", 9));
    text.says(&format!(r"($\log \mathrm{{ESS}}_t$ is {uniform:.2} and {rare:.2})"));
    let (uniform, rare) = (of("log_ess_p", 4), of("log_ess_p", 9));
    text.says(&format!(r"($\log \mathrm{{ESS}}_p$ is {uniform:.1} and {rare:.2})"));
    text.says(&format!("({:.2} at β = 0.3)", of("ratio", 6)));
    Ok(())
}

#[test]
fn the_best_proposal_is_elsewhere() -> Result<()> {
    let text = Text::read();
    let frame = derivation::proposals(&derivation::gaussian_pair(6.0, 50_257, 0, 0)?)?;
    let smaller = |row| number(&frame, "smaller_ess", row);
    text.says(&format!("the smaller ESS is {:.5}:", smaller(2)));
    text.says(&format!("With ESS balance it is {:.4}, ten times as much.", smaller(3)));
    text.says(&format!("has {:.1}. It pays", smaller(4)));
    let (mixed, star) = (number(&frame, "larger_kl", 4), number(&frame, "larger_kl", 2));
    text.says(&format!("{mixed:.1} nats where q\\* has {star:.1},"));

    // No distribution of the triangle has a larger smaller ESS than the root mean square.
    let (p, t) = ([0.70, 0.28, 0.02], [0.10, 0.20, 0.70]);
    let best = number(&derivation::proposals(&example())?, "smaller_ess", 5);
    for i in 1..200 {
        for j in 1..200 - i {
            let q = [i, j, 200 - i - j].map(|part| f64::from(part) / 200.0);
            assert!(ess(&p, &q).min(ess(&t, &q)) <= best + 1e-12);
        }
    }
    Ok(())
}

#[test]
fn an_epsilon_inside_the_logarithm() -> Result<()> {
    let frame = derivation::epsilon_shifts(&[10.0, 20.0, 30.0], &[1e-10, 1e-6], 10)?;
    let shift = |row| number(&frame, "shift", row);
    let text = Text::read();
    text.says(&format!("an ε of 1e-10 moves α by {:.0e}, and 1e-6 by {:.4}.", shift(0), shift(1)));
    text.says(&format!("At $z = 20$, ε = 1e-6 moves α by {:.3},", shift(3)));
    let (kl_p, kl_t) = (number(&frame, "kl_p", 3), number(&frame, "kl_t", 3));
    text.says(&format!("that should be equal are {kl_p:.3} and {kl_t:.3}."));
    text.says(&format!("At $z = 30$ even 1e-10 moves it by {:.3}.", shift(4)));
    Ok(())
}
