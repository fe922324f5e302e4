//! What a report takes over as it is: shapes and texts of a figure, paragraphs and lists of a verdict.

use anyhow::{Context, Result, ensure};
use resvg::usvg::roxmltree::{Document, Node};

const SHAPES: [&str; 11] =
    ["svg", "g", "rect", "line", "polyline", "polygon", "path", "circle", "ellipse", "text", "tspan"];
const WORDS: [&str; 25] = [
    "div", "p", "span", "br", "b", "strong", "em", "i", "code", "pre", "sub", "sup", "ul", "ol", "li", "h3", "h4",
    "h5", "table", "thead", "tbody", "tr", "th", "td", "small",
];

/// A figure's SVG without what stands before its root.
///
/// # Errors
/// An SVG that is not one, or that holds other elements than shapes and texts, or what would be loaded or run.
pub(super) fn svg(text: &str) -> Result<&str> {
    let document = Document::parse(text).context("not a well-formed SVG")?;
    ensure!(document.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")), "not an SVG");
    check(document.root_element(), &SHAPES)?;
    Ok(&text[document.root_element().range()])
}

/// Makes sure that a piece of HTML holds words alone.
///
/// # Errors
/// HTML that is not well-formed XML, or that holds other elements, or what would be loaded or run.
pub(super) fn html(text: &str) -> Result<()> {
    let whole = format!("<div>{text}</div>");
    let document = Document::parse(&whole).context("not well-formed: elements end as in XML")?;
    check(document.root_element(), &WORDS)
}

fn check(root: Node, allowed: &[&str]) -> Result<()> {
    for node in root.descendants() {
        ensure!(!node.is_pi(), "a report takes no processing instruction");
        if !node.is_element() {
            continue;
        }
        let name = node.tag_name().name();
        ensure!(allowed.contains(&name), "a report takes no element `{name}`");
        for attribute in node.attributes() {
            let (of, value) = (attribute.name().to_ascii_lowercase(), attribute.value().to_ascii_lowercase());
            let loads = value.contains("url(") || value.contains('\\') || value.contains("javascript:");
            ensure!(
                !of.starts_with("on") && !["href", "src"].contains(&&*of) && !loads,
                "a report takes no attribute `{of}` that loads or runs something"
            );
        }
    }
    Ok(())
}
