//! Host programs that want a port.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use rnet_common::{Be16, Ip4, Ip6, SockAddr, flow::proto, trace::Call};

use crate::{
    maps::{self, Tables},
    trace::{self, Wide},
};

/// Verdicts of a cgroup program.
const DENY: i32 = 0;
pub(crate) const ALLOW: i32 = 1;

/// The third word of an IPv6 address that stands for an IPv4 one (`::ffff:0:0/96`).
pub(crate) const MAPPED: u32 = 0xffffu32.to_be();

/// `bind` to an IPv4 address.
#[inline(always)]
pub(crate) fn bind4(ctx: &SockAddrContext) -> i32 {
    let Some((port, proto)) = wanted(ctx) else { return ALLOW };
    // SAFETY: the kernel passes a valid context.
    let addr = Ip4::from_wire(unsafe { (*ctx.sock_addr).user_ip4 });
    answer(is_published(addr, port, proto), addr, port, proto, Call::Bind4)
}

/// `bind` to an IPv6 address. A socket bound to `::` takes IPv4 too, unless it is IPV6_V6ONLY, which does not
/// show here: it is treated as one that does.
#[inline(always)]
pub(crate) fn bind6(ctx: &SockAddrContext) -> i32 {
    let Some((port, proto)) = wanted(ctx) else { return ALLOW };
    let addr = user_ip6(ctx.sock_addr);
    let taken = match addr {
        [0, 0, 0, 0] => maps::is_held(port, proto, true) || maps::is_held(port, proto, false),
        [0, 0, MAPPED, v4] => is_published(Ip4::from_wire(v4), port, proto),
        v6 => is_published(Ip6::from_wire(v6), port, proto),
    };
    answer(taken, Ip6::from_wire(addr), port, proto, Call::Bind6)
}

/// The address that an IPv6 program was given.
#[inline(always)]
pub(crate) fn user_ip6(ctx: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the kernel passes a valid context. Each word is read by itself, as the verifier demands of this
    // field; a volatile read keeps the compiler from joining them.
    unsafe {
        let words = &raw const (*ctx).user_ip6;
        let words: *const u32 = words.cast();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

/// The port and protocol asked for, if it is one that can be published, in the namespace that rnet serves.
#[inline(always)]
fn wanted(ctx: &SockAddrContext) -> Option<(Be16, u8)> {
    let port = port(ctx);
    (is_served(ctx) && port != Be16::ZERO).then(|| (port, proto(ctx)))
}

/// Whether the socket is of the namespace that rnet serves, wherever the process is.
#[inline(always)]
pub(crate) fn is_served(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel passes a valid context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    maps::settings().is_some_and(|settings| settings.netns_cookie == cookie)
}

/// The port that the program was given.
#[inline(always)]
pub(crate) fn port(ctx: &SockAddrContext) -> Be16 {
    // SAFETY: the kernel passes a valid context. The field holds a port in network byte order in a word.
    Be16::from_wire(unsafe { (*ctx.sock_addr).user_port } as u16)
}

/// The socket's protocol, as it is in a packet.
#[inline(always)]
pub(crate) fn proto(ctx: &SockAddrContext) -> u8 {
    const IPPROTO_MPTCP: u32 = 262;
    // SAFETY: the kernel passes a valid context.
    match unsafe { (*ctx.sock_addr).protocol } {
        IPPROTO_MPTCP => proto::TCP,
        protocol => protocol as u8,
    }
}

/// Whether a bind to this address would take a published port.
#[inline(always)]
fn is_published<A: Tables>(addr: A, port: Be16, proto: u8) -> bool {
    if addr == A::any() {
        return maps::is_held(port, proto, A::V6);
    }
    // An engine that keeps the port by a socket of its own is to get it.
    maps::published(&addr, port, proto).is_some_and(|backend| backend.unheld == 0)
}

#[inline(always)]
fn answer<A: Tables + Wide>(taken: bool, addr: A, port: Be16, proto: u8, call: Call) -> i32 {
    const EADDRINUSE: i32 = 98;
    if !taken {
        return ALLOW;
    }
    if trace::is_on() {
        let (wanted, nobody) = (SockAddr::new(addr, port), SockAddr::new(A::any(), Be16::ZERO));
        trace::call(&wanted, &nobody, &nobody, call, proto);
    }
    // SAFETY: takes an integer.
    unsafe { bpf_set_retval(-EADDRINUSE) };
    DENY
}
