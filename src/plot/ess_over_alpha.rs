//! The two effective sample sizes of the mixture, and both ways to choose α.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::{crossing, span};
use super::fonts::indexed;
use super::{Figure, style};

/// Below this size the axis is logarithmic.
const DECADE: f64 = 0.1;

/// ESS_p and ESS_t over α, as shares of the draws, with the α at which the two divergences are equal (marked on both
/// curves) and the one at which the two sizes are.
///
/// A row is one α. Columns: `alpha` (numbers in \[0, 1\], ascending), `kl_p`, `kl_t`, `log_ess_p` and `log_ess_t`
/// (numbers, nats). The axis is logarithmic where a size falls below a tenth.
///
/// # Errors
/// No rows, a missing column or one of another type, a null; a log ESS above 0.
///
/// ```
/// use qstar::experiment::derivation::curves;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// assert!(qstar::plot::ess_over_alpha(&curves(&pair, 101)?)?.svg.contains("ESS balance"));
/// # anyhow::Ok(())
/// ```
pub fn ess_over_alpha(curves: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(curves, "ess_over_alpha", "the frame of derivation::curves")?;
    let alpha = columns.required_numbers("alpha")?;
    let (kl_p, kl_t) = (columns.required_numbers("kl_p")?, columns.required_numbers("kl_t")?);
    let (log_p, log_t) = (columns.required_numbers("log_ess_p")?, columns.required_numbers("log_ess_t")?);
    let (low, high) = span(log_p.iter().chain(&log_t).copied());
    ensure!(high <= 1e-9, "a log ESS is at most 0, and one is {high}: pass natural logarithms of shares");
    let logarithmic = low.exp() < DECADE;
    let place = |log_ess: f64| if logarithmic { log_ess / std::f64::consts::LN_10 } else { log_ess.exp() };

    let symmetric = crossing(&alpha, &kl_p, &kl_t).map(|(at, _)| at);
    let balanced = crossing(&alpha, &log_p, &log_t);
    let mut legend = vec![
        Entry::new(Key::Stroke(style::POLICY.color), indexed("ESS", "p", "")),
        Entry::new(Key::Stroke(style::TARGET.color), indexed("ESS", "t", "")),
    ];
    if let Some(at) = symmetric {
        let [p, t] = [&log_p, &log_t].map(|log_ess| height_at(&alpha, log_ess, at).exp());
        let text = format!("KL symmetry: α = {at:.3}, ESS {p:.3} and {t:.3}");
        legend.push(Entry::new(Key::Line(style::KL_SYMMETRY), text));
    }
    if let Some((at, height)) = balanced {
        let text = format!("ESS balance: α = {at:.3}, both ESS {:.3}", height.exp());
        legend.push(Entry::new(Key::Line(style::ESS_BALANCE), text));
    }
    let sheet = Sheet { legend, columns: vec![style::NARROW], panel_height: 290.0, panels: 1 };
    sheet.draw(|_, area| {
        let x = Axis::spanning("α (0: target, 1: policy)", 0.0, 1.0, 5);
        let label = "ESS, share of the draws";
        let y =
            if logarithmic { Axis::logarithmic(label, low.exp(), 1.0) } else { Axis::spanning(label, 0.0, 1.05, 5) };
        let mut plot = canvas::plot(area, "What a draw from q is worth to each side", &x, &y)?;
        for (log_ess, side) in [(&log_p, style::POLICY), (&log_t, style::TARGET)] {
            let points: Vec<_> = alpha.iter().copied().zip(log_ess.iter().map(|x| place(*x))).collect();
            canvas::line(&mut plot, &points, side.color, style::LINE_WIDTH)?;
        }
        if let Some(at) = symmetric {
            let heights = [&log_p, &log_t].map(|log_ess| height_at(&alpha, log_ess, at));
            let color = style::KL_SYMMETRY.color;
            canvas::dashes(&mut plot, [(at, y.low), (at, y.high)], color, 1.25)?;
            let marks = heights.map(|height| (at, place(height)));
            canvas::marks(&mut plot, &marks, style::KL_SYMMETRY)?;
        }
        if let Some((at, height)) = balanced {
            let color = style::ESS_BALANCE.color;
            canvas::dashes(&mut plot, [(at, y.low), (at, place(height))], color, 1.25)?;
            canvas::marks(&mut plot, &[(at, place(height))], style::ESS_BALANCE)?;
        }
        Ok(())
    })
}

/// The height of a sampled curve at `at`, which lies within its x.
fn height_at(x: &[f64], y: &[f64], at: f64) -> f64 {
    let i = x.partition_point(|x| *x < at).clamp(1, x.len() - 1);
    let share = (at - x[i - 1]) / (x[i] - x[i - 1]);
    y[i - 1] + share * (y[i] - y[i - 1])
}
