//! What filling a table costs in all, from what one step costs at several levels.

/// The cost of going from the first level to the last, where `each` is what one step costs at a level and changes evenly
/// from one level to the next. Levels are in rising order.
pub(super) fn integrate(levels: &[(f64, f64)]) -> f64 {
    let between = levels.windows(2).map(|pair| match pair {
        [(low, at_low), (high, at_high)] => (high - low) * f64::midpoint(*at_low, *at_high),
        _ => 0.0,
    });
    between.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn an_even_cost_is_multiplied() {
        assert!(is_near(integrate(&[(0.0, 2.0), (10.0, 2.0)]), 20.0));
        assert!(is_near(integrate(&[(0.0, 2.0), (3.0, 2.0), (10.0, 2.0)]), 20.0));
    }

    #[test]
    fn a_cost_that_rises_evenly_is_exact_with_any_levels() {
        // The integral of 1 + x from 0 to 10.
        for levels in [vec![0.0, 10.0], vec![0.0, 2.5, 5.0, 10.0]] {
            let levels: Vec<_> = levels.into_iter().map(|at| (at, 1.0 + at)).collect();
            assert!(is_near(integrate(&levels), 60.0), "{levels:?}");
        }
    }

    #[test]
    fn without_two_levels_nothing_was_filled() {
        assert!(is_near(integrate(&[]), 0.0));
        assert!(is_near(integrate(&[(5.0, 2.0)]), 0.0));
    }
}
