//! Parsing: from a frame to a tuple and what it means for a flow.

use rnet_common::{
    Be16, Family, Ip4, Ip6, Mac, Tuple,
    flow::{proto, seen},
};

use crate::skb::{ETH_LEN, Skb};

/// The packet is not what its headers say, or is shorter.
pub(crate) struct Malformed;

/// What a packet means for connection tracking.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// May open a flow: a TCP SYN, an SCTP INIT, any UDP, an ICMP echo request.
    Opens,
    /// Belongs to a flow or to none.
    Continues,
    /// An ICMP error: belongs to the flow of the packet that it quotes.
    Error,
    /// Not tracked: its tuple has no ports.
    Untracked,
}

/// Which part of an IP packet this is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the transport header.
    Head,
    /// Another fragment, which has none: its tuple has no ports until [`crate::fragment`] finds them.
    Tail,
}

/// A parsed packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Packet<A> {
    pub(crate) tuple: Tuple<A>,
    /// Offset of the transport header from the start of the frame.
    pub(crate) l4: usize,
    /// A fragment's identification, as it lies in the packet.
    pub(crate) fragment_id: u32,
    /// IP protocol number of the transport header.
    pub(crate) proto: u8,
    /// Time to live, or hop limit.
    pub(crate) ttl: u8,
    pub(crate) class: Class,
    pub(crate) part: Part,
    /// Whether routers may fragment it: IPv4 without the don't-fragment flag.
    pub(crate) may_fragment: bool,
    /// [`seen`] bits.
    pub(crate) seen: u8,
    /// Type of an ICMP message.
    pub(crate) icmp: u8,
    /// It has opened its flow.
    pub(crate) is_new: bool,
}

impl<A: Family> Packet<A> {
    /// No packet yet.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self {
            tuple: Tuple::default(),
            l4: 0,
            fragment_id: 0,
            proto: 0,
            ttl: 0,
            class: Class::Untracked,
            part: Part::Whole,
            may_fragment: false,
            seen: seen::PACKET,
            icmp: 0,
            is_new: false,
        }
    }

    /// A TCP segment that asks for a connection.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        self.proto == proto::TCP && self.class == Class::Opens
    }
}

/// Destination and source of the frame.
#[inline(always)]
pub(crate) fn macs(skb: Skb) -> Option<(Mac, Mac)> {
    Some((skb.read(0)?, skb.read(6)?))
}

/// A family's headers.
pub(crate) trait Parse: Family {
    /// Length of the header without options or extensions.
    const HEADER: usize;
    /// The family's ICMP.
    const ICMP: u8;
    /// Types of ICMP's echo request and of its answer.
    const ECHO: (u8, u8);

    /// Reads the headers of the frame's packet, in place of what `packet` was.
    fn parse(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Malformed>;
    /// Reads the headers of a packet at an offset that may be cut short after 8 bytes of its transport header, as
    /// ICMP errors quote them (RFC 792, RFC 4443 §2.4).
    fn parse_quoted(skb: Skb, at: usize) -> Result<Quoted<Self>, Malformed>;
    /// Whether an ICMP message of this type is an error that quotes a packet.
    fn is_error(icmp: u8) -> bool;
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<A> {
    pub(crate) tuple: Tuple<A>,
    /// Offset of its transport header from the start of the frame.
    pub(crate) l4: usize,
    /// IP protocol number of the transport header.
    pub(crate) proto: u8,
}

impl Parse for Ip4 {
    const HEADER: usize = 20;
    const ICMP: u8 = proto::ICMP;
    const ECHO: (u8, u8) = (8, 0);

    #[inline(always)]
    fn parse(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Malformed> {
        let header = header4(skb, ETH_LEN)?;
        // A receive-offloaded packet over 64 KiB has length 0 (BIG TCP).
        let length = header.length as u32;
        if length != 0 && (length < header.size as u32 || length + ETH_LEN as u32 > skb.len()) {
            return Err(Malformed);
        }
        const DONT: u16 = 0x4000;
        const MORE: u16 = 0x2000;
        packet.tuple.src = header.src;
        packet.tuple.dst = header.dst;
        packet.l4 = ETH_LEN + header.size;
        packet.fragment_id = header.id as u32;
        packet.proto = header.proto;
        packet.ttl = header.ttl;
        packet.part = match header.fragment & 0x3fff {
            0 => Part::Whole,
            MORE => Part::Head,
            _ => Part::Tail,
        };
        packet.may_fragment = header.fragment & DONT == 0;
        transport(skb, packet)
    }

    #[inline(always)]
    fn parse_quoted(skb: Skb, at: usize) -> Result<Quoted<Self>, Malformed> {
        let header = header4(skb, at)?;
        if header.fragment & 0x1fff != 0 {
            return Err(Malformed);
        }
        let tuple = Tuple { src: header.src, dst: header.dst, ..Tuple::default() };
        quoted_transport(skb, Quoted { tuple, l4: at + header.size, proto: header.proto })
    }

    #[inline(always)]
    fn is_error(icmp: u8) -> bool {
        const UNREACHABLE: u8 = 3;
        const TIME_EXCEEDED: u8 = 11;
        const PARAMETER_PROBLEM: u8 = 12;
        matches!(icmp, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// An IPv4 header. Numbers are in host byte order but for the identification.
struct Header4 {
    src: Ip4,
    dst: Ip4,
    /// In bytes, options included.
    size: usize,
    length: u16,
    id: u16,
    /// Flags and offset.
    fragment: u16,
    ttl: u8,
    proto: u8,
}

#[inline(always)]
fn header4(skb: Skb, at: usize) -> Result<Header4, Malformed> {
    if !skb.pull(at + Ip4::HEADER) {
        return Err(Malformed);
    }
    let [first, second, third, src]: [u32; 4] = skb.read(at).ok_or(Malformed)?;
    let dst: u32 = skb.read(at + 16).ok_or(Malformed)?;
    let size = (first as u8 & 0xf) as usize * 4;
    if first as u8 >> 4 != 4 || size < Ip4::HEADER {
        return Err(Malformed);
    }
    Ok(Header4 {
        src: Ip4::from_wire(src),
        dst: Ip4::from_wire(dst),
        size,
        length: u16::from_be((first >> 16) as u16),
        id: second as u16,
        fragment: u16::from_be((second >> 16) as u16),
        ttl: third as u8,
        proto: (third >> 8) as u8,
    })
}

impl Parse for Ip6 {
    const HEADER: usize = 40;
    const ICMP: u8 = proto::ICMPV6;
    const ECHO: (u8, u8) = (128, 129);

    #[inline(always)]
    fn parse(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Malformed> {
        parse6(skb, packet)
    }

    #[inline(always)]
    fn parse_quoted(skb: Skb, at: usize) -> Result<Quoted<Self>, Malformed> {
        let header = header6(skb, at)?;
        if header.part == Part::Tail {
            return Err(Malformed);
        }
        let tuple = Tuple { src: header.src, dst: header.dst, ..Tuple::default() };
        quoted_transport(skb, Quoted { tuple, l4: header.l4, proto: header.proto })
    }

    #[inline(always)]
    fn is_error(icmp: u8) -> bool {
        // RFC 4443 §2.1.
        icmp & 0x80 == 0
    }
}

/// Reads the headers of the frame's packet. A function of its own, for the room on the stack that it takes.
#[inline(never)]
fn parse6(skb: Skb, packet: &mut Packet<Ip6>) -> Result<(), Malformed> {
    let header = header6(skb, ETH_LEN)?;
    // Jumbograms and receive-offloaded packets over 64 KiB have length 0.
    let length = header.length as u32;
    if length != 0 && length + (ETH_LEN + Ip6::HEADER) as u32 > skb.len() {
        return Err(Malformed);
    }
    packet.tuple.src = header.src;
    packet.tuple.dst = header.dst;
    packet.l4 = header.l4;
    packet.fragment_id = header.fragment_id;
    packet.proto = header.proto;
    packet.ttl = header.ttl;
    packet.part = header.part;
    transport(skb, packet)
}

/// An IPv6 header with its extensions. Numbers are in host byte order but for the identification.
struct Header6 {
    src: Ip6,
    dst: Ip6,
    /// Offset of the transport header from the start of the frame.
    l4: usize,
    length: u16,
    fragment_id: u32,
    part: Part,
    ttl: u8,
    proto: u8,
}

#[inline(always)]
fn header6(skb: Skb, at: usize) -> Result<Header6, Malformed> {
    if !skb.pull(at + Ip6::HEADER) {
        return Err(Malformed);
    }
    let version: u8 = skb.read(at).ok_or(Malformed)?;
    if version >> 4 != 6 {
        return Err(Malformed);
    }
    let mut header = Header6 {
        length: u16::from_be(skb.read(at + 4).ok_or(Malformed)?),
        proto: skb.read(at + 6).ok_or(Malformed)?,
        ttl: skb.read(at + 7).ok_or(Malformed)?,
        src: Ip6::from_wire(skb.read(at + 8).ok_or(Malformed)?),
        dst: Ip6::from_wire(skb.read(at + 24).ok_or(Malformed)?),
        l4: at + Ip6::HEADER,
        fragment_id: 0,
        part: Part::Whole,
    };
    extensions(skb, &mut header)?;
    Ok(header)
}

/// Walks the extension headers (RFC 8200 §4).
#[inline(always)]
fn extensions(skb: Skb, header: &mut Header6) -> Result<(), Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    /// As many as the kernel walks for a sensible packet, and no more than the verifier likes.
    const MOST: usize = 6;
    const LONGEST: usize = 1024;
    for _ in 0..MOST {
        let at = header.l4;
        if !matches!(header.proto, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return Ok(());
        }
        if at > LONGEST || !skb.pull(at + 8) {
            return Err(Malformed);
        }
        let kind = header.proto;
        header.proto = skb.read(at).ok_or(Malformed)?;
        let units: u8 = skb.read(at + 1).ok_or(Malformed)?;
        header.l4 = at
            + match kind {
                FRAGMENT => {
                    let offset = u16::from_be(skb.read(at + 2).ok_or(Malformed)?);
                    header.fragment_id = skb.read(at + 4).ok_or(Malformed)?;
                    header.part = match (offset & 0xfff8, offset & 1) {
                        // RFC 6946: a fragment of one is a packet like any other.
                        (0, 0) => Part::Whole,
                        (0, _) => Part::Head,
                        _ => Part::Tail,
                    };
                    if header.part == Part::Tail {
                        return Ok(());
                    }
                    8
                }
                // RFC 4302 §2.2: in words of 4 bytes, less 2.
                AUTHENTICATION => (units as usize + 2) * 4,
                _ => (units as usize + 1) * 8,
            };
    }
    Err(Malformed)
}

/// Reads the ports, or what stands for them, and what the packet means for a flow.
#[inline(always)]
fn transport<A: Parse>(skb: Skb, packet: &mut Packet<A>) -> Result<(), Malformed> {
    if packet.part == Part::Tail {
        return Ok(());
    }
    let l4 = packet.l4;
    match packet.proto {
        proto::TCP => {
            (packet.tuple.sport, packet.tuple.dport) = ports(skb, l4, 20)?;
            const FIN: u8 = 1;
            const SYN: u8 = 1 << 1;
            const RST: u8 = 1 << 2;
            const ACK: u8 = 1 << 4;
            let flags: u8 = skb.read(l4 + 13).ok_or(Malformed)?;
            let opens = flags & (FIN | SYN | RST | ACK) == SYN;
            packet.class = if opens { Class::Opens } else { Class::Continues };
            if flags & SYN == 0 {
                packet.seen |= seen::ACK;
            }
            if flags & FIN != 0 {
                packet.seen |= seen::FIN;
            }
            if flags & RST != 0 {
                packet.seen |= seen::RST;
            }
        }
        proto::UDP => {
            (packet.tuple.sport, packet.tuple.dport) = ports(skb, l4, 8)?;
            packet.class = Class::Opens;
        }
        proto::SCTP => {
            // The common header and the first chunk's type (RFC 9260 §3).
            (packet.tuple.sport, packet.tuple.dport) = ports(skb, l4, 16)?;
            const INIT: u8 = 1;
            let chunk: u8 = skb.read(l4 + 12).ok_or(Malformed)?;
            packet.class = if chunk == INIT { Class::Opens } else { Class::Continues };
        }
        icmp if icmp == A::ICMP => {
            if !skb.pull(l4 + 8) {
                return Err(Malformed);
            }
            packet.icmp = skb.read(l4).ok_or(Malformed)?;
            let id = Be16::from_wire(skb.read(l4 + 4).ok_or(Malformed)?);
            if packet.icmp == A::ECHO.0 {
                packet.tuple.sport = id;
                packet.class = Class::Opens;
            } else if packet.icmp == A::ECHO.1 {
                packet.tuple.dport = id;
                packet.class = Class::Continues;
            } else if A::is_error(packet.icmp) {
                packet.class = Class::Error;
            }
        }
        _ => {}
    }
    Ok(())
}

/// What a packet is quoted with of its transport header.
#[inline(always)]
fn quoted_transport<A: Parse>(skb: Skb, mut quoted: Quoted<A>) -> Result<Quoted<A>, Malformed> {
    let l4 = quoted.l4;
    match quoted.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            (quoted.tuple.sport, quoted.tuple.dport) = ports(skb, l4, 8)?;
        }
        icmp if icmp == A::ICMP => {
            if !skb.pull(l4 + 8) {
                return Err(Malformed);
            }
            let icmp: u8 = skb.read(l4).ok_or(Malformed)?;
            let id = Be16::from_wire(skb.read(l4 + 4).ok_or(Malformed)?);
            if icmp == A::ECHO.0 {
                quoted.tuple.sport = id;
            } else if icmp == A::ECHO.1 {
                quoted.tuple.dport = id;
            } else {
                return Err(Malformed);
            }
        }
        _ => return Err(Malformed),
    }
    Ok(quoted)
}

/// Source and destination port of a transport header of which at least `least` bytes must be there.
#[inline(always)]
fn ports(skb: Skb, l4: usize, least: usize) -> Result<(Be16, Be16), Malformed> {
    if !skb.pull(l4 + least) {
        return Err(Malformed);
    }
    let sport = Be16::from_wire(skb.read(l4).ok_or(Malformed)?);
    let dport = Be16::from_wire(skb.read(l4 + 2).ok_or(Malformed)?);
    Ok((sport, dport))
}

/// Whether packets of this protocol belong to flows.
#[inline(always)]
pub(crate) fn is_tracked<A: Parse>(proto: u8) -> bool {
    matches!(proto, proto::TCP | proto::UDP | proto::SCTP) || proto == A::ICMP
}
