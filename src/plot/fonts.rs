//! The font that travels with the library, so that a PNG needs none of the system's.

use resvg::usvg::{self, fontdb};
use std::sync::{Arc, LazyLock};

use super::style::FONT;
use crate::display::escape;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    for face in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_data(face.to_vec());
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// How an SVG is read: with DejaVu Sans alone.
pub(super) fn options() -> usvg::Options<'static> {
    usvg::Options { fontdb: FONTS.clone(), font_family: "DejaVu Sans".to_owned(), ..usvg::Options::default() }
}

/// The width of a line of text in pixels. What cannot be measured is taken as 0.6 of its size a character.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let weight = if bold { "bold" } else { "normal" };
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"><text font-family=\"{FONT}\" \
         font-size=\"{size}\" font-weight=\"{weight}\">{}</text></svg>",
        set_indices(&escape(text))
    );
    match usvg::Tree::from_str(&svg, &options()) {
        Ok(tree) if tree.root().has_children() => f64::from(tree.root().abs_bounding_box().width()),
        _ => 0.6 * size * text.chars().count() as f64,
    }
}

/// A text of the data as a figure can show it: on one line, without what XML forbids or [`indexed`] uses.
pub(super) fn clean(text: &str) -> String {
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') || MARKUP.contains(&c);
    text.chars().map(|c| if forbidden(c) { ' ' } else { c }).collect()
}

/// A text with a lowered index: ESS, p. The backend escapes all markup, so that private characters stand for it
/// until [`set_indices`] writes it.
pub(super) fn indexed(text: &str, index: &str, rest: &str) -> String {
    let [lower, raise, end] = MARKUP;
    format!("{text}{lower}{index}{raise}{rest}{end}")
}

/// Writes the markup of [`indexed`] into a finished SVG.
pub(super) fn set_indices(svg: &str) -> String {
    let [lower, raise, end] = MARKUP;
    // Not `baseline-shift`, which not every browser knows. On the way down an em is that of the smaller index, on
    // the way up that of the text.
    svg.replace(lower, "<tspan dy=\"0.3em\" font-size=\"78%\">")
        .replace(raise, "</tspan><tspan dy=\"-0.234em\">")
        .replace(end, "</tspan>")
}

const MARKUP: [char; 3] = ['\u{e000}', '\u{e001}', '\u{e002}'];

/// The text, cut with an ellipsis where it is wider than `room` pixels.
pub(super) fn fit(text: &str, size: f64, bold: bool, room: f64) -> String {
    if width(text, size, bold) <= room {
        return text.to_owned();
    }
    // Hardly a character is narrower than two pixels.
    let mut shown: String = text.chars().take(room as usize / 2).collect();
    while !shown.is_empty() && width(&format!("{shown}…"), size, bold) > room {
        shown.pop();
    }
    format!("{}…", shown.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // The digits of DejaVu Sans advance by 1303 of 2048 units; the ink of a line is narrower by its bearings.
        let ten = width("0000000000", 20.48, false);
        assert!((ten - 130.3).abs() < 4.0, "{ten}");
        assert!(width("wide", 12.0, true) > width("wide", 12.0, false));
    }

    #[test]
    fn a_long_text_is_cut_to_its_room() {
        let text = "a method with a name that never ends";
        assert_eq!(fit(text, 12.0, false, 1e3), text);
        let cut = fit(text, 12.0, false, 100.0);
        assert!(cut.starts_with("a method") && cut.ends_with('…'), "{cut}");
        assert!(width(&cut, 12.0, false) <= 100.0);
    }

    #[test]
    fn what_xml_forbids_becomes_a_space() {
        assert_eq!(clean("a\u{0}b\nc\u{e000}d"), "a b c d");
    }
}
