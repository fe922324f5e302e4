//! Do two columns of numbers move together?

use anyhow::{Result, ensure};

use super::Interval;
use super::distribution::{Student, normal_quantile};
use super::moments::{check_confidence, check_finite, mean};

/// What [`pearson`] and [`spearman`] find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// The coefficient, from −1 to 1, in `mean`, and its interval; from three pairs the whole of [−1, 1].
    pub interval: Interval,
    /// Two-sided probability of a coefficient at least this far from 0 where the columns are independent (Student's t with
    /// n − 2 degrees of freedom; exact for Pearson's of normal draws).
    pub p: f64,
}

/// Pearson's coefficient, with Fisher's interval (atanh r is about normal with variance 1/(n − 3)).
///
/// # Errors
/// Columns of different lengths or of fewer than three values, a value that is not finite, a column without spread, a
/// confidence that is not strictly between 0 and 1.
///
/// ```
/// let judge = qstar::metrics::pearson(&[1.0, 2.0, 3.0, 4.0], &[1.1, 1.9, 3.2, 3.7], 0.95)?;
/// assert!(judge.interval.mean > 0.98 && judge.p < 0.05);
/// # anyhow::Ok(())
/// ```
pub fn pearson(x: &[f64], y: &[f64], confidence: f64) -> Result<Correlation> {
    check(x, y, confidence)?;
    let r = coefficient(x, y);
    Ok(correlation(r, x.len(), confidence, 1.0))
}

/// Spearman's coefficient: Pearson's of the ranks, equal values sharing the mean of theirs; with the interval of Bonett and
/// Wright (2000, Psychometrika 65, 23-28: variance (1 + r²/2)/(n − 3)).
///
/// # Errors
/// As [`pearson`].
pub fn spearman(x: &[f64], y: &[f64], confidence: f64) -> Result<Correlation> {
    check(x, y, confidence)?;
    let r = coefficient(&ranks(x), &ranks(y));
    Ok(correlation(r, x.len(), confidence, 1.0 + 0.5 * r * r))
}

/// The places of values in ascending order, from 1; equal values share the mean of theirs.
pub fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut ranks = vec![0.0; x.len()];
    let mut first = 0;
    for equal in order.chunk_by(|a, b| x[*a] == x[*b]) {
        let rank = first as f64 + 0.5 * (equal.len() as f64 + 1.0);
        equal.iter().for_each(|i| ranks[*i] = rank);
        first += equal.len();
    }
    ranks
}

/// Of columns with spread.
fn coefficient(x: &[f64], y: &[f64]) -> f64 {
    let centred = |x: &[f64]| {
        let centre = mean(x);
        let x: Vec<f64> = x.iter().map(|x| x - centre).collect();
        let largest = x.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        // A coefficient has no scale; this one's squares neither vanish nor overflow.
        x.iter().map(|x| x / largest).collect::<Vec<f64>>()
    };
    let (x, y) = (centred(x), centred(y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (dot(&x, &y) / (dot(&x, &x).sqrt() * dot(&y, &y).sqrt())).clamp(-1.0, 1.0)
}

fn correlation(r: f64, n: usize, confidence: f64, variance: f64) -> Correlation {
    let df = (n - 2) as f64;
    let p = Student { df }.beyond(r.abs() * (df / ((1.0 - r) * (1.0 + r))).sqrt());
    let half = -normal_quantile(0.5 * (1.0 - confidence)) * (variance / (n as f64 - 3.0)).sqrt();
    let end = |sign: f64| if n == 3 { sign } else { (r.atanh() + sign * half).tanh() };
    Correlation { interval: Interval { mean: r, low: end(-1.0), high: end(1.0) }, p }
}

fn check(x: &[f64], y: &[f64], confidence: f64) -> Result<()> {
    ensure!(x.len() == y.len(), "a correlation needs pairs: there are {} and {} values", x.len(), y.len());
    ensure!(x.len() > 2, "a correlation needs three pairs: there are {}", x.len());
    check_finite(x, "a correlation (first column)")?;
    check_finite(y, "a correlation (second column)")?;
    for (column, x) in [("first", x), ("second", y)] {
        ensure!(
            x.iter().any(|v| *v != x[0]),
            "a correlation with a column without spread: the {column} is always {}",
            x[0]
        );
    }
    check_confidence(confidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        let error = |x: &[f64], y: &[f64]| spearman(x, y, 0.95).unwrap_err().to_string();
        assert!(error(&[1.0, 2.0, 3.0], &[1.0, 2.0]).contains("3 and 2"));
        assert!(error(&[1.0, 2.0], &[1.0, 2.0]).contains("three pairs"));
        assert!(error(&[1.0, 2.0, 3.0], &[0.1; 3]).contains("the second is always 0.1"));
        assert!(error(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 2.0]).contains("value 1 is NaN"));
        assert!(pearson(&[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0], 1.0).is_err());
    }

    #[test]
    fn a_perfect_line_has_no_width_and_three_pairs_no_end() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let up = spearman(&x, &[1.0, 4.0, 9.0, 16.0], 0.95).unwrap();
        assert_eq!((up.interval.mean, up.interval.low, up.interval.high, up.p), (1.0, 1.0, 1.0, 0.0));
        let three = pearson(&x[..3], &[1.0, 3.0, 2.0], 0.95).unwrap();
        assert_eq!((three.interval.low, three.interval.high), (-1.0, 1.0));
        assert!(
            (pearson(&x.map(|x| 1e-200 * x), &x.map(|x| -1e200 * x), 0.9).unwrap().interval.mean + 1.0).abs() < 1e-15
        );
        assert_eq!(ranks(&[2.0, 1.0, 2.0, 0.0, -0.0]), [4.5, 3.0, 4.5, 1.5, 1.5]);
    }

    proptest! {
        #[test]
        fn only_order_or_only_lines_matter(pairs in prop::collection::vec((-3.0..3.0f64, -3.0..3.0f64), 4..20)) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let cubes: Vec<f64> = x.iter().map(|x| x.powi(3)).collect();
            let line: Vec<f64> = x.iter().map(|x| 2.0 - 3.0 * x).collect();
            let by_rank = spearman(&x, &y, 0.9).unwrap();
            prop_assert_eq!(by_rank, spearman(&cubes, &y, 0.9).unwrap());
            let (plain, mirrored) = (pearson(&x, &y, 0.9).unwrap(), pearson(&y, &line, 0.9).unwrap());
            prop_assert!((plain.interval.mean + mirrored.interval.mean).abs() < 1e-9);
            prop_assert!((plain.interval.low + mirrored.interval.high).abs() < 1e-6 && (plain.p - mirrored.p).abs() < 1e-6);
        }
    }
}
