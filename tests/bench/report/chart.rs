//! Figures as bars, to be drawn.

use serde::Serialize;

/// What repeated measurements of one thing gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number, halfway between the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these. None without any, or when one is not a finite number.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }
}

/// Groups of bars, all on one scale that begins at nought.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    /// The file's name, without directory and `.svg`.
    pub(crate) file: &'static str,
    /// Its heading.
    pub(crate) title: String,
    /// What the axis counts: `ratio to iptables`.
    pub(crate) about: String,
    /// Where a line is drawn to compare with: 1.0 for ratios.
    pub(crate) line: Option<f64>,
    /// From the top.
    pub(crate) groups: Vec<Group>,
}

/// Bars that are compared with each other: one workload, say.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    /// What they have in common.
    pub(crate) label: String,
    /// From the top. Those whose series is `rnet` or begins with `rnet-` or `rnet ` stand out.
    pub(crate) bars: Vec<Bar>,
    /// How far the reference differs from itself; differences within it mean nothing.
    pub(crate) noise: Option<Spread>,
}

/// One bar, as long as the median, with a whisker from the smallest to the largest.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    /// What was measured: a path, say.
    pub(crate) series: String,
    /// How much it was.
    pub(crate) value: Spread,
}

impl Chart {
    /// A chart of ratios to a reference, which is where its line is.
    pub(crate) fn ratios(file: &'static str, title: impl Into<String>, about: impl Into<String>) -> Self {
        Self { file, title: title.into(), about: about.into(), line: Some(1.0), groups: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_halfway_between_two() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 8.0]), Some(Spread { median: 3.0, min: 1.0, max: 8.0 }));
        assert_eq!(Spread::of(&[1.5]), Some(Spread { median: 1.5, min: 1.5, max: 1.5 }));
    }

    #[test]
    fn nothing_and_what_is_no_number_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[1.0 / 0.0]), None);
    }
}
