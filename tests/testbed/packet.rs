//! Hand-made frames, and what captured ones say.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use etherparse::{
    EtherType, Icmpv4Type, IpNumber, LaxPacketHeaders, NetSlice, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TcpHeader, TransportSlice, checksum::Sum16BitWords, ip_number,
};

/// The Ethernet addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Sender.
    pub src: [u8; 6],
    /// Receiver.
    pub dst: [u8; 6],
}

/// Time to live of the frames made here.
pub const TTL: u8 = 64;

/// An IPv4 UDP frame with right checksums.
pub fn udp(link: Ethernet, src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let packet = ipv4(link, *src.ip(), *dst.ip()).udp(src.port(), dst.port());
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, payload).expect("a vector takes every byte, and the payload fits a datagram");
    frame
}

/// An IPv4 TCP frame with right checksums. The ports in `header` are replaced by those of `src` and `dst`.
pub fn tcp(
    link: Ethernet,
    src: SocketAddrV4,
    dst: SocketAddrV4,
    header: TcpHeader,
    payload: &[u8],
) -> Vec<u8> {
    let header = TcpHeader { source_port: src.port(), destination_port: dst.port(), ..header };
    let packet = ipv4(link, *src.ip(), *dst.ip()).tcp_header(header);
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, payload).expect("a vector takes every byte, and the payload fits a packet");
    frame
}

/// A TCP header that opens a connection.
pub fn syn(sequence: u32) -> TcpHeader {
    TcpHeader { syn: true, ..TcpHeader::new(0, 0, sequence, u16::MAX) }
}

/// An ICMPv4 frame with right checksums.
pub fn icmp(link: Ethernet, src: Ipv4Addr, dst: Ipv4Addr, message: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    let packet = ipv4(link, src, dst).icmpv4(message);
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, payload).expect("a vector takes every byte, and the payload fits a packet");
    frame
}

fn ipv4(link: Ethernet, src: Ipv4Addr, dst: Ipv4Addr) -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(link.src, link.dst).ipv4(src.octets(), dst.octets(), TTL)
}

/// From where to where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source; port 0 where the protocol has none, the identifier for ICMP echo.
    pub src: SocketAddr,
    /// Destination; port 0 where the protocol has none.
    pub dst: SocketAddr,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} protocol {}", self.src, self.dst, self.protocol)
    }
}

/// What a frame's headers say, or nothing when it is no IP packet. Ports are 0 in all fragments.
pub fn tuple(frame: &[u8]) -> Option<Tuple> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst) = addresses(packet.net.as_ref()?)?;
    let payload = packet.ip_payload()?;
    let (src_port, dst_port) = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => (echo_id(&icmp.icmp_type()), 0),
        Some(TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => (0, 0),
    };
    Some(Tuple { protocol: payload.ip_number.0, src: (src, src_port).into(), dst: (dst, dst_port).into() })
}

fn echo_id(message: &Icmpv4Type) -> u16 {
    if let Icmpv4Type::EchoRequest(echo) | Icmpv4Type::EchoReply(echo) = message { echo.id } else { 0 }
}

fn addresses(net: &NetSlice<'_>) -> Option<(IpAddr, IpAddr)> {
    match net {
        NetSlice::Ipv4(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Ipv6(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Arp(_) => None,
    }
}

/// Recomputes every checksum of a frame: IPv4 header, TCP, UDP, ICMP and ICMPv6.
///
/// Only frames whose sender finalises (see [`crate::Checksums`]) carry right ones: where the sender leaves them
/// to a device that does not exist, a capture shows the pseudo header's sum alone.
///
/// # Errors
/// Which checksum is wrong in which packet.
pub fn verify_checksums(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|e| format!("cannot be parsed: {e}"))?;
    let Some(net) = &packet.net else { return Ok(()) };
    let Some((src, dst)) = addresses(net) else { return Ok(()) };
    let wrong = |what: &str| format!("{what} checksum is wrong: {}", describe(frame));
    if let NetSlice::Ipv4(ip) = net
        && !sums_up(Sum16BitWords::new().add_slice(ip.header().slice()))
    {
        return Err(wrong("IPv4 header"));
    }
    let Some(payload) = packet.ip_payload().filter(|p| !p.fragmented) else { return Ok(()) };
    let segment = payload.payload;
    let pseudo = pseudo_header(src, dst, payload.ip_number, segment.len());
    let (name, sum) = match payload.ip_number {
        ip_number::TCP => ("TCP", pseudo),
        ip_number::UDP if has_no_checksum(segment) && src.is_ipv4() => return Ok(()),
        ip_number::UDP if has_no_checksum(segment) => return Err(wrong("UDP over IPv6")),
        ip_number::UDP => ("UDP", pseudo),
        ip_number::ICMP => ("ICMP", Sum16BitWords::new()),
        ip_number::IPV6_ICMP => ("ICMPv6", pseudo),
        _ => return Ok(()),
    };
    if sums_up(sum.add_slice(segment)) { Ok(()) } else { Err(wrong(name)) }
}

/// RFC 1071: the sum over data that includes its own checksum is all ones.
fn sums_up(sum: Sum16BitWords) -> bool {
    sum.ones_complement() == 0
}

/// RFC 768: a checksum field of zero says that there is none.
fn has_no_checksum(udp: &[u8]) -> bool {
    udp.get(6..8) == Some(&[0, 0])
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: IpNumber, len: usize) -> Sum16BitWords {
    let sum = Sum16BitWords::new();
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum.add_slice(&src.octets()).add_slice(&dst.octets()),
        (src, dst) => sum.add_slice(&v6_octets(src)).add_slice(&v6_octets(dst)),
    };
    // A merged segment of 64 KiB has a length of 17 bits; the kernel sums it as 32.
    let len = u32::try_from(len).expect("no packet is larger than 4 GiB");
    sum.add_slice(&len.to_be_bytes()).add_2bytes([0, protocol.0])
}

fn v6_octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// A frame in words, for messages.
pub fn describe(frame: &[u8]) -> String {
    match tuple(frame) {
        Some(tuple) => format!("{tuple}, {} bytes", frame.len()),
        None => match LaxPacketHeaders::from_ethernet(frame) {
            Ok(headers) => format!("{headers:?}"),
            Err(e) => format!("{} bytes that are no frame: {e}", frame.len()),
        },
    }
}

/// Whether a frame is IPv4 or IPv6.
pub fn is_ip(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some(t) if [EtherType::IPV4, EtherType::IPV6].iter().any(|e| e.0.to_be_bytes() == t))
}

#[cfg(test)]
mod tests {
    use etherparse::IcmpEchoHeader;

    use super::*;

    const LINK: Ethernet = Ethernet { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };
    const SRC: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 2), 4000);
    const DST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 1), 80);

    fn frames() -> Vec<Vec<u8>> {
        let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 77, seq: 1 });
        vec![
            udp(LINK, SRC, DST, b"odd"),
            tcp(LINK, SRC, DST, syn(1), b"even"),
            icmp(LINK, *SRC.ip(), *DST.ip(), echo, b"payload"),
        ]
    }

    #[test]
    fn built_frames_are_right_and_every_changed_byte_of_them_is_found() {
        for frame in frames() {
            assert_eq!(verify_checksums(&frame), Ok(()));
            // From the TTL on: before it lie the Ethernet header, and fields that decide how to parse.
            for at in 14 + 8..frame.len() {
                let mut changed = frame.clone();
                changed[at] ^= 0x10;
                assert!(verify_checksums(&changed).is_err(), "byte {at} of {}", describe(&frame));
            }
        }
    }

    #[test]
    fn udp_over_ipv4_may_go_without() {
        let mut frame = udp(LINK, SRC, DST, b"odd");
        frame[14 + 20 + 6..14 + 20 + 8].fill(0);
        assert_eq!(verify_checksums(&frame), Ok(()));
    }

    #[test]
    fn tuples_are_read_back() {
        let tuples: Vec<_> = frames().iter().map(|f| tuple(f).unwrap()).collect();
        let ports: Vec<_> = tuples.iter().map(|t| (t.protocol, t.src.port(), t.dst.port())).collect();
        assert_eq!(ports, [(17, 4000, 80), (6, 4000, 80), (1, 77, 0)]);
        assert!(tuples.iter().all(|t| t.src.ip() == *SRC.ip() && t.dst.ip() == *DST.ip()));
        assert!(frames().iter().all(|f| is_ip(f)));
    }
}
