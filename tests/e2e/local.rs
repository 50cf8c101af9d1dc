//! Host programs as clients of published ports, by every address that the host has.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, Socket, Type};
use testbed::{
    Container, Host, Rnet,
    topology::{CLIENT, HOST},
    traffic::{Failure, tcp, udp},
    uninterrupted,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const MIB: usize = 1 << 20;

/// Ways in which a host program can name 8080 of this host.
const NAMES: [&str; 9] = [
    "127.0.0.1:8080",
    "127.0.0.2:8080",
    "0.0.0.0:8080",
    "172.17.0.1:8080",
    "10.200.0.1:8080",
    "10.200.0.9:8080",
    "[::ffff:127.0.0.1]:8080",
    "[::ffff:172.17.0.1]:8080",
    "[::ffff:10.200.0.1]:8080",
];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn both(rnet: &Rnet<'_>) -> Container {
    rnet.run("web", &["-p", "8080:80", "-p", "8080:80/udp"])
}

/// How many flows a published port is said to have opened.
fn flows(rnet: &Rnet<'_>, container: &str, port: &str) -> u64 {
    let stats = rnet.ok(&["stats"]);
    let rows = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.starts_with(&[container, port]));
    row.unwrap_or_else(|| panic!("no {port} of {container}: {stats}"))[3].parse().unwrap()
}

/// What a socket is told of its peer: no address at all is the host's loopback address.
fn told(name: SocketAddr) -> SocketAddr {
    if name.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, name.port()).into() } else { name }
}

#[test]
fn every_name_of_the_host_leads_to_the_container_over_tcp() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    for name in NAMES.map(addr) {
        let stream = tcp::connect(&host.ns, name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(stream.peer_addr().unwrap(), told(name));
        tcp::exchange(&stream, MIB, 5);
    }
    assert_eq!(server.peers().len(), NAMES.len());
    assert!(server.peers().iter().all(|peer| peer.ip() == GATEWAY), "{:?}", server.peers());
}

#[test]
fn every_name_of_the_host_leads_to_the_container_over_udp() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let server = udp::echo(&web.ns, "0.0.0.0:80");
    for name in NAMES.map(addr) {
        let socket = udp::connect(&host.ns, name);
        assert_eq!(socket.peer_addr().unwrap(), told(name));
        udp::exchange(&socket, MIB / 8, 6);
        socket.send(b"whence").unwrap();
        let (n, from) = uninterrupted(|| socket.recv_from(&mut [0; 16])).unwrap();
        assert_eq!((n, from), (6, told(name)), "a connected socket that asks where a datagram came from");
        assert_eq!(udp::ask_unconnected(&host.ns, name), Ok(told(name)));
    }
    assert!(server.peers().iter().all(|peer| peer.ip() == GATEWAY));
}

#[test]
fn one_socket_speaks_with_many_containers_and_knows_them_apart() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let containers =
        [("a", 5300), ("b", 5301)].map(|(name, port)| rnet.run(name, &["-p", &format!("{port}:53/udp")]));
    let _servers = containers.each_ref().map(|c| udp::echo(&c.ns, "0.0.0.0:53"));
    let outside = udp::echo(&host.client, "0.0.0.0:53");
    let socket = host.ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let socket = Socket::from(socket);
    let names = [addr("127.0.0.1:5300"), host.at(5301), (CLIENT, 53).into()];
    for name in names.into_iter().chain(names) {
        let (to, payload) = (SockAddr::from(name), name.to_string());
        let parts = [IoSlice::new(payload.as_bytes())];
        socket.sendmsg(&MsgHdr::new().with_addr(&to).with_buffers(&parts), 0).unwrap();
        let mut from = SockAddr::from(addr("0.0.0.0:0"));
        let mut buffer = [MaybeUninit::uninit(); 64];
        let mut parts = [MaybeUninitSlice::new(&mut buffer)];
        let n = uninterrupted(|| {
            socket.recvmsg(&mut MsgHdrMut::new().with_addr(&mut from).with_buffers(&mut parts), 0)
        })
        .unwrap();
        assert_eq!((n, from.as_socket()), (payload.len(), Some(name)));
    }
    assert_eq!(outside.peers().len(), 2);
    for container in ["a", "b"] {
        assert_eq!(flows(&rnet, container, "53/udp"), 1, "the second datagram is no new flow");
    }
}

#[test]
fn multipath_tcp_is_tcp() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let Ok(socket) = host.ns.run(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP))) else {
        return testbed::skip("the kernel has no Multipath TCP");
    };
    socket.connect(&addr("127.0.0.1:8080").into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    tcp::exchange(&stream, MIB, 5);
}

#[test]
fn a_client_bound_to_an_address_of_the_host_is_led_to_the_container() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    for (from, name) in [
        ("127.0.0.1:0", "127.0.0.1:8080"),
        ("127.0.0.1:0", "10.200.0.1:8080"),
        ("127.0.0.3:0", "127.0.0.1:8080"),
        ("[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:8080"),
    ] {
        let stream = tcp::connect_from(&host.ns, addr(from), addr(name)).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), addr(from).ip());
        assert_eq!(stream.peer_addr().unwrap(), addr(name));
        tcp::exchange(&stream, MIB, 5);
        // Its end of the connection is handed on, and the server's comes back.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(io::Read::read(&mut &stream, &mut [0; 1]).unwrap(), 0);
    }
    assert!(server.peers().iter().all(|peer| peer.ip() == GATEWAY), "{:?}", server.peers());
    let stream = tcp::connect_from(&host.ns, addr("10.200.0.1:0"), addr("127.0.0.1:8080")).unwrap();
    tcp::exchange(&stream, MIB, 5);
    assert_eq!(server.peers().last().unwrap().ip(), HOST);
}

#[test]
fn a_client_bound_to_loopback_without_a_port_yet_needs_no_daemon() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    rnet.kill9();
    let connect = |kind, from: &str, name: &str| {
        let socket = host.ns.run(|| Socket::new(Domain::for_address(addr(from)), kind, None).unwrap());
        setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
        socket.bind(&addr(from).into()).unwrap();
        socket.connect(&addr(name).into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(addr(name)));
        socket
    };
    for (from, name) in
        [("127.0.0.1:0", "127.0.0.1:8080"), ("[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:8080")]
    {
        tcp::exchange(&connect(Type::STREAM, from, name).into(), MIB, 5);
        udp::exchange(&connect(Type::DGRAM, from, name).into(), MIB / 8, 5);
    }
}

#[test]
fn what_only_the_daemon_can_do_is_refused_without_it_and_works_with_the_next() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    let (from, name) = (addr("127.0.0.1:0"), addr("127.0.0.1:8080"));
    let socket = udp::connect(&host.ns, name);
    let unbound = udp::connect(&host.ns, host.at(8080));
    rnet.kill9();
    assert_eq!(tcp::connect_from(&host.ns, from, name).unwrap_err(), Failure::Refused);
    tcp::ask(&host.ns, name);
    assert_eq!(udp::ask_unconnected(&host.ns, name), Ok(name));
    rnet.start_daemon();
    tcp::exchange(&tcp::connect_from(&host.ns, from, name).unwrap(), MIB, 5);
    // What was connected before the daemon's end knows its peer after it.
    for (socket, name) in [(&socket, name), (&unbound, host.at(8080))] {
        assert_eq!(udp::ask(socket, b"still there"), Ok(()));
        assert_eq!(socket.peer_addr().unwrap(), name);
    }
}

#[test]
fn udp_from_a_socket_bound_to_loopback_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let server = udp::echo(&web.ns, "0.0.0.0:80");
    let socket = udp::connect_from(&host.ns, addr("127.0.0.1:0"), addr("127.0.0.1:8080"));
    assert_eq!(udp::ask(&socket, b"x"), Err(Failure::Refused));
    assert_eq!(server.peers(), []);
}

/// Where on the host somebody accepts connections.
fn listening(host: &Host) -> Option<Vec<SocketAddr>> {
    let sockets = host.ns.output_of("ss", &["-Htln"])?;
    let local = |line: &str| line.split_whitespace().nth(3)?.replace("%lo", "").parse().ok();
    Some(sockets.lines().filter_map(local).collect())
}

#[test]
fn the_relay_takes_no_port_that_the_kernel_gives_out() {
    testbed::require_root!();
    let host = Host::new();
    let _server = host.ns.run(|| TcpListener::bind("127.0.0.1:65535").unwrap());
    let rnet = Rnet::start(&host);
    let Some(sockets) = listening(&host) else { return testbed::skip("needs ss (iproute2)") };
    for relay in ["127.0.0.1:65534", "[::1]:65535"].map(addr) {
        assert!(sockets.contains(&relay), "{sockets:?}");
    }
    let web = rnet.run("web", &["-p", "32768-60999:32768-60999", "-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect_from(&host.ns, addr("127.0.0.1:0"), addr("127.0.0.1:8080")).unwrap();
    tcp::exchange(&stream, MIB, 5);
}

#[test]
fn the_relay_serves_only_who_was_led_to_it() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let Some(relays) = listening(&host) else { return testbed::skip("needs ss (iproute2)") };
    assert_eq!(relays.len(), 2, "one of each family: {relays:?}");
    for relay in relays {
        assert!(relay.ip().is_loopback(), "{relay}");
        let stream = tcp::connect(&host.ns, relay).unwrap();
        assert_eq!(io::Read::read(&mut &stream, &mut [0; 1]).unwrap(), 0, "{relay} closes at once");
    }
    assert_eq!(server.peers(), []);
}

#[test]
fn a_container_s_loopback_address_stays_its_own() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let other = rnet.run("other", &[]);
    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    for ns in [&web.ns, &other.ns, &host.client] {
        assert_eq!(tcp::connect(ns, addr("127.0.0.1:8080")).unwrap_err(), Failure::Refused);
        assert_eq!(udp::ask(&udp::connect(ns, addr("127.0.0.1:8080")), b"x"), Err(Failure::Refused));
    }
    assert_eq!((servers.0.peers(), servers.1.peers()), (vec![], vec![]));
    let own = (tcp::echo(&other.ns, "127.0.0.1:8080"), udp::echo(&other.ns, "127.0.0.1:8080"));
    let stream = tcp::connect(&other.ns, addr("127.0.0.1:8080")).unwrap();
    tcp::exchange(&stream, 1000, 1);
    assert_eq!(own.0.peers(), [stream.local_addr().unwrap()]);
    assert_eq!(udp::ask_unconnected(&other.ns, addr("127.0.0.1:8080")), Ok(addr("127.0.0.1:8080")));
}

#[test]
fn what_is_not_published_is_left_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "10.200.0.9:8080:80"]);
    let published = tcp::echo(&web.ns, "0.0.0.0:80");
    let own = [tcp::echo(&host.ns, "127.0.0.1:8080"), tcp::echo(&host.ns, "10.200.0.1:8080")];
    for server in &own {
        let client = tcp::ask(&host.ns, server.addr());
        assert_eq!(server.peers(), [client]);
    }
    let own = udp::echo(&host.ns, "10.200.0.9:8080");
    assert_eq!(udp::ask_unconnected(&host.ns, own.addr()), Ok(own.addr()));
    assert_eq!(published.peers(), []);
    // A port of that number elsewhere, and the container itself.
    let outside = tcp::echo(&host.client, "0.0.0.0:8080");
    tcp::ask(&host.ns, (CLIENT, 8080).into());
    assert_eq!(outside.peers()[0].ip(), HOST);
    let stream = tcp::connect(&host.ns, web.at(80)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), web.at(80));
}

#[test]
fn an_unpublished_port_is_refused_again_and_its_connections_are_counted() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = both(&rnet);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    let name = addr("127.0.0.1:8080");
    for _ in 0..3 {
        tcp::ask(&host.ns, name);
    }
    tcp::ask_from(&host.ns, addr("127.0.0.1:0"), name);
    let sender = host.ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    sender.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    sender.send_to(b"x", name).unwrap();
    assert_eq!(uninterrupted(|| sender.recv_from(&mut [0; 8])).unwrap(), (1, name));
    assert_eq!((flows(&rnet, "web", "80/tcp"), flows(&rnet, "web", "80/udp")), (4, 1));
    rnet.ok(&["rm", "-f", "web"]);
    for from in ["0.0.0.0:0", "127.0.0.1:0"].map(addr) {
        assert_eq!(tcp::connect_from(&host.ns, from, name).unwrap_err(), Failure::Refused, "from {from}");
    }
    assert_eq!(udp::ask(&udp::connect(&host.ns, name), b"x"), Err(Failure::Refused));
    // The port is the host's own again, also for a socket that was led to the container before.
    let own = udp::echo(&host.ns, "127.0.0.1:8080");
    sender.send_to(b"xy", name).unwrap();
    assert_eq!(uninterrupted(|| sender.recv_from(&mut [0; 8])).unwrap(), (2, name));
    assert_eq!(own.peers(), [addr(&format!("127.0.0.1:{}", sender.local_addr().unwrap().port()))]);
}

#[test]
fn instances_side_by_side_lead_to_their_own_containers() {
    testbed::require_root!();
    let hosts = [Host::new(), Host::new()];
    let rnets = hosts.each_ref().map(Rnet::start);
    let containers = rnets.each_ref().map(both);
    let servers = containers.each_ref().map(|c| tcp::echo(&c.ns, "0.0.0.0:80"));
    for (host, server) in hosts.iter().zip(&servers) {
        let client = tcp::ask(&host.ns, addr("127.0.0.1:8080"));
        assert_eq!(server.peers(), [client]);
    }
    rnets[0].down();
    assert_eq!(tcp::connect(&hosts[0].ns, addr("127.0.0.1:8080")).unwrap_err(), Failure::Refused);
    tcp::ask(&hosts[1].ns, addr("127.0.0.1:8080"));
    tcp::ask_from(&hosts[1].ns, addr("127.0.0.1:0"), addr("127.0.0.1:8080"));
    assert_eq!(servers[1].peers().len(), 3);
}
