//! Bridges that an engine has made and puts containers on: what passes between their ports and the host's stack.
//!
//! A container that is not served yet, or starts while no daemon runs, is behind none of the other programs. What it
//! sends to the outside would leave with its own address, and whoever has a route to it could open its ports. Neither
//! passes; the host itself it may reach.

use rnet_common::{EndpointFlags, Family, Reason};

use crate::{maps, skb::Skb, stack::Peek};

/// What comes up from a bridge's ports.
#[inline(always)]
pub(crate) fn leave<A: Peek>(skb: Skb) -> Reason {
    let (Some((source, _)), Some(to)) = (A::peek(skb), A::peek_destination(skb)) else {
        return Reason::NotOurs;
    };
    // What is served has passed its own program. Under the host's own address comes back what it is to fragment.
    let is_known = maps::endpoint(&source).is_some() || maps::is_local(&source);
    if !skb.is_for_host() || is_known || maps::is_local(&to) || is_for_link(&to) {
        return Reason::NotOurs;
    }
    Reason::Unserved
}

/// What the host sends to a bridge's ports, or forwards there.
#[inline(always)]
pub(crate) fn enter<A: Peek>(skb: Skb) -> Reason {
    // 0 for what the host sends itself.
    if !maps::is_uplink(skb.ingress_ifindex()) {
        return Reason::NotOurs;
    }
    let Some(to) = A::peek_destination(skb) else { return Reason::NotOurs };
    if is_for_link(&to) {
        return Reason::NotOurs;
    }
    match maps::endpoint(&to) {
        // Translated already; what is not goes nowhere through the stack.
        Some(container) if container.is(EndpointFlags::VIA_STACK) => Reason::NotOurs,
        _ => Reason::Unserved,
    }
}

#[inline(always)]
fn is_for_link<A: Family>(to: &A) -> bool {
    to.is_group() || to.is_link_local()
}
