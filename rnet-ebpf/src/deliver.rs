//! The way out: into a container, or to the next hop.

use aya_ebpf::{
    bindings::{
        BPF_F_INGRESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_SRC_ADDR, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_OUTPUT, BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC,
        bpf_fib_lookup as FibLookup, bpf_redir_neigh as NextHop,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use rnet_common::{
    Endpoint, Family, Flow, Ip4, Ip6, Reason, Tuple,
    flow::{flow_flags, proto},
};

use crate::{
    answer, conntrack,
    maps::{self, Question},
    nat::Net,
    packet::{self, Packet},
    programs::{Outcome, Packed},
    rewrite,
    skb::{ETH_LEN, Skb},
    stack,
};

/// A packet that rnet has carried: what to count it under, and the TC action that sends it on its way.
pub(crate) struct Carried {
    pub(crate) reason: u8,
    pub(crate) action: i32,
}

/// The part of a flow entry that says how to deliver into an endpoint's container.
#[inline(always)]
pub(crate) fn into<A: Family>(endpoint: &Endpoint<A>) -> Flow<A> {
    Flow {
        to_ifindex: endpoint.ifindex,
        mtu: if endpoint.mtu > u16::MAX as u32 { u16::MAX } else { endpoint.mtu as u16 },
        mac: endpoint.mac,
        gateway_mac: endpoint.gateway_mac,
        ..Flow::default()
    }
}

/// Sends a packet of a known flow on its way.
#[inline(always)]
pub(crate) fn carry<A: Net>(skb: Skb, packet: &Packet<A>, entry: *mut Flow<A>) -> Outcome {
    conntrack::touch(entry, packet, skb.len() - ETH_LEN as u32);
    // SAFETY: an entry of the flow table, readable while the program runs. The controller and other CPUs write
    // only the fields that `touch` does.
    let flow = unsafe { &*entry };
    match forward(skb, packet, flow) {
        // What a container sent to the host's address would have been answered by the host's stack.
        Err(Reason::Undeliverable) if flow.from_ifindex == 0 => answer::answer(skb, packet, flow.mtu),
        outcome => outcome,
    }
}

/// Rewrites a packet as its flow says and sends it on its way.
#[inline(always)]
pub(crate) fn forward<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Outcome {
    forward_packed(skb, packet, flow).outcome().unwrap_or(Err(Reason::Undeliverable))
}

#[inline(never)]
fn forward_packed<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Packed {
    Packed::new(try_forward(skb, packet, flow))
}

#[inline(always)]
fn try_forward<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Outcome {
    if is_to_container(flow) {
        if packet.ttl <= 1 || segment_length(skb, packet) > flow.mtu as u32 {
            return Err(Reason::Undeliverable);
        }
        rewrite::translate(skb, packet, &flow.to, packet.ttl - 1)?;
        return Ok(Carried { reason: flow.carried, action: enter(skb, flow)? });
    }
    if flow.is(flow_flags::VIA_STACK) {
        return stack::translate(skb, packet, flow);
    }
    if packet.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let route = Route::find(skb, packet, &flow.to, flow.to_ifindex)?;
    if route.is_too_small {
        // The host's stack fragments it. The stack takes the time to live, too.
        rewrite::translate(skb, packet, &flow.to, packet.ttl)?;
        // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
        let action = unsafe { bpf_redirect(flow.to_ifindex, u64::from(BPF_F_INGRESS)) as i32 };
        return Ok(Carried { reason: flow.carried, action });
    }
    rewrite::translate(skb, packet, &flow.to, packet.ttl - 1)?;
    Ok(Carried { reason: flow.carried, action: route.redirect() })
}

/// Whether the flow's packets are delivered into a container.
#[inline(always)]
pub(crate) fn is_to_container<A: Family>(flow: &Flow<A>) -> bool {
    flow.is(flow_flags::TO_CONTAINER)
}

/// Into a flow's container, once the packet is rewritten.
#[inline(always)]
pub(crate) fn enter<A: Family>(skb: Skb, flow: &Flow<A>) -> Result<i32, Reason> {
    rewrite::frame(skb, flow.mac, flow.gateway_mac)?;
    Ok(redirect_peer(skb, flow.to_ifindex))
}

/// Length of the largest IP packet that this one is sent as: a segmentation-offloaded one is many.
#[inline(always)]
fn segment_length<A: Family>(skb: Skb, packet: &Packet<A>) -> u32 {
    let segment = skb.gso_size();
    if segment == 0 {
        return skb.len() - ETH_LEN as u32;
    }
    let header = match packet.proto {
        // Its length in words, in the upper half of the byte (RFC 9293 §3.1).
        proto::TCP => skb.read::<u8>(packet.l4 + 12).map_or(20, |offset| (offset >> 4) as u32 * 4),
        _ => 8,
    };
    (packet.l4 - ETH_LEN) as u32 + header + segment
}

/// Gives a packet to a neighbour on the same network, as the bridge would: nothing in it changes.
#[inline(always)]
pub(crate) fn switch<A: Family>(skb: Skb, target: &Endpoint<A>) -> Outcome {
    let (to, from) = packet::macs(skb).ok_or(Reason::Malformed)?;
    // A packet that was sent by way of the gateway carries the gateway's address.
    if to != target.mac {
        rewrite::frame(skb, target.mac, from)?;
    }
    Ok(Carried { reason: Reason::Switched as u8, action: redirect_peer(skb, target.ifindex) })
}

/// Into the namespace at the other end of a veth, without a pass through the host's queues. Legal only from an
/// ingress hook.
#[inline(always)]
fn redirect_peer(skb: Skb, ifindex: u32) -> i32 {
    skb.set_for_host();
    // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// A route: the interface and the next hop.
pub(crate) struct Route {
    question: *mut Question,
    /// It takes only smaller packets, and this one may be fragmented.
    pub(crate) is_too_small: bool,
}

impl Route {
    /// The route for a packet with tuple `to` that came in through the bridge `from`. What the host's stack
    /// answers better (no route, too large) is its own reason.
    #[inline(always)]
    pub(crate) fn find<A: Net>(
        skb: Skb,
        packet: &Packet<A>,
        to: &Tuple<A>,
        from: u32,
    ) -> Result<Self, Reason> {
        Self::look_up(skb, packet, to, from, BPF_FIB_LOOKUP_SKIP_NEIGH)
    }

    /// The same, and the source address that the host would use on it.
    #[inline(always)]
    pub(crate) fn find_with_source<A: Net>(
        skb: Skb,
        packet: &Packet<A>,
        to: &Tuple<A>,
        from: u32,
    ) -> Result<Self, Reason> {
        Self::look_up(skb, packet, to, from, BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_SRC)
    }

    /// The route for a packet that leaves through interface `to_ifindex`, whatever other ways there are, and the source
    /// address that the host would use on it.
    #[inline(always)]
    pub(crate) fn find_with_source_through<A: Net>(
        skb: Skb,
        packet: &Packet<A>,
        to: &Tuple<A>,
        to_ifindex: u32,
    ) -> Result<Self, Reason> {
        let flags = BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_SRC | BPF_FIB_LOOKUP_OUTPUT;
        Self::look_up(skb, packet, to, to_ifindex, flags)
    }

    #[inline(always)]
    fn look_up<A: Net>(
        skb: Skb,
        packet: &Packet<A>,
        to: &Tuple<A>,
        from: u32,
        flags: u32,
    ) -> Result<Self, Reason> {
        let question = maps::question().ok_or(Reason::Unroutable)?;
        // SAFETY: this CPU's slot of a map, which nobody else uses while the program runs.
        let fib = unsafe { &mut (*question).route };
        // SAFETY: integers and unions of integers.
        unsafe { core::ptr::write_bytes(fib, 0, 1) };
        fib.ifindex = from;
        fib.l4_protocol = packet.proto;
        fib.sport = to.sport.wire();
        fib.dport = to.dport.wire();
        // Without a length the kernel compares the packet with the device's MTU, after all else is found.
        if !packet.may_fragment {
            let length = segment_length(skb, packet);
            fib.__bindgen_anon_1.tot_len = if length > u16::MAX as u32 { u16::MAX } else { length as u16 };
        }
        A::fill(fib, to);
        // SAFETY: a valid context, and a structure of the length given.
        let found = unsafe { bpf_fib_lookup(skb.as_ptr().cast(), fib, size_of::<FibLookup>() as i32, flags) };
        const SUCCESS: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
        const FRAG_NEEDED: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
        const NO_SRC_ADDR: i64 = BPF_FIB_LKUP_RET_NO_SRC_ADDR as i64;
        const UNSUPP_LWT: i64 = BPF_FIB_LKUP_RET_UNSUPP_LWT as i64;
        match found {
            SUCCESS => Ok(Self { question, is_too_small: false }),
            FRAG_NEEDED if packet.may_fragment => Ok(Self { question, is_too_small: true }),
            FRAG_NEEDED => Err(Reason::TooBig),
            NO_SRC_ADDR => Err(Reason::NoSourceAddress),
            // The stack would encapsulate it, with the container's own address inside.
            UNSUPP_LWT => Err(Reason::Untranslatable),
            _ => Err(Reason::Unroutable),
        }
    }

    /// The interface.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.fib().ifindex
    }

    /// The source address that the host would use.
    #[inline(always)]
    pub(crate) fn source<A: Net>(&self) -> Result<A, Reason> {
        let source = A::source(self.fib());
        if source == A::any() { Err(Reason::NoSourceAddress) } else { Ok(source) }
    }

    /// To the next hop's neighbour, which the kernel resolves.
    #[inline(always)]
    pub(crate) fn redirect(&self) -> i32 {
        // SAFETY: as in `look_up`.
        let hop = unsafe { &mut (*self.question).hop };
        let fib = self.fib();
        hop.nh_family = fib.family as u32;
        // SAFETY: the widest member of a union of integers, all of it initialised. The look-up has put the next
        // hop in place of the destination, of whichever family it is.
        hop.__bindgen_anon_1.ipv6_nh = unsafe { fib.__bindgen_anon_4.ipv6_dst };
        // SAFETY: a structure of the length given.
        unsafe { bpf_redirect_neigh(fib.ifindex, hop, size_of::<NextHop>() as i32, 0) as i32 }
    }

    #[inline(always)]
    fn fib(&self) -> &FibLookup {
        // SAFETY: as in `look_up`, which has filled it in; it is not asked again before it has served.
        unsafe { &(*self.question).route }
    }
}

/// A family's part in route look-up.
pub(crate) trait Routed: Family {
    /// Fills in family and addresses.
    fn fill(fib: &mut FibLookup, tuple: &Tuple<Self>);
    /// Reads the source address.
    fn source(fib: &FibLookup) -> Self;
}

impl Routed for Ip4 {
    #[inline(always)]
    fn fill(fib: &mut FibLookup, tuple: &Tuple<Self>) {
        const AF_INET: u8 = 2;
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = tuple.src.wire();
        fib.__bindgen_anon_4.ipv4_dst = tuple.dst.wire();
    }

    #[inline(always)]
    fn source(fib: &FibLookup) -> Self {
        // SAFETY: a union of integers, initialised.
        Self::from_wire(unsafe { fib.__bindgen_anon_3.ipv4_src })
    }
}

impl Routed for Ip6 {
    #[inline(always)]
    fn fill(fib: &mut FibLookup, tuple: &Tuple<Self>) {
        const AF_INET6: u8 = 10;
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = tuple.src.wire();
        fib.__bindgen_anon_4.ipv6_dst = tuple.dst.wire();
    }

    #[inline(always)]
    fn source(fib: &FibLookup) -> Self {
        // SAFETY: a union of integers, initialised.
        Self::from_wire(unsafe { fib.__bindgen_anon_3.ipv6_src })
    }
}
