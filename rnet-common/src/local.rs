//! The host's own programs as clients of published ports: their sockets are led to the container when they
//! connect, and are told what they had addressed when they ask.

use crate::addr::{Be16, Family};

/// An address with a port, as sockets have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockAddr<A> {
    /// The address.
    pub addr: A,
    /// The port.
    pub port: Be16,
    _pad: [u8; 2],
}

impl<A: Family> SockAddr<A> {
    /// `port` of `addr`.
    #[inline(always)]
    pub fn new(addr: A, port: Be16) -> Self {
        Self { addr, port, _pad: [0; 2] }
    }
}

/// The value of an address of the host.
pub const PLAIN: u32 = 0;
/// That of one at which names are asked for: its [`NAMES`] is none that is published on every address.
pub const NAME_SERVER: u32 = 1;
/// The port that names are asked for at (RFC 1035 4.2).
pub const NAMES: u16 = 53;

/// The key of the table of peers: a socket, and where it was led. A socket without a fixed peer may be led to many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PeerKey<A> {
    /// The kernel's number for the socket, which no other has until the machine is restarted; its halves in the
    /// machine's order, because a whole one would need padding behind it.
    pub cookie: [u32; 2],
    /// Where the socket was led.
    pub peer: SockAddr<A>,
}

impl<A: Family> PeerKey<A> {
    /// The key of `peer` as the socket with this cookie knows it.
    #[inline(always)]
    pub fn new(cookie: u64, peer: SockAddr<A>) -> Self {
        Self { cookie: [cookie as u32, (cookie >> 32) as u32], peer }
    }
}

/// Where in the table of relays each family's listening socket is.
#[inline(always)]
pub const fn relay_index(v6: bool) -> u32 {
    v6 as u32
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<SockAddr<Ip4>>() == 8);
    assert!(size_of::<SockAddr<Ip6>>() == 20);
    assert!(size_of::<PeerKey<Ip4>>() == 16);
    assert!(size_of::<PeerKey<Ip6>>() == 28);
};
