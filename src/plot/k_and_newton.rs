//! K, its tangents, and one step of Newton's method.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Plot, Sheet};
use super::columns::Columns;
use super::crossing::{crossing, span};
use super::{Figure, style};

/// Left K over α with two tangents: the horizontal one at the minimum and the one where Newton's method stands, with
/// the parabola that has there the value, the slope and the curvature of K. Right K', whose tangent meets zero where
/// the parabola has its lowest point: the next α.
///
/// `curves` has a row an α. Columns: `alpha` (numbers in \[0, 1\], ascending), `k` and `k1` (numbers, nats: K and K').
/// `newton` has a row a step, of which the first is drawn. Columns: `alpha`, `k`, `k1`, `k2` and `next` (numbers).
///
/// # Errors
/// No rows, a missing column or one of another type, a null.
///
/// ```
/// use qstar::experiment::derivation::{curves, newton};
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let figure = qstar::plot::k_and_newton(&curves(&pair, 101)?, &newton(&pair, 0.9, 1)?)?;
/// assert!(figure.svg.contains("K(α), nats"));
/// # anyhow::Ok(())
/// ```
pub fn k_and_newton(curves: &DataFrame, newton: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(curves, "k_and_newton", "the frame of derivation::curves")?;
    let curve = Curve {
        alpha: columns.required_numbers("alpha")?,
        k: columns.required_numbers("k")?,
        k1: columns.required_numbers("k1")?,
    };
    let columns = Columns::of(newton, "k_and_newton", "the frame of derivation::newton")?;
    let first = |name: &str| anyhow::Ok(columns.required_numbers(name)?[0]);
    let (alpha, k, k1) = (first("alpha")?, first("k")?, first("k1")?);
    let step = Step { alpha, k, k1, k2: first("k2")?, next: first("next")? };
    let star = crossing(&curve.alpha, &curve.k1, &vec![0.0; curve.k1.len()]).map(|(star, _)| star);
    let minimum = star.map_or("no minimum inside".to_owned(), |star| format!("minimum, α* = {star:.3}"));
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Stroke(style::TEXT), "K and K'"),
            Entry::new(Key::Line(style::KL_SYMMETRY), minimum),
            Entry::new(Key::Line(style::POLICY), format!("tangent of K at α = {:.2}", step.alpha)),
            Entry::new(Key::Dashes(style::TARGET.color), "parabola there, and its slope"),
            Entry::new(Key::Line(style::TARGET), format!("next α = {:.3}", step.next)),
        ],
        columns: vec![style::WIDE / 2.0; 2],
        panel_height: 290.0,
        panels: 2,
    };
    sheet.draw(
        |index, area| if index == 0 { of_k(area, &curve, &step, star) } else { of_slope(area, &curve, &step, star) },
    )
}

struct Curve {
    alpha: Vec<f64>,
    k: Vec<f64>,
    k1: Vec<f64>,
}

struct Step {
    alpha: f64,
    k: f64,
    k1: f64,
    k2: f64,
    next: f64,
}

impl Step {
    fn tangent(&self, alpha: f64) -> f64 {
        self.k + self.k1 * (alpha - self.alpha)
    }

    fn parabola(&self, alpha: f64) -> f64 {
        self.tangent(alpha) + 0.5 * self.k2 * (alpha - self.alpha).powi(2)
    }

    fn slope(&self, alpha: f64) -> f64 {
        self.k1 + self.k2 * (alpha - self.alpha)
    }
}

const THIN: f64 = 1.5;

fn of_k(area: &Area, curve: &Curve, step: &Step, star: Option<f64>) -> Result<()> {
    let (low, high) = span(curve.k.iter().copied());
    let low = low.min(step.parabola(step.next).max(2.0 * low - high));
    let x = Axis::spanning("α (0: target, 1: policy)", 0.0, 1.0, 5);
    let y = Axis::padded("K(α), nats", low, high, 0.08, 6);
    let mut plot = canvas::plot(area, "K", &x, &y)?;
    inside(&mut plot, &y, |alpha| step.tangent(alpha), style::POLICY.color, false)?;
    inside(&mut plot, &y, |alpha| step.parabola(alpha), style::TARGET.color, true)?;
    let points: Vec<_> = curve.alpha.iter().copied().zip(curve.k.iter().copied()).collect();
    let least = curve.k.iter().copied().fold(f64::INFINITY, f64::min);
    if star.is_some() {
        canvas::line(&mut plot, &[(0.0, least), (1.0, least)], style::KL_SYMMETRY.color, THIN)?;
    }
    canvas::line(&mut plot, &points, style::TEXT, style::LINE_WIDTH)?;
    let minimum: Vec<_> = star.iter().map(|star| (*star, least)).collect();
    canvas::marks(&mut plot, &minimum, style::KL_SYMMETRY)?;
    canvas::marks(&mut plot, &[(step.alpha, step.k)], style::POLICY)?;
    if (0.0..=1.0).contains(&step.next) && step.parabola(step.next) >= y.low {
        canvas::marks(&mut plot, &[(step.next, step.parabola(step.next))], style::TARGET)?;
    }
    Ok(())
}

fn of_slope(area: &Area, curve: &Curve, step: &Step, star: Option<f64>) -> Result<()> {
    let (low, high) = span(curve.k1.iter().copied());
    let x = Axis::spanning("α (0: target, 1: policy)", 0.0, 1.0, 5);
    let y = Axis::padded("K'(α), nats", low, high, 0.05, 6);
    let mut plot = canvas::plot(area, "K', the mean of d under q", &x, &y)?;
    canvas::line(&mut plot, &[(0.0, 0.0), (1.0, 0.0)], style::AXIS, 1.0)?;
    inside(&mut plot, &y, |alpha| step.slope(alpha), style::TARGET.color, true)?;
    let points: Vec<_> = curve.alpha.iter().copied().zip(curve.k1.iter().copied()).collect();
    canvas::line(&mut plot, &points, style::TEXT, style::LINE_WIDTH)?;
    let root: Vec<_> = star.iter().map(|star| (*star, 0.0)).collect();
    canvas::marks(&mut plot, &root, style::KL_SYMMETRY)?;
    canvas::marks(&mut plot, &[(step.alpha, step.k1)], style::POLICY)?;
    if (0.0..=1.0).contains(&step.next) {
        canvas::marks(&mut plot, &[(step.next, 0.0)], style::TARGET)?;
    }
    Ok(())
}

/// The part of a function's graph that lies between the ends of the y axis.
fn inside(
    plot: &mut Plot,
    y: &Axis,
    f: impl Fn(f64) -> f64,
    color: plotters::style::RGBColor,
    dashed: bool,
) -> Result<()> {
    const PIECES: u32 = 400;
    let points = (0..=PIECES).map(|i| f64::from(i) / f64::from(PIECES)).map(|alpha| (alpha, f(alpha)));
    let points: Vec<_> = points.filter(|(_, height)| (y.low..=y.high).contains(height)).collect();
    if dashed { canvas::dashes(plot, points, color, THIN) } else { canvas::line(plot, &points, color, THIN) }
}
