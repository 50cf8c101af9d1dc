//! ICMP errors of our own, for packets from outside that a container cannot be given. For what containers send, the
//! host's stack answers; here it cannot, as to it the packet is for the host itself.

use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
    },
};
use rnet_common::{Family, Ip4, Ip6, Reason, checksum::fold, flow::proto};

use crate::{
    deliver::Carried,
    packet::{self, Class, Packet, Parse, Part},
    programs::{Outcome, Packed},
    rewrite,
    skb::{ETH_LEN, Skb},
};

/// Bytes of the packet that are quoted: its header with options, and ports and sequence number of what follows.
const QUOTE: usize = 72;
const ICMP_HEADER: usize = 8;

/// Turns the packet around as an ICMP error about itself: why it can't be delivered where packets have `mtu` bytes at
/// most.
#[inline(always)]
pub(crate) fn answer<A: Answer>(skb: Skb, packet: &Packet<A>, mtu: u16) -> Outcome {
    answer_packed(skb, packet, mtu).outcome().unwrap_or(Err(Reason::Undeliverable))
}

#[inline(never)]
fn answer_packed<A: Answer>(skb: Skb, packet: &Packet<A>, mtu: u16) -> Packed {
    Packed::new(try_answer(skb, packet, mtu))
}

#[inline(always)]
fn try_answer<A: Answer>(skb: Skb, packet: &Packet<A>, mtu: u16) -> Outcome {
    // RFC 1122 §3.2.2, RFC 4443 §2.4 (e): not about an error, a later fragment, or what went to a group.
    if packet.class == Class::Error || packet.part == Part::Tail || packet.tuple.src.is_group() {
        return Err(Reason::Undeliverable);
    }
    rebuild(skb, packet, (packet.ttl > 1).then_some(mtu)).ok_or(Reason::Undeliverable)?;
    // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
    let action = unsafe { bpf_redirect(skb.ifindex(), 0) as i32 };
    Ok(Carried { reason: Reason::Answered as u8, action })
}

#[inline(always)]
fn rebuild<A: Answer>(skb: Skb, packet: &Packet<A>, mtu: Option<u16>) -> Option<()> {
    let (to, from) = packet::macs(skb)?;
    let length = skb.len() as usize - ETH_LEN;
    let quoted = if length < QUOTE { length } else { QUOTE };
    if quoted < A::HEADER + 8 {
        return None;
    }
    let mut message = Message { header: A::icmp(mtu), quote: [0; QUOTE / 4] };
    // SAFETY: a valid context, and a buffer of at least `quoted` bytes.
    let loaded = unsafe {
        bpf_skb_load_bytes(
            skb.as_ptr().cast(),
            ETH_LEN as u32,
            message.quote.as_mut_ptr().cast(),
            quoted as u32,
        )
    };
    if loaded != 0 {
        return None;
    }
    let icmp_length = (ICMP_HEADER + quoted) as u16;
    message.header[0] |= (checksum(&message, A::pseudo(packet, icmp_length)) as u32) << 16;
    resize(skb, A::HEADER, A::HEADER + ICMP_HEADER + quoted)?;
    rewrite::frame(skb, from, to).ok()?;
    A::write_header(skb, packet, icmp_length)?;
    let at = ETH_LEN + A::HEADER;
    (skb.write(at, &message.header) && skb.write_bytes(at + ICMP_HEADER, &message.quote, quoted))
        .then_some(())
}

/// An ICMP message, as words in the byte order of the packet.
#[repr(C)]
struct Message {
    header: [u32; ICMP_HEADER / 4],
    quote: [u32; QUOTE / 4],
}

#[inline(always)]
fn checksum(message: &Message, seed: u32) -> u16 {
    const SIZE: u32 = size_of::<Message>() as u32;
    // SAFETY: a buffer of as many bytes as are said. The helper reads it only.
    let sum = unsafe {
        bpf_csum_diff(core::ptr::null_mut(), 0, core::ptr::from_ref(message).cast_mut().cast(), SIZE, seed)
    };
    !fold(sum as u64 & u64::from(u32::MAX))
}

/// Gives the packet `length` bytes behind the Ethernet header; what is in them does not matter.
///
/// A sender that leaves checksums to the device has noted where (`CHECKSUM_PARTIAL`), and the device would write one
/// into the quote. The note is dropped when the bytes that it points at are removed (`skb_postpull_rcsum`), so more is
/// removed than need be.
#[inline(always)]
fn resize(skb: Skb, header: usize, length: usize) -> Option<()> {
    const REMOVED: usize = 120;
    let adjust = |by: i32| {
        // SAFETY: a valid context; no pointer into the packet is kept across this call.
        unsafe { bpf_skb_adjust_room(skb.as_ptr(), by, BPF_ADJ_ROOM_MAC, 0) == 0 }
    };
    // SAFETY: as above.
    let cut = unsafe { bpf_skb_change_tail(skb.as_ptr(), (ETH_LEN + header + REMOVED) as u32, 0) == 0 };
    (cut && adjust(-(REMOVED as i32)) && adjust((length - header) as i32)).then_some(())
}

/// A family's part in answering.
pub(crate) trait Answer: Parse {
    /// The message's header, with no checksum: for one that is too big, or one whose time has run out.
    fn icmp(mtu: Option<u16>) -> [u32; 2];
    /// What the checksum covers beside the message: its sum, not folded.
    fn pseudo(packet: &Packet<Self>, icmp_length: u16) -> u32;
    /// Writes the IP header of an answer to the packet.
    fn write_header(skb: Skb, packet: &Packet<Self>, icmp_length: u16) -> Option<()>;
}

const HOPS: u8 = 64;

/// Type and code as the first half of a word.
#[inline(always)]
fn kind(kind: u8, code: u8) -> u32 {
    u32::from_ne_bytes([kind, code, 0, 0])
}

impl Answer for Ip4 {
    #[inline(always)]
    fn icmp(mtu: Option<u16>) -> [u32; 2] {
        match mtu {
            None => [kind(11, 0), 0],
            Some(mtu) => [kind(3, 4), (mtu as u32).to_be()],
        }
    }

    #[inline(always)]
    fn pseudo(_: &Packet<Self>, _: u16) -> u32 {
        0
    }

    #[inline(always)]
    fn write_header(skb: Skb, packet: &Packet<Self>, icmp_length: u16) -> Option<()> {
        let length = (Self::HEADER as u16 + icmp_length).to_be() as u32;
        // Precedence of network control, as the kernel's own errors have (RFC 1812 §4.3.2.5).
        let first = u32::from_ne_bytes([0x45, 0xc0, 0, 0]) | length << 16;
        let mut third = u32::from_ne_bytes([HOPS, proto::ICMP, 0, 0]);
        let (src, dst) = (packet.tuple.dst, packet.tuple.src);
        let sum = first as u64 + third as u64 + src.sum() + dst.sum();
        third |= (!fold(sum) as u32) << 16;
        skb.write(ETH_LEN, &[first, 0, third, src.wire(), dst.wire()]).then_some(())
    }
}

impl Answer for Ip6 {
    #[inline(always)]
    fn icmp(mtu: Option<u16>) -> [u32; 2] {
        match mtu {
            None => [kind(3, 0), 0],
            Some(mtu) => [kind(2, 0), (mtu as u32).to_be()],
        }
    }

    #[inline(always)]
    fn pseudo(packet: &Packet<Self>, icmp_length: u16) -> u32 {
        let tuple = &packet.tuple;
        let rest = icmp_length.to_be() as u64 + (proto::ICMPV6 as u16).to_be() as u64;
        fold(tuple.src.sum() + tuple.dst.sum() + rest) as u32
    }

    #[inline(always)]
    fn write_header(skb: Skb, packet: &Packet<Self>, icmp_length: u16) -> Option<()> {
        #[repr(C)]
        struct Header {
            first: u32,
            second: u32,
            src: [u32; 4],
            dst: [u32; 4],
        }
        let second = icmp_length.to_be() as u32 | u32::from_ne_bytes([0, 0, proto::ICMPV6, HOPS]);
        let (src, dst) = (packet.tuple.dst.wire(), packet.tuple.src.wire());
        let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
        skb.write(ETH_LEN, &Header { first, second, src, dst }).then_some(())
    }
}
