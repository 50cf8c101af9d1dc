//! The way to published ports for host programs that have bound their socket to a loopback address: the kernel lets
//! such a socket reach nothing else. The socket programs lead it to a listener here, and say where it is to go on to.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, SockMap},
};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rnet_common::{Be16, Ip4, Ip6, SockAddr, local::relay_index};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with},
};
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::tables::{Address, take, wrong};

/// How long a container may take to accept: as long as the kernel tries.
const CONNECT_LIMIT: Duration = Duration::from_secs(127);
/// Pause after a failure to accept, which mostly is a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where a listener takes its port, the last that is free. Nobody can publish a port that it has, and here hardly
/// anybody wants to: no service has a number in this range (RFC 6335, section 6). It begins where the kernel's range for
/// sockets that name no port (`ip_local_port_range`) ends, out of which the whole of that could not be published.
const PORTS: RangeInclusive<u16> = 61000..=65535;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listeners on the loopback addresses, known to the programs until they are closed. TCP only.
pub struct Relay {
    listeners: Vec<(TcpListener, Arc<dyn Destinations>)>,
}

/// Where connections are to go.
trait Destinations: Send + Sync {
    /// Where the one from `client` is to go; only once.
    fn take(&self, client: SocketAddr) -> Option<SocketAddr>;
}

/// What the programs of a family have noted.
struct Diverted<A>(Mutex<HashMap<MapData, SockAddr<A>, SockAddr<A>>>);

impl Relay {
    /// Listens on a port of 127.0.0.1 and one of ::1, and tells the programs. A family whose loopback address is not
    /// there is left out.
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self> {
        let mut relays: SockMap<MapData> = take(ebpf, "RELAYS")?.try_into().map_err(wrong("RELAYS"))?;
        let families: [(IpAddr, Arc<dyn Destinations>); 2] = [
            (Ipv4Addr::LOCALHOST.into(), Arc::new(Diverted::<Ip4>::take(ebpf)?)),
            (Ipv6Addr::LOCALHOST.into(), Arc::new(Diverted::<Ip6>::take(ebpf)?)),
        ];
        let mut listeners = Vec::new();
        for (addr, destinations) in families {
            let listener = match listen_on(addr) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::info!(
                        "sockets bound to {addr} will not reach published ports: cannot listen there: {error}"
                    );
                    continue;
                }
            };
            let index = relay_index(addr.is_ipv6());
            relays
                .set(index, &listener, 0)
                .with_context(|| format!("tell the programs of the relay on {addr}"))?;
            listeners.push((listener, destinations));
        }
        Ok(Self { listeners })
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let mut families = JoinSet::new();
        for (listener, destinations) in self.listeners {
            families.spawn(accept(listener, destinations));
        }
        while families.join_next().await.is_some() {}
    }
}

impl<A: Address> Diverted<A> {
    fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let name = format!("DIVERTED{}", A::SUFFIX);
        let map: Map = take(ebpf, &name)?;
        Ok(Self(Mutex::new(map.try_into().map_err(wrong(&name))?)))
    }
}

impl<A: Address> Destinations for Diverted<A> {
    fn take(&self, client: SocketAddr) -> Option<SocketAddr> {
        let key = SockAddr::new(A::of(client.ip())?, Be16::new(client.port()));
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to = map.get(&key, 0).ok()?;
        // An entry that stays is overwritten before it is read again.
        let _ = map.remove(&key);
        Some((to.addr.ip(), to.port.get()).into())
    }
}

fn listen_on(addr: IpAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Where route_localnet is set, a neighbour could reach a loopback address.
    setsockopt(&socket, BindToDevice, &"lo".into())?;
    // Where all are taken, any port is better than none.
    for port in PORTS.rev().chain([0]) {
        match bind(&socket, &SocketAddr::from((addr, port))) {
            Err(Errno::ADDRINUSE) if port != 0 => {}
            bound => {
                bound?;
                break;
            }
        }
    }
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, destinations: Arc<dyn Destinations>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("serve sockets bound to a loopback address: {error}"),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    // Whoever came by himself, and was not led here, is not served.
                    let Some(to) = destinations.take(from) else { continue };
                    connections.spawn(relay(client, to));
                }
                Err(error) => {
                    tracing::warn!("accept a connection from a socket bound to a loopback address: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr) {
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(to)).await;
    let mut container = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(container) => container,
        Err(error) => {
            tracing::debug!("lead a connection on to {to}: {error}");
            // The client has been accepted already; a reset is what tells it best.
            let _ = client.set_zero_linger();
            return;
        }
    };
    for stream in [&client, &container] {
        // Delays what is sent in small pieces, otherwise.
        let _ = stream.set_nodelay(true);
    }
    if let Err(error) = copy_bidirectional(&mut client, &mut container).await {
        tracing::debug!("lead a connection on to {to}: {error}");
        let _ = client.set_zero_linger();
        let _ = container.set_zero_linger();
    }
}
