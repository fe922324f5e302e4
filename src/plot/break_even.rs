//! Where speculation pays: acceptance against the cost of the draft.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::{Figure, style};
use crate::rollout::speculative::formula::Costs;

/// The acceptance from which on some γ up to the largest of the frame is as fast as the standard sampler, over the cost of
/// the draft, with the measured pairs as points: those of a single candidate, one for each γ. The policy drafts for a mixture,
/// so that the standard sampler pays for both models. A pair's line has the pair's own cost of a token more in a reading, the
/// dashed one has none; a pair pays where its points lie above its line.
///
/// A row is one way to speculate. Columns: `pair` (text), `gamma` and `candidates` (integers), `acceptance` (number in
/// \[0, 1\]), `cost_ratio` (number above 0: a drafted token over a reading of one token), `token_cost` (number in \[0, 1\]:
/// what a token more adds to a reading, over the same).
///
/// # Errors
/// No rows, a missing column or one of another type, a null, no row with a single candidate, a cost of a drafted token that is
/// not positive.
pub fn break_even(speedups: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(speedups, "break_even", "the frame of speculation::speedups")?;
    let rows = columns.texts("pair")?.into_iter().zip(columns.required_integers("candidates")?);
    let costs = columns.required_numbers("cost_ratio")?.into_iter().zip(columns.required_numbers("token_cost")?);
    let points = columns.required_numbers("acceptance")?.into_iter().zip(costs);
    let mut pairs: Vec<Pair> = Vec::new();
    for ((name, _), (acceptance, (ratio, token))) in rows.zip(points).filter(|((_, candidates), _)| *candidates == 1) {
        ensure!(
            ratio > 0.0,
            "`cost_ratio` must be positive to stand on a logarithmic axis: {ratio} of {name:?} is not"
        );
        match pairs.iter_mut().find(|pair| pair.name == name) {
            Some(pair) => pair.points.push((ratio, acceptance)),
            None => pairs.push(Pair { name, token, points: vec![(ratio, acceptance)] }),
        }
    }
    ensure!(!pairs.is_empty(), "break_even shows single candidates, and the frame has none: measure with k = 1");
    let most = columns.required_integers("gamma")?.into_iter().max().unwrap_or(1).max(1) as usize;
    let look = |index: usize| style::SERIES[index % style::SERIES.len()];
    let mut legend: Vec<Entry> =
        pairs.iter().enumerate().map(|(i, pair)| Entry::new(Key::Line(look(i)), &pair.name)).collect();
    legend.push(Entry::new(Key::Dashes(style::TEXT), "a token more in a reading is free"));
    let (low, high) = span(pairs.iter().flat_map(|pair| &pair.points).map(|point| point.0));
    let x = Axis::logarithmic(
        "Cost of a drafted token / a reading of one token",
        (0.5 * low).max(1e-4),
        (2.0 * high).max(2.0),
    );
    let y = Axis::shares("Acceptance");
    let sheet = Sheet { legend, columns: vec![0.75 * style::WIDE], panel_height: 340.0, panels: 1 };
    sheet.draw(|_, area| {
        let mut plot = canvas::plot(area, "From which acceptance on speculation pays", &x, &y)?;
        canvas::dashes(&mut plot, line(&x, 0.0, most), style::TEXT, 1.25)?;
        for (i, pair) in pairs.iter().enumerate() {
            canvas::line(&mut plot, &line(&x, pair.token.clamp(0.0, 1.0), most), look(i).color, style::LINE_WIDTH)?;
        }
        for (i, pair) in pairs.iter().enumerate() {
            let at: Vec<(f64, f64)> =
                pair.points.iter().map(|(ratio, acceptance)| (ratio.log10(), *acceptance)).collect();
            canvas::marks(&mut plot, &at, look(i))?;
        }
        Ok(())
    })
}

struct Pair {
    name: String,
    token: f64,
    /// Cost ratio and acceptance.
    points: Vec<(f64, f64)>,
}

/// The least acceptance that pays, over the decimal logarithm of the cost ratio; it ends where none does.
fn line(x: &Axis, token: f64, most: usize) -> Vec<(f64, f64)> {
    const PIECES: u32 = 300;
    let at = |i: u32| {
        let place = x.low + (x.high - x.low) * f64::from(i) / f64::from(PIECES);
        let draft = 10f64.powf(place);
        let costs = Costs { standard: 1.0 + draft, draft, further: 1, verify: 1.0 - token, token };
        Some((place, costs.break_even(most)?))
    };
    (0..=PIECES).map_while(at).collect()
}
