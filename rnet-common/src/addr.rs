//! Addresses and ports as they lie in a packet. Their fields are what `bpftool map dump` prints.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A 16-bit field in network byte order: a port, or an ICMP echo identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Be16 {
    be16: u16,
}

impl Be16 {
    /// Zero: no port.
    pub const ZERO: Self = Self { be16: 0 };

    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self { be16: host.to_be() }
    }

    /// From a word as read from a packet.
    #[inline(always)]
    pub const fn from_wire(wire: u16) -> Self {
        Self { be16: wire }
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.be16)
    }

    /// The word as it is written to a packet.
    #[inline(always)]
    pub const fn wire(self) -> u16 {
        self.be16
    }
}

/// An IPv4 address, as one word in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ip4 {
    be32: u32,
}

/// An IPv6 address, as four words in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ip6 {
    be32: [u32; 4],
}

impl Ip4 {
    /// From a word as read from a packet.
    #[inline(always)]
    pub const fn from_wire(wire: u32) -> Self {
        Self { be32: wire }
    }

    /// The word as it is written to a packet.
    #[inline(always)]
    pub const fn wire(self) -> u32 {
        self.be32
    }
}

impl Ip6 {
    /// From words as read from a packet.
    #[inline(always)]
    pub const fn from_wire(wire: [u32; 4]) -> Self {
        Self { be32: wire }
    }

    /// The words as they are written to a packet.
    #[inline(always)]
    pub const fn wire(self) -> [u32; 4] {
        self.be32
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(addr: Ipv4Addr) -> Self {
        Self { be32: u32::from_ne_bytes(addr.octets()) }
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(addr: Ip4) -> Self {
        Self::from(addr.be32.to_ne_bytes())
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(addr: Ipv6Addr) -> Self {
        let o = addr.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self { be32: [word(0), word(4), word(8), word(12)] }
    }
}

impl From<Ip6> for Ipv6Addr {
    fn from(addr: Ip6) -> Self {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_exact_mut(4).zip(addr.be32) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

/// An address family: all that the datapath's code is generic over.
pub trait Family: Copy + Default + Eq + 'static {
    /// Whether this is IPv6.
    const V6: bool;

    /// The address that stands for any address of the host in a published port: all zeroes.
    #[inline(always)]
    fn any() -> Self {
        Self::default()
    }

    /// 127.0.0.1 or ::1.
    fn loopback() -> Self;

    /// 127.0.0.0/8 or ::1.
    fn is_loopback(self) -> bool;

    /// Multicast of either family, or the IPv4 limited broadcast address.
    fn is_group(self) -> bool;

    /// Link-local unicast: 169.254.0.0/16 or fe80::/10.
    fn is_link_local(self) -> bool;

    /// The ones' complement sum of the address's 16-bit words, in the byte order of the packet, not
    /// folded ([`crate::checksum`]).
    fn sum(self) -> u64;
}

impl Family for Ip4 {
    const V6: bool = false;

    #[inline(always)]
    fn loopback() -> Self {
        Self { be32: 0x7f00_0001u32.to_be() }
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        u32::from_be(self.be32) >> 24 == 127
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        let host = u32::from_be(self.be32);
        host >> 28 == 0xe || host == u32::MAX
    }

    #[inline(always)]
    fn is_link_local(self) -> bool {
        u32::from_be(self.be32) >> 16 == 0xa9fe
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        self.be32 as u64
    }
}

impl Family for Ip6 {
    const V6: bool = true;

    #[inline(always)]
    fn loopback() -> Self {
        Self { be32: [0, 0, 0, 1u32.to_be()] }
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.be32[0] | self.be32[1] | self.be32[2] == 0 && u32::from_be(self.be32[3]) == 1
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        u32::from_be(self.be32[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_link_local(self) -> bool {
        u32::from_be(self.be32[0]) >> 22 == 0x3fa
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        self.be32[0] as u64 + self.be32[1] as u64 + self.be32[2] as u64 + self.be32[3] as u64
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Broadcast or multicast: the group bit is set.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ipv4_survives_the_way_into_a_map_and_back(octets: [u8; 4]) {
            let addr = Ipv4Addr::from(octets);
            prop_assert_eq!(Ipv4Addr::from(Ip4::from(addr)), addr);
            prop_assert_eq!(Ip4::from(addr).is_loopback(), addr.is_loopback());
            prop_assert_eq!(Ip4::from(addr).is_group(), addr.is_multicast() || addr.is_broadcast());
            prop_assert_eq!(Ip4::from(addr).is_link_local(), addr.is_link_local());
        }

        #[test]
        fn ipv6_survives_the_way_into_a_map_and_back(octets: [u8; 16]) {
            let addr = Ipv6Addr::from(octets);
            prop_assert_eq!(Ipv6Addr::from(Ip6::from(addr)), addr);
            prop_assert_eq!(Ip6::from(addr).is_group(), addr.is_multicast());
            prop_assert_eq!(Ip6::from(addr).is_link_local(), addr.is_unicast_link_local());
        }
    }

    #[test]
    fn special_addresses_are_recognised() {
        assert!(Ip4::from(Ipv4Addr::new(127, 9, 9, 9)).is_loopback());
        assert!(Ip6::from(Ipv6Addr::LOCALHOST).is_loopback());
        assert_eq!(Ipv4Addr::from(Ip4::loopback()), Ipv4Addr::LOCALHOST);
        assert_eq!(Ipv6Addr::from(Ip6::loopback()), Ipv6Addr::LOCALHOST);
        assert!(!Ip6::from(Ipv6Addr::UNSPECIFIED).is_loopback());
        assert!(Ip6::from("fe80::1".parse::<Ipv6Addr>().unwrap()).is_link_local());
        assert!(Ip4::from(Ipv4Addr::BROADCAST).is_group());
    }
}
