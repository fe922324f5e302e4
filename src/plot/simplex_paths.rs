//! Three outcomes as a triangle, and the ways from the target to the policy.

use anyhow::{Result, ensure};
use plotters::prelude::PathElement;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;
use polars::prelude::DataFrame;

use super::canvas::{self, Area, Entry, Key, Sheet, Text, px};
use super::columns::Columns;
use super::{Figure, fonts, style};

/// The triangle's left corner and the length of its sides, in pixels of the panel.
const LEFT: f64 = 56.0;
const BASE: f64 = 316.0;
const SIDE: f64 = 320.0;

/// The triangle of all distributions over three outcomes, with paths from the target to the policy: the geometric
/// mixture as a line, the arithmetic one as a dashed line, the distributions that are equally far from both as a thin
/// one, and labelled points. A corner is certainty of one outcome; a grid line is a fifth of its probability.
///
/// A row is one point. Columns: `path` (text: `geometric`, `arithmetic` or `equidistant`; points are joined in the
/// order of the frame), `q1`, `q2`, `q3` (numbers in \[0, 1\] that sum to 1), `label` (text: `p`, `t` or `q*` marks the
/// point, anything else but an empty text is written beside it).
///
/// # Errors
/// No rows, a missing column or one of another type, a null; probabilities that do not sum to 1.
///
/// ```
/// use qstar::experiment::derivation::paths;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// assert!(qstar::plot::simplex_paths(&paths(&pair, 50)?)?.svg.contains("outcome 3"));
/// # anyhow::Ok(())
/// ```
pub fn simplex_paths(points: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(points, "simplex_paths", "the frame of derivation::paths")?;
    let (paths, labels) = (columns.texts("path")?, columns.texts("label")?);
    let q: [Vec<f64>; 3] =
        [columns.required_numbers("q1")?, columns.required_numbers("q2")?, columns.required_numbers("q3")?];
    let at: Vec<[f64; 3]> = (0..paths.len()).map(|row| [0, 1, 2].map(|i| q[i][row])).collect();
    if let Some(row) = at.iter().position(|q| (q.iter().sum::<f64>() - 1.0).abs() > 1e-6 || q.iter().any(|x| *x < 0.0))
    {
        let q = at[row];
        ensure!(false, "row {row} is no distribution: {q:?}");
    }
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Stroke(style::KL_SYMMETRY.color), "geometric mixture"),
            Entry::new(Key::Dashes(style::TEXT), "arithmetic mixture"),
            Entry::new(Key::Stroke(style::REFERENCE), "KL(q‖p) = KL(q‖t)"),
        ],
        columns: vec![style::NARROW],
        panel_height: BASE + 48.0,
        panels: 1,
    };
    sheet.draw(|_, area| {
        triangle(area)?;
        let along = |name: &str| -> Vec<(f64, f64)> {
            paths.iter().zip(&at).filter(|(path, _)| *path == name).map(|(_, q)| place(*q)).collect()
        };
        path(area, &along("equidistant"), style::REFERENCE, 1.5)?;
        dashed(area, &along("arithmetic"))?;
        path(area, &along("geometric"), style::KL_SYMMETRY.color, style::LINE_WIDTH)?;
        for (label, q) in labels.iter().zip(&at).filter(|(label, _)| !label.is_empty()) {
            let look = match label.as_str() {
                "p" => style::POLICY,
                "t" => style::TARGET,
                "q*" => style::KL_SYMMETRY,
                _ => style::ESS_BALANCE,
            };
            let (x, y) = place(*q);
            area.draw(&canvas::mark((px(x), px(y)), look.mark, look.color))?;
            // p and t lie at the ends of the paths: their names stand away from the middle.
            let (anchor, right, down) = match label.as_str() {
                "p" | "t" if x < LEFT + 0.5 * SIDE => (HPos::Right, -9.0, 0.0),
                "p" | "t" => (HPos::Left, 9.0, 0.0),
                _ => (HPos::Left, 9.0, -10.0),
            };
            let text = Text { bold: true, anchor, ..Text::label(look.color) };
            canvas::text(area, &fonts::clean(label), (x + right, y + down), &text)?;
        }
        Ok(())
    })
}

/// Outcome 1 is the lower left corner, outcome 2 the top, outcome 3 the lower right one.
fn place(q: [f64; 3]) -> (f64, f64) {
    let height = SIDE * 0.75f64.sqrt();
    (LEFT + SIDE * (q[2] + 0.5 * q[1]), BASE - height * q[1])
}

fn triangle(area: &Area) -> Result<()> {
    let corners = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let small = |anchor| Text { size: style::TICK_SIZE, anchor, ..Text::label(style::TEXT) };
    for fifth in 1..5 {
        let share = f64::from(fifth) / 5.0;
        for i in 0..3 {
            // Where outcome i has this probability; its labels stand on the side that leads to its corner.
            let point = |j: usize| {
                let mut q = [0.0; 3];
                q[i] = share;
                q[j] = 1.0 - share;
                place(q)
            };
            let (from, to) = (point((i + 1) % 3), point((i + 2) % 3));
            path(area, &[from, to], style::GRID, 1.0)?;
            let (at, anchor) = match i {
                // The base counts outcome 1 leftwards, the left side outcome 2 upwards, the right side outcome 3 downwards.
                0 => ((to.0, to.1 + 11.0), HPos::Center),
                1 => ((to.0 - 7.0, to.1), HPos::Right),
                _ => ((to.0 + 7.0, to.1), HPos::Left),
            };
            canvas::text(area, &format!("{share:.1}"), at, &small(anchor))?;
        }
    }
    let [a, b, c] = corners.map(place);
    path(area, &[a, b, c, a], style::AXIS, 1.25)?;
    let names = [
        ("outcome 1", (a.0 - 44.0, a.1 + 30.0), HPos::Left),
        ("outcome 2", (b.0, b.1 - 14.0), HPos::Center),
        ("outcome 3", (c.0 + 44.0, c.1 + 30.0), HPos::Right),
    ];
    for (name, at, anchor) in names {
        canvas::text(area, name, at, &Text { anchor, ..Text::label(style::TEXT) })?;
    }
    Ok(())
}

fn path(area: &Area, points: &[(f64, f64)], color: RGBColor, width: f64) -> Result<()> {
    let points: Vec<_> = points.iter().map(|(x, y)| (px(*x), px(*y))).collect();
    Ok(area.draw(&PathElement::new(points, canvas::stroke(color, width)))?)
}

/// The arithmetic path is straight: dashes between its ends.
fn dashed(area: &Area, points: &[(f64, f64)]) -> Result<()> {
    let (Some(from), Some(to)) = (points.first(), points.last()) else { return Ok(()) };
    let length = (to.0 - from.0).hypot(to.1 - from.1);
    let at = |along: f64| {
        let share = (along / length).min(1.0);
        (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
    };
    let mut along = 0.0;
    while along < length {
        path(area, &[at(along), at(along + 6.0)], style::TEXT, style::LINE_WIDTH)?;
        along += 12.0;
    }
    Ok(())
}
