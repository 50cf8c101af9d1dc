//! Writing a translated tuple into a packet, checksums included.
//!
//! A transport checksum may be not yet computed (`CHECKSUM_PARTIAL`: the field holds the pseudo header's sum and
//! the device adds the rest), so it is adjusted through the kernel's helper, which knows. The IPv4 header's own
//! checksum is always complete, and adjusting it keeps the sum of the header zero, which is why the helper for it
//! has nothing to tell the kernel either: it is written along with the addresses.

use core::mem::offset_of;

use rnet_common::{
    Family, Flow, Ip4, Ip6, Mac, Reason, Tuple,
    checksum::{adjust, difference, fold},
    flow::proto,
};

use crate::{
    packet::{Packet, Parse, Part, Quoted},
    skb::{ETH_LEN, Skb},
};

/// Gives the frame its next destination.
#[inline(always)]
pub(crate) fn frame(skb: Skb, destination: Mac, source: Mac) -> Result<(), Reason> {
    ok(skb.put(0, destination) && skb.put(size_of::<Mac>(), source))
}

/// Gives the frame of a packet of a flow its next destination: the container, from its bridge.
#[inline(always)]
pub(crate) fn frame_of<A: Family>(skb: Skb, flow: &Flow<A>) -> Result<(), Reason> {
    const _: () = assert!(
        offset_of!(Flow<Ip4>, gateway_mac) == offset_of!(Flow<Ip4>, mac) + size_of::<Mac>()
            && offset_of!(Flow<Ip6>, gateway_mac) == offset_of!(Flow<Ip6>, mac) + size_of::<Mac>()
            && offset_of!(Flow<Ip4>, mac) % 4 == 0
            && offset_of!(Flow<Ip6>, mac) % 4 == 0
    );
    let addresses: *const [u32; 3] = (&raw const flow.mac).cast();
    // SAFETY: both addresses lie one behind the other, at a word's boundary: see the assertion.
    ok(skb.put(0, unsafe { *addresses }))
}

/// Rewrites addresses, ports and time to live.
#[inline(always)]
pub(crate) fn translate<A: Rewrite + Parse>(
    skb: Skb,
    packet: &Packet<A>,
    to: &Tuple<A>,
    ttl: u8,
) -> Result<(), Reason> {
    // The transport header is in the first fragment.
    if packet.part != Part::Tail {
        let addresses = addresses(&packet.tuple, to);
        match packet.proto {
            proto::TCP => transport(skb, packet, to, TCP_CHECKSUM, addresses, false)?,
            proto::UDP => transport(skb, packet, to, UDP_CHECKSUM, addresses, true)?,
            icmp if icmp == A::ICMP => echo(skb, packet, to, addresses)?,
            // SCTP's checksum does not cover addresses, and its ports stay.
            _ => {}
        }
    }
    A::header(skb, packet, to, ttl)
}

/// Offsets of the checksum in the transport header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const ICMP_HEADER: usize = 8;

/// What a change of addresses makes to a sum.
#[inline(always)]
fn addresses<A: Family>(from: &Tuple<A>, to: &Tuple<A>) -> u16 {
    difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum())
}

/// TCP or UDP: both begin with the ports. `checksum` is the offset of the checksum in the header.
#[inline(always)]
fn transport<A: Family>(
    skb: Skb,
    packet: &Packet<A>,
    to: &Tuple<A>,
    checksum: usize,
    addresses: u16,
    udp: bool,
) -> Result<(), Reason> {
    let at = packet.l4 + checksum;
    // A difference of zero, of either sign, changes nothing.
    if addresses != 0 && addresses != u16::MAX {
        ok(skb.adjust_for_addresses(at, addresses, udp))?;
    }
    let (before, after) = (packet.tuple.ports(), to.ports());
    if before != after {
        ok(skb.adjust_for_word(at, before, after, udp))?;
        ok(skb.put(packet.l4, after))?;
    }
    Ok(())
}

/// An ICMP echo's identifier, which stands in for a port.
#[inline(always)]
fn echo<A: Rewrite>(skb: Skb, packet: &Packet<A>, to: &Tuple<A>, addresses: u16) -> Result<(), Reason> {
    if A::V6 && addresses != 0 && addresses != u16::MAX {
        ok(skb.adjust_for_addresses(packet.l4 + ICMP_CHECKSUM, addresses, false))?;
    }
    let (before, after) = (identifier(&packet.tuple), identifier(to));
    if before != after {
        ok(skb.adjust_for_word(packet.l4 + ICMP_CHECKSUM, before as u32, after as u32, false))?;
        ok(skb.put(packet.l4 + IDENTIFIER, after))?;
    }
    Ok(())
}

const IDENTIFIER: usize = 4;

/// One of an echo's two ports is zero.
#[inline(always)]
fn identifier<A: Family>(tuple: &Tuple<A>) -> u16 {
    tuple.sport.wire() | tuple.dport.wire()
}

/// Rewrites an ICMP error: its own addresses and time to live, and the packet that it quotes, which becomes `inner`.
///
/// All of an error is there, and its checksum is complete: no sender leaves it to the device.
#[inline(always)]
pub(crate) fn translate_error<A: Rewrite + Parse>(
    skb: Skb,
    packet: &Packet<A>,
    to: &Tuple<A>,
    quoted: &Quoted<A>,
    inner: &Tuple<A>,
    ttl: u8,
) -> Result<(), Reason> {
    A::header(skb, packet, to, ttl)?;
    if A::V6 {
        ok(skb.adjust_for_addresses(packet.l4 + ICMP_CHECKSUM, addresses(&packet.tuple, to), false))?;
    }
    A::quoted_header(skb, packet.l4 + ICMP_HEADER, quoted, inner)?;
    let within = addresses(&quoted.tuple, inner);
    // An IPv4 header's sum is zero before and after.
    let mut change = if A::V6 { within } else { 0 };
    let at = quoted.l4;
    let (words, checksum) = match quoted.proto {
        proto::TCP => (Some((quoted.tuple.ports(), inner.ports())), TCP_CHECKSUM),
        proto::UDP => (Some((quoted.tuple.ports(), inner.ports())), UDP_CHECKSUM),
        icmp if icmp == A::ICMP => (None, ICMP_CHECKSUM),
        _ => return ok(skb.adjust(packet.l4 + ICMP_CHECKSUM, change)),
    };
    let ports = match words {
        Some((before, after)) => {
            ok(skb.write(at, &after))?;
            difference(before as u64, after as u64)
        }
        None => {
            let (before, after) = (identifier(&quoted.tuple), identifier(inner));
            ok(skb.write(at + IDENTIFIER, &after))?;
            difference(before as u64, after as u64)
        }
    };
    change = fold(change as u64 + ports as u64);
    // What is quoted may end before its checksum.
    let covers_addresses = A::V6 || words.is_some();
    let covered = if covers_addresses { fold(within as u64 + ports as u64) } else { ports };
    if skb.pull(at + checksum + 2) {
        let before: u16 = skb.read(at + checksum).ok_or(Reason::RewriteFailed)?;
        if before != 0 || quoted.proto != proto::UDP {
            let after = adjust(before, covered);
            ok(skb.write(at + checksum, &after))?;
            change = fold(change as u64 + difference(before as u64, after as u64) as u64);
        }
    }
    ok(skb.adjust(packet.l4 + ICMP_CHECKSUM, change))
}

#[inline(always)]
fn ok(done: bool) -> Result<(), Reason> {
    if done { Ok(()) } else { Err(Reason::RewriteFailed) }
}

/// A family's IP header.
pub(crate) trait Rewrite: Family {
    /// Writes addresses and time to live.
    fn header(skb: Skb, packet: &Packet<Self>, to: &Tuple<Self>, ttl: u8) -> Result<(), Reason>;
    /// Writes the addresses of a header that an ICMP error quotes.
    fn quoted_header(skb: Skb, at: usize, quoted: &Quoted<Self>, to: &Tuple<Self>) -> Result<(), Reason>;
}

impl Rewrite for Ip4 {
    #[inline(always)]
    fn header(skb: Skb, packet: &Packet<Self>, to: &Tuple<Self>, ttl: u8) -> Result<(), Reason> {
        /// From here to the header's end: time to live, protocol and checksum in one word, and the addresses.
        const TTL: usize = ETH_LEN + 8;
        let checksum: u16 = skb.read(ETH_LEN + IP4_CHECKSUM).ok_or(Reason::RewriteFailed)?;
        let before = u16::from_ne_bytes([packet.ttl, packet.proto]);
        let after = u16::from_ne_bytes([ttl, packet.proto]);
        let from = &packet.tuple;
        let change = difference(
            before as u64 + from.src.sum() + from.dst.sum(),
            after as u64 + to.src.sum() + to.dst.sum(),
        );
        let first = after as u32 | (adjust(checksum, change) as u32) << 16;
        ok(skb.put(TTL, [first, to.src.wire(), to.dst.wire()]))
    }

    #[inline(always)]
    fn quoted_header(skb: Skb, at: usize, quoted: &Quoted<Self>, to: &Tuple<Self>) -> Result<(), Reason> {
        #[repr(C, packed)]
        struct Rest {
            checksum: u16,
            src: u32,
            dst: u32,
        }
        let at = at + IP4_CHECKSUM;
        let checksum: u16 = skb.read(at).ok_or(Reason::RewriteFailed)?;
        let checksum = adjust(checksum, addresses(&quoted.tuple, to));
        ok(skb.write(at, &Rest { checksum, src: to.src.wire(), dst: to.dst.wire() }))
    }
}

/// Offset of the checksum in an IPv4 header.
const IP4_CHECKSUM: usize = 10;

impl Rewrite for Ip6 {
    #[inline(always)]
    fn header(skb: Skb, packet: &Packet<Self>, to: &Tuple<Self>, ttl: u8) -> Result<(), Reason> {
        /// The word that ends with the hop limit; the addresses follow.
        const WORD: usize = ETH_LEN + 4;
        #[repr(C)]
        struct Rest {
            word: u32,
            src: [u32; 4],
            dst: [u32; 4],
        }
        let word: u32 = skb.read(WORD).ok_or(Reason::RewriteFailed)?;
        let [length_high, length_low, next, _] = word.to_ne_bytes();
        let word = u32::from_ne_bytes([length_high, length_low, next, ttl]);
        if to.src == packet.tuple.src && to.dst == packet.tuple.dst {
            return ok(skb.write_summed(WORD, &word));
        }
        ok(skb.write_summed(WORD, &Rest { word, src: to.src.wire(), dst: to.dst.wire() }))
    }

    #[inline(always)]
    fn quoted_header(skb: Skb, at: usize, _: &Quoted<Self>, to: &Tuple<Self>) -> Result<(), Reason> {
        ok(skb.write(at + IP6_ADDRESSES, &to.src) && skb.write(at + IP6_ADDRESSES + 16, &to.dst))
    }
}

/// Offset of the addresses in an IPv6 header.
const IP6_ADDRESSES: usize = 8;
