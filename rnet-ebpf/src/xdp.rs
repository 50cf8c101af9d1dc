//! Small packets of known flows from outside into a container, before the kernel has a packet buffer for them.
//!
//! What is carried here leaves as `from_uplink` would have it leave, byte by byte, and is noted as it would note it.
//! All else is left to that program as it came: what opens or ends a connection, so that its state changes in one
//! place; large segments, which the kernel joins on their way to it; whatever is not plain TCP or UDP; and containers
//! that cannot take frames without a packet buffer.
//!
//! The device has checked nothing yet, and nobody has said whether the frame is for this host or its checksum finished.

use aya_ebpf::bindings::xdp_action;
use rnet_common::{
    Be16, Family, FlowKey, Ip4, Ip6, Program, Side, Tuple,
    checksum::{adjust, difference, fold},
    flow::{proto, seen},
    uplink::uplink_flags,
};

use crate::{
    conntrack,
    deliver::is_to_container,
    frame::{Frame, LARGEST},
    maps,
    packet::Parse,
    programs::ethertype,
    skb::ETH_LEN,
    trace,
};

/// Offset of the EtherType in a frame.
const ETHERTYPE: usize = 12;

/// The action for a frame.
#[inline(always)]
pub(crate) fn handle(frame: Frame) -> u32 {
    let carried = match frame.read::<u16>(ETHERTYPE).map(u32::from) {
        _ if frame.len() > LARGEST => None,
        // A VLAN's frames have its tag here.
        Some(ethertype::IPV4) => carry::<Ip4>(frame),
        Some(ethertype::IPV6) => carry::<Ip6>(frame),
        _ => None,
    };
    carried.unwrap_or(xdp_action::XDP_PASS)
}

/// Rewrites the frame as its flow says and sends it on its way, or leaves it as it came.
#[inline(always)]
fn carry<A: Plain>(frame: Frame) -> Option<u32> {
    let packet = A::read(frame)?;
    let tuple = &packet.tuple;
    if tuple.dst.is_group() || tuple.dst.is_loopback() || tuple.dst.is_link_local() {
        return None;
    }
    let mut key = FlowKey::default();
    key.set(tuple, packet.proto, Side::Uplink);
    let entry = conntrack::find_key(&key, frame.ifindex())?;
    // SAFETY: as in `conntrack::touch`.
    let flow = unsafe { &*entry };
    let length = frame.len() - ETH_LEN;
    if !is_to_container(flow) || packet.ttl <= 1 || length > flow.mtu as usize {
        return None;
    }
    let uplink = maps::uplink(frame.ifindex())?;
    if frame.read(0) != Some(uplink.mac) {
        return None;
    }
    if uplink.flags & uplink_flags::UNFINISHED != 0 && !is_finished(frame, &packet) {
        return None;
    }
    // Nothing is written before it is known that the container takes it.
    let action = maps::enter(flow.to_ifindex)?;
    rewrite(frame, &packet, &flow.to)?;
    frame.write(0, flow.mac)?;
    frame.write(size_of_val(&flow.mac), flow.gateway_mac)?;
    conntrack::note(entry, packet.seen, length as u32);
    maps::count(Program::XdpUplink, flow.carried, frame.len() as u32);
    if trace::is_on() {
        trace::frame(
            frame.ifindex(),
            frame.len() as u32,
            &packet.tuple,
            &flow.to,
            packet.proto,
            flow.carried,
        );
    }
    Some(action)
}

/// A packet without options, extensions or fragments.
struct Packet<A> {
    tuple: Tuple<A>,
    proto: u8,
    ttl: u8,
    /// [`seen`] bits.
    seen: u8,
    /// Length of the transport header with its data, in bytes.
    length: usize,
    /// The transport checksum, where it is in the frame and as it lies there.
    checksum_at: usize,
    checksum: u16,
}

/// Reads the transport header behind an IP header whose fields these are; `length` is what follows it.
#[inline(always)]
fn transport<A: Plain>(frame: Frame, src: A, dst: A, proto: u8, ttl: u8, length: usize) -> Option<Packet<A>> {
    const FLAGS: usize = 13;
    const FIN_SYN_RST: u8 = 0b111;
    let at = ETH_LEN + A::HEADER;
    // The device may have added bytes to a short frame, but it has all of the packet.
    if at + length > frame.len() {
        return None;
    }
    let (least, checksum_at, seen) = match proto {
        proto::TCP if frame.read::<u8>(at + FLAGS)? & FIN_SYN_RST == 0 => {
            (20, at + 16, seen::PACKET | seen::ACK)
        }
        proto::UDP => (8, at + 6, seen::PACKET),
        _ => return None,
    };
    if length < least {
        return None;
    }
    let ports: u32 = frame.read(at)?;
    let tuple = Tuple {
        src,
        dst,
        sport: Be16::from_wire(ports as u16),
        dport: Be16::from_wire((ports >> 16) as u16),
    };
    let checksum = frame.read(checksum_at)?;
    Some(Packet { tuple, proto, ttl, seen, length, checksum_at, checksum })
}

/// A UDP checksum of zero means none (RFC 768).
#[inline(always)]
fn is_absent<A>(packet: &Packet<A>) -> bool {
    packet.proto == proto::UDP && packet.checksum == 0
}

/// Whether the transport checksum covers the packet. One that is yet to be computed would be taken for a wrong one:
/// that it is, is said by the packet buffer alone, which does not go on.
#[inline(always)]
fn is_finished<A: Plain>(frame: Frame, packet: &Packet<A>) -> bool {
    if is_absent(packet) && !A::V6 {
        return true;
    }
    let Tuple { src, dst, .. } = &packet.tuple;
    let header =
        src.sum() + dst.sum() + (packet.proto as u16).to_be() as u64 + (packet.length as u16).to_be() as u64;
    frame
        .sum(ETH_LEN + A::HEADER, packet.length)
        .is_some_and(|sum| fold(sum as u64 + fold(header) as u64) == u16::MAX)
}

/// Rewrites addresses, ports and time to live. `None` only where the frame has not what was read of it.
#[inline(always)]
fn rewrite<A: Plain>(frame: Frame, packet: &Packet<A>, to: &Tuple<A>) -> Option<()> {
    A::readdress(frame, packet, to)?;
    let from = &packet.tuple;
    let (before, after) = (from.ports(), to.ports());
    if before != after {
        frame.write(ETH_LEN + A::HEADER, after)?;
    }
    if is_absent(packet) {
        return Some(());
    }
    let mut checksum = packet.checksum;
    // A difference of zero, of either sign, changes nothing.
    let addresses = difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    if addresses != 0 && addresses != u16::MAX {
        checksum = adjust(checksum, addresses);
    }
    if before != after {
        checksum = adjust(checksum, difference(before as u64, after as u64));
    }
    if checksum == 0 && packet.proto == proto::UDP {
        checksum = u16::MAX;
    }
    frame.write(packet.checksum_at, checksum)
}

/// A family's plain header.
trait Plain: trace::Wide {
    /// Reads the headers; `None` for any packet that is left alone.
    fn read(frame: Frame) -> Option<Packet<Self>>;
    /// Writes addresses and time to live.
    fn readdress(frame: Frame, packet: &Packet<Self>, to: &Tuple<Self>) -> Option<()>;
}

impl Plain for Ip4 {
    #[inline(always)]
    fn read(frame: Frame) -> Option<Packet<Self>> {
        // Version 4, a header of five words.
        const PLAIN: u8 = 0x45;
        // More fragments, or an offset.
        const FRAGMENT: u16 = 0x3fff;
        let [first, second, third, src]: [u32; 4] = frame.read(ETH_LEN)?;
        let dst: u32 = frame.read(ETH_LEN + 16)?;
        if first as u8 != PLAIN || u16::from_be((second >> 16) as u16) & FRAGMENT != 0 {
            return None;
        }
        let length = (u16::from_be((first >> 16) as u16) as usize).checked_sub(Self::HEADER)?;
        let (ttl, proto) = (third as u8, (third >> 8) as u8);
        transport(frame, Self::from_wire(src), Self::from_wire(dst), proto, ttl, length)
    }

    #[inline(always)]
    fn readdress(frame: Frame, packet: &Packet<Self>, to: &Tuple<Self>) -> Option<()> {
        const TTL: usize = ETH_LEN + 8;
        let from = &packet.tuple;
        let before = u16::from_ne_bytes([packet.ttl, packet.proto]);
        let after = u16::from_ne_bytes([packet.ttl - 1, packet.proto]);
        let change = difference(
            before as u64 + from.src.sum() + from.dst.sum(),
            after as u64 + to.src.sum() + to.dst.sum(),
        );
        let checksum: u16 = frame.read(TTL + 2)?;
        frame.write(TTL, after)?;
        frame.write(TTL + 2, adjust(checksum, change))?;
        frame.write(TTL + 4, to.src.wire())?;
        frame.write(TTL + 8, to.dst.wire())
    }
}

impl Plain for Ip6 {
    #[inline(always)]
    fn read(frame: Frame) -> Option<Packet<Self>> {
        let first: u8 = frame.read(ETH_LEN)?;
        if first >> 4 != 6 {
            return None;
        }
        let length = u16::from_be(frame.read(ETH_LEN + 4)?) as usize;
        let proto: u8 = frame.read(ETH_LEN + 6)?;
        let ttl: u8 = frame.read(ETH_LEN + 7)?;
        let src = Self::from_wire(frame.read(ETH_LEN + 8)?);
        let dst = Self::from_wire(frame.read(ETH_LEN + 24)?);
        transport(frame, src, dst, proto, ttl, length)
    }

    #[inline(always)]
    fn readdress(frame: Frame, packet: &Packet<Self>, to: &Tuple<Self>) -> Option<()> {
        frame.write(ETH_LEN + 7, packet.ttl - 1)?;
        frame.write(ETH_LEN + 8, to.src.wire())?;
        frame.write(ETH_LEN + 24, to.dst.wire())
    }
}
