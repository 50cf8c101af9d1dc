//! The entry points, and the one place where an outcome becomes a verdict.

use core::arch::asm;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};
use rnet_common::{Ip4, Ip6, Program, Reason, counter::Verdict};

use crate::{
    bridge, container,
    deliver::Carried,
    frame::Frame,
    link, local,
    maps::{self, Work},
    nat::Net,
    packet::{Malformed, Packet},
    skb::Skb,
    socket,
    stack::{self, Peek, Sender},
    trace, uplink,
};

/// What a hook makes of a packet.
pub(crate) type Outcome = Result<Carried, Reason>;

/// An outcome in one register, as functions with a stack frame of their own return it: in memory it has bytes that
/// nobody writes, which the verifier lets nobody copy.
#[derive(Clone, Copy)]
pub(crate) struct Packed(u64);

impl Packed {
    /// No outcome.
    pub(crate) const NONE: Self = Self(u64::MAX);
    const REFUSED: u64 = 1 << 8;

    #[inline(always)]
    pub(crate) fn new(outcome: Outcome) -> Self {
        match outcome {
            Ok(Carried { reason, action }) => Self(reason as u64 | (action as u32 as u64) << 32),
            Err(reason) => Self(reason as u64 | Self::REFUSED),
        }
    }

    #[inline(always)]
    pub(crate) fn outcome(self) -> Option<Outcome> {
        if self.0 == Self::NONE.0 {
            return None;
        }
        let reason = self.0 as u8;
        Some(if self.0 & Self::REFUSED == 0 {
            Ok(Carried { reason, action: (self.0 >> 32) as i32 })
        } else {
            // SAFETY: `new` made it of a reason, which is a `u8`.
            Err(unsafe { core::mem::transmute::<u8, Reason>(reason) })
        })
    }
}

/// EtherTypes (IEEE 802) in network byte order, as `__sk_buff.protocol` has them.
pub(crate) mod ethertype {
    pub(crate) const IPV4: u32 = 0x0800u16.to_be() as u32;
    pub(super) const ARP: u32 = 0x0806u16.to_be() as u32;
    pub(crate) const IPV6: u32 = 0x86ddu16.to_be() as u32;
}

#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if !skb.untag() {
        return finish(skb, Program::FromContainer, Err(Reason::Tagged));
    }
    match skb.protocol() {
        _ if skb.is_vlan() => finish(skb, Program::FromContainer, other(skb)),
        protocol if !is_in_frame(skb, protocol) => {
            finish(skb, Program::FromContainer, Err(Reason::Malformed))
        }
        ethertype::IPV4 => from_container4(skb),
        ethertype::IPV6 => from_container6(skb),
        ethertype::ARP => finish(skb, Program::FromContainer, Err(link::arp(skb))),
        _ => finish(skb, Program::FromContainer, other(skb)),
    }
}

#[classifier]
fn from_uplink(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if !skb.untag() {
        return finish(skb, Program::FromUplink, Err(Reason::Tagged));
    }
    match skb.protocol() {
        // The tag says that the packet belongs to the VLAN device above this one.
        _ if skb.is_vlan() => finish(skb, Program::FromUplink, Err(Reason::NotOurs)),
        ethertype::IPV4 => from_uplink4(skb),
        ethertype::IPV6 => from_uplink6(skb),
        _ => finish(skb, Program::FromUplink, Err(Reason::NotOurs)),
    }
}

#[classifier]
fn to_uplink(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    match skb.protocol() {
        // The VLAN device above this one has seen it.
        _ if skb.is_vlan() => finish(skb, Program::ToUplink, Err(Reason::NotOurs)),
        ethertype::IPV4 => to_uplink4(skb),
        ethertype::IPV6 => to_uplink6(skb),
        _ => finish(skb, Program::ToUplink, Err(Reason::NotOurs)),
    }
}

#[classifier]
fn from_bridge(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if !skb.untag() {
        return finish(skb, Program::FromBridge, Err(Reason::Tagged));
    }
    let reason = match skb.protocol() {
        _ if skb.is_vlan() => Reason::NotOurs,
        ethertype::IPV4 => bridge::leave::<Ip4>(skb),
        ethertype::IPV6 => bridge::leave::<Ip6>(skb),
        _ => Reason::NotOurs,
    };
    finish(skb, Program::FromBridge, Err(reason))
}

#[classifier]
fn to_bridge(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let reason = match skb.protocol() {
        _ if skb.is_vlan() => Reason::NotOurs,
        ethertype::IPV4 => bridge::enter::<Ip4>(skb),
        ethertype::IPV6 => bridge::enter::<Ip6>(skb),
        _ => Reason::NotOurs,
    };
    finish(skb, Program::ToBridge, Err(reason))
}

// The families' ways are functions of their own, each with a stack frame of its own.

#[inline(never)]
fn from_container4(skb: Skb) -> i32 {
    let outcome = parse::<Ip4>(skb, Reason::Malformed).and_then(|work| container::handle(skb, work));
    finish(skb, Program::FromContainer, outcome)
}

#[inline(never)]
fn from_container6(skb: Skb) -> i32 {
    let outcome =
        parse::<Ip6>(skb, Reason::Malformed).and_then(|work| match link::neighbours(skb, &work.packet) {
            Some(reason) => Err(reason),
            None => container::handle(skb, work),
        });
    finish(skb, Program::FromContainer, outcome)
}

#[inline(never)]
fn from_uplink4(skb: Skb) -> i32 {
    let outcome = parse::<Ip4>(skb, Reason::Unparsed).and_then(|work| uplink::handle(skb, work));
    finish(skb, Program::FromUplink, outcome)
}

#[inline(never)]
fn from_uplink6(skb: Skb) -> i32 {
    let outcome = parse::<Ip6>(skb, Reason::Unparsed).and_then(|work| uplink::handle(skb, work));
    finish(skb, Program::FromUplink, outcome)
}

#[inline(never)]
fn to_uplink4(skb: Skb) -> i32 {
    finish(skb, Program::ToUplink, leave::<Ip4>(skb))
}

#[inline(never)]
fn to_uplink6(skb: Skb) -> i32 {
    finish(skb, Program::ToUplink, leave::<Ip6>(skb))
}

/// The way of what leaves through an uplink. Nearly all of it is nobody's that this concerns, and is not parsed.
#[inline(always)]
fn leave<A: Net + Peek>(skb: Skb) -> Outcome {
    match stack::sender::<A>(skb)? {
        Sender::Container(source) => {
            parse::<A>(skb, Reason::Malformed).and_then(|work| stack::leave(skb, work, source))
        }
        Sender::Host => parse::<A>(skb, Reason::NotOurs).and_then(|work| stack::answer(skb, work)),
    }
}

/// Reads the packet's headers into the memory that this CPU's program works on.
#[inline(always)]
fn parse<A: Net>(skb: Skb, otherwise: Reason) -> Result<&'static mut Work<A>, Reason> {
    let work = maps::work::<A>().ok_or(otherwise)?;
    work.packet = Packet::none();
    A::parse(skb, &mut work.packet).map_err(|Malformed| otherwise)?;
    // What was written is read again, as if another had written it: see `Work`.
    let mut work: *mut Work<A> = work;
    // SAFETY: changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) work, options(nostack)) };
    // SAFETY: the same reference.
    Ok(unsafe { &mut *work })
}

/// Whether the frame is of the EtherType that the kernel takes it for. On its way through a veth the kernel reads that
/// from the frame (`eth_type_trans`); through a netkit (`netkit_xmit`) it stays what the sender's socket has said, which
/// for a raw one is anything: `sll_protocol` of packet(7). The next veth or wire behind the bridge reads the frame.
#[inline(always)]
fn is_in_frame(skb: Skb, protocol: u32) -> bool {
    /// Less is a length, and what follows of no type that is looked at here (IEEE 802.3).
    const FIRST: u16 = 0x600;
    match skb.read::<u16>(12) {
        Some(own) if own as u32 == protocol => true,
        Some(own) => {
            u16::from_be(own) < FIRST
                && !matches!(protocol, ethertype::IPV4 | ethertype::IPV6 | ethertype::ARP)
        }
        None => false,
    }
}

/// What is neither IP nor ARP.
#[inline(never)]
fn other(skb: Skb) -> Outcome {
    Err(link::sender(skb).err().unwrap_or(Reason::Bridged))
}

/// It may be given frames that lie in several buffers: what it carries lies in the first.
#[xdp(frags)]
fn xdp_uplink(ctx: XdpContext) -> u32 {
    crate::xdp::handle(Frame::new(&ctx))
}

#[cgroup_sock_addr(bind4)]
fn sock_bind4(ctx: SockAddrContext) -> i32 {
    socket::bind4(&ctx)
}

#[cgroup_sock_addr(bind6)]
fn sock_bind6(ctx: SockAddrContext) -> i32 {
    socket::bind6(&ctx)
}

#[cgroup_sock_addr(connect4)]
fn sock_connect4(ctx: SockAddrContext) -> i32 {
    local::connect4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn sock_connect6(ctx: SockAddrContext) -> i32 {
    local::connect6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    local::sendmsg4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    local::sendmsg6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    local::peer4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    local::peer6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn sock_peername4(ctx: SockAddrContext) -> i32 {
    local::peer4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn sock_peername6(ctx: SockAddrContext) -> i32 {
    local::peer6(&ctx)
}

#[inline(always)]
fn finish(skb: Skb, program: Program, outcome: Outcome) -> i32 {
    let is_carried = outcome.is_ok();
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
    if trace::is_on() {
        trace::packet(skb, program, reason, is_carried);
    }
    action
}
