//! Sheets for people, and their answers.

use std::fs;
use std::path::{Path, PathBuf};

use qstar::judge::{
    Judgment, Pair, Ratings, Rule, Sheet, Verdict, agreement_with_people, agreements_of_raters, judge_pairs,
};
use qstar::progress::Progress;

use crate::server::pairs;

const ATTACKS: [&str; 9] = [
    "<script>document.title = 'broken'</script>",
    "</div></section></main></textarea><img src=x onerror=\"document.title='broken'\">",
    "' \" ` &lt; &amp; ]]> <!-- ",
    "\u{202e}right to left\u{202c} and \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "=HYPERLINK(\"http://example.org\",\"click\")",
    "\t@SUM(A1:A9)",
    "nul \u{0} bell \u{7} escape \u{1b}[31m \u{85} cr \r alone\r\nand lines\n\n\nmore",
    "${x} {{y}} %s \\u003cscript\\u003e",
    "",
];

fn hostile() -> Vec<Pair> {
    let pair = |(i, text): (usize, &&str)| Pair {
        id: format!("model-x-{i}"),
        prompt: format!("{text} prompt {i}"),
        a: format!("{text}a{i}"),
        b: text.to_string(),
        reference: None,
    };
    let mut pairs: Vec<Pair> = ATTACKS.iter().enumerate().map(pair).collect();
    pairs.push(Pair {
        a: "wide".repeat(20_000),
        b: "many words ".repeat(5_000),
        id: "model-x-long".into(),
        ..pairs[0].clone()
    });
    pairs
}

/// Fills the table in as a rater who thinks `better` of a pair would, and gives the ids in the sheet's order.
fn fill(folder: &Path, sheet: &Sheet, rater: &str, better: impl Fn(&str) -> &'static str) -> PathBuf {
    let key: serde_json::Value = serde_json::from_str(&sheet.key().unwrap()).unwrap();
    let mut table = String::from("sheet,item,answer\n");
    for item in key["items"].as_array().unwrap() {
        let swapped = item["swapped"].as_bool().unwrap();
        let answer = match (better(item["id"].as_str().unwrap()), swapped) {
            ("a", false) | ("b", true) => "1",
            ("a", true) | ("b", false) => "2",
            (other, _) => other,
        };
        table.push_str(&format!("{},{},{answer}\n", key["sheet"].as_str().unwrap(), item["item"]));
    }
    let path = folder.join(format!("{rater}.csv"));
    fs::write(&path, table).unwrap();
    path
}

#[test]
fn a_page_shows_texts_and_runs_none_of_them() {
    let sheet = Sheet::new("Title </title><script>x</script>", &hostile(), 3).unwrap();
    let page = sheet.html();
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert_eq!(page.matches("<section ").count(), 10);
    assert_eq!(page.matches("</section>").count(), 10);
    assert_eq!(page.matches("</div>").count(), 2 + 10 * 6);
    for broken in
        ["<img", "</textarea", "<!--", "\u{0}", "\u{7}", "\u{1b}", "\u{85}", "\r", "http://", "https://", "src="]
    {
        assert_eq!(page.contains(broken), ["http://", "src="].contains(&broken), "{broken:?}");
    }
    assert!(page.contains("&lt;script&gt;document.title = &#39;broken&#39;&lt;/script&gt;"));
    assert!(page.contains("\u{202e}right to left"), "what stands there is shown, isolated");
    // Blind: neither ids nor the seed nor sides are in what raters get.
    assert!(!page.contains("model-x") && !page.contains("swapped") && !sheet.csv().contains("model-x"));
}

#[test]
fn a_table_holds_texts_and_no_formulas() {
    let table = Sheet::new("t", &hostile(), 3).unwrap().csv();
    assert!(table.starts_with("\u{feff}sheet,item,prompt,response_1,response_2,answer\r\n"));
    assert!(table.contains("\"'=HYPERLINK(\"\"http://example.org\"\",\"\"click\"\")\""));
    assert!(table.contains("\"'\t@SUM(A1:A9)\""));
    // No cell begins with a formula, quoted or not.
    for start in ["=", "+", "-", "@", "\t"] {
        assert!(!table.contains(&format!(",\"{start}")) && !table.contains(&format!(",{start}")), "{start:?}");
        assert!(!table.contains(&format!("\n\"{start}")), "{start:?}");
    }
    assert!(!table.contains(",\"\r") && !table.contains(",\"\n"));
}

#[test]
fn sides_and_order_are_the_seeds() {
    let pairs = pairs(200);
    let keys = [1, 1, 2].map(|seed| Sheet::new("t", &pairs, seed).unwrap().key().unwrap());
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    let key: serde_json::Value = serde_json::from_str(&keys[0]).unwrap();
    let swapped = key["items"].as_array().unwrap().iter().filter(|item| item["swapped"] == true).count();
    assert!((70..130).contains(&swapped), "{swapped} of 200");
    assert_ne!(key["items"][0]["id"], "p0");
    assert!(Sheet::new("t", &[], 0).is_err());
    let equal = Pair { b: pairs[0].a.clone(), ..pairs[0].clone() };
    assert_eq!(Sheet::new("t", &[equal.clone(), pairs[1].clone()], 0).unwrap().len(), 1);
    assert!(Sheet::new("t", &[equal], 0).is_err());
    assert!(Sheet::new("t", &[pairs[0].clone(), pairs[0].clone()], 0).unwrap_err().to_string().contains("p0"));
}

#[test]
fn answers_come_back_in_the_pairs_terms() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sheet");
    let pairs = pairs(30);
    let sheet = Sheet::new("t", &pairs, 9).unwrap();
    sheet.write(&out).unwrap();
    assert!(sheet.write(&out).unwrap_err().to_string().contains("is there already"));
    let better = |id: &str| match id[1..].parse::<usize>().unwrap() % 3 {
        0 => "a",
        1 => "b",
        _ => "tie",
    };
    let ann = fill(folder.path(), &sheet, "ann", better);
    let bob = fill(folder.path(), &sheet, "bob", |id| if id == "p0" { "b" } else { better(id) });
    let eve = fill(folder.path(), &sheet, "eve", |id| if id == "p0" { "tie" } else { "a" });
    let key = out.join("key.json");
    let ratings = Ratings::read(&key, &[ann, bob, eve], false).unwrap();
    assert_eq!(ratings.raters, ["ann", "bob", "eve"]);
    let majority = ratings.majority();
    for (pair, id) in ratings.ids.iter().enumerate() {
        let expected = match better(id) {
            "a" => Verdict::A,
            "b" => Verdict::B,
            _ => Verdict::Tie,
        };
        assert_eq!(ratings.verdicts[0][pair], Some(expected));
        // Of p0 everyone thinks something else.
        assert_eq!(majority[pair], Some(if id == "p0" { Verdict::Tie } else { expected }));
    }
    let (rows, fleiss) = agreements_of_raters(&ratings).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].pairs, rows[0].agreement), (30, 29.0 / 30.0));
    // Cohen's by hand: ann has 10, 10, 10; bob 9, 11, 10.
    let expected = 10.0 * (9.0 + 11.0 + 10.0) / 900.0;
    assert!((rows[0].kappa.unwrap() - (29.0 / 30.0 - expected) / (1.0 - expected)).abs() < 1e-12);
    assert!(fleiss.unwrap() > 0.0 && fleiss.unwrap() < rows[0].kappa.unwrap());
    let totals = ratings.win_rates().unwrap();
    assert_eq!((totals[0].wins, totals[0].losses, totals[0].ties), (10, 10, 10));
    assert_eq!((totals[3].judge.as_str(), totals[3].wins, totals[3].ties), ("majority of people", 9, 11));

    // Judges beside people: one that says what the majority says, its opposite, one that never varies.
    let judge = |verdict: &dyn Fn(Verdict) -> Verdict| -> Vec<Judgment> {
        let both = ratings.ids.iter().zip(&majority).map(|(id, majority)| {
            let verdict = verdict(majority.unwrap());
            Judgment { id: id.clone(), ab: verdict.into(), ba: verdict.into() }
        });
        both.collect()
    };
    let same = agreement_with_people("same", &judge(&|v| v), &ratings).unwrap();
    assert_eq!((same.agreement, same.kappa), (1.0, Some(1.0)));
    assert!(same.correlation.unwrap() > 0.8);
    let opposite = agreement_with_people("opposite", &judge(&Verdict::swapped), &ratings).unwrap();
    // Both say tie of the same 11; the majority says A of 9 and B of 10.
    let chance = (9.0 * 10.0 * 2.0 + 11.0 * 11.0) / 900.0;
    assert!((opposite.kappa.unwrap() - (11.0 / 30.0 - chance) / (1.0 - chance)).abs() < 1e-12);
    assert!((opposite.correlation.unwrap() + same.correlation.unwrap()).abs() < 1e-12);
    let constant = agreement_with_people("constant", &judge(&|_| Verdict::A), &ratings).unwrap();
    assert_eq!((constant.kappa, constant.correlation), (Some(0.0), None));
    let none = agreement_with_people("none", &judge(&|_| Verdict::Unreadable), &ratings);
    assert!(none.unwrap_err().to_string().contains("no pair in common"));
    let rule = judge_pairs(&Rule::longer(), &pairs, &Progress::new("judging", 0)).unwrap();
    assert_eq!(agreement_with_people("longer", &rule[..7], &ratings).unwrap().pairs, 7);
}

#[test]
fn wrong_answers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sheet");
    let sheet = Sheet::new("t", &pairs(3), 9).unwrap();
    sheet.write(&out).unwrap();
    let key = out.join("key.json");
    let id =
        serde_json::from_str::<serde_json::Value>(&sheet.key().unwrap()).unwrap()["sheet"].as_str().unwrap().to_owned();
    let read = |name: &str, text: &str, partial: bool| {
        let path = folder.path().join(name);
        fs::write(&path, text.replace("ID", &id)).unwrap();
        Ratings::read(&key, &[path], partial).map_err(|error| format!("{error:#}"))
    };
    let head = "sheet,item,answer,rater\n";
    for (rows, said) in [
        ("ID,1,1,ann\nID,2,2,ann\nID,9,1,ann\n", "line 4: item \"9\" is not on the sheet, which has the items 1 to 3"),
        ("ID,0,1,ann\n", "item \"0\" is not on the sheet"),
        ("ID,one,1,ann\n", "item \"one\""),
        ("ID,1,1,ann\nID,2,2,ann\nID,1,2,ann\n", "line 4: item 1 is answered already (line 2)"),
        ("ID,1,left,ann\n", "line 2: item 1 has the answer \"left\"; it is 1, 2 or tie"),
        ("ID,1,1,ann\nID,3,,ann\n", "rater \"ann\": 2 of 3 items have no answer: 2, 3; --partial"),
        ("ffff,1,1,ann\n", "line 2: answers to the sheet \"ffff\""),
        ("", "there are no answers"),
    ] {
        let error = read("x.csv", &format!("{head}{rows}"), false).unwrap_err();
        assert!(error.contains(said) && error.contains("x.csv"), "{error}");
    }
    let ratings = read("x.csv", &format!("{head}ID,1,1,ann\nID,2,TIE,ann\nID,1,2,\"'=bob\"\n"), true).unwrap();
    assert_eq!((ratings.raters.len(), ratings.raters[1].as_str()), (2, "=bob"));
    assert_eq!(ratings.verdicts[0].iter().flatten().count(), 2);

    let good = "{\"sheet\": \"ID\", \"rater\": \"ann\", \"answers\": {\"1\": \"1\", \"2\": \"2\", \"3\": \"tie\"}}";
    assert_eq!(read("x.json", good, false).unwrap().raters, ["ann"]);
    for (from, to, said) in [
        ("\"3\": \"tie\"", "\"1\": \"tie\"", "item 1 is answered already"),
        ("ann", " ", "`rater` is empty"),
        ("ID", "0", "answers to the sheet \"0\""),
        ("\"rater\"", "\"name\"", "not answers of a sheet"),
    ] {
        let error = read("x.json", &good.replace(from, to), false).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let path = folder.path().join("x.json");
    fs::write(&path, good.replace("ID", &id)).unwrap();
    let twice = Ratings::read(&key, &[&path, &path], false);
    assert!(format!("{:#}", twice.unwrap_err()).contains("rater \"ann\" has answered in another file"));
    fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    assert!(format!("{:#}", Ratings::read(&key, &[&path], false).unwrap_err()).contains("UTF-8"));
    assert!(format!("{:#}", Ratings::read(&path, &[&path], false).unwrap_err()).contains("x.json"));
}
