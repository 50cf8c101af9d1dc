//! What containers send.

use rnet_common::{Endpoint, EndpointFlags, Flow, Mac, Reason, Side, flow::flow_flags};

use crate::{
    conntrack, deliver,
    fragment::{self, Unknown},
    icmp,
    maps::{self, NewFlow, Work},
    nat::Net,
    packet::{self, Class, Packet, Part},
    programs::Outcome,
    route::Route,
    skb::Skb,
    stack,
};

/// The way of an IP packet from a container.
#[inline(always)]
pub(crate) fn handle<A: Net>(skb: Skb, work: &mut Work<A>) -> Outcome {
    let Work { packet, new } = work;
    if packet.part != Part::Whole {
        // Whoever could send a first fragment in another's name would choose the ports of the other's fragments.
        if !maps::endpoint(&packet.tuple.src).is_some_and(|source| source.ifindex == skb.ifindex()) {
            return Err(Reason::Spoofed);
        }
        match fragment::join(skb, packet, Side::Container) {
            Ok(()) => {}
            Err(Unknown::Early(put_back)) => return Ok(put_back),
            Err(Unknown::Lost) => return Err(Reason::Fragment),
        }
    }
    let flow = match conntrack::find(packet, Side::Container, skb.ifindex(), &mut new.key) {
        Some(entry) => conntrack::touch(entry, packet, skb),
        None => match begin(skb, packet, new) {
            Ok(()) => &new.forward,
            Err(outcome) => return outcome,
        },
    };
    deliver::forward(skb, packet, flow)
}

/// Opens the flow of a packet that belongs to none. An error is what becomes of one that opens none.
#[inline(always)]
fn begin<A: Net>(skb: Skb, packet: &mut Packet<A>, new: &mut NewFlow<A>) -> Result<(), Outcome> {
    let source = match genuine_source(skb, packet) {
        Ok(source) => source,
        Err(reason) => return Err(Err(reason)),
    };
    if packet.class == Class::Error
        && let Some(outcome) = icmp::relay(skb, packet, Side::Container, new)
    {
        return Err(outcome);
    }
    if let Some(target) = maps::endpoint(&packet.tuple.dst) {
        return Err(switch(skb, source, target));
    }
    let chosen = match maps::is_local(&packet.tuple.dst) {
        true => hairpin(packet, source, new),
        false => egress(skb, packet, source, new),
    };
    chosen.and_then(|()| conntrack::open(skb, packet, Side::Container, new)).map_err(Err)
}

/// The endpoint that sent the packet: a container may use no address but its own. Frames that a bridge has to
/// see are left to it.
#[inline(always)]
fn genuine_source<A: Net>(skb: Skb, packet: &Packet<A>) -> Result<&'static Endpoint<A>, Reason> {
    if packet.tuple.src.is_loopback() || packet.tuple.dst.is_loopback() {
        return Err(Reason::Martian);
    }
    let source = maps::endpoint(&packet.tuple.src).ok_or(Reason::Spoofed)?;
    let (to, from) = packet::macs(skb).ok_or(Reason::Malformed)?;
    if source.ifindex != skb.ifindex() || from != source.mac {
        return Err(Reason::Spoofed);
    }
    if is_for_link(&packet.tuple.dst, to) {
        return Err(Reason::Bridged);
    }
    Ok(source)
}

/// Whether the packet is a group's, or nobody's beyond the link. IPv4 link-local addresses are as any other: clouds answer
/// at them, and the host's stack would forward what it is left.
#[inline(always)]
fn is_for_link<A: Net>(dst: &A, to: Mac) -> bool {
    if dst.is_group() || A::V6 && dst.is_link_local() {
        return true;
    }
    // A subnet's broadcast address. What is one host's is compared with policy, whoever else is to see the frame.
    to.is_group() && maps::endpoint(dst).is_none() && !maps::is_local(dst)
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
#[inline(never)]
fn hairpin<A: Net>(packet: &Packet<A>, source: &Endpoint<A>, new: &mut NewFlow<A>) -> Result<(), Reason> {
    let tuple = &packet.tuple;
    // Of the host, an internal network sees its gateway.
    if source.is(EndpointFlags::INTERNAL) && tuple.dst != source.gateway {
        return Err(Reason::Internal);
    }
    if packet.class != Class::Opens {
        return Err(Reason::ToHost);
    }
    let Some(backend) = maps::published(&tuple.dst, tuple.dport, packet.proto) else {
        return Err(Reason::ToHost);
    };
    if !maps::is_open_to(backend, &tuple.src) {
        return Err(Reason::Source);
    }
    let target = maps::endpoint(&backend.addr).ok_or(Reason::NoEndpoint)?;
    let same_network = source.network == target.network;
    if !same_network && source.is(EndpointFlags::INTERNAL) {
        return Err(Reason::Internal);
    }
    new.forward = Flow {
        to: packet.tuple,
        mapping: backend.mapping,
        generation: backend.generation,
        from_ifindex: source.ifindex,
        flags: flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER | flow_flags::TO_CONTAINER,
        carried: Reason::Hairpin as u8,
        ..deliver::into(target)
    };
    new.forward.to.dst = backend.addr;
    new.forward.to.dport = backend.port;
    // A neighbour's answer comes back through its veth whatever the source is, so it may see who asks. A
    // container that reaches itself must not see its own address, and between networks neither may see the
    // other's. With neighbours that are closed to one another, none would learn the other's MAC to answer to.
    if !same_network || tuple.src == backend.addr || !source.is(EndpointFlags::ICC) {
        new.forward.to.src = target.gateway;
    }
    new.reply = Flow {
        mapping: backend.mapping,
        generation: backend.generation,
        from_ifindex: target.ifindex,
        flags: flow_flags::TWIN_FROM_CONTAINER | flow_flags::TO_CONTAINER,
        carried: Reason::HairpinReply as u8,
        ..deliver::into(source)
    };
    new.opener = source.mapping;
    new.as_host = false;
    Ok(())
}

/// To the outside, with the uplink's address where the network masquerades.
#[inline(never)]
fn egress<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    source: &Endpoint<A>,
    new: &mut NewFlow<A>,
) -> Result<(), Reason> {
    if source.is(EndpointFlags::INTERNAL) {
        return Err(Reason::Internal);
    }
    if source.is(EndpointFlags::VIA_STACK) {
        return Err(stack::admit(skb, packet, source, &mut new.key));
    }
    match packet.class {
        Class::Opens => {}
        Class::Continues | Class::Error => return Err(Reason::NoFlowOut),
        Class::Untracked => return Err(Reason::Untranslatable),
    }
    if packet.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let route = Route::find_with_source(skb, packet, &packet.tuple, source.bridge)?;
    // Where no answer could be translated nothing is sent: another network's bridge, for one.
    if !maps::is_uplink(route.ifindex()) {
        return Err(Reason::OtherNetwork);
    }
    plan(packet, source, source.ifindex, 0, new);
    new.reply.flags |= flow_flags::TO_CONTAINER;
    if new.as_host {
        new.forward.to.src = route.source()?;
    }
    Ok(())
}

/// Both halves of a flow from a container to the outside, before its source is settled. Packets of the first half arrive
/// through `from_ifindex`; `via` is a bit of [`flow_flags`] for both.
#[inline(always)]
pub(crate) fn plan<A: Net>(
    packet: &Packet<A>,
    source: &Endpoint<A>,
    from_ifindex: u32,
    via: u8,
    new: &mut NewFlow<A>,
) {
    let masquerades = source.is(EndpointFlags::MASQUERADE) && !maps::is_exempt(source, &packet.tuple.dst);
    let (carried, answered) = match masquerades {
        true => (Reason::Masqueraded, Reason::MasqueradedReply),
        false => (Reason::Routed, Reason::RoutedReply),
    };
    new.forward = Flow {
        to: packet.tuple,
        mapping: source.mapping,
        generation: source.generation,
        from_ifindex,
        to_ifindex: source.bridge,
        flags: flow_flags::ORIGINAL | via,
        carried: carried as u8,
        ..Flow::default()
    };
    new.reply = Flow {
        mapping: source.mapping,
        generation: source.generation,
        flags: flow_flags::TWIN_FROM_CONTAINER | via,
        carried: answered as u8,
        ..deliver::into(source)
    };
    new.opener = source.mapping;
    new.as_host = masquerades;
}
