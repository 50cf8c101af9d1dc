//! ICMP echo through a raw socket, so that the identifier can be chosen.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4Slice};
use socket2::{Domain, Protocol, Socket, Type};

use super::{SILENCE, random_bytes, reply_limit};
use crate::Netns;

/// An echo reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Time to live that was left.
    pub ttl: u8,
}

/// Pings `to` and returns the reply, or nothing when none came within 8 s.
pub fn ping(ns: &Netns, to: Ipv4Addr) -> Option<Reply> {
    let number = crate::next_number();
    ping_with(ns, to, IcmpEchoHeader { id: number as u16, seq: 1 }, 56)
}

/// Pings with a chosen identifier and sequence number and `len` bytes of payload.
///
/// # Panics
/// When the reply has another payload, or the request cannot be sent.
pub fn ping_with(ns: &Netns, to: Ipv4Addr, echo: IcmpEchoHeader, len: usize) -> Option<Reply> {
    ns.run(|| exchange(to, echo, len, reply_limit()))
        .unwrap_or_else(|e| panic!("ping {to} from {}: {e}", ns.name()))
}

/// Whether `to` stays silent for 1.5 s when pinged. No route to it counts as silence.
pub fn is_silent(ns: &Netns, to: Ipv4Addr) -> bool {
    let echo = IcmpEchoHeader { id: crate::next_number() as u16, seq: 1 };
    ns.run(|| exchange(to, echo, 56, SILENCE)).map_or(true, |reply| reply.is_none())
}

fn exchange(to: Ipv4Addr, echo: IcmpEchoHeader, len: usize, limit: Duration) -> io::Result<Option<Reply>> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let payload = random_bytes(u64::from(echo.seq), len);
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload);
    let request = [&header.to_bytes(), payload.as_slice()].concat();
    socket.send_to(&request, &SocketAddrV4::new(to, 0).into())?;

    let deadline = Instant::now() + limit;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let n = match socket.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
            Err(e) => return Err(e),
        };
        if let Some(reply) = reply_to(&buffer[..n], to, echo, &payload) {
            return Ok(Some(reply));
        }
    }
}

/// A raw socket gets every ICMP message of its namespace, from the IP header on.
fn reply_to(packet: &[u8], from: Ipv4Addr, echo: IcmpEchoHeader, payload: &[u8]) -> Option<Reply> {
    let ip = Ipv4Slice::from_slice(packet).ok()?;
    let icmp = Icmpv4Slice::from_slice(ip.payload().payload).ok()?;
    if ip.header().source_addr() != from || icmp.icmp_type() != Icmpv4Type::EchoReply(echo) {
        return None;
    }
    assert!(icmp.payload() == payload, "echo reply of {from} has another payload");
    Some(Reply { ttl: ip.header().ttl() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, topology::HOST};

    #[test]
    fn replies_are_recognised_and_silence_too() {
        crate::require_root!();
        let host = Host::new();
        let echo = IcmpEchoHeader { id: 7, seq: 9 };
        assert_eq!(ping_with(&host.client, HOST, echo, 1401), Some(Reply { ttl: 64 }));
        assert!(!is_silent(&host.client, HOST));
        assert!(is_silent(&host.client, Ipv4Addr::new(192, 0, 2, 1)), "there is no route");
        host.ns.set_sysctl("net/ipv4/icmp_echo_ignore_all", "1");
        assert!(is_silent(&host.client, HOST));
    }
}
