//! What keeps one container, or one source outside, from taking the flow table for itself.
//!
//! A container may open flows until it has as many as its quota says. Nobody counts those that end: the collector, which
//! goes through the table in any case, counts those that there are, and writes how many more may come
//! ([`crate::Mapping::room`]); programs take one for each that is opened. Whatever is miscounted is so until the next round.
//!
//! What comes from outside is nobody's but its source's, which may be forged. So that is limited only while the table fills
//! up, and then by a rate for each source: who opens few flows gets through whoever opens many. That it fills up is counted
//! in the same way.

use crate::{
    addr::{Ip4, Ip6},
    settings::SECOND,
};

/// Room that does not end: more than can be opened between two rounds of the collector.
pub const UNLIMITED: i32 = i32::MAX;

/// What the collector tells the programs after each round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pressure {
    /// Until when there is a limit to anything, in nanoseconds of `CLOCK_MONOTONIC`: without a collector nobody counts what
    /// has ended.
    pub counted_until: u64,
    /// How many flows the tables of IPv4 and IPv6 take before they are said to fill up, which they do if it is not positive.
    /// Programs take from it.
    pub room: [i32; 2],
    /// Nanoseconds from one new flow of a source to the next, at most [`SECOND`]; 0 for no limit.
    pub source_interval: u64,
}

/// Whose rate is limited: an IPv4 address, or the 64 bits of an IPv6 address that name the link (RFC 4291 §2.5.1), as one
/// host has all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceNet {
    prefix: [u32; 2],
    /// 1 for IPv6.
    v6: u32,
}

impl From<Ip4> for SourceNet {
    #[inline(always)]
    fn from(addr: Ip4) -> Self {
        Self { prefix: [addr.wire(), 0], v6: 0 }
    }
}

impl From<Ip6> for SourceNet {
    #[inline(always)]
    fn from(addr: Ip6) -> Self {
        let [first, second, ..] = addr.wire();
        Self { prefix: [first, second], v6: 1 }
    }
}

/// Whether a source may open a flow at time `now`, if every `interval` one is its share: as many at once as a second
/// gives. `due` is when it has made up for those that it has opened, and is moved on by this one. The algorithm is the
/// generic cell rate's (ITU-T I.371, annex A), which needs one number for each source, and no division.
#[inline(always)]
pub fn admits(due: &mut u64, now: u64, interval: u64) -> bool {
    let from = if *due > now { *due } else { now };
    let next = from + interval;
    if next - now > SECOND {
        return false;
    }
    *due = next;
    true
}

const _: () = {
    assert!(size_of::<Pressure>() == 24);
    assert!(size_of::<SourceNet>() == 12);
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many of the flows that come every `step` ns for `seconds` are let pass.
    fn admitted(rate: u64, step: u64, seconds: u64) -> u64 {
        let (mut due, mut passed) = (0, 0);
        for now in (0..seconds * SECOND).step_by(usize::try_from(step).unwrap()) {
            passed += u64::from(admits(&mut due, 7 * SECOND + now, SECOND / rate));
        }
        passed
    }

    #[test]
    fn a_source_gets_its_rate_and_a_second_of_it_at_once() {
        let mut due = 0;
        let burst = (0..1000).filter(|_| admits(&mut due, 5 * SECOND, SECOND / 50)).count();
        assert_eq!(burst, 50);
        assert!(!admits(&mut due, 5 * SECOND, SECOND / 50));
        assert!(admits(&mut due, 5 * SECOND + SECOND / 50, SECOND / 50), "one more when its time has come");
        assert_eq!(admitted(1, SECOND / 10, 10), 10, "the least rate there is");
        let flooded = admitted(100, SECOND / 10_000, 3);
        assert!((300..=400).contains(&flooded), "{flooded}");
    }

    #[test]
    fn sources_of_one_link_are_one_and_families_are_told_apart() {
        let v6 = |text: &str| SourceNet::from(Ip6::from(text.parse::<std::net::Ipv6Addr>().unwrap()));
        let v4 = |text: &str| SourceNet::from(Ip4::from(text.parse::<std::net::Ipv4Addr>().unwrap()));
        assert_eq!(v6("2001:db8:0:7::1"), v6("2001:db8:0:7:ffff::2"));
        assert_ne!(v6("2001:db8:0:7::1"), v6("2001:db8:0:8::1"));
        assert_ne!(v4("192.0.2.1"), v4("192.0.2.2"));
        // 2001:db8::/64 has the bytes of 32.1.13.184 first, and zeros behind them.
        assert_ne!(v6("2001:db8::1"), v4("32.1.13.184"));
    }

    proptest! {
        /// Who keeps to his rate is never refused, however unevenly he does.
        #[test]
        fn whoever_keeps_to_the_rate_passes(rate in 1..2000u64, waits in prop::collection::vec(1..4u64, 1..200)) {
            let interval = SECOND / rate;
            let (mut due, mut now) = (0, 9 * SECOND);
            for wait in waits {
                prop_assert!(admits(&mut due, now, interval));
                now += wait * interval;
            }
        }
    }
}
