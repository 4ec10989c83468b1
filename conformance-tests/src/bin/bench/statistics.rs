//! Series of measurements, and what is said of them: medians, their spread, and ratios round by round.

/// One contestant's values in one row, a value per round. The n-th values of two series were taken one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    /// The middle value.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// Half the distance between the quartiles, as a part of the median; zero where they are one.
    pub(crate) fn spread(&self) -> f64 {
        let distance = quantile(&self.0, 0.75) - quantile(&self.0, 0.25);
        if distance == 0.0 { 0.0 } else { distance / 2.0 / self.median() }
    }

    /// The median of the ratios to another series, round by round, so that noise that lasts hits both.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect();
        quantile(&ratios, 0.5)
    }
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_spread_and_ratio_are_those_of_the_text_books() {
        let series = Series(vec![4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((series.median(), series.spread()), (3.0, 1.0 / 3.0));
        assert_eq!(Series(vec![0.0, 0.0]).spread(), 0.0);
        assert_eq!(Series(vec![1.0, 2.0]).median(), 1.5);
        assert!(Series::default().median().is_nan());
        // A machine that slows down to a half midway does not change who is faster.
        let (ours, theirs) = (Series(vec![90.0, 91.0, 45.0, 44.0]), Series(vec![100.0, 100.0, 50.0, 50.0]));
        assert!((ours.ratio_to(&theirs) - 0.9).abs() < 1e-9);
    }
}
