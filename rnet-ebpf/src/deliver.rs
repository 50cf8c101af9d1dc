//! The way out: into a container, or to the next hop.

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::generated::{bpf_redirect, bpf_redirect_peer},
};
use rnet_common::{
    Endpoint, Family, Flow, Reason,
    flow::{flow_flags, proto},
};

use crate::{
    answer,
    nat::Net,
    packet::{self, Packet},
    programs::{Outcome, Packed},
    rewrite,
    route::{self, Route},
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

/// Rewrites a packet as its flow says and sends it on its way.
#[inline(always)]
pub(crate) fn forward<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Outcome {
    let outcome = match A::V6 {
        false => try_forward(skb, packet, flow),
        // Its addresses take room on the stack, which a function of its own gives back.
        true => forward_packed(skb, packet, flow).outcome().unwrap_or(Err(Reason::Undeliverable)),
    };
    match outcome {
        // What a container sent to the host's address would have been answered by the host's stack.
        Err(Reason::Undeliverable) if flow.from_ifindex == 0 => answer::answer(skb, packet, flow.mtu),
        outcome => outcome,
    }
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
    if let Some(hop) = route::known(skb, packet, flow) {
        rewrite::translate(skb, packet, &flow.to, packet.ttl - 1)?;
        return Ok(Carried { reason: flow.carried, action: hop.redirect(skb)? });
    }
    let route = Route::find_hop(skb, packet, &flow.to, flow.to_ifindex)?;
    if route.is_too_small {
        // The host's stack fragments it. The stack takes the time to live, too.
        rewrite::translate(skb, packet, &flow.to, packet.ttl)?;
        // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
        let action = unsafe { bpf_redirect(flow.to_ifindex, u64::from(BPF_F_INGRESS)) as i32 };
        return Ok(Carried { reason: flow.carried, action });
    }
    route.note(packet, flow);
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
    rewrite::frame_of(skb, flow)?;
    Ok(redirect_peer(skb, flow.to_ifindex))
}

/// Length of the largest IP packet that this one is sent as: a segmentation-offloaded one is many.
#[inline(always)]
pub(crate) fn segment_length<A: Family>(skb: Skb, packet: &Packet<A>) -> u32 {
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

/// Into the namespace at the other end of a veth or netkit, without a pass through the host's queues. Legal only from an
/// ingress hook.
#[inline(always)]
fn redirect_peer(skb: Skb, ifindex: u32) -> i32 {
    skb.set_for_host();
    // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}
