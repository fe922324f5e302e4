//! Whether a reward model's probabilities can be believed.

use anyhow::{Result, ensure};
use plotters::prelude::{Color, Rectangle};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::Columns;
use super::{Figure, style};

/// How often what was predicted happened, over the probability with which it was: a point a bin with its interval and the
/// diagonal of a calibrated model, and beside it the counts of the bins.
///
/// A row is one bin. Columns: `low`, `high` (the bin's ends, numbers in [0, 1]), `pairs` (whole number), `predicted`,
/// `observed`, `observed_low`, `observed_high` (numbers in [0, 1]: mean probability, observed frequency and the ends of
/// its interval; null where the bin is empty).
///
/// # Errors
/// No rows, a missing column or one of another type, a value outside [0, 1], a count below 0, a bin with pairs and without
/// a frequency.
///
/// ```
/// use qstar::reward::{CalibrationRow, PreferenceEvaluation};
///
/// let evaluation = PreferenceEvaluation::of_scores(&[1.0, 0.2, 3.0, 0.5], &[0.0, 0.4, 1.0, 0.4])?;
/// let figure = qstar::plot::calibration(&CalibrationRow::frame(&evaluation.calibration)?)?;
/// assert!(figure.svg.contains("Observed frequency"));
/// # anyhow::Ok(())
/// ```
pub fn calibration(bins: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(bins, "calibration", "the calibration rows of an evaluation of a reward model")?;
    let counts = columns.required_integers("pairs")?;
    let [low, high] = ["low", "high"].map(|name| columns.required_numbers(name));
    let (low, high) = (low?, high?);
    let mut points = Vec::new();
    let [predicted, observed, least, most] =
        ["predicted", "observed", "observed_low", "observed_high"].map(|name| columns.numbers(name));
    let values = predicted?.into_iter().zip(observed?).zip(least?.into_iter().zip(most?));
    for (row, (values, &count)) in values.zip(&counts).enumerate() {
        ensure!(count >= 0, "`pairs` is {count} in row {row}");
        let ((Some(predicted), Some(observed)), (Some(least), Some(most))) = values else {
            ensure!(count == 0, "row {row} has {count} pairs and a null in `predicted` or `observed`");
            continue;
        };
        points.push(Point { predicted, observed, least, most });
    }
    let shares = points.iter().flat_map(|p| [p.predicted, p.observed, p.least, p.most]);
    for share in shares.chain(low.iter().copied()).chain(high.iter().copied()) {
        ensure!((0.0..=1.0).contains(&share), "probabilities and frequencies lie in [0, 1]: {share} does not");
    }
    let bars: Vec<Bar> =
        low.iter().zip(&high).zip(&counts).map(|((&low, &high), &count)| Bar { low, high, count }).collect();
    let end = |f: fn(f64, f64) -> f64, x: &[f64]| x.iter().copied().reduce(f).unwrap_or(0.0);
    let (first, last) = (end(f64::min, &low), end(f64::max, &high));
    let x = Axis::padded("Predicted probability", first, last, 0.02, 6);
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Line(MODEL), "observed, with its interval"),
            Entry::new(Key::Dashes(style::AXIS), "calibrated"),
        ],
        columns: Sheet::columns_for(2),
        panel_height: 290.0,
        panels: 2,
    };
    sheet.draw(|panel, area| match panel {
        0 => reliability(area, &x, [first, last], &points),
        _ => counted(area, &x, &bars),
    })
}

const MODEL: style::MethodStyle = style::SERIES[3];

struct Point {
    predicted: f64,
    observed: f64,
    least: f64,
    most: f64,
}

struct Bar {
    low: f64,
    high: f64,
    count: i64,
}

fn reliability(area: &Area, x: &Axis, diagonal: [f64; 2], points: &[Point]) -> Result<()> {
    let ends = points.iter().flat_map(|point| [point.least, point.most]).chain(diagonal);
    let (least, most) = ends.fold((1.0f64, 0.0f64), |(least, most), y| (least.min(y), most.max(y)));
    let y = Axis::padded("Observed frequency", least, most, 0.03, 6);
    let mut plot = canvas::plot(area, "Reliability", x, &y)?;
    canvas::dashes(&mut plot, diagonal.map(|p| (p, p)), style::AXIS, 1.25)?;
    for point in points {
        canvas::line(&mut plot, &[(point.predicted, point.least), (point.predicted, point.most)], MODEL.color, 1.25)?;
    }
    let places: Vec<_> = points.iter().map(|point| (point.predicted, point.observed)).collect();
    canvas::line(&mut plot, &places, MODEL.color, style::LINE_WIDTH)?;
    canvas::marks(&mut plot, &places, MODEL)
}

fn counted(area: &Area, x: &Axis, bars: &[Bar]) -> Result<()> {
    let most = bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let y = Axis::spanning("Pairs", 0.0, 1.05 * most as f64, 6);
    let mut plot = canvas::plot(area, "Counts", x, &y)?;
    let fill = MODEL.color.mix(0.6).filled();
    plot.draw_series(bars.iter().map(|bar| {
        // A gap tells neighbours apart.
        let gap = 0.06 * (bar.high - bar.low);
        Rectangle::new([(bar.low + gap, 0.0), (bar.high - gap, bar.count as f64)], fill)
    }))?;
    Ok(())
}
