//! How much of a true answer a response holds, as F1 scores in [0, 1].

/// F1 of the longest common subsequence, as ROUGE-L with equal weights
/// (Lin 2004, <https://aclanthology.org/W04-1013>). Two empty sequences score 0.
pub(super) fn lcs_f1(response: &[&str], truth: &[&str]) -> f64 {
    // row[j]: the length for the response read so far and truth[..j].
    let mut row = vec![0; truth.len() + 1];
    for word in response {
        let mut diagonal = 0;
        for j in 0..truth.len() {
            let above = row[j + 1];
            row[j + 1] = if *word == truth[j] { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    f1(row[truth.len()], response.len(), truth.len())
}

/// F1 of the words, whatever their order; a repeated word counts as often as both hold it.
pub(super) fn word_f1(response: &[&str], truth: &[&str]) -> f64 {
    f1(common(response, truth), response.len(), truth.len())
}

/// F1 of the pairs of neighbours, the beginning and the end included: sensitive to order.
pub(super) fn bigram_f1(response: &[&str], truth: &[&str]) -> f64 {
    let (response, truth) = (bigrams(response), bigrams(truth));
    f1(common(&response, &truth), response.len(), truth.len())
}

fn bigrams<'a>(words: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    // The empty word, which no lexicon holds, stands before the first and after the last.
    let before = [""].into_iter().chain(words.iter().copied());
    let after = words.iter().copied().chain([""]);
    before.zip(after).collect()
}

/// The size of the common part of two multisets.
fn common<T: PartialEq>(response: &[T], truth: &[T]) -> usize {
    let mut matched = vec![false; truth.len()];
    for item in response {
        if let Some(place) = (0..truth.len()).find(|&j| !matched[j] && truth[j] == *item) {
            matched[place] = true;
        }
    }
    matched.iter().filter(|&&hit| hit).count()
}

fn f1(common: usize, response: usize, truth: usize) -> f64 {
    if common == 0 { 0.0 } else { 2.0 * common as f64 / (response + truth) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn equal_sequences_score_one() {
        for score in [lcs_f1, word_f1, bigram_f1] {
            assert_eq!(score(&TRUTH, &TRUTH), 1.0);
        }
    }

    #[test]
    fn nothing_in_common_scores_zero() {
        for score in [lcs_f1, word_f1, bigram_f1] {
            assert_eq!(score(&[], &TRUTH), 0.0);
            assert_eq!(score(&["e"], &TRUTH), 0.0);
        }
    }

    #[test]
    fn literals() {
        assert_eq!(lcs_f1(&["a", "c", "b", "d"], &TRUTH), 0.75);
        assert_eq!(lcs_f1(&["a", "a", "b", "c"], &TRUTH), 0.75);
        assert_eq!(word_f1(&["d", "a", "a", "e"], &TRUTH), 0.5);
        // Of "^a ac cb bd d$" the truth holds "^a" and "d$".
        assert_eq!(bigram_f1(&["a", "c", "b", "d"], &TRUTH), 0.4);
    }
}
