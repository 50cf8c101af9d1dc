//! Which source ports are tried for a masqueraded flow, and in which order.

use crate::limits::PORT_PROBES;

/// The port to try at `attempt`, which counts from 0 up to [`PORT_PROBES`], from a random start. No port comes
/// up twice, and a range of at most `PORT_PROBES` ports is tried whole. All in host byte order; `min` must not
/// exceed `max`.
#[inline(always)]
pub fn candidate(attempt: u32, random: u32, min: u16, max: u16) -> u16 {
    // At least 1 whatever is passed: no path may divide by zero, which would be a call of a panic.
    let size = (max as u32).saturating_sub(min as u32) + 1;
    // Neighbouring ports tend to be taken together, so a large range is probed in strides.
    let stride = if size <= PORT_PROBES { 1 } else { 1 + (random >> 16) % (size / PORT_PROBES).max(1) };
    min + ((random % size + attempt * stride) % size) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn tried(random: u32, min: u16, max: u16) -> HashSet<u16> {
        (0..PORT_PROBES).map(|attempt| candidate(attempt, random, min, max)).collect()
    }

    proptest! {
        #[test]
        fn candidates_lie_in_the_range(attempt in 0..PORT_PROBES, random: u32, a: u16, b: u16) {
            let (min, max) = (a.min(b), a.max(b));
            prop_assert!((min..=max).contains(&candidate(attempt, random, min, max)));
        }

        #[test]
        fn a_small_range_is_tried_whole(random: u32, min in 0..65000u16, size in 1..=PORT_PROBES as u16) {
            prop_assert_eq!(tried(random, min, min + size - 1).len(), usize::from(size));
        }

        #[test]
        fn no_port_of_a_large_range_is_tried_twice(random: u32, min in 1024..2048u16, max in 20000..32768u16) {
            prop_assert_eq!(tried(random, min, max).len(), PORT_PROBES as usize);
        }
    }
}
