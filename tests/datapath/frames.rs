//! Frames that go in, and what they must become.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IcmpEchoHeader, Icmpv4Type, TcpHeader};
use testbed::packet::{self, Ethernet};

/// Where a frame comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) link: Ethernet,
    pub(crate) src: (Ipv4Addr, u16),
    pub(crate) dst: (Ipv4Addr, u16),
}

/// What is in a frame.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Tcp(Box<TcpHeader>, Vec<u8>),
    Udp(Vec<u8>),
    /// The source port is the identifier.
    Ping,
    /// The destination port is the identifier.
    Pong,
}

impl Kind {
    pub(crate) fn syn() -> Self {
        Self::Tcp(Box::new(packet::syn(7)), Vec::new())
    }

    pub(crate) fn tcp(set: impl FnOnce(&mut TcpHeader)) -> Self {
        let mut header = TcpHeader::new(0, 0, 1000, 4096);
        set(&mut header);
        Self::Tcp(Box::new(header), b"some data".to_vec())
    }

    pub(crate) fn udp(payload: &[u8]) -> Self {
        Self::Udp(payload.to_vec())
    }

    /// The IP protocol number.
    pub(crate) fn proto(&self) -> u8 {
        match self {
            Self::Tcp(..) => 6,
            Self::Udp(_) => 17,
            Self::Ping | Self::Pong => 1,
        }
    }
}

/// A frame with right checksums.
pub(crate) fn frame(way: Way, kind: &Kind) -> Vec<u8> {
    let Way { link, src, dst } = way;
    let socket = |(addr, port)| SocketAddrV4::new(addr, port);
    let echo = |id| IcmpEchoHeader { id, seq: 3 };
    match kind {
        Kind::Tcp(header, payload) => {
            packet::tcp(link, socket(src), socket(dst), (**header).clone(), payload)
        }
        Kind::Udp(payload) => packet::udp(link, socket(src), socket(dst), payload),
        Kind::Ping => packet::icmp(link, src.0, dst.0, Icmpv4Type::EchoRequest(echo(src.1)), b"ping"),
        Kind::Pong => packet::icmp(link, src.0, dst.0, Icmpv4Type::EchoReply(echo(dst.1)), b"ping"),
    }
}

/// The frame with another time to live.
pub(crate) fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    frame[14 + 8] = ttl;
    finish_header(&mut frame);
    frame
}

/// Computes the IPv4 header's checksum anew.
pub(crate) fn finish_header(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let sum: u32 =
        frame[14..end].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).unwrap();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// One hop on.
pub(crate) fn forwarded(way: Way, kind: &Kind) -> Vec<u8> {
    with_ttl(frame(way, kind), packet::TTL - 1)
}
