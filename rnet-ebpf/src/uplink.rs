//! What arrives from outside. Whatever is not rnet's is left to the host as it came.

use rnet_common::{Endpoint, Flow, Reason, Side, flow::flow_flags};

use crate::{
    conntrack, deliver, maps,
    nat::{self, Net, PortPolicy},
    packet::{Class, Packet},
    programs::Outcome,
    skb::Skb,
};

/// The way of an IP packet from outside.
#[inline(always)]
pub(crate) fn handle<A: Net>(skb: Skb) -> Outcome {
    let Ok(packet) = A::parse(skb) else { return Err(Reason::Unparsed) };
    if let Some(flow) = conntrack::find(&packet, Side::Uplink, skb.ifindex()) {
        return deliver::carry(skb, &packet, flow);
    }
    let tuple = &packet.tuple;
    // A port published on a loopback address is in the port map too, for the host's own programs.
    if tuple.dst.is_group() || tuple.dst.is_loopback() {
        return Err(Reason::NotOurs);
    }
    // What opens nothing goes to the host even if the port is published: it may be the host's own connection.
    if packet.class == Class::Opens
        && let Some(backend) = maps::published(tuple.dst, tuple.dport, packet.proto)
        && maps::is_local(tuple.dst)
    {
        if nat::is_connected(skb, &packet) {
            return Err(Reason::HostSocket);
        }
        let target = maps::endpoint(backend.addr).ok_or(Reason::NoEndpoint)?;
        return publish(skb, &packet, backend, target);
    }
    match maps::endpoint(tuple.dst) {
        Some(_) => Err(Reason::Unpublished),
        None => Err(Reason::NotOurs),
    }
}

/// Opens a flow to a published port.
#[inline(always)]
fn publish<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    backend: &rnet_common::Backend<A>,
    target: &Endpoint<A>,
) -> Outcome {
    if packet.ttl <= 1 {
        return Err(Reason::TtlExceeded);
    }
    let mut to = packet.tuple;
    to.dst = backend.addr;
    to.dport = backend.port;
    let mut forward = Flow {
        to,
        mapping: backend.mapping,
        generation: backend.generation,
        flags: flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER | flow_flags::TO_CONTAINER,
        carried: Reason::Published as u8,
        ..deliver::into(target)
    };
    let mut reply = Flow {
        mapping: backend.mapping,
        generation: backend.generation,
        from_ifindex: target.ifindex,
        to_ifindex: target.bridge,
        carried: Reason::PublishedReply as u8,
        ..Flow::default()
    };
    conntrack::open(packet, Side::Uplink, &mut forward, &mut reply, &PortPolicy::keep(skb)?)?;
    deliver::forward(skb, packet, &forward)
}
