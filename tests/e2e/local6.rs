//! Host programs as clients of ports that are published over IPv6.

use std::{
    io,
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use etherparse::PacketBuilder;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};
use testbed::{
    Container, Host, Netns, Rnet,
    capture::{self, Capture},
    packet,
    topology::UPLINK,
    traffic::{Failure, tcp, udp},
    uninterrupted,
};

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1);
const MIB: usize = 1 << 20;

/// Ways in which a host program can name 8080 of this host.
const NAMES: [&str; 4] = ["[::1]:8080", "[::]:8080", "[2001:db8::1]:8080", "[fd00:88::1]:8080"];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A daemon on a host with IPv6 outside, and a network with it.
fn start(host: &Host) -> Rnet<'_> {
    host.client.ip(&format!("addr add {CLIENT}/64 dev {UPLINK} nodad"));
    host.ns.ip(&format!("addr add {HOST}/64 dev {UPLINK} nodad"));
    let rnet = Rnet::start(host);
    rnet.ok(&["network", "create", "--ipv6", "--subnet", "10.88.0.0/24", "--subnet", "fd00:88::/64", "six"]);
    rnet
}

fn run(rnet: &Rnet<'_>, name: &str, args: &[&str]) -> Container {
    rnet.run(name, &[&["--network", "six"], args].concat())
}

/// What a socket is told of its peer: no address at all is the host's loopback address.
fn told(name: SocketAddr) -> SocketAddr {
    if name.ip().is_unspecified() { (Ipv6Addr::LOCALHOST, name.port()).into() } else { name }
}

#[test]
fn every_name_of_the_host_leads_to_the_container() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    let web = run(&rnet, "web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let servers = [tcp::echo(&web.ns, "[::]:80"), udp::echo(&web.ns, "[::]:80")];
    for name in NAMES.map(addr) {
        let stream = tcp::connect(&host.ns, name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(stream.peer_addr().unwrap(), told(name));
        tcp::exchange(&stream, MIB, 5);
        let socket = udp::connect(&host.ns, name);
        assert_eq!(socket.peer_addr().unwrap(), told(name));
        udp::exchange(&socket, MIB / 8, 6);
        assert_eq!(udp::ask_unconnected(&host.ns, name), Ok(told(name)));
    }
    assert_eq!(servers[0].peers().len(), NAMES.len());
    for server in &servers {
        assert!(server.peers().iter().all(|peer| peer.ip() == GATEWAY), "{:?}", server.peers());
    }
    rnet.ok(&["rm", "-f", "web"]);
    assert_eq!(tcp::connect(&host.ns, addr(NAMES[0])).unwrap_err(), Failure::Refused);
    assert_eq!(udp::ask(&udp::connect(&host.ns, addr(NAMES[0])), b"x"), Err(Failure::Refused));
}

#[test]
fn one_socket_of_ipv6_reaches_both_families() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    let web = run(&rnet, "web", &["-p", "5300:53/udp"]);
    let _server = udp::echo(&web.ns, "[::]:53");
    let socket = host.ns.run(|| UdpSocket::bind("[::]:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let names = ["[::1]:5300", "[::ffff:127.0.0.1]:5300", "[::ffff:10.200.0.1]:5300", "[2001:db8::1]:5300"];
    for name in names.map(addr) {
        socket.send_to(b"x", name).unwrap();
        assert_eq!(uninterrupted(|| socket.recv_from(&mut [0; 8])).unwrap(), (1, name));
    }
}

#[test]
fn a_client_bound_to_loopback_is_led_to_the_container() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    let web = run(&rnet, "web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "[::]:80");
    let (from, name) = (addr("[::1]:0"), addr("[::1]:8080"));
    for name in [name, (HOST, 8080).into()] {
        let stream = tcp::connect_from(&host.ns, from, name).unwrap();
        assert_eq!((stream.local_addr().unwrap().ip(), stream.peer_addr().unwrap()), (from.ip(), name));
        tcp::exchange(&stream, MIB, 5);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(io::Read::read(&mut &stream, &mut [0; 1]).unwrap(), 0);
    }
    rnet.kill9();
    assert_eq!(tcp::connect_from(&host.ns, from, name).unwrap_err(), Failure::Refused);
    // One without a port yet does not need the daemon.
    let socket = host.ns.run(|| Socket::new(Domain::IPV6, Type::STREAM, None).unwrap());
    setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&name.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(name));
    tcp::exchange(&socket.into(), MIB, 5);
    assert!(server.peers().iter().all(|peer| peer.ip() == GATEWAY), "{:?}", server.peers());
}

#[test]
fn a_port_on_loopback_is_for_the_host_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    let web = run(&rnet, "web", &["-p", "[::1]:8081:80", "-p", "[::1]:8081:80/udp", "-p", "8080:80"]);
    let other = run(&rnet, "other", &[]);
    let servers = (tcp::echo(&web.ns, "[::]:80"), udp::echo(&web.ns, "[::]:80"));
    let name = addr("[::1]:8081");
    tcp::ask(&host.ns, name);
    assert_eq!(udp::ask_unconnected(&host.ns, name), Ok(name));
    for name in [(HOST, 8081), (GATEWAY, 8081)].map(SocketAddr::from) {
        assert_eq!(tcp::connect(&host.ns, name).unwrap_err(), Failure::Refused, "{name}");
    }
    assert_eq!(tcp::connect(&host.ns, addr("127.0.0.1:8081")).unwrap_err(), Failure::Refused);
    assert_eq!(tcp::connect(&host.client, (HOST, 8081).into()).unwrap_err(), Failure::Refused);
    for ns in [&other.ns, &web.ns, &host.client] {
        assert_eq!(tcp::connect(ns, name).unwrap_err(), Failure::Refused, "its own loopback address");
    }
    let taken = host.ns.run(|| TcpListener::bind("[::1]:8081"));
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);

    let capture = Capture::start(&web.ns, "eth0");
    forge(&host.client, host.ns.mac(UPLINK));
    tcp::ask(&host.client, (HOST, 8080).into());
    let frames = capture.stop();
    let ports = || frames.iter().filter_map(|frame| packet::tuple(frame)).map(|tuple| tuple.src.port());
    assert!(ports().any(|port| port == 80), "the capture sees what was sent behind");
    assert!(ports().all(|port| port != 4444));
    assert_eq!((servers.0.peers().len(), servers.1.peers().len()), (2, 1));
}

/// Packets from outside to a loopback address.
fn forge(ns: &Netns, to: [u8; 6]) {
    let mut frames = Vec::new();
    for src in [CLIENT, HOST, Ipv6Addr::LOCALHOST] {
        for port in [8080, 8081] {
            let to_loopback = || {
                PacketBuilder::ethernet2(ns.mac(UPLINK), to).ipv6(
                    src.octets(),
                    Ipv6Addr::LOCALHOST.octets(),
                    packet::TTL,
                )
            };
            let mut datagram = Vec::new();
            to_loopback().udp(4444, port).write(&mut datagram, b"forged").unwrap();
            let mut segment = Vec::new();
            to_loopback().tcp(4444, port, 1, u16::MAX).syn().write(&mut segment, b"").unwrap();
            frames.extend([datagram, segment]);
        }
    }
    capture::send(ns, UPLINK, &frames);
}
