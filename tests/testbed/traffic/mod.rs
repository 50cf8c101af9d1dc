//! Real traffic through real sockets inside namespaces: servers that echo and remember who asked, and clients.
//! Everything has a time limit.

pub mod icmp;
pub mod tcp;
pub mod udp;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngCore, SeedableRng, rngs::SmallRng};
use socket2::Socket;

use crate::{Task, patient};

/// How long a reply may take before it counts as lost. Replies come within microseconds; two cores full of
/// other tests can delay a process by seconds.
pub(crate) fn reply_limit() -> Duration {
    patient(Duration::from_secs(8))
}

/// How long to wait where silence is what the test expects: a SYN is repeated after 1 s within it.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);
/// How often a server looks whether it is to stop.
pub(crate) const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// Why a connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A reset, or an ICMP port unreachable.
    Refused,
    /// Silence.
    TimedOut,
    /// An ICMP host or network unreachable, or no route.
    Unreachable,
}

impl Failure {
    /// The kind of failure that an error of a socket stands for.
    ///
    /// # Panics
    /// When it stands for none: the test itself is at fault then.
    pub(crate) fn of(error: &io::Error, what: &str) -> Self {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock};
        let kind = error.kind();
        if kind == ConnectionRefused {
            Self::Refused
        } else if [TimedOut, WouldBlock].contains(&kind) {
            Self::TimedOut
        } else if [HostUnreachable, NetworkUnreachable].contains(&kind) {
            Self::Unreachable
        } else {
            panic!("{what}: {error}")
        }
    }
}

/// An echo server; ends on drop.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    peers: Peers,
    _task: Task<()>,
}

/// The addresses that a server was spoken to from, in order, each as often as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Arc<Mutex<Vec<SocketAddr>>>);

impl Peers {
    pub(crate) fn add(&self, peer: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
    }
}

impl Server {
    pub(crate) fn new(addr: SocketAddr, peers: Peers, task: Task<()>) -> Self {
        Self { addr, peers, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The addresses that connections (TCP) or datagrams (UDP) came from so far, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `len` bytes that look random and are the same for the same seed.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A socket bound to `from`, which more than one socket may be, as long as they have different peers.
pub(crate) fn bound(kind: socket2::Type, from: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(socket2::Domain::for_address(from), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    Ok(socket)
}

/// Any port of any address of `peer`'s family.
pub(crate) fn any_for(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

pub(crate) fn parse(addr: &str) -> SocketAddr {
    addr.parse().unwrap_or_else(|e| panic!("{addr}: {e}"))
}
