//! UDP: an echo server, and clients that know whether a reply came from where they had sent to.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::Type;

use super::{
    Failure, Peers, SILENCE, STOP_INTERVAL, Server, any_for, bound, parse, random_bytes, reply_limit,
};
use crate::{Netns, uninterrupted};

/// The largest payload that fits an Ethernet frame: 1500 less the headers of IPv4 and UDP.
pub const FULL: usize = 1472;

/// Starts a server on `addr` (`0.0.0.0:53`) that sends every datagram back.
///
/// # Panics
/// When the address cannot be bound.
pub fn echo(ns: &Netns, addr: &str) -> Server {
    let socket =
        ns.run(|| bound(Type::DGRAM, parse(addr))).unwrap_or_else(|e| panic!("bind {addr}/udp: {e}"));
    let socket = UdpSocket::from(socket);
    let local = socket.local_addr().unwrap_or_else(|e| panic!("address of {addr}/udp: {e}"));
    let peers = Peers::default();
    let seen = peers.clone();
    let task = ns.spawn(move |stop| {
        let mut buffer = vec![0; 1 << 16];
        socket.set_read_timeout(Some(STOP_INTERVAL)).unwrap_or_else(|e| panic!("limit {local}/udp: {e}"));
        while !stop.requested() {
            // Errors are earlier replies that met a closed port: the asker's side of the test judges those.
            if let Ok((n, peer)) = socket.recv_from(&mut buffer) {
                seen.add(peer);
                let _ = socket.send_to(&buffer[..n], peer);
            }
        }
    });
    Server::new(local, peers, task)
}

/// A socket that takes replies from `to` only.
///
/// # Panics
/// When there is no route to it.
pub fn connect(ns: &Netns, to: SocketAddr) -> UdpSocket {
    connect_from(ns, any_for(to), to)
}

/// The same from a given port.
///
/// # Panics
/// When the port is taken or there is no route.
pub fn connect_from(ns: &Netns, from: SocketAddr, to: SocketAddr) -> UdpSocket {
    ns.run(|| {
        let socket = bound(Type::DGRAM, from)?;
        socket.connect(&to.into())?;
        socket.set_read_timeout(Some(reply_limit()))?;
        Ok::<_, io::Error>(UdpSocket::from(socket))
    })
    .unwrap_or_else(|e| panic!("connect {} {from} -> {to}/udp: {e}", ns.name()))
}

/// Asks an echo server once through a connected socket.
///
/// # Errors
/// [`Failure::Refused`] when a port unreachable came back, [`Failure::TimedOut`] when nothing did.
///
/// # Panics
/// When something else came back.
pub fn ask(socket: &UdpSocket, payload: &[u8]) -> Result<(), Failure> {
    let what = format!("ask {:?} over udp", socket.peer_addr());
    let mut buffer = vec![0; 1 << 16];
    let answer = socket.send(payload).and_then(|_| uninterrupted(|| socket.recv(&mut buffer)));
    let n = answer.map_err(|e| Failure::of(&e, &what))?;
    assert!(buffer[..n] == *payload, "{what}: {n} bytes came back, not the {} that were sent", payload.len());
    Ok(())
}

/// Expects silence: nothing answers `to` within 1.5 s.
///
/// # Panics
/// When something does.
pub fn assert_silent(ns: &Netns, to: SocketAddr) {
    let socket = connect(ns, to);
    socket.set_read_timeout(Some(SILENCE)).unwrap_or_else(|e| panic!("limit the wait for {to}/udp: {e}"));
    assert_eq!(ask(&socket, b"anybody there"), Err(Failure::TimedOut), "{to}/udp");
}

/// Asks once through a socket that takes replies from anybody, and returns where the reply came from.
///
/// # Errors
/// When nothing came back.
pub fn ask_unconnected(ns: &Netns, to: SocketAddr) -> Result<SocketAddr, Failure> {
    let what = format!("ask {to} over udp from {}", ns.name());
    let socket = ns.run(|| bound(Type::DGRAM, any_for(to))).unwrap_or_else(|e| panic!("{what}: {e}"));
    socket.set_read_timeout(Some(reply_limit())).unwrap_or_else(|e| panic!("{what}: {e}"));
    let socket = UdpSocket::from(socket);
    let answer =
        socket.send_to(b"who are you", to).and_then(|_| uninterrupted(|| socket.recv_from(&mut [0; 64])));
    answer.map(|(_, from)| from).map_err(|e| Failure::of(&e, &what))
}

/// Sends `len` random bytes through an echo server and compares what comes back. One datagram is under way at
/// a time, so that no queue can overflow and every loss is somebody's fault. Their lengths vary over all that
/// fit a frame, odd ones included.
///
/// # Panics
/// When a datagram is lost or comes back changed.
pub fn exchange(socket: &UdpSocket, len: usize, seed: u64) {
    let sent = random_bytes(seed, len);
    let mut at = 0;
    for size in (0..).map(|i| FULL - (i * 37) % 128) {
        if at == len {
            return;
        }
        let size = size.min(len - at);
        let outcome = ask(socket, &sent[at..at + size]);
        assert_eq!(outcome, Ok(()), "exchange with {:?}: datagram of {size} at {at}", socket.peer_addr());
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checksums, Host, TEN_MIB, topology::CLIENT};

    #[test]
    fn ten_mebibytes_come_back_whole_and_the_server_knows_from_whom() {
        crate::require_root!();
        let host = Host::with(Checksums::Finalised);
        let server = echo(&host.ns, "0.0.0.0:53");
        let socket = connect_from(&host.client, parse("0.0.0.0:20000"), host.at(53));
        exchange(&socket, TEN_MIB, 7);
        assert!(server.peers().iter().all(|p| *p == SocketAddr::from((CLIENT, 20000))));
        assert!(server.peers().len() >= TEN_MIB / FULL);
        assert_eq!(ask_unconnected(&host.client, host.at(53)), Ok(host.at(53)));
    }

    #[test]
    fn refusal_and_silence_are_told_apart() {
        crate::require_root!();
        let host = Host::new();
        assert_eq!(ask(&connect(&host.client, host.at(9)), b"x"), Err(Failure::Refused));
        host.client.ip("route add 10.99.0.0/24 via 10.200.0.1");
        assert_silent(&host.client, parse("10.99.0.1:9"));
    }
}
