//! The entry points, and the one place where an outcome becomes a verdict.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use rnet_common::{Ip4, Ip6, Program, Reason, counter::Verdict};

use crate::{
    container,
    deliver::Carried,
    link, maps,
    packet::{Malformed, Packet, Parse},
    skb::Skb,
    socket, uplink,
};

/// What a hook makes of a packet.
pub(crate) type Outcome = Result<Carried, Reason>;

/// EtherTypes (IEEE 802) in network byte order, as `__sk_buff.protocol` has them.
mod ethertype {
    pub(super) const IPV4: u32 = 0x0800u16.to_be() as u32;
    pub(super) const ARP: u32 = 0x0806u16.to_be() as u32;
    pub(super) const IPV6: u32 = 0x86ddu16.to_be() as u32;
}

#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    match skb.protocol() {
        _ if skb.is_vlan() => finish(skb, Program::FromContainer, bridge(skb)),
        ethertype::IPV4 => from_container4(skb),
        ethertype::IPV6 => from_container6(skb),
        ethertype::ARP => finish(skb, Program::FromContainer, Err(link::arp(skb))),
        _ => finish(skb, Program::FromContainer, bridge(skb)),
    }
}

#[classifier]
fn from_uplink(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    match skb.protocol() {
        // The tag says that the packet belongs to the VLAN device above this one.
        _ if skb.is_vlan() => finish(skb, Program::FromUplink, Err(Reason::NotOurs)),
        ethertype::IPV4 => from_uplink4(skb),
        ethertype::IPV6 => from_uplink6(skb),
        _ => finish(skb, Program::FromUplink, Err(Reason::NotOurs)),
    }
}

// The families' ways are functions of their own, each with a stack frame of its own.

#[inline(never)]
fn from_container4(skb: Skb) -> i32 {
    let mut packet = Packet::<Ip4>::none();
    let outcome = match Ip4::parse(skb, &mut packet) {
        Ok(()) => container::handle(skb, &mut packet),
        Err(Malformed) => Err(Reason::Malformed),
    };
    finish(skb, Program::FromContainer, outcome)
}

#[inline(never)]
fn from_container6(skb: Skb) -> i32 {
    let mut packet = Packet::<Ip6>::none();
    let outcome = match Ip6::parse(skb, &mut packet) {
        Ok(()) => match link::neighbours(skb, &packet) {
            Some(reason) => Err(reason),
            None => container::handle(skb, &mut packet),
        },
        Err(Malformed) => Err(Reason::Malformed),
    };
    finish(skb, Program::FromContainer, outcome)
}

#[inline(never)]
fn from_uplink4(skb: Skb) -> i32 {
    let mut packet = Packet::<Ip4>::none();
    let outcome = match Ip4::parse(skb, &mut packet) {
        Ok(()) => uplink::handle(skb, &mut packet),
        Err(Malformed) => Err(Reason::Unparsed),
    };
    finish(skb, Program::FromUplink, outcome)
}

#[inline(never)]
fn from_uplink6(skb: Skb) -> i32 {
    let mut packet = Packet::<Ip6>::none();
    let outcome = match Ip6::parse(skb, &mut packet) {
        Ok(()) => uplink::handle(skb, &mut packet),
        Err(Malformed) => Err(Reason::Unparsed),
    };
    finish(skb, Program::FromUplink, outcome)
}

/// What is neither IP nor ARP.
#[inline(never)]
fn bridge(skb: Skb) -> Outcome {
    Err(link::sender(skb).err().unwrap_or(Reason::Bridged))
}

#[cgroup_sock_addr(bind4)]
fn sock_bind4(ctx: SockAddrContext) -> i32 {
    socket::bind4(&ctx)
}

#[cgroup_sock_addr(bind6)]
fn sock_bind6(ctx: SockAddrContext) -> i32 {
    socket::bind6(&ctx)
}

#[inline(always)]
fn finish(skb: Skb, program: Program, outcome: Outcome) -> i32 {
    let (reason, action) = match outcome {
        Ok(carried) => (carried.reason, carried.action),
        Err(reason) => (
            reason as u8,
            match reason.verdict() {
                // Not TC_ACT_OK: programs that others put behind this one keep their say.
                Verdict::Carried | Verdict::Passed => TC_ACT_UNSPEC,
                Verdict::Dropped => TC_ACT_SHOT,
            },
        ),
    };
    maps::count(program, reason, skb.len());
    action
}
