//! Where two sampled curves cross.

/// The first x at which `a` and `b`, given at ascending `x`, are equal, and their common value there; between two
/// points both are taken as straight. `None` where one stays above the other.
pub(super) fn crossing(x: &[f64], a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let gap = |i: usize| a[i] - b[i];
    (0..x.len()).find_map(|i| {
        if gap(i) == 0.0 {
            return Some((x[i], a[i]));
        }
        if i == 0 || gap(i - 1) * gap(i) > 0.0 {
            return None;
        }
        let share = gap(i - 1) / (gap(i - 1) - gap(i));
        let between = |y: &[f64]| y[i - 1] + share * (y[i] - y[i - 1]);
        Some((between(x), between(a)))
    })
}

/// The least and the greatest of some values.
pub(super) fn span(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_lines_cross_where_they_should() {
        let x = [0.0, 0.5, 1.0];
        let (at, height) = crossing(&x, &[1.0, 0.5, 0.0], &[0.0, 0.25, 0.5]).unwrap();
        assert!((at - 2.0 / 3.0).abs() < 1e-15 && (height - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(crossing(&x, &[1.0, 1.0, 1.0], &[0.0, 0.0, 1.0]), Some((1.0, 1.0)));
        assert_eq!(crossing(&x, &[1.0, 1.0, 1.0], &[0.0, 0.0, 0.0]), None);
    }
}
