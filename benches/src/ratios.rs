//! Times held against each other.

/// Times below this are taken for it in ratios, in milliseconds: what is left then is the call.
pub const FLOOR_MS: f64 = 0.5;

/// One time as a part of another, either being no less than [`FLOOR_MS`].
pub fn ratio(time_ms: f64, other_ms: f64) -> f64 {
    time_ms.max(FLOOR_MS) / other_ms.max(FLOOR_MS)
}

/// The geometric mean; none of nothing, or where something is not a number.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = values.into_iter().map(f64::ln).collect();
    let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    mean.is_finite().then_some(mean)
}

/// The middle one of times, of an even number the later of the middle two; none of nothing.
pub fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_floor_counts_as_the_floor_on_both_sides() {
        assert_eq!(ratio(0.1, 0.2), 1.0);
        assert_eq!(ratio(0.1, 5.0), 0.1);
        assert_eq!(ratio(5.0, 0.1), 10.0);
        assert_eq!(ratio(3.0, 6.0), 0.5);
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        let mean = geometric_mean([0.25, 4.0]).unwrap();
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
        assert_eq!(geometric_mean([1.0, f64::NAN]), None);
    }

    #[test]
    fn the_median_is_one_of_the_times() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(4.0));
        assert_eq!(median(Vec::new()), None);
    }
}
