//! Several tests at once.

use anyhow::{Result, ensure};

/// Holm's adjusted p-values, in the order of the given ones: rejecting where they are at most α keeps the probability of
/// any false rejection among all tests at most α, however they depend on each other. Holm 1979, Scand. J. Stat. 6, 65-70.
///
/// # Errors
/// A p that is not within 0 to 1.
///
/// ```
/// let adjusted = qstar::metrics::holm(&[0.01, 0.04, 0.03])?;
/// assert_eq!(adjusted, [0.03, 0.06, 0.06]);
/// # anyhow::Ok(())
/// ```
pub fn holm(p: &[f64]) -> Result<Vec<f64>> {
    for (test, p) in p.iter().enumerate() {
        ensure!((0.0..=1.0).contains(p), "the p-value of test {test} is {p}, which is not within 0 to 1");
    }
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0f64);
    for (rank, test) in order.into_iter().enumerate() {
        largest = largest.max(((p.len() - rank) as f64 * p[test]).min(1.0));
        adjusted[test] = largest;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_one_ties_and_nonsense() {
        assert_eq!(holm(&[]).unwrap(), [0.0; 0]);
        assert_eq!(holm(&[0.2]).unwrap(), [0.2]);
        assert_eq!(holm(&[0.25, 0.25, 0.25]).unwrap(), [0.75; 3]);
        assert_eq!(holm(&[1.0, 0.5, 0.0]).unwrap(), [1.0, 1.0, 0.0]);
        for p in [f64::NAN, -0.1, 1.1] {
            assert!(holm(&[0.5, p]).unwrap_err().to_string().contains("test 1"));
        }
    }

    proptest! {
        #[test]
        fn order_is_kept_and_bonferroni_is_the_bound(p in prop::collection::vec(0.0..1.0f64, 1..20)) {
            let adjusted = holm(&p).unwrap();
            for (i, x) in p.iter().enumerate() {
                prop_assert!(*x <= adjusted[i] && adjusted[i] <= (p.len() as f64 * x).min(1.0));
                for (j, y) in p.iter().enumerate() {
                    prop_assert!(x > y || adjusted[i] <= adjusted[j]);
                }
            }
        }
    }
}
