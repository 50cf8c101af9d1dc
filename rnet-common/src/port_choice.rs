//! Which source ports are tried for a masqueraded flow, and in which order.

use crate::limits::PORT_PROBES;

/// The port to try at `attempt`, which counts from 0 up to [`PORT_PROBES`]: the flow's own port where it
/// lies in the range, then ports spread over the range from a random start. No port is tried twice within
/// one flow, save that the flow's own may come up again; a range of at most `PORT_PROBES` - 1 ports is
/// tried whole. All in host byte order; `min` must not exceed `max`.
#[inline(always)]
pub fn candidate(attempt: u32, own: u16, random: u32, min: u16, max: u16) -> u16 {
    if attempt == 0 && own >= min && own <= max {
        return own;
    }
    let size = max as u32 - min as u32 + 1;
    // Neighbouring ports tend to be taken together, so a large range is probed in strides.
    let stride = if size <= PORT_PROBES { 1 } else { 1 + (random >> 16) % (size / PORT_PROBES) };
    min + ((random % size + attempt * stride) % size) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn candidates_lie_in_the_range(attempt in 0..PORT_PROBES, own: u16, random: u32, a: u16, b: u16) {
            let (min, max) = (a.min(b), a.max(b));
            prop_assert!((min..=max).contains(&candidate(attempt, own, random, min, max)));
        }

        #[test]
        fn the_flows_own_port_comes_first(own: u16, random: u32) {
            prop_assert_eq!(candidate(0, own, random, 0, u16::MAX), own);
        }

        #[test]
        fn a_small_range_is_tried_whole(random: u32, min in 0..65000u16, size in 1..PORT_PROBES as u16, own: u16) {
            let max = min + size - 1;
            let tried: HashSet<u16> = (0..PORT_PROBES).map(|i| candidate(i, own, random, min, max)).collect();
            prop_assert_eq!(tried.len(), usize::from(size));
        }

        #[test]
        fn no_port_of_a_large_range_is_tried_twice(random: u32, min in 1024..2048u16, max in 20000..32768u16) {
            let tried: HashSet<u16> = (0..PORT_PROBES).map(|i| candidate(i, 0, random, min, max)).collect();
            prop_assert_eq!(tried.len(), PORT_PROBES as usize);
        }
    }
}
