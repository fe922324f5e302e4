//! How different the texts of one system are from each other.

use anyhow::{Result, ensure};

use super::bleu::{Bleu, statistics};
use super::ngrams::{NgramTree, Vocabulary};
use super::white_space::words;

/// distinct-n for n from 1 to `orders`: the number of different n-grams in all texts over the number of n-grams (J. Li et
/// al., arXiv:1510.03055). A text is a list of tokens, of a language model or of [`tokenize`]. It falls with the amount of text: compare
/// equal amounts.
///
/// # Errors
/// No text is as long as `orders`, or `orders` is 0.
///
/// ```
/// let distinct = qstar::metrics::distinct_n(&[vec![1, 2, 1, 2], vec![1, 2]], 2)?;
/// assert_eq!(distinct, [2.0 / 6.0, 2.0 / 4.0]);
/// # anyhow::Ok(())
/// ```
pub fn distinct_n(texts: &[Vec<u32>], orders: usize) -> Result<Vec<f64>> {
    ensure!(orders > 0, "distinct-n needs an n of at least 1");
    ensure!(texts.iter().any(|text| text.len() >= orders), "distinct-{orders} of texts that are all shorter");
    let mut tree = NgramTree::new(orders);
    texts.iter().for_each(|text| tree.add(text));
    let total = |n: usize| texts.iter().map(|text| (text.len() + 1).saturating_sub(n)).sum::<usize>();
    Ok(tree.distinct().iter().zip(1..).map(|(&distinct, n)| distinct as f64 / total(n) as f64).collect())
}

/// The mean over the texts of the sentence BLEU of each with all others as references, 0 to 100: high where texts repeat each
/// other (Y. Zhu et al., arXiv:1802.01886, with the smoothing of `bleu`). Each equals sacrebleu's sentence score. Takes time in
/// proportion to the amount of text.
///
/// # Errors
/// Fewer than two texts.
///
/// ```
/// # use qstar::metrics::{Bleu, self_bleu};
/// let bleu = Bleu { effective_order: true, ..Bleu::default() };
/// assert!(self_bleu(&[vec![1, 2, 3, 4], vec![5, 6, 7]], &bleu)? == 0.0);
/// assert!(self_bleu(&[vec![1, 2, 3, 4], vec![1, 2, 3, 4]], &bleu)? > 99.999);
/// # anyhow::Ok(())
/// ```
pub fn self_bleu(texts: &[Vec<u32>], bleu: &Bleu) -> Result<f64> {
    ensure!(texts.len() > 1, "self-BLEU compares each text with the others: there are {}", texts.len());
    ensure!(bleu.orders > 0, "BLEU needs n-grams of at least one word: orders is 0");
    let mut tree = NgramTree::new(bleu.orders);
    texts.iter().for_each(|text| tree.add(text));
    let lengths = Lengths::of(texts);
    let mut sum = 0.0;
    for (index, text) in texts.iter().enumerate() {
        let statistics = statistics(&mut tree, text, Some(index), lengths.near(text.len()));
        sum += bleu.score(&statistics).score;
    }
    Ok(sum / texts.len() as f64)
}

/// Texts as the tokens that `bleu` compares.
pub fn tokenize(texts: &[String], bleu: &Bleu) -> Vec<Vec<u32>> {
    let mut vocabulary: Vocabulary<String> = Vocabulary::new();
    let mut numbers = |text: &String| {
        words(&bleu.tokenize(text)).map(|word| vocabulary.number(word.to_owned())).collect::<Vec<u32>>()
    };
    texts.iter().map(&mut numbers).collect()
}

/// The lengths of texts, sorted.
struct Lengths(Vec<usize>);

impl Lengths {
    fn of(texts: &[Vec<u32>]) -> Self {
        let mut lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        Self(lengths)
    }

    /// Of all texts but one of length `own` those lengths that may be the closest to it: its neighbours.
    fn near(&self, own: usize) -> impl Iterator<Item = usize> {
        // The first of this length: it stands for the text itself.
        let at = self.0.partition_point(|&length| length < own);
        let below = at.checked_sub(1).map(|below| self.0[below]);
        below.into_iter().chain(self.0.get(at + 1).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Document;
    use proptest::prelude::*;

    proptest! {
        /// Comparing each text with the others one by one gives the same.
        #[test]
        fn self_bleu_is_the_mean_of_sentence_scores(
            texts in prop::collection::vec(prop::collection::vec(0u32..5, 0..9), 2..7),
        ) {
            let bleu = Bleu { effective_order: true, ..Bleu::default() };
            let spelled: Vec<String> = texts.iter().map(|t| t.iter().map(|n| format!("w{n} ")).collect()).collect();
            let mut expected = 0.0;
            for (index, prediction) in spelled.iter().enumerate() {
                let mut references = spelled.clone();
                references.remove(index);
                let document = Document { id: String::new(), prediction: prediction.clone(), references };
                expected += bleu.score(&bleu.statistics(&document).unwrap()).score / texts.len() as f64;
            }
            prop_assert!((self_bleu(&texts, &bleu).unwrap() - expected).abs() < 1e-9);
            prop_assert!((self_bleu(&tokenize(&spelled, &bleu), &bleu).unwrap() - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn too_little_is_refused() {
        assert!(
            distinct_n(&[vec![1]], 2).is_err() && distinct_n(&[], 1).is_err() && distinct_n(&[vec![1]], 0).is_err()
        );
        assert!(self_bleu(&[vec![1]], &Bleu::default()).is_err());
    }
}
