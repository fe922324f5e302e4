//! One look for all figures: colours, marks, sizes.
//!
//! The colours are those of Okabe and Ito (2008, <https://jfly.uni-koeln.de/color/>) without their yellow, which is too
//! light for a line on white, and with two dark ones: no two methods of the study share one, and a test holds them apart for
//! readers with any common colour blindness. Marks of different shapes tell the methods apart without colour.
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
/// The lines of other methods behind the one that a panel is about.
pub const BEHIND: RGBColor = RGBColor(0xC8, 0xC8, 0xC8);
/// Reference lines and areas.
pub const REFERENCE: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// The two sides of a mixture and the two solutions between them, in the colours of methods that draw from there.
pub const POLICY: MethodStyle = MethodStyle { color: BLUE, mark: Mark::Square };
pub const TARGET: MethodStyle = MethodStyle { color: PURPLE, mark: Mark::Diamond };
pub const KL_SYMMETRY: MethodStyle = MethodStyle { color: VERMILLION, mark: Mark::Circle };
pub const ESS_BALANCE: MethodStyle = MethodStyle { color: BLACK, mark: Mark::Triangle };

/// The looks of things that are compared and are no methods, in the order of their legend.
pub const SERIES: [MethodStyle; 8] = [
    MethodStyle { color: SKY_BLUE, mark: Mark::Diamond },
    MethodStyle { color: GREEN, mark: Mark::Triangle },
    MethodStyle { color: ORANGE, mark: Mark::Wedge },
    MethodStyle { color: BLUE, mark: Mark::Square },
    MethodStyle { color: VERMILLION, mark: Mark::Circle },
    MethodStyle { color: INDIGO, mark: Mark::Plus },
    MethodStyle { color: PURPLE, mark: Mark::Cross },
    MethodStyle { color: BROWN, mark: Mark::Star },
];

const BLACK: RGBColor = RGBColor(0x00, 0x00, 0x00);
const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
const SKY_BLUE: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
/// Darker than all of theirs.
const INDIGO: RGBColor = RGBColor(0x33, 0x22, 0x88);
const BROWN: RGBColor = RGBColor(0x7F, 0x3C, 0x00);

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
const METHODS: [(&str, RGBColor, Mark); 14] = [
    ("reinforce", BLUE, Mark::Square),
    ("on_policy", GREEN, Mark::Triangle),
    ("off_policy", BLACK, Mark::Plus),
    ("rejection", BROWN, Mark::Bar),
    ("sft", PURPLE, Mark::Diamond),
    ("dpo", SKY_BLUE, Mark::Wedge),
    ("uniform", ORANGE, Mark::Triangle),
    ("entropy", INDIGO, Mark::Diamond),
    // Beyond the study: colours come again, with marks of their own.
    ("ess_balance", BLACK, Mark::Triangle),
    ("snr_max", PURPLE, Mark::Bar),
    ("qstar_ppo", ORANGE, Mark::Star),
    ("grpo", BLUE, Mark::Cross),
    ("rloo", GREEN, Mark::Star),
    ("qstar", VERMILLION, Mark::Circle),
];

/// The look of a method. A name that has none of its own gets one that depends on the name alone, and so is the
/// same in every figure: one that no known method has. Two such names may share a look.
pub fn method(name: &str) -> MethodStyle {
    if let Some((_, color, mark)) = METHODS.iter().find(|(known, ..)| *known == name) {
        return MethodStyle { color: *color, mark: *mark };
    }
    const COLORS: [RGBColor; 8] = [ORANGE, SKY_BLUE, GREEN, BLACK, PURPLE, BLUE, INDIGO, BROWN];
    const MARKS: [Mark; 3] = [Mark::Cross, Mark::Star, Mark::Plus];
    let free: Vec<MethodStyle> = COLORS
        .into_iter()
        .flat_map(|color| MARKS.map(|mark| MethodStyle { color, mark }))
        .filter(|look| METHODS.iter().all(|(_, color, mark)| (*color, *mark) != (look.color, look.mark)))
        .collect();
    // FNV-1a: a hash that no release of the standard library changes.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        >> 16;
    free[(hash % free.len() as u64) as usize]
}

/// The look of a target in every figure.
pub fn target(name: &str) -> MethodStyle {
    const TARGETS: [&str; 4] = ["expert", "prefix_scorer", "reward_softmax", "conditional"];
    TARGETS.iter().position(|known| *known == name).map_or_else(|| method(name), |at| SERIES[at])
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

    /// Linear light as the eyes of protanopes, deuteranopes and tritanopes see it. Machado, Oliveira and Fernandes 2009,
    /// IEEE Transactions on Visualization and Computer Graphics 15(6), at full severity.
    const EYES: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ];

    fn times(m: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        m.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum())
    }

    /// Oklab (Ottosson 2020), in which distances are about those that one sees.
    fn seen(eyes: &[[f64; 3]; 3], color: RGBColor) -> [f64; 3] {
        let linear = |channel: u8| {
            let x = f64::from(channel) / 255.0;
            if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
        };
        let light = times(eyes, [color.0, color.1, color.2].map(linear)).map(|x| x.clamp(0.0, 1.0));
        let cones = [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ];
        let lab = [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ];
        times(&lab, times(&cones, light).map(f64::cbrt))
    }

    fn distance(a: RGBColor, b: RGBColor) -> f64 {
        let apart = |eyes| {
            let (a, b) = (seen(eyes, a), seen(eyes, b));
            a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
        };
        EYES.iter().map(apart).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn all_eyes_tell_the_colours_of_the_study_and_of_series_apart() {
        let study = METHODS.iter().filter(|(name, ..)| STUDY.contains(name)).map(|(_, color, _)| *color);
        for colors in [study.collect::<Vec<_>>(), SERIES.map(|look| look.color).to_vec()] {
            for (i, a) in colors.iter().enumerate() {
                for b in &colors[..i] {
                    // What the closest two of Okabe and Ito's own, their green and their purple, leave is 0.076.
                    assert!(distance(*a, *b) > 0.07, "{a:?} and {b:?}: {}", distance(*a, *b));
                }
            }
        }
        // The measure finds what it must: a grey beside the purple is one colour to a deuteranope.
        assert!(distance(RGBColor(0x99, 0x99, 0x99), PURPLE) < 0.03);
    }

    const STUDY: [&str; 9] =
        ["reinforce", "on_policy", "off_policy", "rejection", "sft", "dpo", "uniform", "entropy", "qstar"];

    #[test]
    fn the_lines_behind_are_lighter_than_any_method() {
        assert!(METHODS.iter().all(|(_, color, _)| lightness(*color) + 200 < lightness(BEHIND)));
    }

    #[test]
    fn an_unknown_method_keeps_its_look() {
        assert_eq!(method("mine"), method("mine"));
        // A change of these literals recolours figures that are already printed.
        assert_eq!(method("grpo"), MethodStyle { color: BLUE, mark: Mark::Cross });
        assert_eq!(method("mine"), MethodStyle { color: BROWN, mark: Mark::Star });
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
