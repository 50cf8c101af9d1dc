//! What can be changed while the datapath runs.

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Idle times after which a flow is forgotten, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Timeouts {
    /// TCP after the handshake. RFC 5382 REQ-5: not under 2 h 4 min.
    pub tcp_established: u64,
    /// TCP before the handshake is complete.
    pub tcp_opening: u64,
    /// TCP with a FIN from one side. RFC 5382 REQ-5: not under 4 min.
    pub tcp_half_closed: u64,
    /// TCP with a FIN from both sides.
    pub tcp_closing: u64,
    /// TCP after a RST.
    pub tcp_reset: u64,
    /// UDP without an answer.
    pub udp: u64,
    /// UDP with an answer. RFC 4787 REQ-5: not under 2 min.
    pub udp_replied: u64,
    /// ICMP echo.
    pub icmp: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7440 * SECOND,
            tcp_opening: 60 * SECOND,
            tcp_half_closed: 240 * SECOND,
            tcp_closing: 30 * SECOND,
            tcp_reset: 10 * SECOND,
            udp: 30 * SECOND,
            udp_replied: 180 * SECOND,
            icmp: 30 * SECOND,
        }
    }
}

/// The only value of the settings map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Idle times.
    pub timeouts: Timeouts,
    /// Cookie of the network namespace that rnet serves: the socket programs are attached to a cgroup that
    /// holds processes of every namespace.
    pub netns_cookie: u64,
    /// First source port given to masqueraded flows, in host byte order.
    pub snat_min: u16,
    /// Last source port given to masqueraded flows, in host byte order.
    pub snat_max: u16,
    _pad: [u8; 4],
}

impl Settings {
    /// Settings with the default timeouts.
    pub fn new(netns_cookie: u64, snat_ports: core::ops::RangeInclusive<u16>) -> Self {
        Self { netns_cookie, snat_min: *snat_ports.start(), snat_max: *snat_ports.end(), ..Self::default() }
    }
}

const _: () = assert!(size_of::<Settings>() == 80);
