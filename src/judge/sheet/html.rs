//! The sheet as one page.

use std::fmt::Write;

use super::Item;
use crate::display::escape;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// `id` names the sheet in answers and in the browser's memory.
pub fn page(title: &str, id: &str, items: &[Item]) -> String {
    let title = text(title);
    let count = items.len();
    let mut page = format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'nonce-{id}'; script-src 'nonce-{id}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style nonce="{id}">
{STYLE}</style>
</head>
<body data-sheet="{id}">
<header>
<h1 dir="auto">{title}</h1>
<p>Read the prompt and both responses, then say which response is better. Their order means nothing. Keys: <kbd>1</kbd>, <kbd>2</kbd>
for a response, <kbd>0</kbd> for no difference, <kbd>←</kbd> and <kbd>→</kbd> to move. Answers stay in this browser until you download them.</p>
<noscript><p class="warning">This page needs JavaScript. Fill in the table sheet.csv instead.</p></noscript>
<div class="bar">
<label>Your name <input id="rater" autocomplete="off" maxlength="80" spellcheck="false"></label>
<span id="done" role="status">0 of {count} answered</span>
<progress id="progress" max="{count}" value="0" aria-label="answered"></progress>
<button type="button" id="csv">Download CSV</button>
<button type="button" id="json">Download JSON</button>
</div>
<p id="message" role="alert"></p>
</header>
<main>
"#
    );
    for (place, item) in items.iter().enumerate() {
        let number = place + 1;
        let [first, second] = &item.responses;
        // Writing into a text cannot fail.
        let _ = write!(
            page,
            r#"<section class="item" data-item="{number}" aria-label="pair {number} of {count}" hidden>
<h2>Pair {number} of {count}</h2>
<h3>Prompt</h3>
<div class="text" dir="auto" tabindex="0">{prompt}</div>
<div class="sides">
<div class="side"><h3>Response 1</h3><div class="text" dir="auto" tabindex="0">{first}</div></div>
<div class="side"><h3>Response 2</h3><div class="text" dir="auto" tabindex="0">{second}</div></div>
</div>
</section>
"#,
            prompt = text(&item.prompt),
            first = text(first),
            second = text(second),
        );
    }
    let _ = write!(
        page,
        r#"</main>
<footer>
<button type="button" id="back">← Back</button>
<div class="choices" role="group" aria-label="your answer">
<button type="button" class="choice" data-answer="1" aria-pressed="false"><kbd>1</kbd> Response 1</button>
<button type="button" class="choice" data-answer="tie" aria-pressed="false"><kbd>0</kbd> No difference</button>
<button type="button" class="choice" data-answer="2" aria-pressed="false"><kbd>2</kbd> Response 2</button>
</div>
<button type="button" id="next">Next →</button>
</footer>
<script nonce="{id}">
{SCRIPT}</script>
</body>
</html>
"#
    );
    page
}

/// Text for an element or an attribute. HTML cannot hold most control characters in any form: their pictures stand for them.
fn text(text: &str) -> String {
    let visible: String = text
        .replace("\r\n", "\n")
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            '\u{7f}'..='\u{9f}' => '\u{fffd}',
            c => c,
        })
        .collect();
    escape(&visible)
}
