//! How a figure grows with what it counts. Pure: points in, numbers out.

/// Least squares: what one more adds.
pub(super) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (spread > 0.0).then(|| both / spread)
}

/// The power of the count that the figure grows with: 0 where it does not, 1 where it grows in proportion. Points that
/// cannot be told from zero tell nothing.
pub(super) fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let told = points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let logarithms: Vec<(f64, f64)> = told.map(|(x, y)| (x.ln(), y.ln())).collect();
    slope(&logarithms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(figure: fn(f64) -> f64) -> Vec<(f64, f64)> {
        [10.0, 100.0, 1_000.0].map(|count| (count, figure(count))).to_vec()
    }

    #[test]
    fn straight_lines_have_their_slope() {
        assert_eq!(slope(&[(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 5.0)]), None);
        assert_eq!(slope(&[]), None);
    }

    #[test]
    fn powers_are_told() {
        let near = |points: &[(f64, f64)], power: f64| {
            let found = exponent(points).expect("points that differ");
            assert!((found - power).abs() < 1e-9, "{found}, not {power}");
        };
        near(&of(|_| 3.0), 0.0);
        near(&of(|count| 0.5 * count), 1.0);
        near(&of(|count| count * count), 2.0);
        assert_eq!(exponent(&[(1.0, 0.0), (2.0, 0.0)]), None);
    }
}
