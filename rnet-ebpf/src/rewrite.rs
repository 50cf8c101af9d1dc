//! Writing a translated tuple into a packet, checksums included.
//!
//! A transport checksum may be not yet computed (`CHECKSUM_PARTIAL`: the field holds the pseudo header's sum and
//! the device adds the rest), so it is adjusted through the kernel's helper, which knows. The IPv4 header's own
//! checksum is always complete, and adjusting it keeps the sum of the header zero, which is why the helper for it
//! has nothing to tell the kernel either: it is written along with the addresses.

use rnet_common::{
    Family, Ip4, Mac, Reason, Tuple,
    checksum::{adjust, difference},
    flow::proto,
};

use crate::{
    packet::Packet,
    skb::{ETH_LEN, Skb},
};

/// Gives the frame its next destination.
#[inline(always)]
pub(crate) fn frame(skb: Skb, destination: Mac, source: Mac) -> Result<(), Reason> {
    #[repr(C)]
    struct Addresses(Mac, Mac);
    ok(skb.write(0, &Addresses(destination, source)))
}

/// Rewrites addresses, ports and time to live.
#[inline(always)]
pub(crate) fn translate<A: Rewrite>(
    skb: Skb,
    packet: &Packet<A>,
    to: &Tuple<A>,
    ttl: u8,
) -> Result<(), Reason> {
    let from = &packet.tuple;
    A::header(skb, packet, to, ttl)?;
    let addresses = difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    match packet.proto {
        proto::TCP => transport(skb, packet, to, 16, addresses, false),
        proto::UDP => transport(skb, packet, to, 6, addresses, true),
        proto::ICMP => echo(skb, packet, to),
        _ => Ok(()),
    }
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
    let before = ports(&packet.tuple);
    let after = ports(to);
    if before != after {
        ok(skb.adjust_for_word(at, before, after, udp))?;
        ok(skb.write(packet.l4, &after))?;
    }
    Ok(())
}

/// Both ports as the word that they are in the packet.
#[inline(always)]
fn ports<A: Family>(tuple: &Tuple<A>) -> u32 {
    tuple.sport.wire() as u32 | (tuple.dport.wire() as u32) << 16
}

/// An ICMP echo's identifier, which stands in for a port. ICMP for IPv4 covers no pseudo header.
#[inline(always)]
fn echo<A: Family>(skb: Skb, packet: &Packet<A>, to: &Tuple<A>) -> Result<(), Reason> {
    const CHECKSUM: usize = 2;
    const IDENTIFIER: usize = 4;
    // One of the two ports is zero on both sides.
    let before = packet.tuple.sport.wire() | packet.tuple.dport.wire();
    let after = to.sport.wire() | to.dport.wire();
    if before != after {
        ok(skb.adjust_for_word(packet.l4 + CHECKSUM, before as u32, after as u32, false))?;
        ok(skb.write(packet.l4 + IDENTIFIER, &after))?;
    }
    Ok(())
}

#[inline(always)]
fn ok(done: bool) -> Result<(), Reason> {
    if done { Ok(()) } else { Err(Reason::RewriteFailed) }
}

/// A family's IP header.
pub(crate) trait Rewrite: Family {
    /// Writes addresses and time to live.
    fn header(skb: Skb, packet: &Packet<Self>, to: &Tuple<Self>, ttl: u8) -> Result<(), Reason>;
}

impl Rewrite for Ip4 {
    #[inline(always)]
    fn header(skb: Skb, packet: &Packet<Self>, to: &Tuple<Self>, ttl: u8) -> Result<(), Reason> {
        const TTL: usize = ETH_LEN + 8;
        const CHECKSUM: usize = ETH_LEN + 10;
        /// From the time to live to the destination: contiguous in the header.
        #[repr(C)]
        struct Rest {
            ttl_proto: u16,
            checksum: u16,
            src: u32,
            dst: u32,
        }
        let from = &packet.tuple;
        let checksum: u16 = skb.read(CHECKSUM).ok_or(Reason::RewriteFailed)?;
        let before = u16::from_ne_bytes([packet.ttl, packet.proto]);
        let after = u16::from_ne_bytes([ttl, packet.proto]);
        let change = difference(
            before as u64 + from.src.sum() + from.dst.sum(),
            after as u64 + to.src.sum() + to.dst.sum(),
        );
        let rest = Rest {
            ttl_proto: after,
            checksum: adjust(checksum, change),
            src: to.src.wire(),
            dst: to.dst.wire(),
        };
        ok(skb.write(TTL, &rest))
    }
}
