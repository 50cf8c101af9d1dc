//! Host programs as clients of published ports: 127.0.0.1, ::1 and every other address of the host lead to the
//! container. A socket is led there once, when it connects, or with each datagram if it has no fixed peer; its
//! packets take the host's own way, by the bridge. What it is told of its peer is what it addressed.

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr, sockaddr},
    helpers::generated::{bpf_bind, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use rnet_common::{Backend, Be16, Ip4, Ip6, PeerKey, SockAddr, flow::proto, trace::Call};

use crate::{
    maps::{self, Tables},
    socket::{self, ALLOW, MAPPED},
    trace::{self, Wide},
};

/// `connect` of an IPv4 socket.
#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        connect::<Ip4, V4>(ctx);
    }
    ALLOW
}

/// `connect` of an IPv6 socket.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        match is_mapped(ctx) {
            true => connect::<Ip4, V6>(ctx),
            false => connect::<Ip6, V6>(ctx),
        }
    }
    ALLOW
}

/// A datagram over IPv4 to an address that comes with it.
#[inline(always)]
pub(crate) fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        send::<Ip4, V4>(ctx);
    }
    ALLOW
}

/// The same over IPv6. What an IPv6 socket sends to an IPv4 address passes `sendmsg4`.
#[inline(always)]
pub(crate) fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        send::<Ip6, V6>(ctx);
    }
    ALLOW
}

/// Where an IPv4 socket's datagram came from, or with whom it is connected, as the program is told.
#[inline(always)]
pub(crate) fn peer4(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        restore::<Ip4, V4>(ctx);
    }
    ALLOW
}

/// The same for an IPv6 socket.
#[inline(always)]
pub(crate) fn peer6(ctx: &SockAddrContext) -> i32 {
    if socket::is_served(ctx) {
        match is_mapped(ctx) {
            true => restore::<Ip4, V6>(ctx),
            false => restore::<Ip6, V6>(ctx),
        }
    }
    ALLOW
}

#[inline(always)]
fn connect<A: Tables + Wide, S: Socket<A>>(ctx: &SockAddrContext) {
    let addressed = addressed::<A, S>(ctx);
    let Some(backend) = find(&addressed, socket::proto(ctx)) else { return };
    let container = SockAddr::new(backend.addr, backend.port);
    tell::<A, S>(ctx, &addressed, &container, S::CONNECT);
    let peer = match S::bound(ctx).is_loopback() {
        false => container,
        true => match detour::<A, S>(ctx, &container) {
            Some(peer) => peer,
            // The connection is refused, as if the port were not published.
            None => return,
        },
    };
    S::set(ctx, &peer);
    maps::note_addressed(&key(ctx, peer), &addressed);
    maps::note_opened(backend.mapping);
}

#[inline(always)]
fn send<A: Tables + Wide, S: Socket<A>>(ctx: &SockAddrContext) {
    let addressed = addressed::<A, S>(ctx);
    let Some(backend) = find(&addressed, socket::proto(ctx)) else { return };
    // No answer would find its way back to a loopback address.
    if S::bound(ctx).is_loopback() {
        return;
    }
    let container = SockAddr::new(backend.addr, backend.port);
    tell::<A, S>(ctx, &addressed, &container, S::SEND);
    S::set(ctx, &container);
    let key = key(ctx, container);
    // Most datagrams go where one went before. A socket that addresses a container in two ways is told the last.
    if maps::addressed(&key).is_some_and(|before| *before == addressed) {
        return;
    }
    maps::note_addressed(&key, &addressed);
    maps::note_opened(backend.mapping);
}

/// Tells those who look of a call that leads to a container.
#[inline(always)]
fn tell<A: Tables + Wide, S: Socket<A>>(
    ctx: &SockAddrContext,
    addressed: &SockAddr<A>,
    container: &SockAddr<A>,
    call: Call,
) {
    if trace::is_on() {
        let from = SockAddr::new(S::bound(ctx), bound_port(ctx));
        trace::call(&from, addressed, container, call, socket::proto(ctx));
    }
}

#[inline(always)]
fn restore<A: Tables, S: Socket<A>>(ctx: &SockAddrContext) {
    let peer = SockAddr::new(S::addr(ctx), socket::port(ctx));
    if let Some(addressed) = maps::addressed(&key(ctx, peer)) {
        S::set(ctx, addressed);
    }
}

/// What the program addresses.
#[inline(always)]
fn addressed<A: Tables, S: Socket<A>>(ctx: &SockAddrContext) -> SockAddr<A> {
    let addr = S::addr(ctx);
    // The kernel makes the same of it.
    let addr = if addr == A::any() { A::loopback() } else { addr };
    SockAddr::new(addr, socket::port(ctx))
}

/// Where it leads if it is a published port of the host.
#[inline(always)]
fn find<A: Tables>(addressed: &SockAddr<A>, proto: u8) -> Option<&'static Backend<A>> {
    if !addressed.addr.is_loopback() && !maps::is_local(&addressed.addr) {
        return None;
    }
    maps::published(&addressed.addr, addressed.port, proto)
}

/// The way from a socket that is bound to a loopback address, which the kernel lets nothing but loopback reach: by
/// the daemon's relay. A socket without a port yet is unbound instead, and goes straight to the container.
#[inline(always)]
fn detour<A: Tables, S: Socket<A>>(ctx: &SockAddrContext, container: &SockAddr<A>) -> Option<SockAddr<A>> {
    let port = bound_port(ctx);
    if port == Be16::ZERO {
        return S::unbind(ctx).then_some(*container);
    }
    if socket::proto(ctx) != proto::TCP {
        return None;
    }
    let relay = maps::relay_port(A::V6)?;
    maps::divert(&SockAddr::new(S::bound(ctx), port), container)?;
    Some(SockAddr::new(A::loopback(), relay))
}

#[inline(always)]
fn key<A: Tables>(ctx: &SockAddrContext, peer: SockAddr<A>) -> PeerKey<A> {
    // SAFETY: the kernel passes a valid context.
    PeerKey::new(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }, peer)
}

/// Whether an IPv6 program was given an address that stands for an IPv4 one.
#[inline(always)]
fn is_mapped(ctx: &SockAddrContext) -> bool {
    let addr = socket::user_ip6(ctx.sock_addr);
    addr[0] | addr[1] == 0 && addr[2] == MAPPED
}

/// The port that the socket is bound to.
#[inline(always)]
fn bound_port(ctx: &SockAddrContext) -> Be16 {
    // SAFETY: the context has a socket. The field is in host byte order.
    Be16::new(unsafe { (*sk(ctx)).src_port } as u16)
}

#[inline(always)]
fn sk(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the kernel passes a valid context, in which this member of the union is the only one.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// How addresses of a family lie in the context of a kind of socket.
trait Socket<A> {
    /// Its `connect`.
    const CONNECT: Call;
    /// Its `sendmsg`.
    const SEND: Call;
    /// The address that the program was given.
    fn addr(ctx: &SockAddrContext) -> A;
    /// Gives it another, with a port.
    fn set(ctx: &SockAddrContext, to: &SockAddr<A>);
    /// The address that the socket is bound to.
    fn bound(ctx: &SockAddrContext) -> A;
    /// Binds the socket, which has no port yet, to no address. Only for `connect`.
    fn unbind(ctx: &SockAddrContext) -> bool;
}

/// IPv4 sockets.
struct V4;

/// IPv6 sockets, which reach both families.
struct V6;

impl Socket<Ip4> for V4 {
    const CONNECT: Call = Call::Connect4;
    const SEND: Call = Call::Send4;

    #[inline(always)]
    fn addr(ctx: &SockAddrContext) -> Ip4 {
        // SAFETY: the kernel passes a valid context.
        Ip4::from_wire(unsafe { (*ctx.sock_addr).user_ip4 })
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, to: &SockAddr<Ip4>) {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*ctx.sock_addr).user_ip4 = to.addr.wire() };
        set_port(ctx, to.port);
    }

    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> Ip4 {
        // SAFETY: the context has a socket.
        Ip4::from_wire(unsafe { (*sk(ctx)).src_ip4 })
    }

    #[inline(always)]
    fn unbind(ctx: &SockAddrContext) -> bool {
        // `sockaddr_in`: the family, then zeroes for any port of any address.
        const AF_INET: u32 = 2;
        bind(ctx, [AF_INET, 0, 0, 0])
    }
}

impl Socket<Ip6> for V6 {
    const CONNECT: Call = Call::Connect6;
    const SEND: Call = Call::Send6;

    #[inline(always)]
    fn addr(ctx: &SockAddrContext) -> Ip6 {
        Ip6::from_wire(socket::user_ip6(ctx.sock_addr))
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, to: &SockAddr<Ip6>) {
        set_user_ip6(ctx.sock_addr, to.addr.wire());
        set_port(ctx, to.port);
    }

    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> Ip6 {
        // SAFETY: the context has a socket. Each word is read by itself, as the verifier demands of this field; a
        // volatile read keeps the compiler from joining them.
        unsafe {
            let words: *const u32 = (&raw const (*sk(ctx)).src_ip6).cast();
            Ip6::from_wire([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn unbind(ctx: &SockAddrContext) -> bool {
        // `sockaddr_in6`, likewise.
        const AF_INET6: u32 = 10;
        bind(ctx, [AF_INET6, 0, 0, 0, 0, 0, 0])
    }
}

impl Socket<Ip4> for V6 {
    const CONNECT: Call = Call::Connect6;
    const SEND: Call = Call::Send6;

    #[inline(always)]
    fn addr(ctx: &SockAddrContext) -> Ip4 {
        Ip4::from_wire(socket::user_ip6(ctx.sock_addr)[3])
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, to: &SockAddr<Ip4>) {
        set_user_ip6(ctx.sock_addr, [0, 0, MAPPED, to.addr.wire()]);
        set_port(ctx, to.port);
    }

    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> Ip4 {
        // The kernel keeps what a mapped address stands for here too.
        <V4 as Socket<Ip4>>::bound(ctx)
    }

    #[inline(always)]
    fn unbind(ctx: &SockAddrContext) -> bool {
        <Self as Socket<Ip6>>::unbind(ctx)
    }
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port: Be16) {
    // SAFETY: the kernel passes a valid context. The field takes a port in network byte order in a word.
    unsafe { (*ctx.sock_addr).user_port = port.wire() as u32 };
}

#[inline(always)]
fn set_user_ip6(ctx: *mut bpf_sock_addr, addr: [u32; 4]) {
    // SAFETY: the kernel passes a valid context. Each word is written by itself, as it is read.
    unsafe {
        let words: *mut u32 = (&raw mut (*ctx).user_ip6).cast();
        words.write_volatile(addr[0]);
        words.add(1).write_volatile(addr[1]);
        words.add(2).write_volatile(addr[2]);
        words.add(3).write_volatile(addr[3]);
    }
}

#[inline(always)]
fn bind<const WORDS: usize>(ctx: &SockAddrContext, mut addr: [u32; WORDS]) -> bool {
    let addr: *mut sockaddr = addr.as_mut_ptr().cast();
    // SAFETY: `addr` points to an address of this size on the stack.
    unsafe { bpf_bind(ctx.sock_addr, addr, size_of::<[u32; WORDS]>() as i32) == 0 }
}
