//! pass@k: the chance that one of k generated programs passes.

use anyhow::{Result, ensure};

/// The unbiased estimate of pass@k from `n` samples of which `passed` pass: 1 − C(n − passed, k) / C(n, k), as a product of
/// ratios, in which nothing overflows (M. Chen et al., arXiv:2107.03374).
///
/// # Errors
/// k is 0, or there are fewer samples than k, for which no unbiased estimate exists; more samples passed than there are.
///
/// ```
/// let estimate = qstar::metrics::pass_at_k(5, 2, 3)?;
/// assert!((estimate - 0.9).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub fn pass_at_k(n: u64, passed: u64, k: u64) -> Result<f64> {
    ensure!(passed <= n, "{passed} samples of {n} passed");
    ensure!(k > 0, "pass@k needs a k of at least 1");
    ensure!(
        k <= n,
        "pass@{k} has no unbiased estimate from {n} samples: draw at least {k} for each task, or take a smaller k"
    );
    let failed = n - passed;
    if failed < k {
        return Ok(1.0);
    }
    // C(failed, k) / C(n, k), from the side with fewer factors.
    let none: f64 = if k <= passed {
        (0..k).map(|i| (failed - i) as f64 / (n - i) as f64).product()
    } else {
        (0..passed).map(|i| (n - k - i) as f64 / (n - i) as f64).product()
    };
    Ok(1.0 - none)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean over all sets of k samples of whether one passes is what is estimated.
    #[test]
    fn estimates_are_those_of_all_subsets() {
        for n in 1..=9u64 {
            for passed in 0..=n {
                for k in 1..=n {
                    let sets: Vec<u32> = (0..1u32 << n).filter(|set| set.count_ones() as u64 == k).collect();
                    let hits = sets.iter().filter(|&&set| set & ((1 << passed) - 1) != 0).count();
                    let expected = hits as f64 / sets.len() as f64;
                    let found = pass_at_k(n, passed, k).unwrap();
                    assert!((found - expected).abs() < 1e-14, "{passed} of {n} at {k}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_estimated_is_refused() {
        let error = pass_at_k(9, 3, 10).unwrap_err().to_string();
        assert!(error.contains("pass@10") && error.contains("9 samples"), "{error}");
        assert!(pass_at_k(9, 3, 0).is_err() && pass_at_k(9, 10, 1).is_err() && pass_at_k(0, 0, 1).is_err());
    }
}
