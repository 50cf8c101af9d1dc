//! What arrives from outside. Whatever is not rnet's is left to the host as it came.

use rnet_common::{Endpoint, EndpointFlags, Flow, Reason, Side, Tuple, flow::flow_flags};

use crate::{
    conntrack, deliver,
    fragment::{self, Unknown},
    icmp,
    maps::{self, NewFlow, Work},
    nat::{self, Net},
    packet::{Class, Packet, Part},
    pressure,
    programs::Outcome,
    skb::Skb,
};

/// The way of an IP packet from outside.
#[inline(always)]
pub(crate) fn handle<A: Net>(skb: Skb, work: &mut Work<A>) -> Outcome {
    let Work { packet, new } = work;
    let addr = packet.tuple.dst;
    // A port published on a loopback address is in the port map too, for the host's own programs.
    if addr.is_group() || addr.is_loopback() || addr.is_link_local() || !skb.is_for_host() {
        return Err(Reason::NotOurs);
    }
    if packet.part != Part::Whole {
        let is_container = maps::endpoint(&packet.tuple.dst).is_some();
        // What is neither the host's nor a container's is not to be held up.
        if !is_container && !maps::is_local(&packet.tuple.dst) {
            return Err(Reason::NotOurs);
        }
        match fragment::join(skb, packet, Side::Uplink) {
            Ok(()) => {}
            Err(Unknown::Early(put_back)) => return Ok(put_back),
            Err(Unknown::Lost) if is_container => return Err(Reason::Fragment),
            Err(Unknown::Lost) => return Err(Reason::NotOurs),
        }
    }
    let flow = match conntrack::find(packet, Side::Uplink, skb.ifindex(), &mut new.key) {
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
    let target = maps::endpoint(&packet.tuple.dst);
    // No address is a container's and the host's.
    let is_local = target.is_none();
    if is_local && !maps::is_local(&packet.tuple.dst) {
        return Err(Err(Reason::NotOurs));
    }
    if packet.class == Class::Error
        && let Some(outcome) = icmp::relay(skb, packet, Side::Uplink, new)
    {
        return Err(outcome);
    }
    let opened = choose(skb, packet, target, is_local, new).and_then(|()| {
        // What cannot be delivered opens nothing, unless the host's stack is to say so, whose answer is translated by
        // the flow.
        match packet.ttl > 1 || new.forward.is(flow_flags::VIA_STACK) {
            true if !pressure::admits(&packet.tuple.src) => Err(Reason::SourceRate),
            true => conntrack::open(skb, packet, Side::Uplink, new),
            false => Ok(()),
        }
    });
    opened.map_err(Err)
}

/// Which flow the packet opens: to a published port, or to a container whose own address is open.
#[inline(always)]
fn choose<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    target: Option<&Endpoint<A>>,
    is_local: bool,
    new: &mut NewFlow<A>,
) -> Result<(), Reason> {
    // What opens nothing goes to the host even if the port is published: it may be the host's own connection.
    let Tuple { dst, dport, .. } = &packet.tuple;
    let backend = match is_local {
        true => maps::published(dst, *dport, packet.proto),
        false => maps::published_on(dst, *dport, packet.proto),
    };
    if packet.class == Class::Opens
        && let Some(backend) = backend
    {
        if is_local && nat::is_connected(skb, packet) {
            return Err(Reason::HostSocket);
        }
        if is_martian(&packet.tuple.src) {
            return Err(Reason::Martian);
        }
        if !maps::is_open_to(backend, &packet.tuple.src) {
            return Err(Reason::Source);
        }
        let target = maps::endpoint(&backend.addr).ok_or(Reason::NoEndpoint)?;
        plan(packet, target, new);
        new.forward.to.dst = backend.addr;
        new.forward.to.dport = backend.port;
        (new.forward.mapping, new.forward.generation) = (backend.mapping, backend.generation);
        (new.reply.mapping, new.reply.generation) = (backend.mapping, backend.generation);
        new.forward.carried = Reason::Published as u8;
        new.reply.carried = Reason::PublishedReply as u8;
        return Ok(());
    }
    let target = target.ok_or(Reason::NotOurs)?;
    let is_ping = packet.proto == A::ICMP && packet.icmp == A::ECHO.0;
    let is_open = target.is(EndpointFlags::UNPROTECTED) || target.is(EndpointFlags::ROUTED) && is_ping;
    if !is_open || packet.class != Class::Opens {
        return Err(Reason::Unpublished);
    }
    if is_martian(&packet.tuple.src) {
        return Err(Reason::Martian);
    }
    plan(packet, target, new);
    new.forward.carried = Reason::Direct as u8;
    new.reply.carried = Reason::DirectReply as u8;
    Ok(())
}

/// Whether nobody outside has the address (RFC 1812 §5.3.7): a container would take the packet for its neighbour's, its
/// gateway's or its own. The host's stack, which the packet is to pass by, drops most of these.
#[inline(never)]
fn is_martian<A: Net>(src: &A) -> bool {
    src.is_loopback()
        || src.is_group()
        || *src == A::default()
        || maps::is_local(src)
        || maps::endpoint(src).is_some()
}

/// Both halves of a flow that leads into a container with its tuple unchanged, made by the container.
#[inline(never)]
fn plan<A: Net>(packet: &Packet<A>, target: &Endpoint<A>, new: &mut NewFlow<A>) {
    let (delivery, back, from_ifindex) = match target.is(EndpointFlags::VIA_STACK) {
        true => (flow_flags::VIA_STACK, flow_flags::VIA_STACK, target.bridge),
        false => (flow_flags::TO_CONTAINER, 0, target.ifindex),
    };
    new.forward = Flow {
        to: packet.tuple,
        mapping: target.mapping,
        generation: target.generation,
        flags: flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER | delivery,
        ..deliver::into(target)
    };
    new.reply = Flow {
        mapping: target.mapping,
        generation: target.generation,
        from_ifindex,
        to_ifindex: target.bridge,
        flags: back,
        ..Flow::default()
    };
    new.opener = 0;
    new.as_host = false;
}
