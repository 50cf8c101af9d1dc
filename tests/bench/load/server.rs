//! The server's end.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, RawFd},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

use super::{MESSAGE, epoll::Poll};

/// What the parent writes to learn how many datagrams arrived since it last asked.
pub(crate) const COUNT: &[u8] = b"count\n";

/// The first byte of a connection says what it is for.
pub(crate) mod kind {
    /// Bytes that are counted, until the client has no more; then their number is sent.
    pub(crate) const STREAM: u8 = b'S';
    /// Requests that are answered.
    pub(crate) const REQUEST: u8 = b'R';
    /// One request that is answered, whereupon the server closes.
    pub(crate) const ONE_REQUEST: u8 = b'C';
    /// A datagram that is answered.
    pub(crate) const ECHO: u8 = b'E';
    /// A datagram that is counted.
    pub(crate) const DATAGRAM: u8 = b'D';
}

static DATAGRAMS: AtomicU64 = AtomicU64::new(0);

/// Serves TCP and UDP at `bind` until its standard input ends.
///
/// # Errors
/// When the port cannot be had.
pub(super) fn run(bind: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(bind).with_context(|| format!("listen on {bind}"))?;
    let socket = UdpSocket::bind(bind).with_context(|| format!("receive on {bind}"))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20).context("enlarge the receive buffer")?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    thread::spawn(move || ends("datagrams", count_datagrams(&socket)));
    thread::spawn(move || ends("connections", answer(&listener)));
    println!("ready");
    for line in io::stdin().lock().lines() {
        if line.context("read a command")?.as_bytes() == COUNT.trim_ascii_end() {
            println!("{}", DATAGRAMS.swap(0, Ordering::Relaxed));
        }
    }
    Ok(())
}

fn ends(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("load server: {what}: {error:#}");
        std::process::exit(1);
    }
}

fn count_datagrams(socket: &UdpSocket) -> Result<()> {
    const BATCH: usize = 64;
    let mut buffers = vec![[0_u8; 2048]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    loop {
        let mut slices: Vec<[io::IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [io::IoSliceMut::new(buffer)]).collect();
        let (mut count, mut echoes) = (0, Vec::new());
        let received =
            recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None)
                .context("receive datagrams")?;
        for message in received {
            match message.iovs().next().and_then(|bytes| bytes.first().copied()) {
                Some(kind::ECHO) => echoes.extend(message.address),
                Some(kind::DATAGRAM) => count += 1,
                _ => {}
            }
        }
        DATAGRAMS.fetch_add(count, Ordering::Relaxed);
        for peer in echoes {
            let to: Option<SocketAddr> = peer
                .as_sockaddr_in()
                .map(|v4| SocketAddr::V4((*v4).into()))
                .or_else(|| peer.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())));
            if let Some(to) = to {
                socket.send_to(&[kind::ECHO; MESSAGE], to).context("answer a datagram")?;
            }
        }
    }
}

/// Answers requests on all connections in one thread; a stream gets one of its own.
fn answer(listener: &TcpListener) -> Result<()> {
    let mut poll = Poll::new().context("make an epoll instance")?;
    poll.add(listener).context("wait for connections")?;
    let mut connections: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut buffer = vec![0_u8; 4096];
    loop {
        let ready: Vec<RawFd> = poll.wait(u16::MAX).context("wait")?.collect();
        for fd in ready {
            if fd == listener.as_raw_fd() {
                // Clients that give up are theirs to count.
                let Ok((stream, _)) = listener.accept() else { continue };
                stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_nonblocking(true))
                    .context("set up a connection")?;
                poll.add(&stream).context("wait for a connection's data")?;
                connections.insert(stream.as_raw_fd(), stream);
                continue;
            }
            let Some(connection) = connections.get_mut(&fd) else { continue };
            let goes_on = match connection.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => match buffer[0] {
                    kind::STREAM => {
                        poll.remove(connection).context("hand over a stream")?;
                        if let Some(stream) = connections.remove(&fd) {
                            thread::spawn(move || ends("stream", swallow(stream, length)));
                        }
                        continue;
                    }
                    kind::REQUEST => connection.write_all(&buffer[..length]).is_ok(),
                    _ => {
                        // What comes of it is the client's to count.
                        let _ = connection.write_all(&buffer[..length]);
                        false
                    }
                },
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if !goes_on {
                connections.remove(&fd);
            }
        }
    }
}

/// Reads a stream to its end and answers with its length, `before` included, as eight bytes in network byte order.
fn swallow(mut stream: TcpStream, before: usize) -> Result<()> {
    stream.set_nonblocking(false).context("make a stream blocking")?;
    let mut buffer = vec![0_u8; 256 << 10];
    let mut total = before as u64;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => total += length as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The client's process has ended.
            Err(_) => return Ok(()),
        }
    }
    let _ = stream.write_all(&total.to_be_bytes());
    Ok(())
}
