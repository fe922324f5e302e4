//! The two divergences of the mixture, and where they are equal.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::{crossing, span};
use super::{Figure, style};

/// KL(q‖p) and KL(q‖t) over α, their larger one as a broad grey line, and their weighted mean −K(α): the larger one is
/// lowest, and the mean is highest, where the two are equal.
///
/// A row is one α. Columns: `alpha` (numbers in \[0, 1\], ascending), `kl_p`, `kl_t` and `k` (numbers, nats).
///
/// # Errors
/// No rows, a missing column or one of another type, a null.
///
/// ```
/// use qstar::experiment::derivation::curves;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// assert!(qstar::plot::kl_crossing(&curves(&pair, 101)?)?.svg.contains("q*: α = "));
/// # anyhow::Ok(())
/// ```
pub fn kl_crossing(curves: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(curves, "kl_crossing", "the frame of derivation::curves")?;
    let alpha = columns.required_numbers("alpha")?;
    let (kl_p, kl_t) = (columns.required_numbers("kl_p")?, columns.required_numbers("kl_t")?);
    let mean: Vec<f64> = columns.required_numbers("k")?.iter().map(|k| -k).collect();
    let larger: Vec<f64> = kl_p.iter().zip(&kl_t).map(|(p, t)| p.max(*t)).collect();
    let equal = crossing(&alpha, &kl_p, &kl_t);
    let mut legend = vec![
        Entry::new(Key::Stroke(style::POLICY.color), "KL(q‖p)"),
        Entry::new(Key::Stroke(style::TARGET.color), "KL(q‖t)"),
        Entry::new(Key::Area(style::REFERENCE, 0.35), "the larger of the two"),
        Entry::new(Key::Dashes(style::TEXT), "−K(α), their weighted mean"),
    ];
    if let Some((star, height)) = equal {
        legend.push(Entry::new(Key::Line(style::KL_SYMMETRY), format!("q*: α = {star:.3}, both {height:.3} nats")));
    }
    let sheet = Sheet { legend, columns: vec![style::NARROW], panel_height: 290.0, panels: 1 };
    sheet.draw(|_, area| {
        let (_, high) = span(larger.iter().copied());
        let x = Axis::spanning("α (0: target, 1: policy)", 0.0, 1.0, 5);
        let y = Axis::spanning("Divergence, nats", 0.0, 1.05 * high, 6);
        let mut plot = canvas::plot(area, "How far q is from both sides", &x, &y)?;
        let points = |heights: &[f64]| alpha.iter().copied().zip(heights.iter().copied()).collect::<Vec<_>>();
        let pale = style::ramp(style::REFERENCE, 0.2);
        canvas::line(&mut plot, &points(&larger), pale, 4.0 * style::LINE_WIDTH)?;
        canvas::line(&mut plot, &points(&kl_p), style::POLICY.color, style::LINE_WIDTH)?;
        canvas::line(&mut plot, &points(&kl_t), style::TARGET.color, style::LINE_WIDTH)?;
        canvas::dashes(&mut plot, points(&mean), style::TEXT, 1.5)?;
        let mark: Vec<_> = equal.into_iter().collect();
        canvas::marks(&mut plot, &mark, style::KL_SYMMETRY)
    })
}
