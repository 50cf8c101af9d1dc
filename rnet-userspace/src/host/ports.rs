//! Host ports taken the way a server takes them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with,
        sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
    },
    process::{Resource, getrlimit},
};

use rnet_common::local::NAMES;

use crate::controller::{
    backend::{PortHold, PortUnavailable},
    model::{HostPort, Protocol},
};

/// The state of a listening socket in `/proc/net/tcp`: `TCP_LISTEN` of net/tcp_states.h, in hexadecimal.
const LISTEN: &str = "0A";

/// Bound sockets, which are closed on drop.
#[derive(Debug)]
pub(super) struct Sockets {
    _held: Vec<OwnedFd>,
}

impl PortHold for Sockets {}

/// Takes these ports, all or none. Of more than half as many as this process may have files open, the rest is taken and
/// let go again: what somebody has is found, and only for what comes between this and the datapath is there no guard.
pub(super) fn hold(ports: &[HostPort]) -> Result<Sockets, PortUnavailable> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    hold_at_most(usize::try_from(files / 2).unwrap_or(usize::MAX), ports)
}

fn hold_at_most(limit: usize, ports: &[HostPort]) -> Result<Sockets, PortUnavailable> {
    let mut held = Vec::new();
    let taken = ports.iter().filter_map(|port| match take(*port) {
        // A port of every address leaves those out at which rnet itself answers for names.
        Err(Errno::ADDRINUSE) if port.port == NAMES && is_taken_by_us_alone(*port) => None,
        // Nobody on this host can have one either.
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if port.protocol == Protocol::Sctp => None,
        taken => Some(taken.map_err(|errno| explain(*port, errno))),
    });
    for socket in taken {
        let socket = socket?;
        if held.len() < limit {
            held.push(socket);
        }
    }
    Ok(Sockets { _held: held })
}

fn take(port: HostPort) -> Result<OwnedFd, Errno> {
    let family = match port.addr {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, protocol) = match port.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if port.addr.is_ipv6() {
        // Otherwise [::] takes the port of IPv4 too.
        set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // As servers do: connections that have ended keep a port for a minute otherwise. With a datagram socket
        // it would mean sharing the port.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(port.addr, port.port))?;
    if kind == SocketType::STREAM {
        listen(&socket, 0)?;
    }
    Ok(socket)
}

fn explain(port: HostPort, errno: Errno) -> PortUnavailable {
    match errno {
        Errno::ADDRINUSE => PortUnavailable::InUse(port, holder(port)),
        Errno::ADDRNOTAVAIL => PortUnavailable::NotLocal(port),
        Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT | Errno::AFNOSUPPORT => {
            let family = if port.addr.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("this kernel has no {} over {family}", port.protocol);
            PortUnavailable::Other(port, what)
        }
        other => PortUnavailable::Other(port, std::io::Error::from(other).to_string()),
    }
}

fn is_taken_by_us_alone(port: HostPort) -> bool {
    let mut sockets = owning_inodes(port).peekable();
    let is_ours = |inode| has_open(std::process::id(), Path::new(&socket_link(inode)));
    port.addr.is_unspecified() && sockets.peek().is_some() && sockets.all(is_ours)
}

/// The process whose socket has a port, as `NAME (pid N)`.
fn holder(port: HostPort) -> Option<String> {
    owning_inodes(port).find_map(process_with_socket)
}

/// The inodes of the sockets that have a port, those first that listen.
fn owning_inodes(port: HostPort) -> impl Iterator<Item = u64> {
    let table = match port.protocol {
        Protocol::Tcp => Some("tcp"),
        Protocol::Udp => Some("udp"),
        // Its tables name no sockets.
        Protocol::Sctp => None,
    };
    // A socket of IPv6 may have the port of IPv4 as well, but not the other way round. Not /proc/net, which is of
    // the process's first thread.
    let suffixes: &[&str] = if port.addr.is_ipv4() { &["", "6"] } else { &["6"] };
    let tables =
        table.into_iter().flat_map(|table| suffixes.iter().map(move |suffix| format!("{table}{suffix}")));
    let tables = tables.filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok());
    tables.flat_map(move |table| inodes_in(&table, port))
}

/// The inodes of the sockets in a table of `/proc/net` that have a port, those that listen before connections.
pub(super) fn inodes_in(table: &str, port: HostPort) -> Vec<u64> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = parse_socket(fields.next()?)?;
        let state = fields.nth(1)?;
        let inode: u64 = fields.nth(5)?.parse().ok()?;
        let addr = local.ip().to_canonical();
        let meets = addr == port.addr || addr.is_unspecified() || port.addr.is_unspecified();
        // What only waits for late packets has no inode any more.
        (meets && local.port() == port.port && inode != 0).then_some((state != LISTEN, inode))
    });
    let mut sockets: Vec<_> = sockets.collect();
    sockets.sort_unstable();
    sockets.into_iter().map(|(_, inode)| inode).collect()
}

/// Parses `0100007F:1F90`: the address in words of the machine's byte order, the port as a number.
fn parse_socket(text: &str) -> Option<SocketAddr> {
    let (addr, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(addr.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match addr.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let octets = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Of several, the oldest: a server rather than what it started.
fn process_with_socket(inode: u64) -> Option<String> {
    let link = socket_link(inode);
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut processes: Vec<u32> = processes.collect();
    processes.sort_unstable();
    let pid = processes.into_iter().find(|pid| has_open(*pid, Path::new(&link)))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim_end()))
}

fn socket_link(inode: u64) -> String {
    format!("socket:[{inode}]")
}

fn has_open(pid: u32, link: &Path) -> bool {
    // Processes end, and descriptors are closed, while they are looked at.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == link))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::host::testing::{in_new_netns, ip, wait_until};

    fn port(text: &str) -> HostPort {
        let (socket, protocol) = text.rsplit_once('/').unwrap();
        let socket: SocketAddr = socket.parse().unwrap();
        HostPort { addr: socket.ip(), port: socket.port(), protocol: protocol.parse().unwrap() }
    }

    /// Takes ports that were let go: until it executes its program, a child that another test starts has the
    /// descriptors that were open.
    fn assert_free(ports: &[HostPort]) {
        wait_until("the ports are free", || hold(ports).is_ok());
    }

    fn own_name() -> String {
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        format!("{} (pid {})", comm.trim_end(), std::process::id())
    }

    #[test]
    fn held_ports_are_taken_until_they_are_let_go() {
        in_new_netns(|| {
            ip("link set lo up");
            let ports =
                ["0.0.0.0:80/tcp", "[::]:80/tcp", "0.0.0.0:80/udp", "127.0.0.1:81/tcp", "[::1]:81/udp"]
                    .map(port);
            let held = hold(&ports).unwrap();
            assert!(TcpListener::bind("127.0.0.1:80").is_err());
            assert!(TcpListener::bind("[::1]:80").is_err());
            assert!(UdpSocket::bind("127.0.0.1:80").is_err());
            assert!(TcpListener::bind("127.0.0.1:81").is_err());
            assert!(UdpSocket::bind("[::1]:81").is_err());
            TcpListener::bind("127.0.0.2:81").unwrap();
            drop(held);
            assert_free(&ports);
        });
    }

    #[test]
    fn more_ports_than_files_are_looked_at_all_the_same() {
        in_new_netns(|| {
            ip("link set lo up");
            let ports = ["0.0.0.0:80/tcp", "0.0.0.0:81/tcp", "0.0.0.0:82/tcp"].map(port);
            let held = hold_at_most(2, &ports).unwrap();
            assert!(TcpListener::bind("127.0.0.1:81").is_err());
            let third = TcpListener::bind("127.0.0.1:82").unwrap();
            drop(held);
            assert_free(&ports[..2]);
            let refused = hold_at_most(2, &ports).unwrap_err();
            assert!(matches!(refused, PortUnavailable::InUse(taken, _) if taken == ports[2]), "{refused:?}");
            drop(third);
        });
    }

    #[test]
    fn a_port_in_use_is_named_with_its_holder_and_no_other_is_kept() {
        in_new_netns(|| {
            ip("link set lo up");
            let _tcp = TcpListener::bind("127.0.0.1:80").unwrap();
            let _dual = TcpListener::bind("[::]:82").unwrap();
            let _udp = UdpSocket::bind("[::1]:81").unwrap();
            let all = ["0.0.0.0:80/tcp", "127.0.0.1:80/tcp", "[::]:81/udp", "0.0.0.0:82/tcp", "[::1]:82/tcp"];
            for (number, taken) in (90..).zip(all) {
                let free = HostPort { port: number, ..port("0.0.0.0:0/tcp") };
                let error = hold(&[free, port(taken)]).unwrap_err();
                assert_eq!(error, PortUnavailable::InUse(port(taken), Some(own_name())), "{taken}");
                assert_free(&[free]);
            }
            assert_eq!(
                hold(&[port("0.0.0.0:80/tcp")]).unwrap_err().to_string(),
                format!(
                    "failed to bind host port 0.0.0.0:80/tcp: address already in use (held by {})",
                    own_name()
                )
            );
        });
    }

    #[test]
    fn connections_that_have_ended_do_not_keep_a_port() {
        in_new_netns(|| {
            ip("link set lo up");
            let server = TcpListener::bind("127.0.0.1:80").unwrap();
            let client = TcpStream::connect("127.0.0.1:80").unwrap();
            // The side that closes first is the one that waits.
            drop((server.accept().unwrap(), server));
            drop(client);
            assert_free(&[port("0.0.0.0:80/tcp")]);
        });
    }

    #[test]
    fn an_address_of_somebody_else_is_refused() {
        in_new_netns(|| {
            // A namespace without any address knows no foreign ones of IPv4.
            ip("link set lo up");
            for foreign in ["192.0.2.1:80/tcp", "[2001:db8::1]:80/udp"].map(port) {
                assert_eq!(hold(&[foreign]).unwrap_err(), PortUnavailable::NotLocal(foreign));
            }
        });
    }

    #[test]
    fn sctp_is_held_where_there_is_any() {
        in_new_netns(|| {
            ip("link set lo up");
            let sctp = port("127.0.0.1:80/sctp");
            if Path::new("/proc/net/sctp").exists() {
                let _held = hold(&[sctp]).unwrap();
                assert_eq!(hold(&[sctp]).unwrap_err(), PortUnavailable::InUse(sctp, None));
            } else {
                let _held = (hold(&[sctp]).unwrap(), hold(&[sctp, port("0.0.0.0:80/tcp")]).unwrap());
                assert!(TcpListener::bind("127.0.0.1:80").is_err(), "the others are held all the same");
            }
        });
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listening_socket_is_found_before_a_connection() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
   1: 0100007F:1F90 0100007F:C351 06 00000000:00000000 03:00000B00 00000000     0        0 0 3 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0
   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0
";
        assert_eq!(inodes_in(table, port("127.0.0.1:8080/tcp")).first().copied(), Some(13));
        assert_eq!(inodes_in(table, port("127.0.0.1:8081/tcp")).first().copied(), Some(12));
        assert_eq!(inodes_in(table, port("10.0.0.1:8080/tcp")).first().copied(), Some(13));
        assert_eq!(inodes_in(table, port("10.0.0.1:8081/tcp")).first().copied(), None);
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(parse_socket(mapped), Some("[::ffff:127.0.0.1]:80".parse().unwrap()));
    }
}
