//! When a flow has ended.

use crate::{
    addr::Family,
    flow::{Flow, proto, seen},
    settings::Timeouts,
};

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP before the handshake is complete.
    Opening,
    /// TCP after the handshake.
    Established,
    /// TCP with a FIN from one side.
    HalfClosed,
    /// TCP with a FIN from both sides.
    Closing,
    /// TCP after a RST.
    Reset,
    /// Not TCP, and without an answer.
    Unreplied,
    /// Not TCP, and with an answer.
    Replied,
}

impl State {
    /// The state of a flow of `proto`, given [`seen`] bits of `either` direction and those of `both`.
    #[inline(always)]
    pub fn of(proto: u8, either: u8, both: u8) -> Self {
        match proto {
            proto::TCP if either & seen::RST != 0 => Self::Reset,
            proto::TCP if both & seen::FIN != 0 => Self::Closing,
            proto::TCP if either & seen::FIN != 0 => Self::HalfClosed,
            proto::TCP if both & seen::PACKET != 0 && either & seen::ACK != 0 => Self::Established,
            proto::TCP => Self::Opening,
            _ if both & seen::PACKET != 0 => Self::Replied,
            _ => Self::Unreplied,
        }
    }

    /// The name that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
        }
    }

    /// Whether the flow has yet to be completed by whoever opened it, or answered.
    #[inline(always)]
    pub const fn is_incomplete(self) -> bool {
        matches!(self, Self::Opening | Self::Unreplied)
    }

    /// How long a flow of `proto` may be idle in this state.
    #[inline(always)]
    pub fn idle_limit(self, proto: u8, timeouts: &Timeouts) -> u64 {
        match self {
            Self::Opening => timeouts.tcp_opening,
            Self::Established => timeouts.tcp_established,
            Self::HalfClosed => timeouts.tcp_half_closed,
            Self::Closing => timeouts.tcp_closing,
            Self::Reset => timeouts.tcp_reset,
            _ if matches!(proto, proto::ICMP | proto::ICMPV6) => timeouts.icmp,
            Self::Replied => timeouts.udp_replied,
            Self::Unreplied => timeouts.udp,
        }
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
    let limit = State::of(proto, half.seen | twin_seen, half.seen & twin_seen).idle_limit(proto, timeouts);
    // Another CPU may have stored a later time than `now`.
    now.saturating_sub(last) > limit
}

/// Whether the flow with this half may have [`expired`], by what this half alone has seen. Of an expired flow with both
/// halves at least one says so, so that the twin of a flow that is merely idle need not be looked up.
pub fn may_have_expired<A: Family>(now: u64, proto: u8, half: &Flow<A>, timeouts: &Timeouts) -> bool {
    const ESTABLISHED: u8 = seen::PACKET | seen::ACK;
    let limit = match proto {
        proto::TCP if half.seen & seen::RST != 0 => timeouts.tcp_reset,
        proto::TCP if half.seen & seen::FIN != 0 => timeouts.tcp_half_closed.min(timeouts.tcp_closing),
        // Unless the twin has seen nothing, or an end, which it says itself.
        proto::TCP if half.seen & ESTABLISHED == ESTABLISHED => timeouts.tcp_established,
        proto::TCP => timeouts.tcp_opening,
        proto::ICMP | proto::ICMPV6 => timeouts.icmp,
        _ if half.seen & seen::PACKET != 0 => timeouts.udp_replied,
        _ => timeouts.udp,
    };
    now.saturating_sub(half.last_seen) > limit
}

/// Whether a SYN on this flow opens a new connection (RFC 9293 §3.6.1) rather than repeating the first one.
#[inline(always)]
pub fn reopens(seen_here: u8, seen_by_twin: u8) -> bool {
    (seen_here | seen_by_twin) & seen::RST != 0 || seen_here & seen_by_twin & seen::FIN != 0
}

/// Whether a FIN or RST with this upper half of a sequence number can be the sender's, if the other side has sent
/// `seen_by_twin` and last acknowledged `acked`, likewise an upper half.
///
/// What is under way unacknowledged is less than 256 KiB past a receiver on this machine; it must not be much more, as one
/// in 16384 of what is forged blindly is believed by this.
#[inline(always)]
pub fn is_end_believed(seen_by_twin: u8, acked: u16, sequence: u16) -> bool {
    const NEAR: u16 = 4;
    seen_by_twin & seen::ACK == 0 || sequence.wrapping_sub(acked) < NEAR
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
        let limit = |a: u8, b: u8| State::of(proto::TCP, a | b, a & b).idle_limit(proto::TCP, &t);
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
        let limit = |proto: u8, both: u8| State::of(proto, seen::PACKET, both).idle_limit(proto, &t);
        assert_eq!(limit(proto::UDP, 0), t.udp);
        assert_eq!(limit(proto::UDP, seen::PACKET), t.udp_replied);
        assert_eq!(limit(proto::ICMP, seen::PACKET), t.icmp);
    }

    #[test]
    fn an_idle_connection_is_not_taken_for_one_that_may_have_expired() {
        let t = Timeouts::default();
        use seen::{ACK, FIN, PACKET, RST};
        let after = |seconds: u64, seen| {
            may_have_expired(seconds * crate::settings::SECOND, proto::TCP, &half(seen, 0), &t)
        };
        assert!(!after(7440, PACKET | ACK) && after(7441, PACKET | ACK));
        assert!(!after(60, PACKET) && after(61, PACKET));
        assert!(!after(30, PACKET | ACK | FIN) && after(31, PACKET | ACK | FIN));
        assert!(!after(10, PACKET | RST) && after(11, PACKET | RST));
    }

    #[test]
    fn only_a_closed_connection_is_reopened() {
        use seen::{ACK, FIN, PACKET, RST};
        assert!(!reopens(PACKET, 0), "a repeated SYN");
        assert!(!reopens(PACKET | ACK | FIN, PACKET | ACK), "one side may still send");
        assert!(reopens(PACKET | FIN, PACKET | FIN));
        assert!(reopens(PACKET, PACKET | RST));
    }

    #[test]
    fn an_end_is_believed_near_what_was_acknowledged() {
        use seen::{ACK, PACKET};
        let believed = |acked, sequence| is_end_believed(PACKET | ACK, acked, sequence);
        assert!(believed(7, 7) && believed(7, 10) && believed(0xffff, 2), "ahead by less than the bound");
        assert!(!believed(7, 6) && !believed(7, 11) && !believed(2, 0xffff), "behind, and too far ahead");
        assert!(is_end_believed(PACKET, 0, 999), "nothing was acknowledged yet");
        let hits = (0..=u16::MAX).filter(|sequence| believed(7, *sequence)).count();
        assert_eq!(hits * 16384, 1 << 16, "as is said above");
    }

    proptest! {
        /// Whatever the limits are, and however they compare.
        #[test]
        fn a_half_of_an_expired_flow_says_so(
            protocol in prop::sample::select(vec![proto::TCP, proto::UDP, proto::ICMP]),
            times in prop::array::uniform2(0..300u64), bits in prop::array::uniform2(0..16u8),
            now in 0..300u64, limits in prop::array::uniform8(0..200u64),
        ) {
            let [tcp_established, tcp_opening, tcp_half_closed, tcp_closing, tcp_reset, udp, udp_replied, icmp] = limits;
            let timeouts = Timeouts {
                tcp_established, tcp_opening, tcp_half_closed, tcp_closing, tcp_reset, udp, udp_replied, icmp,
            };
            let [one, other] = [0, 1].map(|i: usize| half(bits[i], times[i]));
            if expired(now, protocol, &one, Some(&other), &timeouts) {
                let says = |half| may_have_expired(now, protocol, half, &timeouts);
                prop_assert!(says(&one) || says(&other));
            }
        }

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
