//! Fragmented packets: only the first fragment has the ports.

use crate::{
    addr::{Be16, Family},
    flow::Side,
    settings::SECOND,
};

/// How long after its first fragment the others are taken for the same packet's, in nanoseconds.
pub const LIFETIME: u64 = 30 * SECOND;

/// What the fragments of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, as it lies in the packet.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// A [`Side`].
    pub side: u8,
    _pad: [u8; 2],
}

impl<A: Family> FragmentKey<A> {
    /// The key of fragments that arrive at `side`.
    #[inline(always)]
    pub fn new(src: A, dst: A, id: u32, proto: u8, side: Side) -> Self {
        Self { src, dst, id, proto, side: side as u8, _pad: [0; 2] }
    }
}

/// What only the first fragment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentHead {
    /// When it passed, in nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: u64,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    _pad: [u8; 4],
}

impl FragmentHead {
    /// The ports of a packet whose first fragment passed at `seen`.
    #[inline(always)]
    pub fn new(seen: u64, sport: Be16, dport: Be16) -> Self {
        Self { seen, sport, dport, _pad: [0; 4] }
    }
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<FragmentKey<Ip4>>() == 16);
    assert!(size_of::<FragmentKey<Ip6>>() == 40);
    assert!(size_of::<FragmentHead>() == 16);
};
