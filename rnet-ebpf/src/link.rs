//! Frames that a bridge handles: who sends them, and that nobody claims another's address in them.

use rnet_common::{EndpointFlags, Ip4, Ip6, Mac, Reason, Veth, flow::proto};

use crate::{
    maps,
    packet::{self, Packet},
    skb::{ETH_LEN, Skb},
};

/// The container's interface that the frame comes from, under its own Ethernet address.
#[inline(always)]
pub(crate) fn sender(skb: Skb) -> Result<&'static Veth, Reason> {
    let veth = maps::veth(skb.ifindex()).ok_or(Reason::Spoofed)?;
    let (_, from) = packet::macs(skb).ok_or(Reason::Malformed)?;
    if from == veth.mac { Ok(veth) } else { Err(Reason::Spoofed) }
}

/// ARP for IPv4 over Ethernet (RFC 826): the sender's addresses are its own, or none yet (RFC 5227 §2.1).
#[inline(never)]
pub(crate) fn arp(skb: Skb) -> Reason {
    const SENDER_MAC: usize = ETH_LEN + 8;
    const SENDER: usize = ETH_LEN + 14;
    let veth = match sender(skb) {
        Ok(veth) => veth,
        Err(reason) => return reason,
    };
    let claimed = skb.pull(ETH_LEN + 28).then(|| Some((skb.read::<Mac>(SENDER_MAC)?, skb.read(SENDER)?)));
    let Some((mac, addr)) = claimed.flatten() else { return Reason::Malformed };
    let addr = Ip4::from_wire(addr);
    let is_own = maps::endpoint(&addr).is_some_and(|endpoint| endpoint.ifindex == skb.ifindex());
    if mac == veth.mac && (is_own || addr == Ip4::default()) { Reason::Bridged } else { Reason::Spoofed }
}

/// IPv6 of which only the link has to know: neighbour discovery (RFC 4861), multicast listeners, and whatever is sent
/// from a link-local address or from none. `None` for any other packet.
#[inline(always)]
pub(crate) fn neighbours(skb: Skb, packet: &Packet<Ip6>) -> Option<Reason> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const REDIRECT: u8 = 137;
    use rnet_common::Family;

    let is_discovery =
        packet.proto == proto::ICMPV6 && (ROUTER_ADVERTISEMENT..=REDIRECT).contains(&packet.icmp);
    let (src, dst) = (packet.tuple.src, packet.tuple.dst);
    if !is_discovery && !src.is_link_local() && src != Ip6::default() {
        return None;
    }
    let veth = match sender(skb) {
        Ok(veth) => veth,
        Err(reason) => return Some(reason),
    };
    if veth.flags & EndpointFlags::IPV6 == 0 {
        return Some(Reason::NoIpv6);
    }
    Some(match packet.icmp {
        // The host would answer a packet to any of its addresses, which internal networks are not to reach.
        _ if !is_discovery && !dst.is_group() && !dst.is_link_local() => Reason::Spoofed,
        _ if !is_discovery => Reason::Bridged,
        // Whoever asks from no address is about to use the one that it asks for (RFC 4862 §5.4), and a neighbour that is, too,
        // would give it up.
        NEIGHBOUR_SOLICITATION if src != Ip6::default() => own(skb, src).unwrap_or(Reason::Bridged),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
            let target = skb.pull(packet.l4 + 24).then(|| skb.read(packet.l4 + 8)).flatten();
            match target {
                Some(target) => own(skb, src).or(own(skb, Ip6::from_wire(target))).unwrap_or(Reason::Bridged),
                None => Reason::Malformed,
            }
        }
        _ => Reason::RogueRouter,
    })
}

/// What is wrong with an address that the sender uses: a global one must be its own. Link-local addresses are not
/// known here.
#[inline(always)]
fn own(skb: Skb, addr: Ip6) -> Option<Reason> {
    use rnet_common::Family;
    let is_own = addr.is_link_local()
        || addr == Ip6::default()
        || maps::endpoint(&addr).is_some_and(|endpoint| endpoint.ifindex == skb.ifindex());
    if is_own { None } else { Some(Reason::Spoofed) }
}
