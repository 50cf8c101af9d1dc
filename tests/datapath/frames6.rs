//! IPv6 frames.

use std::net::Ipv6Addr;

use etherparse::{IcmpEchoHeader, Icmpv6Type, PacketBuilder};
use testbed::packet::{Ethernet, TTL};

/// Where a frame comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way6 {
    pub(crate) link: Ethernet,
    pub(crate) src: (Ipv6Addr, u16),
    pub(crate) dst: (Ipv6Addr, u16),
    pub(crate) hops: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind6 {
    Syn,
    SynAck,
    Udp(&'static [u8]),
    /// The source port is the identifier.
    Ping,
    /// The destination port is the identifier.
    Pong,
}

impl Kind6 {
    pub(crate) fn proto(self) -> u8 {
        match self {
            Self::Syn | Self::SynAck => 6,
            Self::Udp(_) => 17,
            Self::Ping | Self::Pong => 58,
        }
    }
}

impl Way6 {
    pub(crate) fn new(link: Ethernet, src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16)) -> Self {
        Self { link, src, dst, hops: TTL }
    }

    /// One hop on.
    pub(crate) fn forwarded(self) -> Self {
        Self { hops: self.hops - 1, ..self }
    }
}

/// A frame with right checksums.
pub(crate) fn frame6(way: Way6, kind: Kind6) -> Vec<u8> {
    let Way6 { link, src, dst, hops } = way;
    let ip = PacketBuilder::ethernet2(link.src, link.dst).ipv6(src.0.octets(), dst.0.octets(), hops);
    let echo = |id| IcmpEchoHeader { id, seq: 3 };
    let mut frame = Vec::new();
    match kind {
        Kind6::Syn => ip.tcp(src.1, dst.1, 7, 4096).syn().write(&mut frame, b""),
        Kind6::SynAck => ip.tcp(src.1, dst.1, 8, 4096).syn().ack(8).write(&mut frame, b""),
        Kind6::Udp(payload) => ip.udp(src.1, dst.1).write(&mut frame, payload),
        Kind6::Ping => ip.icmpv6(Icmpv6Type::EchoRequest(echo(src.1))).write(&mut frame, b"ping"),
        Kind6::Pong => ip.icmpv6(Icmpv6Type::EchoReply(echo(dst.1))).write(&mut frame, b"ping"),
    }
    .unwrap();
    frame
}
