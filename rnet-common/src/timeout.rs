//! When a flow has ended.

use crate::{
    addr::Family,
    flow::{Flow, proto, seen},
    settings::Timeouts,
};

/// How long a flow of `proto` may be idle, given what both directions have seen.
#[inline(always)]
pub fn idle_limit(proto: u8, either: u8, both: u8, timeouts: &Timeouts) -> u64 {
    match proto {
        proto::TCP if either & seen::RST != 0 => timeouts.tcp_reset,
        proto::TCP if both & seen::FIN != 0 => timeouts.tcp_closing,
        proto::TCP if either & seen::FIN != 0 => timeouts.tcp_half_closed,
        proto::TCP if both & seen::PACKET != 0 && either & seen::ACK != 0 => timeouts.tcp_established,
        proto::TCP => timeouts.tcp_opening,
        proto::ICMP | proto::ICMPV6 => timeouts.icmp,
        _ if both & seen::PACKET != 0 => timeouts.udp_replied,
        _ => timeouts.udp,
    }
}

/// Whether the flow with these two halves has been idle for too long at time `now`. A half whose twin is
/// gone counts alone.
#[inline(always)]
pub fn expired<A: Family>(
    now: u64,
    proto: u8,
    half: &Flow<A>,
    twin: Option<&Flow<A>>,
    timeouts: &Timeouts,
) -> bool {
    let (twin_seen, twin_last) = match twin {
        Some(twin) => (twin.seen, twin.last_seen),
        None => (0, 0),
    };
    let last = if half.last_seen > twin_last { half.last_seen } else { twin_last };
    let limit = idle_limit(proto, half.seen | twin_seen, half.seen & twin_seen, timeouts);
    // Another CPU may have stored a later time than `now`.
    now.saturating_sub(last) > limit
}

/// Whether a SYN on this flow opens a new connection (RFC 9293 §3.6.1) rather than repeating the first one.
#[inline(always)]
pub fn reopens(seen_here: u8, seen_by_twin: u8) -> bool {
    (seen_here | seen_by_twin) & seen::RST != 0 || seen_here & seen_by_twin & seen::FIN != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip4;
    use proptest::prelude::*;

    fn half(seen: u8, last_seen: u64) -> Flow<Ip4> {
        Flow { seen, last_seen, ..Flow::default() }
    }

    #[test]
    fn each_tcp_state_has_its_own_limit() {
        let t = Timeouts::default();
        let limit = |a: u8, b: u8| idle_limit(proto::TCP, a | b, a & b, &t);
        use seen::{ACK, FIN, PACKET, RST};
        assert_eq!(limit(PACKET, 0), t.tcp_opening);
        assert_eq!(limit(PACKET, PACKET), t.tcp_opening, "SYN and SYN-ACK");
        assert_eq!(limit(PACKET | ACK, PACKET), t.tcp_established);
        assert_eq!(limit(PACKET | ACK | FIN, PACKET | ACK), t.tcp_half_closed);
        assert_eq!(limit(PACKET | ACK | FIN, PACKET | ACK | FIN), t.tcp_closing);
        assert_eq!(limit(PACKET | ACK | FIN | RST, PACKET | ACK | FIN), t.tcp_reset);
    }

    #[test]
    fn udp_is_kept_longer_once_it_was_answered() {
        let t = Timeouts::default();
        assert_eq!(idle_limit(proto::UDP, seen::PACKET, 0, &t), t.udp);
        assert_eq!(idle_limit(proto::UDP, seen::PACKET, seen::PACKET, &t), t.udp_replied);
        assert_eq!(idle_limit(proto::ICMP, seen::PACKET, seen::PACKET, &t), t.icmp);
    }

    #[test]
    fn only_a_closed_connection_is_reopened() {
        use seen::{ACK, FIN, PACKET, RST};
        assert!(!reopens(PACKET, 0), "a repeated SYN");
        assert!(!reopens(PACKET | ACK | FIN, PACKET | ACK), "one side may still send");
        assert!(reopens(PACKET | FIN, PACKET | FIN));
        assert!(reopens(PACKET, PACKET | RST));
    }

    proptest! {
        #[test]
        fn activity_in_either_direction_keeps_a_flow(a in 0..1u64 << 50, b in 0..1u64 << 50, now in 0..1u64 << 50, s: u8, t: u8) {
            let timeouts = Timeouts::default();
            let (x, y) = (half(s, a), half(t, b));
            let one = expired(now, proto::UDP, &x, Some(&y), &timeouts);
            prop_assert_eq!(one, expired(now, proto::UDP, &y, Some(&x), &timeouts));
            if now.abs_diff(a.max(b)) <= timeouts.udp {
                prop_assert!(!one);
            }
        }
    }
}
