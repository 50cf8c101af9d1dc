//! Sockets on a gateway's address.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind as bind_to, ipproto, listen, socket_with,
    sockopt::{set_ip_freebind, set_ipv6_freebind, set_socket_reuseaddr},
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Server, answer::Transport, forward};
use crate::shares::Shares;

/// Connections at once, to one address.
const CONNECTIONS: usize = 128;
/// The same for each address of a container.
const CONNECTIONS_OF_ONE: usize = 32;
/// How long a connection may be idle, and how long it may take to take in an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failure, which mostly is a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 64;
/// The largest query that is taken in, in bytes.
const QUERY: usize = 4096;

/// Sockets for both transports. The address need not be there: a bridge may be gone for a moment.
pub(super) fn bind(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = socket(at, SocketType::DGRAM)?;
    let tcp = socket(at, SocketType::STREAM)?;
    listen(&tcp, BACKLOG)?;
    Ok((UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?))
}

fn socket(at: SocketAddr, kind: SocketType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = if kind == SocketType::STREAM { ipproto::TCP } else { ipproto::UDP };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
    match at {
        SocketAddr::V4(_) => set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => set_ipv6_freebind(&socket, true)?,
    }
    if kind == SocketType::STREAM {
        // An earlier daemon's connections keep the port for a minute otherwise.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind_to(&socket, &at)?;
    Ok(socket)
}

/// Answers datagrams, until dropped.
pub(super) async fn datagrams(socket: UdpSocket, server: &Arc<Server>) {
    let socket = Arc::new(socket);
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; QUERY];
    loop {
        let (len, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer.
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        while questions.try_join_next().is_some() {}
        let query = buffer.get(..len).unwrap_or_default().to_vec();
        let (socket, server) = (Arc::clone(&socket), Arc::clone(server));
        questions.spawn(async move {
            if let Some(reply) = server.answer(source.ip(), &query, Transport::Udp).await {
                // The client asks again.
                let _ = socket.send_to(&reply, source).await;
            }
        });
    }
}

/// Answers queries on connections, until dropped.
pub(super) async fn connections(listener: TcpListener, server: &Arc<Server>) {
    let shares = Shares::new(CONNECTIONS, CONNECTIONS_OF_ONE);
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let Ok((stream, source)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Who comes when all are taken is sent away.
        let Ok(share) = shares.take(source.ip()) else { continue };
        let server = Arc::clone(server);
        clients.spawn(async move {
            // The client learns of a failure by the connection's end.
            let _ = converse(stream, source, &server).await;
            drop(share);
        });
    }
}

async fn converse(mut stream: TcpStream, source: SocketAddr, server: &Server) -> io::Result<()> {
    loop {
        let query = timeout(IDLE, forward::read(&mut stream)).await??;
        let Some(reply) = server.answer(source.ip(), &query, Transport::Tcp).await else { return Ok(()) };
        timeout(IDLE, forward::write(&mut stream, &reply)).await??;
    }
}
