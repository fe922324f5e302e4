//! A drawn figure: an SVG, and the PNG made from it.

use anyhow::{Context, Result};
use resvg::{tiny_skia, usvg};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::fonts;
use crate::display::{Show, emit, in_notebook};

/// Pixels of a PNG for one CSS pixel: 288 dots per inch at the figure's nominal size.
const PNG_SCALE: f32 = 3.0;

/// A figure as SVG text. Texts from the data are escaped in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub svg: String,
}

impl Figure {
    /// Writes the figure as SVG and PNG: `figures/reward` becomes `figures/reward.svg` and `figures/reward.png`.
    /// Missing folders are made, files of these names are replaced.
    ///
    /// # Errors
    /// A file that cannot be written; an `svg` that is not one.
    ///
    /// ```no_run
    /// # fn of(figure: qstar::plot::Figure) -> anyhow::Result<()> {
    /// figure.save("figures/reward".as_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn save(&self, path_without_extension: &Path) -> Result<()> {
        let png = self.png()?;
        if let Some(folder) = path_without_extension.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        for (extension, bytes) in [("svg", self.svg.as_bytes()), ("png", &png)] {
            let path = with_suffix(path_without_extension, extension);
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// The figure as the bytes of a PNG file, three pixels for each of the SVG's, on white. The font is part of the
    /// library: no font of the system is used.
    ///
    /// # Errors
    /// An `svg` that is not one, or is too large to draw.
    pub fn png(&self) -> Result<Vec<u8>> {
        render(&self.svg, &fonts::options())
    }
}

impl Show for Figure {
    fn show(&self) {
        if in_notebook() {
            emit("text/html", &self.svg);
        } else {
            println!("a figure: show it in a notebook, or save it");
        }
    }
}

fn render(svg: &str, options: &usvg::Options) -> Result<Vec<u8>> {
    let tree = usvg::Tree::from_str(svg, options).context("reading the figure's SVG")?;
    let size = tree.size().to_int_size().scale_by(PNG_SCALE).context("a figure without an area")?;
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).context("the figure is too large for a PNG")?;
    pixels.fill(tiny_skia::Color::WHITE);
    let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
    resvg::render(&tree, scale, &mut pixels.as_mut());
    pixels.encode_png().context("encoding the figure's PNG")
}

/// Adds to the whole name: in `alpha_0.5` the part after the point is no extension.
fn with_suffix(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::canvas;
    use super::*;
    use plotters::style::BLACK;

    fn figure(text: &str) -> Figure {
        canvas::draw(200.0, 50.0, |area| canvas::text(area, text, (100.0, 25.0), &canvas::Text::label(BLACK))).unwrap()
    }

    fn ink(png: &[u8]) -> usize {
        let pixels = tiny_skia::Pixmap::decode_png(png).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (600, 150));
        pixels.pixels().iter().filter(|p| p.red() < 128).count()
    }

    #[test]
    fn a_png_has_text_without_fonts_of_the_system() {
        let figure = figure("ESSₚ of π");
        let written = ink(&figure.png().unwrap());
        let bare = ink(&render(&figure.svg, &usvg::Options::default()).unwrap());
        assert_eq!(bare, 0, "without fonts there is nothing but white");
        assert!(written > 500, "{written}");
    }

    #[test]
    fn texts_are_escaped() {
        let figure = figure("<script>&\"'");
        assert!(figure.svg.contains("&lt;script&gt;&amp;"), "{}", figure.svg);
        assert!(!figure.svg.contains("<script"));
        assert!(ink(&figure.png().unwrap()) > 500);
    }

    #[test]
    fn saving_writes_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/alpha_0.5");
        let figure = figure("saved");
        figure.save(&path).unwrap();
        let svg = fs::read_to_string(folder.path().join("made/alpha_0.5.svg")).unwrap();
        assert_eq!(svg, figure.svg);
        let png = fs::read(folder.path().join("made/alpha_0.5.png")).unwrap();
        assert_eq!(png, figure.png().unwrap());
    }

    #[test]
    fn what_is_no_svg_is_an_error() {
        let svg = "not an SVG".to_owned();
        assert!(Figure { svg }.png().is_err());
    }
}
