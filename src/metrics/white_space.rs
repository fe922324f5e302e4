//! White space and lower case as Python's `str` has them, on which the reference implementations stand.

use std::borrow::Cow;

/// What `str.split()` and `str.strip()` take for white space: Unicode's White_Space and the four ASCII separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// The words of `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `str.rstrip()`.
pub(super) fn without_trailing(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.lower()`.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(text.to_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Literals of Python 3.11.
    #[test]
    fn words_are_those_of_python() {
        let text = "\x1ca\u{a0}b\x1f\u{3000}c\u{200b}d\u{feff}e\u{85}f\u{2028}g\n";
        assert_eq!(words(text).collect::<Vec<_>>(), ["a", "b", "c\u{200b}d\u{feff}e", "f", "g"]);
        assert_eq!(words(" \t ").count(), 0);
        assert_eq!(without_trailing(" a \x1d\u{2009}"), " a");
        assert_eq!(lower("ΟΔΟΣ İ ß"), "οδος i\u{307} ß");
    }
}
