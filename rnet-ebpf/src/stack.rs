//! Networks that are delivered via the host's stack, so that its filter rules see what passes.
//!
//! ```text
//!  uplink ──▶ from_uplink ──▶ stack: conntrack, filter, routing ──▶ bridge ──▶ container
//!         ◀── to_uplink   ◀──                                   ◀──        ◀── from_container
//! ```
//!
//! All translation is at the uplink. Between the two programs there and the container a packet has the container's own
//! address in both directions, which is the one pair that the kernel's connection tracking sees. Time to live and MTU
//! are the stack's affair; its ICMP errors to the outside quote what it saw, and are translated as they leave, as are
//! the resets that rules send in a container's name.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use rnet_common::{
    Endpoint, EndpointFlags, Family, Flow, FlowKey, Ip4, Ip6, Reason, Side, Tuple, flow::flow_flags,
};

use crate::{
    conntrack, container,
    deliver::Carried,
    fragment,
    maps::{self, NewFlow, Tables, Work},
    nat::Net,
    packet::{self, Class, Packet, Parse, Part},
    programs::{Outcome, Packed},
    rewrite,
    route::Route,
    skb::{ETH_LEN, Skb},
};

/// What `from_container` makes of a packet to the outside: it goes to the stack as it came if `to_uplink` will know
/// what to make of it. `key` is overwritten.
#[inline(never)]
pub(crate) fn admit<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    source: &Endpoint<A>,
    key: &mut FlowKey<A>,
) -> Reason {
    // Where rnet does not masquerade, rules of the host's may. What they translate is no flow here, and what they do not,
    // `to_uplink` stops.
    let masquerades = source.is(EndpointFlags::MASQUERADE);
    match packet.class {
        Class::Untracked if masquerades => return Reason::Untranslatable,
        // Where the stack puts fragments together, none has left and opened the flow before the last has passed here.
        Class::Continues if packet.part == Part::Tail => {}
        Class::Continues
            if masquerades && conntrack::find(packet, Side::Container, source.bridge, key).is_none() =>
        {
            return Reason::NoFlowOut;
        }
        Class::Opens | Class::Continues | Class::Error | Class::Untracked => {}
    }
    if packet.ttl <= 1 {
        return Reason::TtlExpired;
    }
    match Route::find(skb, packet, &packet.tuple, source.bridge) {
        // Where nothing is translated nothing is sent: a route may have changed since the flow was opened.
        Ok(route) if !maps::is_uplink(route.ifindex()) => return Reason::OtherNetwork,
        Ok(_) => {}
        Err(reason) => return reason,
    }
    // To the host, whichever neighbour the frame is addressed to.
    match packet::macs(skb) {
        Some((to, _)) if to == source.gateway_mac => Reason::ViaStack,
        Some((_, from)) => match rewrite::frame(skb, source.gateway_mac, from) {
            Ok(()) => Reason::ViaStack,
            Err(reason) => reason,
        },
        None => Reason::Malformed,
    }
}

/// Translates a packet of a flow and leaves it to the stack.
#[inline(always)]
pub(crate) fn translate<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Outcome {
    rewrite::translate(skb, packet, &flow.to, packet.ttl)?;
    Ok(pass(flow.carried))
}

/// A packet that goes on through the stack once it is translated.
#[inline(always)]
pub(crate) fn pass(reason: u8) -> Carried {
    Carried { reason, action: TC_ACT_UNSPEC }
}

/// Who sends a packet that is `to_uplink`'s affair.
pub(crate) enum Sender<A: Family> {
    /// A container of such a network, or the host in its name.
    Container(&'static Endpoint<A>),
    /// The host, and it is ICMP.
    Host,
}

/// Who sends a packet that leaves through an uplink. [`Reason::NotOurs`] if that concerns nobody here, which is so for
/// the host's own packets and for what other networks send, translated already.
#[inline(always)]
pub(crate) fn sender<A: Peek>(skb: Skb) -> Result<Sender<A>, Reason> {
    let (source, proto) = A::peek(skb).ok_or(Reason::NotOurs)?;
    let from = skb.ingress_ifindex();
    match maps::endpoint(&source) {
        Some(source) if !source.is(EndpointFlags::VIA_STACK) => Err(Reason::NotOurs),
        Some(source) if from == 0 || from == source.bridge => Ok(Sender::Container(source)),
        Some(_) => Err(Reason::Spoofed),
        None if proto == A::ICMP && from == 0 => Ok(Sender::Host),
        None => Err(Reason::NotOurs),
    }
}

/// The way of a container's packet out of an uplink. It leaves translated by a flow, or not at all.
#[inline(always)]
pub(crate) fn leave<A: Net>(skb: Skb, work: &mut Work<A>, source: &Endpoint<A>) -> Outcome {
    let Work { packet, new } = work;
    // The stack sends fragments in order, and `from_container` has put in order what the container sent.
    if packet.part != Part::Whole && !fragment::find_head(packet, Side::Container) {
        return Err(Reason::Fragment);
    }
    if let Some(entry) = conntrack::find(packet, Side::Container, source.bridge, &mut new.key) {
        return translate_packed(skb, packet, conntrack::touch(entry, packet, skb));
    }
    match packet.class {
        Class::Opens => {}
        Class::Continues => return Err(Reason::NoFlowOut),
        Class::Error => {
            return relay(skb, packet, Some(source), new).outcome().unwrap_or(Err(Reason::NoFlowOut));
        }
        Class::Untracked => return Err(Reason::Untranslatable),
    }
    container::plan(packet, source, source.bridge, flow_flags::VIA_STACK, new);
    if new.as_host {
        set_source(skb, packet, source.bridge, &mut new.forward.to)?;
    }
    conntrack::open(skb, packet, Side::Container, new)?;
    translate_packed(skb, packet, &new.forward)
}

/// The way of an ICMP message of the host's own: an error about a packet that the stack was left is translated back.
#[inline(always)]
pub(crate) fn answer<A: Net>(skb: Skb, work: &mut Work<A>) -> Outcome {
    let Work { packet, new } = work;
    if packet.class != Class::Error {
        return Err(Reason::NotOurs);
    }
    relay(skb, packet, None, new).outcome().unwrap_or(Err(Reason::NotOurs))
}

#[inline(always)]
fn translate_packed<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Outcome {
    #[inline(never)]
    fn packed<A: Net>(skb: Skb, packet: &Packet<A>, flow: &Flow<A>) -> Packed {
        Packed::new(translate(skb, packet, flow))
    }
    packed(skb, packet, flow).outcome().unwrap_or(Err(Reason::RewriteFailed))
}

/// The source becomes the address that the host would use where the stack has sent the packet.
#[inline(never)]
fn set_source<A: Net>(skb: Skb, packet: &Packet<A>, bridge: u32, to: &mut Tuple<A>) -> Result<(), Reason> {
    // The stack has found a way, so that every failure is this one.
    let route = match Route::find_with_source(skb, packet, &packet.tuple, bridge) {
        Ok(route) if route.ifindex() == skb.ifindex() => route,
        // A firewall mark, say, has led it elsewhere.
        _ => Route::find_with_source_through(skb, packet, &packet.tuple, skb.ifindex())
            .map_err(|_| Reason::NoSourceAddress)?,
    };
    to.src = route.source()?;
    Ok(())
}

/// Translates an ICMP error if it is about a flow of such a network, by `source` or by the host. `scratch` is
/// overwritten.
#[inline(never)]
fn relay<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    source: Option<&Endpoint<A>>,
    scratch: &mut NewFlow<A>,
) -> Packed {
    try_relay(skb, packet, source, scratch).map_or(Packed::NONE, Packed::new)
}

#[inline(always)]
fn try_relay<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    source: Option<&Endpoint<A>>,
    scratch: &mut NewFlow<A>,
) -> Option<Outcome> {
    let quoted = A::parse_quoted(skb, packet.l4 + 8).ok()?;
    // An answer to the packet that is complained of would leave here, and says what becomes of it.
    scratch.key.set_reversed(&quoted.tuple, quoted.proto, Side::Container);
    let answer = &scratch.key.tuple;
    let container = maps::endpoint(&answer.src)?;
    let flow = conntrack::find_key(&scratch.key, container.bridge)?;
    // SAFETY: an entry of the flow table, readable while the program runs; these fields do not change.
    let flow: &Flow<A> = unsafe { &*flow };
    if packet.tuple.dst != answer.dst || !flow.is(flow_flags::VIA_STACK) {
        return None;
    }
    let to = &mut scratch.forward.to;
    *to = Tuple::default();
    to.dst = flow.to.dst;
    to.src = match source {
        None => packet.tuple.src,
        Some(_) if packet.tuple.src == answer.src => flow.to.src,
        // Of a flow that it has no part in.
        Some(_) => return None,
    };
    scratch.reply.to.set_reversed(&flow.to);
    let (to, inner) = (&scratch.forward.to, &scratch.reply.to);
    let done = rewrite::translate_error(skb, packet, to, &quoted, inner, packet.ttl);
    Some(done.map(|()| pass(Reason::Related as u8)))
}

/// A family's part in telling a packet's sender before it is parsed.
pub(crate) trait Peek: Tables + Parse {
    /// Source address and protocol number.
    fn peek(skb: Skb) -> Option<(Self, u8)>;
    /// Destination address.
    fn peek_destination(skb: Skb) -> Option<Self>;
}

impl Peek for Ip4 {
    #[inline(always)]
    fn peek(skb: Skb) -> Option<(Self, u8)> {
        if !skb.pull(ETH_LEN + Self::HEADER) {
            return None;
        }
        Some((Self::from_wire(skb.read(ETH_LEN + 12)?), skb.read(ETH_LEN + 9)?))
    }

    #[inline(always)]
    fn peek_destination(skb: Skb) -> Option<Self> {
        if !skb.pull(ETH_LEN + Self::HEADER) {
            return None;
        }
        Some(Self::from_wire(skb.read(ETH_LEN + 16)?))
    }
}

impl Peek for Ip6 {
    #[inline(always)]
    fn peek(skb: Skb) -> Option<(Self, u8)> {
        if !skb.pull(ETH_LEN + Self::HEADER) {
            return None;
        }
        Some((Self::from_wire(skb.read(ETH_LEN + 8)?), skb.read(ETH_LEN + 6)?))
    }

    #[inline(always)]
    fn peek_destination(skb: Skb) -> Option<Self> {
        if !skb.pull(ETH_LEN + Self::HEADER) {
            return None;
        }
        Some(Self::from_wire(skb.read(ETH_LEN + 24)?))
    }
}
