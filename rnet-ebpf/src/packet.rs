//! Parsing: from a frame to a tuple and what it means for a flow.

use rnet_common::{
    Be16, Family, Ip4, Mac, Tuple,
    flow::{proto, seen},
};

use crate::skb::{ETH_LEN, Skb};

/// The packet is not what its headers say, or is shorter.
pub(crate) struct Malformed;

/// What a packet means for connection tracking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// May open a flow: a TCP SYN, any UDP, an ICMP echo request.
    Opens,
    /// Belongs to a flow or to none.
    Continues,
    /// Not tracked: its tuple has no ports.
    Untracked,
    /// A fragment: its tuple has no ports.
    Fragment,
}

/// A parsed packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet<A> {
    pub(crate) tuple: Tuple<A>,
    /// Offset of the transport header from the start of the frame.
    pub(crate) l4: usize,
    /// IP protocol number of the transport header.
    pub(crate) proto: u8,
    /// Time to live, or hop limit.
    pub(crate) ttl: u8,
    pub(crate) class: Class,
    /// [`seen`] bits.
    pub(crate) seen: u8,
}

impl<A: Family> Packet<A> {
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
    fn parse(skb: Skb) -> Result<Packet<Self>, Malformed>;
}

impl Parse for Ip4 {
    #[inline(always)]
    fn parse(skb: Skb) -> Result<Packet<Self>, Malformed> {
        const LEN: usize = 20;
        if !skb.pull(ETH_LEN + LEN) {
            return Err(Malformed);
        }
        let header: [u32; 4] = skb.read(ETH_LEN).ok_or(Malformed)?;
        let dst: u32 = skb.read(ETH_LEN + 16).ok_or(Malformed)?;
        let [first, second, third, src] = header;
        let version_ihl = first as u8;
        let header_len = (version_ihl & 0xf) as usize * 4;
        let total_len = u16::from_be((first >> 16) as u16) as u32;
        // RFC 791: more-fragments flag and offset.
        let fragment = u16::from_be((second >> 16) as u16) & 0x3fff;
        let ttl = third as u8;
        let proto = (third >> 8) as u8;
        if version_ihl >> 4 != 4 || header_len < LEN {
            return Err(Malformed);
        }
        // A receive-offloaded packet over 64 KiB has length 0 (BIG TCP).
        if total_len != 0 && (total_len < header_len as u32 || total_len + ETH_LEN as u32 > skb.len()) {
            return Err(Malformed);
        }
        let mut packet = Packet {
            tuple: Tuple { src: Ip4::from_wire(src), dst: Ip4::from_wire(dst), ..Tuple::default() },
            l4: ETH_LEN + header_len,
            proto,
            ttl,
            class: Class::Untracked,
            seen: seen::PACKET,
        };
        if fragment != 0 {
            packet.class = Class::Fragment;
            return Ok(packet);
        }
        transport(skb, &mut packet)?;
        Ok(packet)
    }
}

/// Reads the ports, or what stands for them, and what the packet means for a flow.
#[inline(always)]
fn transport<A: Family>(skb: Skb, packet: &mut Packet<A>) -> Result<(), Malformed> {
    let l4 = packet.l4;
    let length = match packet.proto {
        proto::TCP => 20,
        proto::UDP | proto::ICMP => 8,
        _ => return Ok(()),
    };
    if !skb.pull(l4 + length) {
        return Err(Malformed);
    }
    match packet.proto {
        proto::TCP => {
            ports(skb, packet)?;
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
            ports(skb, packet)?;
            packet.class = Class::Opens;
        }
        _ => {
            const ECHO_REPLY: u8 = 0;
            const ECHO: u8 = 8;
            let kind: u8 = skb.read(l4).ok_or(Malformed)?;
            let id = Be16::from_wire(skb.read(l4 + 4).ok_or(Malformed)?);
            match kind {
                ECHO => {
                    packet.tuple.sport = id;
                    packet.class = Class::Opens;
                }
                ECHO_REPLY => {
                    packet.tuple.dport = id;
                    packet.class = Class::Continues;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn ports<A: Family>(skb: Skb, packet: &mut Packet<A>) -> Result<(), Malformed> {
    packet.tuple.sport = Be16::from_wire(skb.read(packet.l4).ok_or(Malformed)?);
    packet.tuple.dport = Be16::from_wire(skb.read(packet.l4 + 2).ok_or(Malformed)?);
    Ok(())
}
