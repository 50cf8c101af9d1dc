//! Connection tracking: one entry for each direction of a flow.
//!
//! An entry is keyed by the packet as it *arrives* and says what the packet becomes. The entry of the
//! opposite direction, its twin, needs no field of its own: a reply to the translated packet arrives with
//! its tuple reversed, so `key.side` and [`Tuple::reversed`] name the twin, and either half can rebuild or
//! delete the other. Activity and TCP flags are noted per direction, so that the two CPUs that carry a
//! flow's two directions never write to one cache line; [`crate::timeout`] reads both halves.

use crate::addr::{Be16, Family, Mac};

/// IP protocol numbers that are tracked (IANA).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Where a packet enters the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// From the outside, through an uplink.
    Uplink = 0,
    /// From a container, through its host-side veth.
    Container = 1,
}

/// Addresses and ports of a packet. For ICMP echo, a request has the identifier as source port and a reply
/// has it as destination port; the other port is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

impl<A: Family> Tuple<A> {
    /// The tuple of an answer to this packet.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }

    /// Both ports, as the word that they are in a packet.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        self.sport.wire() as u32 | (self.dport.wire() as u32) << 16
    }

    /// Becomes the tuple of an answer to `packet`, field by field: a program's stack has no room for whole copies.
    #[inline(always)]
    pub fn set_reversed(&mut self, packet: &Self) {
        self.src = packet.dst;
        self.dst = packet.src;
        self.sport = packet.dport;
        self.dport = packet.sport;
    }
}

/// The key of a flow entry: a packet as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Addresses and ports before any rewriting.
    pub tuple: Tuple<A>,
    /// IP protocol number ([`proto`]).
    pub proto: u8,
    /// A [`Side`]: a neighbour outside cannot replay what only a container may send.
    pub side: u8,
    _pad: [u8; 2],
}

impl<A: Family> FlowKey<A> {
    /// The key of packets with this tuple that arrive at `side`.
    #[inline(always)]
    pub fn new(tuple: Tuple<A>, proto: u8, side: Side) -> Self {
        Self { tuple, proto, side: side as u8, _pad: [0; 2] }
    }

    /// Becomes the key of packets with the tuple of `packet`.
    #[inline(always)]
    pub fn set(&mut self, packet: &Tuple<A>, proto: u8, side: Side) {
        self.tuple.src = packet.src;
        self.tuple.dst = packet.dst;
        self.tuple.sport = packet.sport;
        self.tuple.dport = packet.dport;
        self.set_rest(proto, side);
    }

    /// Becomes the key of answers to packets with the tuple of `packet`.
    #[inline(always)]
    pub fn set_reversed(&mut self, packet: &Tuple<A>, proto: u8, side: Side) {
        self.tuple.set_reversed(packet);
        self.set_rest(proto, side);
    }

    #[inline(always)]
    fn set_rest(&mut self, proto: u8, side: Side) {
        self.proto = proto;
        self.side = side as u8;
        self._pad = [0; 2];
    }
}

/// Bits of [`Flow::seen`]: what has passed in this direction.
pub mod seen {
    /// Any packet at all.
    pub const PACKET: u8 = 1;
    /// A TCP segment without SYN: the handshake has come as far as this direction's acknowledgement.
    pub const ACK: u8 = 1 << 1;
    /// A TCP FIN.
    pub const FIN: u8 = 1 << 2;
    /// A TCP RST.
    pub const RST: u8 = 1 << 3;
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// This half's twin is keyed [`super::Side::Container`]; else it is keyed [`super::Side::Uplink`].
    pub const TWIN_FROM_CONTAINER: u8 = 1;
    /// The packet is delivered into a container; else it is routed, or left to the host's stack.
    pub const TO_CONTAINER: u8 = 1 << 1;
    /// This half was made by the packet that opened the flow; its twin carries the answers.
    pub const ORIGINAL: u8 = 1 << 2;
    /// Same bridge on both sides: forwarded as a bridge does, without decrementing the TTL.
    pub const SWITCHED: u8 = 1 << 3;
    /// The packet is translated at the uplink, and goes on through the host's stack.
    pub const VIA_STACK: u8 = 1 << 4;
}

/// What a flow is for, as the counter under which its packets are counted: see [`crate::Reason`].
pub type Carried = u8;

/// One direction of a flow: what its packets become and where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<A> {
    /// When a packet last passed, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen: u64,
    /// Packets carried; a segmentation-offloaded packet counts once.
    pub packets: u64,
    /// Bytes carried, from the IP header on.
    pub bytes: u64,
    /// The packet's addresses and ports after rewriting.
    pub to: Tuple<A>,
    /// Index of the [`crate::Mapping`] that made the flow.
    pub mapping: u32,
    /// The mapping's generation when it made the flow: another generation there means that this entry is
    /// dead.
    pub generation: u32,
    /// The veth through which packets of this half must arrive, or the bridge if the host's stack has carried them
    /// from there; 0 for any uplink.
    pub from_ifindex: u32,
    /// Delivered into a container: the host side of its veth. Routed: the bridge from which the route
    /// look-up starts.
    pub to_ifindex: u32,
    /// Destination of the frame when delivered into a container.
    pub mac: Mac,
    /// Source of the frame when delivered into a container: the network's bridge.
    pub gateway_mac: Mac,
    /// [`seen`] bits.
    pub seen: u8,
    /// [`flow_flags`] bits.
    pub flags: u8,
    /// The [`crate::Reason`] under which packets of this half are counted.
    pub carried: Carried,
    #[doc(hidden)]
    pub _pad: u8,
    /// Upper half of the sequence number that this half's sender last acknowledged; only of halves with a `from_ifindex`.
    pub acked: u16,
    /// Largest IP packet that is delivered into the container, in bytes; for what is routed, the route says.
    pub mtu: u16,
}

impl<A: Family> Flow<A> {
    /// Whether all bits of `flag` are set.
    #[inline(always)]
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }

    /// Where the twin's packets arrive.
    #[inline(always)]
    pub fn twin_side(&self) -> Side {
        if self.is(flow_flags::TWIN_FROM_CONTAINER) { Side::Container } else { Side::Uplink }
    }

    /// The key of the opposite direction.
    #[inline(always)]
    pub fn twin_key(&self, proto: u8) -> FlowKey<A> {
        FlowKey::new(self.to.reversed(), proto, self.twin_side())
    }
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<FlowKey<Ip4>>() == 16);
    assert!(size_of::<FlowKey<Ip6>>() == 40);
    assert!(size_of::<Flow<Ip4>>() == 72);
    assert!(size_of::<Flow<Ip6>>() == 96);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip4;
    use proptest::prelude::*;

    proptest! {
        /// From either half the other is found, and the way back leads to where it began.
        #[test]
        fn twins_name_one_another(a: u32, b: u32, c: u32, d: u32, ports: [u16; 4], from_container: bool) {
            let ip = Ip4::from_wire;
            let port = Be16::from_wire;
            let arrives = Tuple { src: ip(a), dst: ip(b), sport: port(ports[0]), dport: port(ports[1]) };
            let leaves = Tuple { src: ip(c), dst: ip(d), sport: port(ports[2]), dport: port(ports[3]) };
            let side = if from_container { Side::Container } else { Side::Uplink };
            let key = FlowKey::new(arrives, proto::TCP, side);
            let half = Flow { to: leaves, flags: flow_flags::TWIN_FROM_CONTAINER, ..Flow::default() };
            let twin_flags = if from_container { flow_flags::TWIN_FROM_CONTAINER } else { 0 };
            let twin = Flow { to: key.tuple.reversed(), flags: twin_flags, ..Flow::default() };
            prop_assert_eq!(twin.twin_key(proto::TCP), key);
            prop_assert_eq!(half.twin_key(proto::TCP).tuple, leaves.reversed());
        }
    }
}
