//! Routes: to which neighbour a packet goes, out of which interface.
//!
//! The kernel is asked for the first packet of a flow in each tick of its clock, and sends that one itself, which keeps
//! its knowledge of the neighbour fresh (`neigh_event_send`). What else the flow sends within the tick goes the same way
//! without asking: a route that changes is followed a tick later, some milliseconds. The hops are each CPU's own, so
//! that nobody reads one half written.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NO_SRC_ADDR,
        BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_OUTPUT,
        BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC, bpf_fib_lookup as FibLookup,
        bpf_redir_neigh as NextHop,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh},
};
use rnet_common::{Family, Flow, Ip4, Ip6, Mac, Reason, Tuple};

use crate::{
    deliver::segment_length,
    maps::{self, Question},
    nat::Net,
    packet::Packet,
    rewrite,
    skb::Skb,
};

/// Where packets of a flow went when the kernel was last asked.
#[repr(C)]
pub(crate) struct Hop<A> {
    /// The flow's packets as they leave: a route may depend on any of it.
    to: Tuple<A>,
    /// Where the look-up starts.
    from: u32,
    proto: u32,
    ifindex: u32,
    /// Largest IP packet that may go this way, in bytes.
    mtu: u32,
    destination: Mac,
    source: Mac,
    /// When it was asked, in ticks of [`crate::conntrack::now`].
    tick: u64,
}

/// The next hop of a packet of `flow`, if the kernel was asked within this tick and the packet is not too large for it.
#[inline(always)]
pub(crate) fn known<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Option<&'static Hop<A>> {
    let hop = maps::hop(&flow.to)?;
    let is_same = hop.tick == flow.last_seen
        && hop.to == flow.to
        && hop.from == flow.to_ifindex
        && hop.proto == packet.proto as u32;
    (is_same && segment_length(skb, packet) <= hop.mtu).then_some(&*hop)
}

impl<A> Hop<A> {
    /// Out of the interface, to the neighbour.
    #[inline(always)]
    pub(crate) fn redirect(&self, skb: Skb) -> Result<i32, Reason> {
        rewrite::frame(skb, self.destination, self.source)?;
        // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
        Ok(unsafe { bpf_redirect(self.ifindex, 0) as i32 })
    }
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

    /// The same, and the neighbour's Ethernet address if it is known. Of a route that is too small nothing else is known.
    #[inline(always)]
    pub(crate) fn find_hop<A: Net>(
        skb: Skb,
        packet: &Packet<A>,
        to: &Tuple<A>,
        from: u32,
    ) -> Result<Self, Reason> {
        Self::look_up(skb, packet, to, from, 0)
    }

    /// The route, and the source address that the host would use on it.
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
        // Without a length the kernel compares the packet with the device's MTU, after all else is found; but not at all
        // where it does not know the neighbour.
        if !packet.may_fragment || flags & BPF_FIB_LOOKUP_SKIP_NEIGH == 0 {
            let length = segment_length(skb, packet);
            fib.__bindgen_anon_1.tot_len = if length > u16::MAX as u32 { u16::MAX } else { length as u16 };
        }
        A::fill(fib, to);
        // SAFETY: a valid context, and a structure of the length given.
        let found = unsafe { bpf_fib_lookup(skb.as_ptr().cast(), fib, size_of::<FibLookup>() as i32, flags) };
        const SUCCESS: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
        const NO_NEIGH: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
        const FRAG_NEEDED: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
        const NO_SRC_ADDR: i64 = BPF_FIB_LKUP_RET_NO_SRC_ADDR as i64;
        const UNSUPP_LWT: i64 = BPF_FIB_LKUP_RET_UNSUPP_LWT as i64;
        match found {
            SUCCESS | NO_NEIGH => Ok(Self { question, is_too_small: false }),
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

    /// Keeps the next hop for what else the flow sends within this tick.
    #[inline(always)]
    pub(crate) fn note<A: Net>(&self, packet: &Packet<A>, flow: &Flow<A>) {
        let fib = self.fib();
        // The look-up leaves it at nought where the neighbour is not known yet.
        if Mac(fib.dmac) == Mac::default() {
            return;
        }
        let Some(hop) = maps::hop(&flow.to) else { return };
        hop.to = flow.to;
        hop.from = flow.to_ifindex;
        hop.proto = packet.proto as u32;
        hop.tick = flow.last_seen;
        hop.ifindex = fib.ifindex;
        // SAFETY: a union of integers, which the look-up has overwritten with what the way takes.
        hop.mtu = unsafe { fib.__bindgen_anon_1.mtu_result } as u32;
        hop.destination = Mac(fib.dmac);
        hop.source = Mac(fib.smac);
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
