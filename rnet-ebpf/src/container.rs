//! What containers send.

use rnet_common::{
    Endpoint, EndpointFlags, Flow, Reason, Side,
    flow::{flow_flags, proto},
};

use crate::{
    conntrack,
    deliver::{self, Route},
    maps,
    nat::{Net, PortPolicy},
    packet::{self, Class, Packet},
    programs::Outcome,
    skb::Skb,
};

/// The way of an IP packet from a container.
#[inline(always)]
pub(crate) fn handle<A: Net>(skb: Skb) -> Outcome {
    let Ok(packet) = A::parse(skb) else { return Err(Reason::Malformed) };
    if let Some(flow) = conntrack::find(&packet, Side::Container, skb.ifindex()) {
        return deliver::carry(skb, &packet, flow);
    }
    let source = genuine_source(skb, &packet)?;
    if let Some(target) = maps::endpoint(packet.tuple.dst) {
        return switch(skb, source, target);
    }
    if maps::is_local(packet.tuple.dst) {
        return hairpin(skb, &packet, source);
    }
    egress(skb, &packet, source)
}

/// The endpoint that sent the packet: a container may use no address but its own. Frames that a bridge has to
/// see are left to it.
#[inline(always)]
fn genuine_source<A: Net>(skb: Skb, packet: &Packet<A>) -> Result<&'static Endpoint<A>, Reason> {
    if packet.tuple.src.is_loopback() || packet.tuple.dst.is_loopback() {
        return Err(Reason::Martian);
    }
    let source = maps::endpoint(packet.tuple.src).ok_or(Reason::Spoofed)?;
    let (to, from) = packet::macs(skb).ok_or(Reason::Malformed)?;
    if source.ifindex != skb.ifindex() || from != source.mac {
        return Err(Reason::Spoofed);
    }
    if to.is_group() || packet.tuple.dst.is_group() {
        return Err(Reason::Bridged);
    }
    Ok(source)
}

/// To another container: straight to it on the same network, not at all on another.
#[inline(always)]
fn switch<A: Net>(skb: Skb, source: &Endpoint<A>, target: &Endpoint<A>) -> Outcome {
    if source.network != target.network {
        return Err(Reason::OtherNetwork);
    }
    if !source.is(EndpointFlags::ICC) {
        return Err(Reason::IccDisabled);
    }
    deliver::switch(skb, target)
}

/// To an address of the host: a published port, which may be the sender's own, or the host itself.
#[inline(always)]
fn hairpin<A: Net>(skb: Skb, packet: &Packet<A>, source: &Endpoint<A>) -> Outcome {
    let tuple = &packet.tuple;
    if packet.class != Class::Opens {
        return Err(Reason::ToHost);
    }
    let Some(backend) = maps::published(tuple.dst, tuple.dport, packet.proto) else {
        return Err(Reason::ToHost);
    };
    let target = maps::endpoint(backend.addr).ok_or(Reason::NoEndpoint)?;
    let same_network = source.network == target.network;
    if !same_network && source.is(EndpointFlags::INTERNAL) {
        return Err(Reason::Internal);
    }
    let mut to = *tuple;
    to.dst = backend.addr;
    to.dport = backend.port;
    // A neighbour's answer comes back through its veth whatever the source is, so it may see who asks. A
    // container that reaches itself must not see its own address, and between networks neither may see the
    // other's.
    if !same_network || tuple.src == backend.addr {
        to.src = target.gateway;
    }
    let mut forward = Flow {
        to,
        mapping: backend.mapping,
        generation: backend.generation,
        from_ifindex: source.ifindex,
        flags: flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER,
        carried: Reason::Hairpin as u8,
        ..deliver::into(target)
    };
    let mut reply = Flow {
        mapping: backend.mapping,
        generation: backend.generation,
        from_ifindex: target.ifindex,
        flags: flow_flags::TWIN_FROM_CONTAINER,
        carried: Reason::HairpinReply as u8,
        ..deliver::into(source)
    };
    forward.flags |= flow_flags::TO_CONTAINER;
    reply.flags |= flow_flags::TO_CONTAINER;
    conntrack::open(packet, Side::Container, &mut forward, &mut reply, &PortPolicy::keep(skb)?)?;
    deliver::forward(skb, packet, &forward)
}

/// To the outside, with the uplink's address where the network masquerades.
#[inline(always)]
fn egress<A: Net>(skb: Skb, packet: &Packet<A>, source: &Endpoint<A>) -> Outcome {
    if source.is(EndpointFlags::INTERNAL) {
        return Err(Reason::Internal);
    }
    match packet.class {
        Class::Opens => {}
        Class::Continues => return Err(Reason::NoFlowOut),
        Class::Untracked => return Err(Reason::Untranslatable),
        Class::Fragment => return Err(Reason::Fragment),
    }
    if packet.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let route = Route::find_with_source(skb, packet, &packet.tuple, source.bridge)?;
    // Where no answer could be translated nothing is sent: another network's bridge, for one.
    if !maps::is_uplink(route.ifindex()) {
        return Err(Reason::OtherNetwork);
    }
    let masquerades = source.is(EndpointFlags::MASQUERADE);
    let mut to = packet.tuple;
    if masquerades {
        to.src = route.source()?;
    }
    let (carried, answered) = match masquerades {
        true => (Reason::Masqueraded, Reason::MasqueradedReply),
        false => (Reason::Routed, Reason::RoutedReply),
    };
    let mut forward = Flow {
        to,
        mapping: source.mapping,
        generation: source.generation,
        from_ifindex: source.ifindex,
        to_ifindex: source.bridge,
        flags: flow_flags::ORIGINAL,
        carried: carried as u8,
        ..Flow::default()
    };
    let mut reply = Flow {
        mapping: source.mapping,
        generation: source.generation,
        flags: flow_flags::TWIN_FROM_CONTAINER | flow_flags::TO_CONTAINER,
        carried: answered as u8,
        ..deliver::into(source)
    };
    // An echo identifier is no port of the host's.
    let ports = match masquerades && packet.proto != proto::ICMP {
        true => PortPolicy::masquerade(skb)?,
        false => PortPolicy::keep(skb)?,
    };
    conntrack::open(packet, Side::Container, &mut forward, &mut reply, &ports)?;
    deliver::out(skb, packet, &forward, &route)
}
