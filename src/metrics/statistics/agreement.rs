//! How far raters agree beyond chance: people with each other, and a judge with them.

use anyhow::{Result, ensure};

use super::Interval;
use super::distribution::normal_quantile;
use super::moments::check_confidence;

/// How much a disagreement counts in Cohen's κ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KappaWeights {
    /// All alike.
    Nominal,
    /// By the distance of the categories.
    Linear,
    /// By its square.
    Quadratic,
}

/// What numbers mean in Krippendorff's α.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Names: two are equal or not.
    Nominal,
    /// Grades: their order counts.
    Ordinal,
    /// Their differences count.
    Interval,
}

/// Cohen's κ of two raters who put the same units into categories 0, 1, 2 …, with a large-sample interval (Fleiss, Cohen,
/// Everitt 1969, Psychol. Bull. 72, 323-327). Weights need categories in order; of a win, a tie and a loss let the tie be 1.
///
/// # Errors
/// No units, ratings of different lengths, raters who both use one and the same category throughout (no chance to disagree:
/// κ is 0/0), a category above 999, a confidence that is not strictly between 0 and 1.
///
/// ```
/// use qstar::metrics::{KappaWeights, cohen_kappa};
///
/// let kappa = cohen_kappa(&[0, 0, 1, 1], &[0, 1, 1, 1], KappaWeights::Nominal, 0.95)?;
/// assert!((kappa.mean - 0.5).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub fn cohen_kappa(a: &[usize], b: &[usize], weights: KappaWeights, confidence: f64) -> Result<Interval> {
    ensure!(a.len() == b.len(), "two raters rate the same units: there are {} and {} ratings", a.len(), b.len());
    ensure!(!a.is_empty(), "agreement on no units");
    check_confidence(confidence)?;
    let count = 1 + a.iter().chain(b).copied().max().unwrap_or(0);
    ensure!(count <= 1000, "a rating is category {}: number categories from 0", count - 1);
    let n = a.len() as f64;
    let mut shares = vec![vec![0.0; count]; count];
    a.iter().zip(b).for_each(|(a, b)| shares[*a][*b] += 1.0 / n);
    let of_a: Vec<f64> = shares.iter().map(|row| row.iter().sum()).collect();
    let of_b: Vec<f64> = (0..count).map(|j| shares.iter().map(|row| row[j]).sum()).collect();
    let most = (count as f64 - 1.0).max(1.0);
    // Of agreement: 1 on the diagonal.
    let weight = |i: usize, j: usize| {
        let distance = i.abs_diff(j) as f64 / most;
        match weights {
            KappaWeights::Nominal => f64::from(i == j),
            KappaWeights::Linear => 1.0 - distance,
            KappaWeights::Quadratic => 1.0 - distance * distance,
        }
    };
    let cells = || (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
    let observed: f64 = cells().map(|(i, j)| weight(i, j) * shares[i][j]).sum();
    let expected: f64 = cells().map(|(i, j)| weight(i, j) * of_a[i] * of_b[j]).sum();
    ensure!(
        1.0 - expected > 1e-12,
        "both raters put all {} units into category {}: chance agrees as well",
        a.len(),
        a[0]
    );
    let kappa = (observed - expected) / (1.0 - expected);
    let row: Vec<f64> = (0..count).map(|i| (0..count).map(|j| weight(i, j) * of_b[j]).sum()).collect();
    let column: Vec<f64> = (0..count).map(|j| (0..count).map(|i| weight(i, j) * of_a[i]).sum()).collect();
    let spread: f64 =
        cells().map(|(i, j)| shares[i][j] * (weight(i, j) - (row[i] + column[j]) * (1.0 - kappa)).powi(2)).sum();
    let variance = (spread - (kappa - expected * (1.0 - kappa)).powi(2)) / (n * (1.0 - expected).powi(2));
    let half = -normal_quantile(0.5 * (1.0 - confidence)) * variance.max(0.0).sqrt();
    Ok(Interval { mean: kappa, low: kappa - half, high: kappa + half })
}

/// Fleiss' κ of units that equally many raters put into categories; `counts[unit][category]` raters. The raters of one unit
/// need not be those of another. Fleiss 1971, Psychol. Bull. 76, 378-382.
///
/// # Errors
/// No units, units with different numbers of categories or of raters, fewer than two raters, one category for everything.
///
/// ```
/// let kappa = qstar::metrics::fleiss_kappa(&[vec![3, 0], vec![1, 2], vec![0, 3]])?;
/// assert!((kappa - 0.55).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub fn fleiss_kappa(counts: &[Vec<usize>]) -> Result<f64> {
    ensure!(!counts.is_empty(), "agreement on no units");
    let (categories, raters) = (counts[0].len(), counts[0].iter().sum::<usize>());
    ensure!(raters > 1, "agreement needs two raters: the first unit has {raters}");
    for (unit, row) in counts.iter().enumerate() {
        let found = row.iter().sum::<usize>();
        ensure!(row.len() == categories, "unit {unit} has {} categories, the first {categories}", row.len());
        ensure!(found == raters, "unit {unit} has {found} raters, the first {raters}: take krippendorff_alpha");
    }
    let (units, n) = (counts.len() as f64, raters as f64);
    let square = |x: usize| (x * x) as f64;
    let agreement = |row: &Vec<usize>| (row.iter().map(|c| square(*c)).sum::<f64>() - n) / (n * (n - 1.0));
    let observed = counts.iter().map(agreement).sum::<f64>() / units;
    let share = |j: usize| counts.iter().map(|row| row[j]).sum::<usize>() as f64 / (units * n);
    let expected: f64 = (0..categories).map(|j| share(j).powi(2)).sum();
    ensure!(1.0 - expected > 1e-12, "all ratings are of one category: chance agrees as well");
    Ok((observed - expected) / (1.0 - expected))
}

/// Krippendorff's α of any number of raters, `ratings[rater][unit]`, some of which may be missing. 1 is agreement, 0 what
/// chance gives. Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
///
/// # Errors
/// No raters, raters with different numbers of units, a rating that is not finite, no unit with two ratings, one value
/// for everything.
///
/// ```
/// use qstar::metrics::{Scale, bootstrap_paired, krippendorff_alpha};
///
/// let ratings = [vec![Some(1.0), Some(2.0), None, Some(1.0)], vec![Some(1.0), Some(2.0), Some(3.0), Some(2.0)]];
/// assert!((krippendorff_alpha(&ratings, Scale::Nominal)? - 4.0 / 9.0).abs() < 1e-12);
///
/// // An interval: the bootstrap over the units.
/// let raters: [Vec<f64>; 2] = [0, 1].map(|r| (0..40).map(|i| f64::from((i * 7 + r * (i % 5)) % 3)).collect());
/// let of_units = |drawn: &[Vec<f64>]| {
///     let ratings: Vec<Vec<_>> = drawn.iter().map(|rater| rater.iter().copied().map(Some).collect()).collect();
///     krippendorff_alpha(&ratings, Scale::Nominal).unwrap_or(f64::NAN)
/// };
/// let samples: Vec<&[f64]> = raters.iter().map(Vec::as_slice).collect();
/// let interval = bootstrap_paired(&samples, of_units, 500, 0)?.percentile(0.95)?;
/// assert!(interval.low < interval.mean && interval.mean < interval.high);
/// # anyhow::Ok(())
/// ```
pub fn krippendorff_alpha(ratings: &[Vec<Option<f64>>], scale: Scale) -> Result<f64> {
    ensure!(!ratings.is_empty(), "agreement of no raters");
    let units = ratings[0].len();
    for (rater, row) in ratings.iter().enumerate() {
        ensure!(
            row.len() == units,
            "rater {rater} has {} units, the first {units}; a missing rating is None",
            row.len()
        );
        ensure!(row.iter().flatten().all(|x| x.is_finite()), "rater {rater} has a rating that is not finite");
    }
    // Only units that two raters rated say anything of agreement.
    let of_unit = |unit: usize| ratings.iter().filter_map(|row| row[unit]).collect::<Vec<f64>>();
    let pairable: Vec<Vec<f64>> = (0..units).map(of_unit).filter(|values| values.len() > 1).collect();
    let mut values: Vec<f64> = pairable.concat();
    ensure!(!values.is_empty(), "no unit has two ratings");
    let total = values.len() as f64;
    values.sort_by(f64::total_cmp);
    let counted: Vec<(f64, f64)> = values.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as f64)).collect();
    ensure!(counted.len() > 1, "all ratings are {}: chance agrees as well", values[0]);
    // Up to and with a value, less half of its own: distances of ranks are differences of these.
    let mut middles = Vec::new();
    let mut before = 0.0;
    for (_, count) in &counted {
        middles.push(before + 0.5 * count);
        before += count;
    }
    let distance = |a: usize, b: usize| match scale {
        Scale::Nominal => f64::from(a != b),
        Scale::Ordinal => (middles[a] - middles[b]).powi(2),
        Scale::Interval => (counted[a].0 - counted[b].0).powi(2),
    };
    let place = |x: f64| counted.partition_point(|(value, _)| *value < x);
    let mut observed = 0.0;
    for values in &pairable {
        let places: Vec<usize> = values.iter().map(|x| place(*x)).collect();
        let all: f64 = places.iter().flat_map(|a| places.iter().map(|b| distance(*a, *b))).sum();
        observed += all / (values.len() - 1) as f64;
    }
    let pairs = (0..counted.len()).flat_map(|a| (0..counted.len()).map(move |b| (a, b)));
    let expected: f64 = pairs.map(|(a, b)| counted[a].1 * counted[b].1 * distance(a, b)).sum();
    Ok(1.0 - (total - 1.0) * observed / expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        let error = |a: &[usize], b: &[usize]| cohen_kappa(a, b, KappaWeights::Linear, 0.9).unwrap_err().to_string();
        assert!(error(&[], &[]).contains("no units") && error(&[1], &[1, 2]).contains("1 and 2"));
        assert!(error(&[2, 2], &[2, 2]).contains("into category 2"));
        assert!(error(&[usize::MAX - 1], &[0]).contains("from 0"));
        let error = |counts: &[Vec<usize>]| fleiss_kappa(counts).unwrap_err().to_string();
        assert!(error(&[]).contains("no units") && error(&[vec![1, 0]]).contains("two raters"));
        assert!(error(&[vec![2, 0], vec![1, 2]]).contains("unit 1 has 3 raters"));
        assert!(error(&[vec![2, 0], vec![2]]).contains("unit 1 has 1 categories"));
        assert!(error(&[vec![2, 0], vec![2, 0]]).contains("one category"));
        let error = |ratings: &[Vec<Option<f64>>]| krippendorff_alpha(ratings, Scale::Ordinal).unwrap_err().to_string();
        assert!(error(&[]).contains("no raters") && error(&[vec![], vec![]]).contains("two ratings"));
        assert!(error(&[vec![Some(1.0)], vec![None]]).contains("two ratings"));
        assert!(error(&[vec![Some(1.0)], vec![Some(f64::NAN)]]).contains("rater 1"));
        assert!(error(&[vec![Some(1.0)], vec![Some(1.0)]]).contains("all ratings are 1"));
        assert!(error(&[vec![Some(1.0)], vec![]]).contains("0 units"));
    }

    #[test]
    fn full_agreement_is_one() {
        for weights in [KappaWeights::Nominal, KappaWeights::Linear, KappaWeights::Quadratic] {
            let kappa = cohen_kappa(&[0, 1, 2, 1], &[0, 1, 2, 1], weights, 0.95).unwrap();
            assert!((kappa.mean - 1.0).abs() < 1e-15 && (kappa.high - kappa.low).abs() < 1e-7, "{kappa:?}");
        }
        assert_eq!(fleiss_kappa(&[vec![4, 0], vec![0, 4]]).unwrap(), 1.0);
        let same = [Some(1.0), None, Some(3.0), Some(2.0)].to_vec();
        for scale in [Scale::Nominal, Scale::Ordinal, Scale::Interval] {
            assert_eq!(krippendorff_alpha(&[same.clone(), same.clone()], scale).unwrap(), 1.0);
        }
    }

    proptest! {
        #[test]
        fn raters_and_names_can_be_exchanged(pairs in prop::collection::vec((0usize..3, 0usize..3), 3..30)) {
            let (a, b): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            prop_assume!(a.iter().chain(&b).any(|x| *x != a[0]));
            let kappa = |a: &[usize], b: &[usize]| cohen_kappa(a, b, KappaWeights::Nominal, 0.9).unwrap();
            let (plain, exchanged) = (kappa(&a, &b), kappa(&b, &a));
            prop_assert!((plain.mean - exchanged.mean).abs() < 1e-12 && (plain.low - exchanged.low).abs() < 1e-9);
            let renamed = |x: &[usize]| x.iter().map(|x| [2, 0, 1][*x]).collect::<Vec<_>>();
            prop_assert!((plain.mean - kappa(&renamed(&a), &renamed(&b)).mean).abs() < 1e-12);
            prop_assert!(plain.mean <= 1.0 + 1e-12);
            // With two raters α nears Scott's π, which is Fleiss' κ: they differ by (1 − π)/(2n).
            let units: Vec<Vec<usize>> =
                a.iter().zip(&b).map(|(a, b)| (0..3).map(|k| usize::from(*a == k) + usize::from(*b == k)).collect()).collect();
            let pi = fleiss_kappa(&units).unwrap();
            let ratings = [&a, &b].map(|x| x.iter().map(|x| Some(*x as f64)).collect::<Vec<_>>());
            let alpha = krippendorff_alpha(&ratings, Scale::Nominal).unwrap();
            prop_assert!((alpha - pi - (1.0 - pi) / (2.0 * a.len() as f64)).abs() < 1e-12);
        }
    }
}
