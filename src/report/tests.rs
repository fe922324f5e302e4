//! The page as a reader's browser gets it.

use polars::df;
use resvg::usvg::roxmltree::{Document, ParsingOptions};

use super::*;
use crate::plot::targets_by_family;
use crate::record::RunFolder;

const ATTACK: &str = "<script>alert(1)</script>\u{0}\u{202e}\"'&amp;]]><img src=x onerror=y>";

fn figure(family: &str) -> Figure {
    let gains = df!(
        "target" => ["expert"], "family" => [family], "gain" => [0.1], "gain_low" => [0.05], "gain_high" => [0.15],
    );
    targets_by_family(&gains.unwrap()).unwrap()
}

/// The page, well-formed.
fn parsed(html: &str) -> Document<'_> {
    Document::parse_with_options(html, ParsingOptions { allow_dtd: true, ..ParsingOptions::default() }).unwrap()
}

#[test]
fn a_page_is_well_formed_whole_and_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path().join("micro-qstar-s3-abc"));
    run.create().unwrap();
    let spec = r#"{"task": "micro", "method": {"name": "qstar"}, "seed": 3, "initial": "cafe", "algorithm": "f00d"}"#;
    run.write_text("spec.json", spec).unwrap();
    run.write_text("done.json", r#"{"steps": 150, "weights": "beef", "end": "steps"}"#).unwrap();
    let samples = df!("prompt" => [ATTACK, "a\nb"], "reward" => [0.5, 0.25]).unwrap();
    let page = Page::new(ATTACK)
        .section("Results")
        .text("First.\n\nSecond <b>.")
        .table("Samples", &samples)
        .figure("Gains", &figure("code"))
        .unwrap()
        .figure("More gains", &figure(ATTACK))
        .unwrap()
        .section("Verdict")
        .html(&Html("<ul><li><b>qstar</b> ended <em>below</em> &lt;sft&gt;.</li></ul>".to_owned()))
        .unwrap()
        .section("Where this comes from")
        .table("Environment", &environment().unwrap())
        .runs("Runs", folder.path(), [("main, rules", "micro-qstar-s3-abc")])
        .unwrap();
    let path = folder.path().join("made/report.html");
    page.write(&path).unwrap();
    let html = fs::read_to_string(&path).unwrap();
    assert_eq!(html, page.to_html());

    let document = parsed(&html);
    let all = |name: &str| document.descendants().filter(|node| node.tag_name().name() == name).collect::<Vec<_>>();
    assert_eq!((all("svg").len(), all("table").len(), all("h2").len()), (2, 3, 4));
    assert!(all("script").is_empty() && all("img").is_empty() && all("link").is_empty());
    // Every entry of the contents leads somewhere.
    let ids: Vec<_> = document.descendants().filter_map(|node| node.attribute("id")).collect();
    let links: Vec<_> = all("a").iter().filter_map(|node| node.attribute("href")?.strip_prefix('#')).collect();
    assert_eq!(links, ["s1", "s1-1", "s1-2", "s1-3", "s2", "s3", "s3-1", "s3-2"]);
    assert!(links.iter().all(|link| ids.contains(link)) && ids.len() == links.len());
    // The sample is there as text.
    let cells: String = all("td").iter().flat_map(|cell| cell.descendants()).filter_map(|node| node.text()).collect();
    assert!(cells.contains("<script>alert(1)</script>\u{fffd}\u{fffd}\"'&amp;]]>"), "{cells}");
    for found in ["150", "cafe", "f00d", "beef", "candle-core", "GMT", "main, rules", "micro-qstar-s3-abc"] {
        assert!(cells.contains(found), "no {found}");
    }
    // The names of SVG are the only addresses.
    assert_eq!(html.matches("://").count(), html.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn what_runs_or_loads_is_refused() {
    let page = || Page::new("p").section("s");
    let told = |svg: &str| format!("{:#}", page().figure("f", &Figure { svg: svg.to_owned() }).unwrap_err());
    let svg = |inside: &str| format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{inside}</svg>");
    assert!(told(&svg("<script>1</script>")).contains("no element `script`"));
    assert!(told(&svg("<rect onclick=\"x\"/>")).contains("`onclick`"));
    assert!(told(&svg("<rect style=\"fill:url(http://a)\"/>")).contains("`style`"));
    assert!(told(&svg("<g>")).contains("not a well-formed SVG") && told("<svg/>").contains("not an SVG"));
    assert!(page().figure("f", &Figure { svg: svg("<rect/>") }).is_ok());
    let html = |text: &str| page().html(&Html(text.to_owned())).map_err(|error| format!("{error:#}"));
    assert!(html("<p>x<br></p>").unwrap_err().contains("not well-formed"));
    assert!(html("<iframe></iframe>").unwrap_err().contains("no element `iframe`"));
    assert!(html("</div><script>1</script><div>").is_err());
    assert!(html("<p><a href=\"x\">y</a></p>").is_err());
    assert!(html("plain &amp; simple").is_ok());
}

#[test]
fn runs_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str| format!("{:#}", Page::new("p").runs("r", folder.path(), [("main", name)]).unwrap_err());
    assert!(error("none").contains("none/spec.json: cannot be read"));
    let run = RunFolder::new(folder.path().join("half"));
    run.create().unwrap();
    run.write_text("spec.json", r#"{"task": "micro", "seed": 1}"#).unwrap();
    assert!(error("half").contains("half/spec.json: it names no method"));
}

#[test]
fn runs_are_all_listed_however_many() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path().join("one"));
    run.create().unwrap();
    run.write_text("spec.json", r#"{"task": "micro", "method": {"name": "qstar"}, "seed": 3}"#).unwrap();
    let page = Page::new("p").runs("r", folder.path(), vec![("main", "one"); ROWS + 2]).unwrap().to_html();
    assert_eq!(page.matches(">one</td>").count(), ROWS + 2);
    // Of other tables a part is shown.
    let frame = df!("i" => vec![1i64; ROWS + 2]).unwrap();
    assert!(Page::new("p").table("t", &frame).to_html().contains("2 more rows"));
}

#[test]
fn what_stands_above_all_sections_is_in_the_contents() {
    let page = Page::new("p").table("t", &df!("a" => [1i64]).unwrap()).section("s");
    let html = page.to_html();
    parsed(&html);
    assert!(html.contains("<a href=\"#s1-1\">t</a>") && html.contains("<h2 id=\"s2\">s</h2>"), "{html}");
    parsed(&Page::new("empty").to_html());
}
