//! −log ESS in units of KL, as policy and target come closer.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::fonts::indexed;
use super::{Figure, style};

/// −log ESS_p and −log ESS_t at q*, each divided by KL(q*‖p) = KL(q*‖t), over that divergence: for small gaps both
/// quotients tend to 2, and not to 1.
///
/// A row is one pair, from the smallest gap to the largest or the other way round. Columns: `kl` (positive numbers,
/// nats), `log_ess_p` and `log_ess_t` (numbers, nats).
///
/// # Errors
/// No rows, a missing column or one of another type, a null; a `kl` that is not positive.
///
/// ```
/// use qstar::experiment::derivation::small_gaps;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let figure = qstar::plot::log_ess_over_kl(&small_gaps(&pair, &[0.01, 0.1, 1.0])?)?;
/// assert!(figure.svg.contains("small gaps: 2"));
/// # anyhow::Ok(())
/// ```
pub fn log_ess_over_kl(gaps: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(gaps, "log_ess_over_kl", "the frame of derivation::small_gaps")?;
    let kl = columns.required_numbers("kl")?;
    ensure!(kl.iter().all(|kl| *kl > 0.0), "`kl` must be positive: without a gap there is nothing to divide by");
    let quotients = |name: &str| {
        let log_ess = columns.required_numbers(name)?;
        anyhow::Ok(log_ess.iter().zip(&kl).map(|(ess, kl)| -ess / kl).collect::<Vec<_>>())
    };
    let (of_p, of_t) = (quotients("log_ess_p")?, quotients("log_ess_t")?);
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Line(style::POLICY), indexed("−log ESS", "p", "/KL")),
            Entry::new(Key::Line(style::TARGET), indexed("−log ESS", "t", "/KL")),
            Entry::new(Key::Dashes(style::AXIS), "limit for small gaps: 2; if log ESS were −KL: 1"),
        ],
        columns: vec![style::NARROW],
        panel_height: 290.0,
        panels: 1,
    };
    sheet.draw(|_, area| {
        let (nearest, furthest) = span(kl.iter().copied());
        let (_, high) = span(of_p.iter().chain(&of_t).copied());
        let x = Axis::logarithmic("KL(q*‖p) = KL(q*‖t), nats (logarithmic)", nearest, furthest);
        let y = Axis::spanning("−log ESS in units of KL", 0.0, 1.1 * high.max(2.0), 6);
        let mut plot = canvas::plot(area, "log ESS is not −KL", &x, &y)?;
        for height in [1.0, 2.0] {
            canvas::dashes(&mut plot, [(x.low, height), (x.high, height)], style::AXIS, 1.25)?;
        }
        for (quotients, side) in [(&of_p, style::POLICY), (&of_t, style::TARGET)] {
            let points: Vec<_> = kl.iter().map(|kl| kl.log10()).zip(quotients.iter().copied()).collect();
            canvas::line(&mut plot, &points, side.color, style::LINE_WIDTH)?;
            canvas::marks(&mut plot, &points, side)?;
        }
        Ok(())
    })
}
