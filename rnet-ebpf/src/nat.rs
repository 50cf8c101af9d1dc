//! Source ports for flows, and what of the host they must not meet.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use rnet_common::{Be16, Family, Flow, Ip4, Reason, Tuple, flow::proto};

use crate::{
    deliver::Routed,
    maps::{self, Tables},
    packet::{Packet, Parse},
    rewrite::Rewrite,
    skb::Skb,
};

/// A family in all that the datapath needs of it.
pub(crate) trait Net: Tables + Parse + Rewrite + Routed + Sockets {}

impl<A: Tables + Parse + Rewrite + Routed + Sockets> Net for A {}

/// Which source ports a flow may get.
pub(crate) struct PortPolicy {
    skb: Skb,
    /// First and last port to choose from when the flow's own is taken, in host byte order.
    pub(crate) min: u16,
    pub(crate) max: u16,
    /// The address becomes the host's: ports that the host or a published port may use are out.
    as_host: bool,
}

impl PortPolicy {
    /// The flow's own port, unless another flow to the same remote has it.
    #[inline(always)]
    pub(crate) fn keep(skb: Skb) -> Result<Self, Reason> {
        Self::new(skb, false)
    }

    /// A port of the host's address: the flow's own where it lies in the range for that.
    #[inline(always)]
    pub(crate) fn masquerade(skb: Skb) -> Result<Self, Reason> {
        Self::new(skb, true)
    }

    #[inline(always)]
    fn new(skb: Skb, as_host: bool) -> Result<Self, Reason> {
        let settings = maps::settings().ok_or(Reason::PortsExhausted)?;
        let (min, max) = (settings.snat_min, settings.snat_max);
        // The controller writes no such range; a division by the range's size needs the proof.
        if min > max { Err(Reason::PortsExhausted) } else { Ok(Self { skb, min, max, as_host }) }
    }

    /// Whether the flow's own port may stay.
    #[inline(always)]
    pub(crate) fn keeps(&self, own: Be16) -> bool {
        !self.as_host || (self.min..=self.max).contains(&own.get())
    }

    /// Whether the host has no use of its own for the port that `flow` would get.
    #[inline(always)]
    pub(crate) fn is_free<A: Net>(&self, flow: &Flow<A>, proto: u8) -> bool {
        let tuple = &flow.to;
        !self.as_host
            || (maps::published(tuple.src, tuple.sport, proto).is_none()
                && A::host_socket(self.skb, &tuple.reversed(), proto) == HostSocket::None)
    }
}

/// Whether a socket of the host is connected to the sender of a UDP packet. Its port may be one that the kernel
/// chose although it is published: sockets that ask for no port do not pass the bind programs.
#[inline(always)]
pub(crate) fn is_connected<A: Net>(skb: Skb, packet: &Packet<A>) -> bool {
    packet.proto == proto::UDP && A::host_socket(skb, &packet.tuple, packet.proto) == HostSocket::Connected
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

/// Socket look-up, per family.
pub(crate) trait Sockets: Family {
    /// The socket of this network namespace for an incoming packet with this tuple.
    fn host_socket(skb: Skb, incoming: &Tuple<Self>, proto: u8) -> HostSocket;
}

impl Sockets for Ip4 {
    #[inline(always)]
    fn host_socket(skb: Skb, incoming: &Tuple<Self>, proto: u8) -> HostSocket {
        // SAFETY: integers.
        let mut tuple: bpf_sock_tuple = unsafe { maps::zeroed() };
        tuple.__bindgen_anon_1.ipv4.saddr = incoming.src.wire();
        tuple.__bindgen_anon_1.ipv4.daddr = incoming.dst.wire();
        tuple.__bindgen_anon_1.ipv4.sport = incoming.sport.wire();
        tuple.__bindgen_anon_1.ipv4.dport = incoming.dport.wire();
        // Addresses and ports of IPv4: the size tells the helper the family.
        look_up(skb, &mut tuple, 12, proto)
    }
}

#[inline(always)]
fn look_up(skb: Skb, tuple: &mut bpf_sock_tuple, size: u32, proto: u8) -> HostSocket {
    const CURRENT_NETNS: u64 = u64::MAX;
    let ctx = skb.as_ptr().cast();
    // SAFETY: a valid context, and a tuple of at least `size` bytes.
    let socket: *mut bpf_sock = match proto {
        proto::TCP => unsafe { bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0) },
        proto::UDP => unsafe { bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0) },
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
