//! The ratio of the two effective sample sizes at q*, over many pairs.

use anyhow::Result;
use plotters::prelude::{Circle, Color};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet, px};
use super::columns::Columns;
use super::crossing::span;
use super::fonts::indexed;
use super::{Figure, style};

/// The ratios that count as balanced.
const BALANCED: [f64; 2] = [0.9, 1.1];
/// Points of one value are spread over this share of the distance to the next.
const SPREAD: f64 = 0.5;

/// ESS_p/ESS_t at q*, a point a pair: one panel a setting, one place on its axis for each value of the setting's
/// number (called `label` below the axis), points of one value side by side; with the band from 0.9 to 1.1.
///
/// A row is one pair. Columns: `setting` (text), `value` (number), `log_ess_ratio` (number: the natural logarithm of
/// ESS_p/ESS_t). The axis of the ratio is logarithmic and shared by all panels.
///
/// # Errors
/// No rows, a missing column or one of another type, a null.
///
/// ```
/// use qstar::experiment::derivation::gaussian_gaps;
///
/// let pairs = gaussian_gaps(&[1.0, 3.0], 100, 5, 0)?;
/// let figure = qstar::plot::ess_ratios(&pairs, "Standard deviation of the logits")?;
/// assert_eq!(figure.svg.matches("<circle").count(), 10);
/// # anyhow::Ok(())
/// ```
pub fn ess_ratios(pairs: &DataFrame, label: &str) -> Result<Figure> {
    let columns = Columns::of(pairs, "ess_ratios", "the frame of derivation::gaussian_gaps or tilts")?;
    let (values, ratios) = (columns.required_numbers("value")?, columns.required_numbers("log_ess_ratio")?);
    let mut settings: Vec<Setting> = Vec::new();
    for (name, (value, ratio)) in columns.texts("setting")?.into_iter().zip(values.into_iter().zip(ratios)) {
        let setting = match settings.iter().position(|setting| setting.name == name) {
            Some(at) => &mut settings[at],
            None => {
                settings.push(Setting { name, groups: Vec::new() });
                settings.last_mut().expect("a setting was pushed just now")
            }
        };
        match setting.groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, ratios)) => ratios.push(ratio),
            None => setting.groups.push((value, vec![ratio])),
        }
    }
    let all = settings.iter().flat_map(|setting| &setting.groups).flat_map(|(_, ratios)| ratios);
    let (low, high) = span(all.copied().chain(BALANCED.map(f64::ln)));
    let ratio = indexed("ESS", "p", &indexed("/ESS", "t", " at q* (logarithmic)"));
    let y = Axis::logarithmic(&ratio, 0.8 * low.exp(), 1.25 * high.exp());
    let [least, most] = BALANCED;
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Ramp(style::KL_SYMMETRY.color), "one pair a point, low to high"),
            Entry::new(Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY), format!("ratio {least} to {most}")),
        ],
        columns: Sheet::columns_for(settings.len()),
        panel_height: 290.0,
        panels: settings.len(),
    };
    sheet.draw(|index, area| panel(area, &settings[index], label, &y))
}

/// The pairs of one setting: its values in the order of the frame, each with its log ratios.
struct Setting {
    name: String,
    groups: Vec<(f64, Vec<f64>)>,
}

fn panel(area: &Area, setting: &Setting, label: &str, y: &Axis) -> Result<()> {
    let names = setting.groups.iter().enumerate().map(|(place, (value, _))| (place as f64, value.to_string()));
    let x =
        Axis { label: label.to_owned(), low: -0.5, high: setting.groups.len() as f64 - 0.5, ticks: names.collect() };
    let mut plot = canvas::plot(area, &setting.name, &x, y)?;
    let [least, most] = BALANCED.map(f64::log10);
    let bounds = [(x.low, least, most), (x.high, least, most)];
    canvas::band(&mut plot, &bounds, style::REFERENCE, 2.0 * style::BAND_OPACITY)?;
    for (place, (_, ratios)) in setting.groups.iter().enumerate() {
        let mut ratios = ratios.clone();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        let points = ratios.into_iter().enumerate().map(|(rank, log_ratio)| {
            let share = (rank as f64 + 0.5) / count as f64;
            let at = (place as f64 + SPREAD * (share - 0.5), log_ratio / std::f64::consts::LN_10);
            Circle::new(at, px(2.2), style::ramp(style::KL_SYMMETRY.color, share).mix(0.8).filled())
        });
        plot.draw_series(points)?;
    }
    Ok(())
}
