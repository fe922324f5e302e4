//! What runs in the sandbox, and by what it is judged.

/// A program in Python that nobody trusts, and its tests, which come from a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The whole program.
    pub code: String,
    pub check: Check,
}

/// How a program is judged.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// Python tests that call the program's functions.
    Tests {
        /// Runs first, where the tests run: definitions and imports that the tests need and the data set gives.
        setup: String,
        /// What the program has to define. In the tests these names stand for the program's own; all others are Python's or
        /// the set-up's, whatever the program defines.
        names: Vec<String>,
        /// Run one after another; an exception fails.
        tests: Vec<String>,
    },
    /// A function of the program, or a method of its class `Solution`. The cases are JSON: `inputs` holds a list of arguments
    /// for every call, `outputs` its result. They stay text, since JSON's numbers have no largest one.
    Calls { function: String, cases: String },
    /// The whole program, run once a case: standard input and what it has to print, compared as [`same_output`] does.
    Output { cases: Vec<(String, String)> },
}

/// Whether a program printed what it had to: the same lines, each with the same words; white space around words and empty
/// lines at the end do not count, and two words that are numbers with a point may differ by 1e-5 of their size (as numpy's
/// `allclose` does, which the data set's own checker uses).
pub fn same_output(printed: &str, expected: &str) -> bool {
    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.trim_end().lines()
    }
    let same_word = |a: &str, b: &str| a == b || close(a, b);
    let same_line = |a: &str, b: &str| {
        let (mut a, mut b) = (a.split_whitespace(), b.split_whitespace());
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if same_word(a, b) => {}
                _ => return false,
            }
        }
    };
    lines(printed).count() == lines(expected).count()
        && lines(printed).zip(lines(expected)).all(|(a, b)| same_line(a, b))
}

fn close(a: &str, b: &str) -> bool {
    let number = |word: &str| word.parse::<f64>().ok().filter(|number| number.is_finite());
    match (number(a), number(b)) {
        // Whole numbers are compared digit by digit.
        (Some(x), Some(y)) if a.contains('.') || b.contains('.') => (x - y).abs() <= 1e-8 + 1e-5 * y.abs(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::same_output;

    #[test]
    fn outputs_are_compared_by_words() {
        for (a, b) in
            [("1 2\n3\n", "1  2 \n3"), ("0.333333333", "0.3333333"), ("", "\n"), ("1.0", "1"), ("a\r\nb", "a\nb")]
        {
            assert!(same_output(a, b), "{a:?} {b:?}");
        }
        for (a, b) in [
            ("1 2 3", "1 2\n3"),
            ("10000001", "10000002"),
            ("0.33", "0.34"),
            ("", "1"),
            ("nan", "1.0"),
            ("1\n\n2", "1\n2"),
        ] {
            assert!(!same_output(a, b), "{a:?} {b:?}");
        }
    }
}
