//! The sheet, and answers to it, as CSV.

use anyhow::{Context, Result, bail};
use csv_core::ReadRecordResult;

use super::Item;

/// The sheet with an empty column for the answer.
pub fn sheet(id: &str, items: &[Item]) -> String {
    // Spreadsheets take a file for UTF-8 when it begins with this mark.
    let mut table = String::from("\u{feff}sheet,item,prompt,response_1,response_2,answer\r\n");
    for (place, item) in items.iter().enumerate() {
        let texts = [&item.prompt, &item.responses[0], &item.responses[1]].map(|text| quote(&guard(text)));
        table.push_str(&format!("{},{},{},\r\n", quote(id), place + 1, texts.join(",")));
    }
    table
}

/// One line of answers; what it says is not checked yet.
pub struct Line {
    pub line: u64,
    pub sheet: String,
    pub item: String,
    pub answer: String,
    pub rater: Option<String>,
}

/// Reads answers, whatever columns stand beside `sheet`, `item`, `answer` and perhaps `rater`, separated by commas,
/// semicolons or tabulators as spreadsheets of different countries write them.
pub fn answers(text: &str) -> Result<Vec<Line>> {
    let text = text.trim_start_matches('\u{feff}');
    let header = text.lines().next().context("the file is empty")?;
    let count = |separator: char| header.matches(separator).count();
    let separator = [',', ';', '\t'].into_iter().max_by_key(|&s| count(s)).filter(|&s| count(s) > 0).unwrap_or(',');
    let mut records = records(text, separator as u8)?.into_iter();
    let (_, header) = records.next().context("the file is empty")?;
    let header: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
    let column = |name: &str| header.iter().position(|known| known == name);
    let needed = |name: &str| column(name).with_context(|| format!("line 1: there is no column {name:?}"));
    let (sheet, item, answer, rater) = (needed("sheet")?, needed("item")?, needed("answer")?, column("rater"));
    let mut lines = Vec::new();
    for (line, cells) in records {
        if cells.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if cells.len() > header.len() {
            bail!("line {line}: {} cells under {} columns", cells.len(), header.len());
        }
        let cell = |column: usize| cells.get(column).map(|text| text.trim().to_owned()).unwrap_or_default();
        let rater = rater.map(cell).filter(|name| !name.is_empty()).map(unguard);
        lines.push(Line { line, sheet: cell(sheet), item: cell(item), answer: cell(answer), rater });
    }
    Ok(lines)
}

/// Every record's first line and cells.
fn records(text: &str, separator: u8) -> Result<Vec<(u64, Vec<String>)>> {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(separator).build();
    let mut rest = text.as_bytes();
    // Cells are no longer, and no more, than the text.
    let (mut bytes, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
    let mut records = Vec::new();
    loop {
        // Empty lines before the record are counted, and skipped with it.
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|&&byte| byte == b'\n').count();
        let line = reader.line() + blank as u64;
        let (mut written, mut cells) = (0, 0);
        loop {
            let (result, read, more, ended) = reader.read_record(rest, &mut bytes[written..], &mut ends[cells..]);
            rest = &rest[read..];
            written += more;
            cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(records),
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => bail!("line {line}: too long"),
            }
        }
        let starts = std::iter::once(0).chain(ends[..cells].iter().copied());
        let cell = |(start, &end): (usize, &usize)| String::from_utf8(bytes[start..end].to_vec());
        let cells: Result<Vec<String>, _> = starts.zip(&ends[..cells]).map(cell).collect();
        records.push((line, cells.with_context(|| format!("line {line}: not UTF-8"))?));
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Cells that begin with one of these are formulas to some spreadsheet.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// An apostrophe before what a spreadsheet would compute: "=HYPERLINK(...)" in a response is somebody's attack. A text that
/// begins with an apostrophe anyway gets another, so that the guard can be taken away again.
fn guard(text: &str) -> String {
    let first = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars().next();
    let guarded = first.is_some_and(|c| FORMULA.contains(&c)) || text.starts_with(['\'', '\t', '\r', '\n']);
    if guarded { format!("'{text}") } else { text.to_owned() }
}

fn unguard(text: String) -> String {
    text.strip_prefix('\'').map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_other_countries_are_read() {
        let read = |text: &str| {
            let lines = answers(text).unwrap().into_iter();
            lines.map(|line| (line.line, line.item, line.answer, line.rater)).collect::<Vec<_>>()
        };
        let found = read("\u{feff}Sheet;Item;prompt;Answer\r\n\r\ns;1;\"a \"\"b\"\";\nc\"; tie \r\n;;;\r\ns;2;x;1");
        let expected = [(3, "1", "tie"), (6, "2", "1")];
        assert_eq!(found, expected.map(|(line, item, answer)| (line, item.into(), answer.into(), None)));
        assert_eq!(read("rater\tsheet\titem\tanswer\n'=Ann\ts\t1\t2\n")[0].3.as_deref(), Some("=Ann"));
        let failed = |text: &str| format!("{:#}", answers(text).err().unwrap());
        assert!(failed("").contains("empty") && failed("sheet,item\n").contains("\"answer\""));
        assert!(failed("sheet,item,answer\ns,1,2,3\n").contains("line 2: 4 cells under 3"));
    }

    #[test]
    fn formulas_are_guarded() {
        for attack in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\n=1", "\r\n+1", "＝1", "\u{0}=1", "'quoted"] {
            assert_eq!(guard(attack), format!("'{attack}"));
        }
        for plain in ["", "2 + 2 = 4", "Ann's", "\"=1\"", "—", "1"] {
            assert_eq!(guard(plain), plain);
        }
    }
}
