//! What the exact world says of a proposal: the error of the gradient over α.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::style::MethodStyle;
use super::{Figure, fonts, style};

/// The rules that are marked, with what the legend calls them.
const MARKED: [(&str, &str, MethodStyle); 3] = [
    ("off_policy", "draws from the target", style::TARGET),
    ("reinforce", "on-policy draws", style::POLICY),
    ("qstar", "q* at its mean α", style::KL_SYMMETRY),
];

/// A measure of the gradient's estimate over α, logarithmic: one panel a pair, one line a weight through the points of
/// the grid, and on it the draws from the policy, from the target, and from q*. A rule over tokens has another α at every
/// prefix and need not lie on the line of constant α.
///
/// `measure` is the column that is drawn: `variance`, `mse` or `noise_to_signal` (positive numbers). The other columns:
/// `pair`, `level`, `treatment`, `unit` and `rule` (text; the grid's rows have the rule `fixed`), `seed` (integer) and
/// `alpha` (numbers in \[0, 1\]). Rules that are not marked are left out.
///
/// # Errors
/// No rows, a missing column or one of another type, a null; a number that is not positive; more weights than there are
/// colours; more than one unit or seed; two rows of the grid for one pair, weight and α; a pair without a grid.
///
/// ```
/// use qstar::experiment::exact::{Baseline, Setting, Tree, Unit, treated, variances};
/// use qstar::method::Treatment;
///
/// let pairs = [Setting::new(&Tree::new(3, 3, false)?, 0, 0.1)?.with_gap("medium", 1.0)];
/// let weights = treated(&[Treatment::Raw]);
/// let frame = variances(&pairs, Unit::Token, &[0.0, 0.5, 1.0], &weights, Baseline::LeaveOneOut, 4)?;
/// assert!(qstar::plot::exact_variance(&frame, "mse")?.svg.contains("medium"));
/// # anyhow::Ok(())
/// ```
pub fn exact_variance(variances: &DataFrame, measure: &str) -> Result<Figure> {
    let label = label(measure)?;
    let columns = Columns::of(variances, "exact_variance", "the frame of exact::variances")?;
    let (pairs, rules) = (columns.texts("pair")?, columns.texts("rule")?);
    let (levels, treatments) = (columns.texts("level")?, columns.texts("treatment")?);
    let (alpha, values) = (columns.required_numbers("alpha")?, columns.required_numbers(measure)?);
    let (units, seeds) = (columns.texts("unit")?, columns.required_integers("seed")?);
    ensure!(values.iter().all(|x| *x > 0.0), "`{measure}` must be positive to stand on a logarithmic axis");
    ensure!(
        units.iter().all(|unit| *unit == units[0]) && seeds.iter().all(|seed| *seed == seeds[0]),
        "one figure shows one seed and one unit: filter the frame by `seed` and `unit`"
    );
    let mut panels: Vec<Panel> = Vec::new();
    let mut weights: Vec<String> = Vec::new();
    for row in 0..variances.height() {
        let weight = if treatments[row] == "none" {
            "no weight".to_owned()
        } else {
            fonts::clean(&format!("{} weight, {}", levels[row], treatments[row]))
        };
        if !weights.contains(&weight) {
            weights.push(weight.clone());
        }
        let name = fonts::clean(&pairs[row]);
        let panel = match panels.iter().position(|panel| panel.name == name) {
            Some(at) => &mut panels[at],
            None => {
                panels.push(Panel { name, points: Vec::new() });
                panels.last_mut().context("a panel was pushed just now")?
            }
        };
        panel.points.push(Point { weight, rule: rules[row].clone(), at: (alpha[row], values[row].log10()) });
    }
    ensure!(weights.len() <= style::SERIES.len(), "at most {} weights can be told apart", style::SERIES.len());
    for panel in &panels {
        for weight in &weights {
            let line = panel.line(weight);
            ensure!(
                line.len() >= 2,
                "`{}` has no grid of α for {weight}: two rows of rule `fixed` at least",
                panel.name
            );
            ensure!(
                line.windows(2).all(|two| two[0].0 < two[1].0),
                "`{}` has two rows of the grid at one α for {weight}: pass one baseline and one k",
                panel.name
            );
        }
    }
    let lines = weights.iter().zip(style::SERIES).map(|(name, look)| Entry::new(Key::Stroke(look.color), name));
    let marks = MARKED.iter().map(|(_, text, look)| Entry::new(Key::Mark(*look), *text));
    let sheet = Sheet {
        legend: lines.chain(marks).collect(),
        columns: Sheet::columns_for(panels.len()),
        panel_height: 270.0,
        panels: panels.len(),
    };
    sheet.draw(|index, area| draw(area, &panels[index], &weights, label))
}

struct Panel {
    name: String,
    points: Vec<Point>,
}

struct Point {
    weight: String,
    rule: String,
    /// α and the decimal logarithm of the measure.
    at: (f64, f64),
}

impl Panel {
    /// The points of the grid, from the target to the policy.
    fn line(&self, weight: &str) -> Vec<(f64, f64)> {
        let of = self.points.iter().filter(|point| point.weight == weight && point.rule == "fixed");
        let mut line: Vec<_> = of.map(|point| point.at).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        line
    }
}

fn draw(area: &Area, panel: &Panel, weights: &[String], label: &str) -> Result<()> {
    let drawn = |point: &&Point| point.rule == "fixed" || MARKED.iter().any(|(rule, ..)| *rule == point.rule);
    let (low, high) = span(panel.points.iter().filter(drawn).map(|point| 10f64.powf(point.at.1)));
    let x = Axis::padded("α (0: target, 1: policy)", 0.0, 1.0, 0.03, 5);
    let y = Axis::logarithmic(label, low / 1.05, high * 1.05);
    let mut plot = canvas::plot(area, &panel.name, &x, &y)?;
    for (weight, look) in weights.iter().zip(style::SERIES) {
        canvas::line(&mut plot, &panel.line(weight), look.color, style::LINE_WIDTH)?;
    }
    for (rule, _, look) in MARKED {
        let marks = panel.points.iter().filter(|point| point.rule == rule).map(|point| point.at);
        canvas::marks(&mut plot, &marks.collect::<Vec<_>>(), look)?;
    }
    Ok(())
}

fn label(measure: &str) -> Result<&'static str> {
    Ok(match measure {
        "variance" => "tr Cov(g)/‖∇J‖²",
        "mse" => "E‖g − ∇J‖²/‖∇J‖²",
        "noise_to_signal" => "tr Cov(g)/‖E g‖²",
        _ => anyhow::bail!("`{measure}` is none of variance, mse and noise_to_signal"),
    })
}
