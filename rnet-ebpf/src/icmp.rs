//! ICMP errors about flows: rewritten together with the packet that they quote, so that they reach the socket that
//! they are about (RFC 5508 §4), and path-MTU discovery works through both kinds of translation.

use rnet_common::{Flow, Reason, Side, Tuple, flow::flow_flags};

use crate::{
    conntrack,
    deliver::{self, Carried},
    maps::NewFlow,
    nat::Net,
    packet::{Packet, Quoted},
    programs::{Outcome, Packed},
    rewrite,
    route::Route,
    skb::Skb,
    stack,
};

/// Sends an error on its way if it is about a flow of ours. `scratch` is overwritten.
#[inline(always)]
pub(crate) fn relay<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    side: Side,
    scratch: &mut NewFlow<A>,
) -> Option<Outcome> {
    relay_packed(skb, packet, side, scratch).outcome()
}

#[inline(never)]
fn relay_packed<A: Net>(skb: Skb, packet: &Packet<A>, side: Side, scratch: &mut NewFlow<A>) -> Packed {
    try_relay(skb, packet, side, scratch).map_or(Packed::NONE, Packed::new)
}

#[inline(always)]
fn try_relay<A: Net>(skb: Skb, packet: &Packet<A>, side: Side, scratch: &mut NewFlow<A>) -> Option<Outcome> {
    let quoted = A::parse_quoted(skb, packet.l4 + 8).ok()?;
    // Whoever complains received the packet: an answer to it would arrive here, and says what becomes of it.
    scratch.key.set_reversed(&quoted.tuple, quoted.proto, side);
    let answer = &scratch.key.tuple;
    let flow = conntrack::find_key(&scratch.key, skb.ifindex())?;
    // SAFETY: an entry of the flow table, readable while the program runs; these fields do not change.
    let flow: &Flow<A> = unsafe { &*flow };
    if packet.tuple.dst != answer.dst {
        return None;
    }
    let to = &mut scratch.forward.to;
    *to = Tuple::default();
    to.dst = flow.to.dst;
    if packet.tuple.src == answer.src {
        to.src = flow.to.src;
    } else if side == Side::Uplink {
        to.src = packet.tuple.src;
    } else {
        // A router behind a container: its address means nothing outside.
        return Some(Err(Reason::Spoofed));
    }
    if packet.ttl <= 1 {
        return Some(Err(Reason::Undeliverable));
    }
    scratch.reply.to.set_reversed(&flow.to);
    Some(send(skb, packet, &quoted, flow, &scratch.forward.to, &scratch.reply.to))
}

#[inline(always)]
fn send<A: Net>(
    skb: Skb,
    packet: &Packet<A>,
    quoted: &Quoted<A>,
    flow: &Flow<A>,
    to: &Tuple<A>,
    inner: &Tuple<A>,
) -> Outcome {
    let reason = Reason::Related as u8;
    if flow.is(flow_flags::VIA_STACK) {
        rewrite::translate_error(skb, packet, to, quoted, inner, packet.ttl)?;
        return Ok(stack::pass(reason));
    }
    if deliver::is_to_container(flow) {
        rewrite::translate_error(skb, packet, to, quoted, inner, packet.ttl - 1)?;
        return Ok(Carried { reason, action: deliver::enter(skb, flow)? });
    }
    let route = Route::find(skb, packet, to, flow.to_ifindex)?;
    rewrite::translate_error(skb, packet, to, quoted, inner, packet.ttl - 1)?;
    Ok(Carried { reason, action: route.redirect() })
}
