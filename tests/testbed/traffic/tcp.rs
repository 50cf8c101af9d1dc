//! TCP: an echo server, and clients that compare what comes back with what they sent.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::{SockRef, Socket, Type};

use super::{
    Failure, Peers, SILENCE, STOP_INTERVAL, Server, any_for, bound, parse, random_bytes, reply_limit,
};
use crate::{Netns, Stop, Task, uninterrupted, wait_until};

/// Starts a server on `addr` (`0.0.0.0:80`) that sends back what it gets.
///
/// # Panics
/// When the address cannot be bound.
pub fn echo(ns: &Netns, addr: &str) -> Server {
    let listener = ns.run(|| listen(parse(addr))).unwrap_or_else(|e| panic!("listen on {addr}/tcp: {e}"));
    let local = listener.local_addr().unwrap_or_else(|e| panic!("address of {addr}/tcp: {e}"));
    let peers = Peers::default();
    let seen = peers.clone();
    let task = ns.spawn(move |stop| serve(&listener, &seen, stop));
    Server::new(local, peers, task)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(Type::STREAM, addr)?;
    socket.listen(128)?;
    // Also limits accept(2).
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, peers: &Peers, stop: &Stop) {
    thread::scope(|scope| {
        while !stop.requested() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    peers.add(peer);
                    // A client that goes away in the middle is for the client's side of the test to judge.
                    scope.spawn(move || echo_one(stream, stop));
                }
                Err(e) if is_timeout(&e) => {}
                Err(e) => panic!("accept on {:?}: {e}", listener.local_addr()),
            }
        }
    });
}

fn echo_one(mut stream: TcpStream, stop: &Stop) -> io::Result<()> {
    stream.set_read_timeout(Some(STOP_INTERVAL))?;
    stream.set_write_timeout(Some(reply_limit()))?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    while !stop.requested() {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => stream.write_all(&buffer[..n])?,
            Err(e) if is_timeout(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Connects from any port.
///
/// # Errors
/// The way in which it failed. Silence is given up after 1.5 s.
pub fn connect(ns: &Netns, to: SocketAddr) -> Result<TcpStream, Failure> {
    connect_from(ns, any_for(to), to)
}

/// Connects from `from`, whose address or port may be 0.
///
/// # Errors
/// The way in which it failed.
pub fn connect_from(ns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<TcpStream, Failure> {
    connect_within(SILENCE, ns, from, to)
}

fn connect_within(
    limit: Duration,
    ns: &Netns,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<TcpStream, Failure> {
    let what = format!("connect {} {from} -> {to}/tcp", ns.name());
    let socket = ns.run(|| {
        let socket = bound(Type::STREAM, from).unwrap_or_else(|e| panic!("{what}: {e}"));
        socket.connect_timeout(&to.into(), limit).map(|()| socket).map_err(|e| Failure::of(&e, &what))
    })?;
    let ready = |socket: &Socket| {
        socket.set_read_timeout(Some(reply_limit()))?;
        socket.set_write_timeout(Some(reply_limit()))?;
        socket.set_tcp_nodelay(true)
    };
    ready(&socket).unwrap_or_else(|e| panic!("{what}: {e}"));
    Ok(socket.into())
}

/// Connects to an echo server, sends some bytes, gets them back, and returns the client's own address.
///
/// # Panics
/// When any of it fails.
pub fn ask(ns: &Netns, to: SocketAddr) -> SocketAddr {
    ask_from(ns, any_for(to), to)
}

/// The same from a given port.
pub fn ask_from(ns: &Netns, from: SocketAddr, to: SocketAddr) -> SocketAddr {
    // Silence is not what is expected, and a busy machine may be late.
    let stream = connect_within(reply_limit(), ns, from, to)
        .unwrap_or_else(|e| panic!("connect {} {from} -> {to}/tcp: {e:?}", ns.name()));
    exchange(&stream, 1000, 1);
    stream.local_addr().unwrap_or_else(|e| panic!("own address of {to}/tcp: {e}"))
}

/// Sends `len` random bytes through an echo server while comparing what comes back.
///
/// # Panics
/// When a byte is wrong, missing, or late.
pub fn exchange(stream: &TcpStream, len: usize, seed: u64) {
    let sent = random_bytes(seed, len);
    let what =
        format!("exchange {len} bytes with {:?}", SockRef::from(stream).peer_addr().map(|a| a.as_socket()));
    thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(&sent).unwrap_or_else(|e| panic!("{what}: sending: {e}")));
        let mut stream = stream;
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while at < len {
            let room = buffer.len().min(len - at);
            let n = uninterrupted(|| stream.read(&mut buffer[..room]))
                .unwrap_or_else(|e| panic!("{what}: receiving, {at} bytes came: {e}"));
            assert_ne!(n, 0, "{what}: closed by the peer after {at} bytes");
            assert!(buffer[..n] == sent[at..at + n], "{what}: wrong bytes in {at}..{}", at + n);
            at += n;
        }
    });
}

/// An exchange that goes on over one connection until it is stopped, and tells how far it has come.
#[derive(Debug)]
pub struct Transfer {
    chunks: Arc<AtomicU64>,
    task: Task<()>,
}

impl Transfer {
    /// Starts it over a connection to an echo server.
    pub fn start(ns: &Netns, stream: TcpStream) -> Self {
        let chunks = Arc::<AtomicU64>::default();
        let count = Arc::clone(&chunks);
        let task = ns.spawn(move |stop| {
            while !stop.requested() {
                let seed = count.fetch_add(1, Ordering::Relaxed);
                exchange(&stream, 64 << 10, seed);
                // It is to go on, not to fill the machine.
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { chunks, task }
    }

    /// Waits until it has come some way further than it is.
    ///
    /// # Panics
    /// When it has not.
    pub fn assert_goes_on(&self, when: &str) {
        let goal = self.chunks.load(Ordering::Relaxed) + 20;
        let come = || (self.chunks.load(Ordering::Relaxed) > goal).then_some(());
        wait_until(&format!("the transfer goes on {when}"), Duration::from_secs(20), come);
    }

    /// Ends it.
    ///
    /// # Panics
    /// When a byte was wrong, missing, or late.
    pub fn stop(self) {
        self.task.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, TEN_MIB, topology::CLIENT};

    #[test]
    fn ten_mebibytes_come_back_whole_and_the_server_knows_from_whom() {
        crate::require_root!();
        let host = Host::new();
        let server = echo(&host.ns, "0.0.0.0:80");
        let stream = connect(&host.client, host.at(80)).unwrap();
        exchange(&stream, TEN_MIB, 7);
        assert_eq!(server.peers(), [stream.local_addr().unwrap()]);
        assert_eq!(stream.local_addr().unwrap().ip(), CLIENT);
    }

    #[test]
    fn the_source_port_can_be_chosen_and_shared_between_peers() {
        crate::require_root!();
        let host = Host::new();
        let servers = [echo(&host.ns, "0.0.0.0:80"), echo(&host.ns, "0.0.0.0:81")];
        let from = parse("0.0.0.0:20000");
        let first = connect_from(&host.client, from, host.at(80)).unwrap();
        let second = connect_from(&host.client, from, host.at(81)).unwrap();
        exchange(&first, 10, 1);
        exchange(&second, 10, 2);
        for server in &servers {
            assert_eq!(server.peers(), [SocketAddr::from((CLIENT, 20000))]);
        }
    }

    #[test]
    fn failures_are_told_apart() {
        crate::require_root!();
        let host = Host::new();
        assert_eq!(connect(&host.client, host.at(9)).unwrap_err(), Failure::Refused);
        host.client.ip("route add 10.99.0.0/24 via 10.200.0.1");
        let dark = parse("10.99.0.1:80");
        assert_eq!(connect(&host.client, dark).unwrap_err(), Failure::TimedOut);
        host.client.ip("route add unreachable 10.98.0.0/24");
        assert_eq!(connect(&host.client, parse("10.98.0.1:80")).unwrap_err(), Failure::Unreachable);
    }

    #[test]
    #[should_panic(expected = "wrong bytes")]
    fn a_changed_byte_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; 5000];
            stream.read_exact(&mut bytes).unwrap();
            bytes[4321] ^= 1;
            stream.write_all(&bytes).unwrap();
        });
        let stream = TcpStream::connect(to).unwrap();
        exchange(&stream, 5000, 3);
    }
}
