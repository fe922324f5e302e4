//! One look for all figures: colours, marks, sizes.
//!
//! The colours are those of Okabe and Ito (2008, <https://jfly.uni-koeln.de/color/>), which remain distinct for
//! readers with any common colour blindness; marks of different shapes tell the methods apart without colour.
//! All sizes are in CSS pixels (1/96 inch) of the SVG.

use plotters::style::RGBColor;

/// The font that PNG files are drawn with, and what a browser without it takes.
pub const FONT: &str = "DejaVu Sans, sans-serif";

/// Font sizes. A figure with one panel shrinks to 0.73 of its size in a column of 8.4 cm (3.3 inches): its smallest
/// text is then 6.6 points high.
pub const TICK_SIZE: f64 = 12.0;
pub const LABEL_SIZE: f64 = 13.0;
pub const TITLE_SIZE: f64 = 14.0;

/// Width of a figure with one panel, and of all others.
pub const NARROW: f64 = 432.0;
pub const WIDE: f64 = 864.0;

pub const LINE_WIDTH: f64 = 2.0;
pub const BAND_OPACITY: f64 = 0.18;

pub const TEXT: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub const AXIS: RGBColor = RGBColor(0x55, 0x55, 0x55);
pub const GRID: RGBColor = RGBColor(0xE6, 0xE6, 0xE6);
/// Reference lines and areas.
pub const REFERENCE: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// The two sides of a mixture and the two solutions between them, in the colours of methods that draw from there.
pub const POLICY: MethodStyle = MethodStyle { color: BLUE, mark: Mark::Square };
pub const TARGET: MethodStyle = MethodStyle { color: PURPLE, mark: Mark::Diamond };
pub const KL_SYMMETRY: MethodStyle = MethodStyle { color: VERMILLION, mark: Mark::Circle };
pub const ESS_BALANCE: MethodStyle = MethodStyle { color: BLACK, mark: Mark::Triangle };

/// The looks of things that are compared and are no methods, in the order of their legend.
pub const SERIES: [MethodStyle; 5] = [
    MethodStyle { color: SKY_BLUE, mark: Mark::Diamond },
    MethodStyle { color: GREEN, mark: Mark::Triangle },
    MethodStyle { color: ORANGE, mark: Mark::Wedge },
    MethodStyle { color: BLUE, mark: Mark::Square },
    MethodStyle { color: VERMILLION, mark: Mark::Circle },
];

const BLACK: RGBColor = RGBColor(0x00, 0x00, 0x00);
const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
const SKY_BLUE: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
/// In the place of their yellow, which is too light for a line on white.
const GREY: RGBColor = RGBColor(0x99, 0x99, 0x99);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);

/// The shape that marks a method's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
    Plus,
    Cross,
    Star,
    Bar,
}

/// How a method looks in every figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodStyle {
    pub color: RGBColor,
    pub mark: Mark,
}

/// The methods with a look of their own, in the order of every legend.
const METHODS: [(&str, RGBColor, Mark); 9] = [
    ("reinforce", BLUE, Mark::Square),
    ("on_policy", GREEN, Mark::Triangle),
    ("off_policy", BLACK, Mark::Plus),
    ("rejection", GREY, Mark::Square),
    ("sft", PURPLE, Mark::Diamond),
    ("dpo", SKY_BLUE, Mark::Wedge),
    ("uniform", ORANGE, Mark::Triangle),
    ("entropy", SKY_BLUE, Mark::Diamond),
    ("qstar", VERMILLION, Mark::Circle),
];

/// The look of a method. A name that has none of its own gets one that depends on the name alone, and so is the
/// same in every figure: a mark that no known method has. Two such names may share a look.
pub fn method(name: &str) -> MethodStyle {
    if let Some((_, color, mark)) = METHODS.iter().find(|(known, ..)| *known == name) {
        return MethodStyle { color: *color, mark: *mark };
    }
    const COLORS: [RGBColor; 7] = [ORANGE, SKY_BLUE, GREEN, BLACK, PURPLE, BLUE, GREY];
    const MARKS: [Mark; 3] = [Mark::Cross, Mark::Star, Mark::Bar];
    // FNV-1a: a hash that no release of the standard library changes.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        >> 16;
    MethodStyle { color: COLORS[(hash % 7) as usize], mark: MARKS[(hash / 7 % 3) as usize] }
}

/// The place of a method in a legend: known methods in the order of the study, then others by name, and `qstar`
/// last and so drawn on top.
pub fn order(name: &str) -> (usize, &str) {
    let place = METHODS.iter().position(|(known, ..)| *known == name);
    match place {
        Some(place) if name == "qstar" => (place + 1, name),
        Some(place) => (place, name),
        None => (METHODS.len() - 1, name),
    }
}

/// The colour of a method when `progress` of its training, from 0 to 1, is done: light to dark.
pub fn ramp(color: RGBColor, progress: f64) -> RGBColor {
    let progress = progress.clamp(0.0, 1.0);
    let light = blend(color, RGBColor(255, 255, 255), 0.75);
    let dark = blend(color, BLACK, 0.55);
    // The pure colour in the middle keeps the hue recognisable.
    if progress < 0.5 { blend(light, color, 2.0 * progress) } else { blend(color, dark, 2.0 * progress - 1.0) }
}

fn blend(from: RGBColor, to: RGBColor, share: f64) -> RGBColor {
    let channel = |from: u8, to: u8| (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(channel(from.0, to.0), channel(from.1, to.1), channel(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn known_methods_look_different() {
        let looks: HashSet<String> = METHODS.iter().map(|(name, ..)| format!("{:?}", method(name))).collect();
        assert_eq!(looks.len(), METHODS.len());
    }

    #[test]
    fn the_methods_of_one_comparison_differ_in_colour_alone() {
        let colors: HashSet<_> =
            ["reinforce", "on_policy", "sft", "qstar"].map(|name| format!("{:?}", method(name).color)).into();
        assert_eq!(colors.len(), 4);
    }

    #[test]
    fn an_unknown_method_keeps_its_look() {
        assert_eq!(method("grpo"), method("grpo"));
        // A change of this literal recolours figures that are already printed.
        let grpo = MethodStyle { color: BLUE, mark: Mark::Cross };
        assert_eq!(method("grpo"), grpo);
    }

    proptest! {
        #[test]
        fn no_unknown_method_looks_like_a_known_one(name in "[a-z]{1,3}_[0-9]{1,3}") {
            let look = method(&name);
            prop_assert!(METHODS.iter().all(|(known, ..)| method(known) != look));
            prop_assert_ne!(look.color, VERMILLION, "only qstar has its colour");
        }
    }

    #[test]
    fn legends_end_with_qstar() {
        let mut names = ["qstar", "zeta", "sft", "alpha", "reinforce"];
        names.sort_by_key(|name| order(name));
        assert_eq!(names, ["reinforce", "sft", "alpha", "zeta", "qstar"]);
    }

    fn lightness(color: RGBColor) -> u32 {
        2 * u32::from(color.0) + 7 * u32::from(color.1) + u32::from(color.2)
    }

    proptest! {
        #[test]
        fn a_ramp_darkens(name in "[a-z_]{1,12}", a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let (early, late) = if a < b { (a, b) } else { (b, a) };
            let color = method(&name).color;
            // Rounding of three channels may add up to ten units.
            prop_assert!(lightness(ramp(color, late)) <= lightness(ramp(color, early)) + 10);
        }
    }
}
