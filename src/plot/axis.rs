//! Axes: what they span, and which values they name.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// Decades that a logarithmic axis names at most: more labels would run into each other.
const MOST_DECADES: usize = 8;

/// A linear axis from `low` to `high`. A logarithmic one is a linear one of decimal logarithms.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub label: String,
    pub low: f64,
    pub high: f64,
    /// Values inside the span, ascending, with what is written at them.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Spans `low..high` with about `count` round ticks in it. A span without width gets one.
    pub fn spanning(label: &str, low: f64, high: f64, count: usize) -> Self {
        let (low, high) = widened(low, high);
        let step = round_step((high - low) / count as f64);
        let slack = 1e-9 * (high - low);
        let first = ((low - slack) / step).ceil() as i64;
        let last = ((high + slack) / step).floor() as i64;
        let values: Vec<f64> = (first..=last).map(|i| i as f64 * step).collect();
        let texts = labels(&values, step);
        Self { label: label.to_owned(), low, high, ticks: values.into_iter().zip(texts).collect() }
    }

    /// As [`Axis::spanning`], with room at both ends.
    pub fn padded(label: &str, low: f64, high: f64, room: f64, count: usize) -> Self {
        let pad = room * (high - low);
        Self::spanning(label, low - pad, high + pad, count)
    }

    /// From 0 to 1, with room for marks at both ends.
    pub fn shares(label: &str) -> Self {
        let ticks = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")];
        Self {
            label: label.to_owned(),
            low: -0.02,
            high: 1.02,
            ticks: ticks.map(|(at, text)| (at, text.to_owned())).into(),
        }
    }

    /// Holds `low..high`, which must be positive, between round numbers. Of many decades every second, third, ... is named, and
    /// 1 among them where the span holds it.
    pub fn logarithmic(label: &str, low: f64, high: f64) -> Self {
        let round: Vec<f64> =
            (-40..=40).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power))).collect();
        let below = |x: &f64| *x <= low * (1.0 + 1e-9);
        let above = |x: &f64| *x >= high * (1.0 - 1e-9);
        let first = round.iter().rposition(below).unwrap_or(0).min(round.len() - 2);
        let last = round.iter().position(above).unwrap_or(round.len() - 1);
        let within = &round[first..=last.max(first + 1)];
        let mut decades: Vec<f64> = within.iter().copied().filter(|x| is_power_of_ten(*x)).collect();
        let apart = decades.len().div_ceil(MOST_DECADES).max(1) as i64;
        decades.retain(|x| (x.log10().round() as i64).rem_euclid(apart) == 0);
        // One or two numbers would hardly name an axis.
        let named = if decades.len() < 3 { within } else { &decades };
        Self {
            label: label.to_owned(),
            low: within[0].log10(),
            high: within[within.len() - 1].log10(),
            ticks: named.iter().map(|x| (x.log10(), number(*x))).collect(),
        }
    }
}

impl Axis {
    /// The same, with k, M, B and T for thousands and more, as sizes of models are named: for counts on a logarithmic axis.
    pub fn counted(mut self) -> Self {
        for (at, text) in &mut self.ticks {
            *text = count(10f64.powf(*at));
        }
        self
    }

    /// The same without its label: another panel bears it.
    pub fn unlabelled(&self) -> Self {
        Self { label: String::new(), ..self.clone() }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        pixels.0 + (share * f64::from(pixels.1 - pixels.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light points would be a second, finer grid.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == value);
        tick.map_or_else(|| Self::format(value), |(_, text)| text.clone())
    }
}

fn widened(low: f64, high: f64) -> (f64, f64) {
    // Relative to the values, so that a step stays representable.
    let least = 1e-6 * low.abs().max(high.abs());
    if high - low > least {
        return (low, high);
    }
    let half = if low == 0.0 { 0.5 } else { 0.05 * low.abs() };
    (low - half, high + half)
}

/// The least of 1, 2 or 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Writes values a step apart with the decimals they need; thousands and millions as k and M.
fn labels(values: &[f64], step: f64) -> Vec<String> {
    let largest = values.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let (unit, suffix) = match largest {
        x if x >= 1e13 => return values.iter().map(|x| format!("{x:.1e}")).collect(),
        x if x >= 1e9 => (1e9, "G"),
        x if x >= 1e6 => (1e6, "M"),
        x if x >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    if largest < 1e-4 {
        return values.iter().map(|x| format!("{x:.0e}").replace('-', "−")).collect();
    }
    let decimals = (-(step / unit).log10() - 1e-9).ceil().max(0.0) as usize;
    let write = |x: &f64| {
        if x.abs() < 0.5 * step {
            // Neither 0.0k nor a zero with the sign of its rounding.
            let zero = if suffix.is_empty() { decimals } else { 0 };
            return format!("{:.zero$}", 0.0);
        }
        format!("{:.decimals$}{suffix}", x / unit).replace('-', "−")
    };
    values.iter().map(write).collect()
}

fn is_power_of_ten(x: f64) -> bool {
    (x.log10() - x.log10().round()).abs() < 1e-9
}

/// 1, 2 or 5 times a power of ten: 0.01 rather than 1e−2 while that is short.
fn number(x: f64) -> String {
    if (9e-4..1e4).contains(&x) {
        let decimals = (-x.log10() - 1e-9).ceil().max(0.0) as usize;
        format!("{x:.decimals$}")
    } else {
        format!("{x:.0e}").replace('-', "−")
    }
}

/// A count with a suffix: 260k, 6.9B.
pub(super) fn count(x: f64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    let (unit, suffix) = units.into_iter().find(|(unit, _)| x >= unit * (1.0 - 1e-9)).unwrap_or((1.0, ""));
    let digits = x / unit;
    // Three digits are enough to tell sizes of models apart.
    let decimals = (2.0 - digits.log10().floor()).clamp(0.0, 2.0) as usize;
    let text = format!("{digits:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(axis: Axis) -> Vec<String> {
        axis.ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = |low, high| texts(Axis::spanning("", low, high, 5));
        assert_eq!(axis(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(axis(0.12, 0.47), ["0.2", "0.3", "0.4"]);
        assert_eq!(axis(-1.0, 1.0), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(axis(0.0, 20_000.0), ["0", "5k", "10k", "15k", "20k"]);
        assert_eq!(axis(0.0, 2.4e6), ["0", "0.5M", "1.0M", "1.5M", "2.0M"]);
        assert_eq!(axis(1.0, 1000.0), ["200", "400", "600", "800", "1000"]);
    }

    #[test]
    fn logarithmic_axes_hold_what_they_must() {
        let axis = Axis::logarithmic("", 0.003, 0.9);
        assert!((axis.low - 0.002f64.log10()).abs() < 1e-12 && axis.high.abs() < 1e-12);
        assert_eq!(texts(axis), ["0.01", "0.1", "1"]);
        let short = Axis::logarithmic("", 0.03, 0.4);
        assert_eq!(texts(short), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        let tiny = Axis::logarithmic("", 1e-12, 1e-9);
        assert_eq!(texts(tiny), ["1e−12", "1e−11", "1e−10", "1e−9"]);
        assert_eq!(texts(Axis::logarithmic("", 1.0, 1.0)), ["1", "2"]);
    }

    #[test]
    fn many_decades_are_named_in_part() {
        let axis = |low, high| texts(Axis::logarithmic("", low, high));
        assert_eq!(axis(1e-4, 1e3), ["1e−4", "0.001", "0.01", "0.1", "1", "10", "100", "1000"]);
        assert_eq!(axis(1e-4, 1e4), ["1e−4", "0.01", "1", "100", "1e4"]);
        assert_eq!(axis(0.03, 3e8), ["1", "100", "1e4", "1e6", "1e8"]);
        assert_eq!(axis(1e-20, 1.0), ["1e−18", "1e−15", "1e−12", "1e−9", "1e−6", "0.001", "1"]);
        // What is named lies in the span, which is held whole.
        for decades in 1..=80 {
            let axis = Axis::logarithmic("", 1e-40, 10f64.powi(decades - 40));
            assert!((3..=MOST_DECADES).contains(&axis.ticks.len()), "{decades}: {:?}", axis.ticks);
            assert!(axis.ticks.iter().all(|(at, _)| (axis.low..=axis.high).contains(at)), "{decades}");
        }
    }

    #[test]
    fn counts_have_suffixes() {
        let texts_of = |low, high| texts(Axis::logarithmic("", low, high).counted());
        assert_eq!(texts_of(1e5, 2e6), ["100k", "200k", "500k", "1M", "2M"]);
        assert_eq!([124_439_808.0, 260_032.0, 999.0, 7e9, 1.5e13].map(count), ["124M", "260k", "999", "7B", "15T"]);
    }

    proptest! {
        #[test]
        fn every_span_has_ticks_inside(low in -1e6..1e6f64, width in 0.0..1e5f64, count in 3usize..8) {
            let axis = Axis::spanning("", low, low + width, count);
            prop_assert!(axis.low < axis.high && axis.low <= low && low + width <= axis.high);
            prop_assert!(!axis.ticks.is_empty() && axis.ticks.len() <= count + 1);
            let slack = 1e-6 * (axis.high - axis.low);
            for (value, text) in &axis.ticks {
                prop_assert!(axis.low - slack <= *value && *value <= axis.high + slack);
                prop_assert!(!text.is_empty());
            }
            let mut unique: Vec<_> = axis.ticks.iter().map(|tick| &tick.1).collect();
            unique.dedup();
            prop_assert_eq!(unique.len(), axis.ticks.len(), "two ticks with one label: {:?}", axis.ticks);
        }
    }
}
