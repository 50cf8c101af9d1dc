//! Where connections come from.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::Accept;

use super::peer::Peer;
use crate::api::tls::Tls;

/// A client that has gone without a word is found out after [`IDLE`] and [`PROBES`] times [`BETWEEN`]: 2 minutes, in which
/// an answer that goes on keeps its place.
const IDLE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Door {
    /// In the file system.
    Unix(UnixListener),
    /// Plain TCP.
    Tcp(TcpListener),
    /// TCP with TLS.
    Tls(TcpListener, Arc<Tls>),
}

/// A connection that has been taken.
pub(crate) enum Stream {
    /// By a socket in the file system.
    Unix(UnixStream),
    /// By TCP.
    Tcp(TcpStream),
    /// By TCP, with a handshake to come.
    Tls(Box<Accept<TcpStream>>, SocketAddr),
}

impl Door {
    /// The next connection. Nothing is lost when this is dropped.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // Of the process that called connect(2), as it was then.
                let peer = Peer::user(stream.peer_cred()?.uid());
                Ok((Stream::Unix(stream), peer))
            }
            Self::Tcp(listener) => {
                let (stream, addr) = accept(listener).await?;
                Ok((Stream::Tcp(stream), Peer::host(addr.ip())))
            }
            Self::Tls(listener, tls) => {
                let (stream, addr) = accept(listener).await?;
                Ok((Stream::Tls(Box::new(tls.accept(stream)), addr), Peer::host(addr.ip())))
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, addr) = listener.accept().await?;
    // Without it the connection is as good as before.
    let _ = keep_alive(&stream);
    Ok((stream, addr))
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, BETWEEN)?;
    Ok(sockopt::set_tcp_keepcnt(stream, PROBES)?)
}
