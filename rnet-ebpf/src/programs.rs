//! The entry points, and the one place where an outcome becomes a verdict.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use rnet_common::{Ip4, Program, Reason, counter::Verdict};

use crate::{container, deliver::Carried, maps, skb::Skb, socket, uplink};

/// What a hook makes of a packet.
pub(crate) type Outcome = Result<Carried, Reason>;

/// EtherTypes (IEEE 802) in network byte order, as `__sk_buff.protocol` has them.
mod ethertype {
    pub(super) const IPV4: u32 = 0x0800u16.to_be() as u32;
    pub(super) const IPV6: u32 = 0x86ddu16.to_be() as u32;
}

#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let outcome = match skb.protocol() {
        _ if skb.is_vlan() => Err(Reason::Bridged),
        ethertype::IPV4 => container::handle::<Ip4>(skb),
        ethertype::IPV6 => Err(Reason::NoIpv6),
        _ => Err(Reason::Bridged),
    };
    finish(skb, Program::FromContainer, outcome)
}

#[classifier]
fn from_uplink(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let outcome = match skb.protocol() {
        // The tag says that the packet belongs to the VLAN device above this one.
        _ if skb.is_vlan() => Err(Reason::NotOurs),
        ethertype::IPV4 => uplink::handle::<Ip4>(skb),
        _ => Err(Reason::NotOurs),
    };
    finish(skb, Program::FromUplink, outcome)
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
