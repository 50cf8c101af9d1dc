//! Source ports for flows, and what of the host they must not meet.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use rnet_common::{Be16, Family, Flow, Ip4, Ip6, Reason, Tuple, flow::proto};

use crate::{
    answer::Answer,
    maps::{self, Tables},
    packet::{Packet, Parse},
    rewrite::Rewrite,
    route::Routed,
    skb::Skb,
};

/// A family in all that the datapath needs of it.
pub(crate) trait Net: Tables + Parse + Rewrite + Routed + Sockets + Answer {}

impl<A: Tables + Parse + Rewrite + Routed + Sockets + Answer> Net for A {}

/// Which source ports a flow may get.
pub(crate) struct PortPolicy {
    skb: Skb,
    /// First and last port to choose from when the flow's own is taken, in host byte order.
    pub(crate) min: u16,
    pub(crate) max: u16,
    /// The address becomes the host's: ports that the host or a published port may use are out, and the flow's own
    /// stays only where it lies in the range. Otherwise it stays unless another flow to the same remote has it.
    as_host: bool,
    /// The flow's own port or none.
    pub(crate) fixed: bool,
}

impl PortPolicy {
    /// The policy for a packet whose source becomes an address of the host, or does not.
    #[inline(always)]
    pub(crate) fn new<A: Parse>(skb: Skb, packet: &Packet<A>, as_host: bool) -> Result<Self, Reason> {
        let settings = maps::settings().ok_or(Reason::PortsExhausted)?;
        let (min, max) = (settings.snat_min, settings.snat_max);
        // The controller writes no such range; a division by the range's size needs the proof.
        if min > max {
            return Err(Reason::PortsExhausted);
        }
        // An echo identifier is no port of the host's.
        let as_host = as_host && packet.proto != A::ICMP;
        // SCTP's checksum covers its ports and is a CRC of the whole packet (RFC 9260 §6.8), which no helper adjusts.
        let fixed = packet.proto == proto::SCTP;
        Ok(Self { skb, min, max, as_host, fixed })
    }

    /// Whether the flow's own port may stay.
    #[inline(always)]
    pub(crate) fn keeps(&self, own: Be16) -> bool {
        !self.as_host || self.fixed || (self.min..=self.max).contains(&own.get())
    }

    /// Whether the host has no use of its own for the port that `flow` would get.
    #[inline(always)]
    pub(crate) fn is_free<A: Net>(&self, flow: &Flow<A>, proto: u8) -> bool {
        let tuple = &flow.to;
        !self.as_host
            || (maps::published(&tuple.src, tuple.sport, proto).is_none()
                && host_socket(self.skb, tuple.dst, tuple.src, tuple.dport, tuple.sport, proto)
                    == HostSocket::None)
    }
}

/// Whether a socket of the host is connected to the sender of a UDP packet. Its port may be one that the kernel
/// chose although it is published: sockets that ask for no port do not pass the bind programs.
#[inline(always)]
pub(crate) fn is_connected<A: Net>(skb: Skb, packet: &Packet<A>) -> bool {
    let Tuple { src, dst, sport, dport } = packet.tuple;
    packet.proto == proto::UDP
        && host_socket(skb, src, dst, sport, dport, packet.proto) == HostSocket::Connected
}

/// The host's socket that a packet would be delivered to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostSocket {
    None,
    /// Listening, or without a peer.
    Open,
    /// Connected to the packet's source.
    Connected,
}

/// A family's part in looking up sockets.
pub(crate) trait Sockets: Family {
    /// Size of the family's member of `bpf_sock_tuple`, which tells the helper the family.
    const SIZE: u32;
    /// Fills in addresses and ports.
    fn fill_socket(socket: &mut bpf_sock_tuple, src: Self, dst: Self, sport: Be16, dport: Be16);
}

impl Sockets for Ip4 {
    const SIZE: u32 = 12;

    #[inline(always)]
    fn fill_socket(socket: &mut bpf_sock_tuple, src: Self, dst: Self, sport: Be16, dport: Be16) {
        socket.__bindgen_anon_1.ipv4.saddr = src.wire();
        socket.__bindgen_anon_1.ipv4.daddr = dst.wire();
        socket.__bindgen_anon_1.ipv4.sport = sport.wire();
        socket.__bindgen_anon_1.ipv4.dport = dport.wire();
    }
}

impl Sockets for Ip6 {
    const SIZE: u32 = 36;

    #[inline(always)]
    fn fill_socket(socket: &mut bpf_sock_tuple, src: Self, dst: Self, sport: Be16, dport: Be16) {
        socket.__bindgen_anon_1.ipv6.saddr = src.wire();
        socket.__bindgen_anon_1.ipv6.daddr = dst.wire();
        socket.__bindgen_anon_1.ipv6.sport = sport.wire();
        socket.__bindgen_anon_1.ipv6.dport = dport.wire();
    }
}

/// The socket of this network namespace for an incoming packet.
#[inline(always)]
fn host_socket<A: Sockets>(skb: Skb, src: A, dst: A, sport: Be16, dport: Be16, proto: u8) -> HostSocket {
    const CURRENT_NETNS: u64 = u64::MAX;
    let Some(question) = maps::question() else { return HostSocket::None };
    // SAFETY: this CPU's slot of a map, which nobody else uses while the program runs.
    let tuple = unsafe { &mut (*question).socket };
    A::fill_socket(tuple, src, dst, sport, dport);
    let ctx = skb.as_ptr().cast();
    let socket: *mut bpf_sock = match proto {
        // SAFETY: a valid context, and a tuple of at least as many bytes as are said.
        proto::TCP => unsafe { bpf_sk_lookup_tcp(ctx, tuple, A::SIZE, CURRENT_NETNS, 0) },
        // SAFETY: as above.
        proto::UDP => unsafe { bpf_sk_lookup_udp(ctx, tuple, A::SIZE, CURRENT_NETNS, 0) },
        _ => return HostSocket::None,
    };
    if socket.is_null() {
        return HostSocket::None;
    }
    // SAFETY: not null, and the reference is held until it is released below.
    let connected = unsafe { (*socket).dst_port } != 0;
    // SAFETY: a reference that the look-up took, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if connected { HostSocket::Connected } else { HostSocket::Open }
}
