//! From a container to the outside: masquerade.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use etherparse::{IcmpEchoHeader, TcpHeader};
use testbed::{
    Host, Rnet, TEN_MIB,
    capture::{self, Capture},
    packet::{self, Ethernet},
    topology::{CLIENT, FAR, HOST, UPLINK},
    traffic::{icmp, tcp, udp},
};

/// The ports that masquerading gives out: up to where `ip_local_port_range` begins.
const SNAT_PORTS: std::ops::RangeInclusive<u16> = 1024..=32767;

with_and_without_offload!(
    tcp_leaves_with_the_hosts_address,
    udp_leaves_with_the_hosts_address,
    pings_leave_with_the_hosts_address,
    two_containers_may_use_one_source_port_to_one_remote,
);

fn from_port(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn outside(port: u16) -> SocketAddr {
    (CLIENT, port).into()
}

fn tcp_leaves_with_the_hosts_address(host: &Host) {
    let rnet = Rnet::start(host);
    let c1 = rnet.run("c1", &[]);
    let server = tcp::echo(&host.client, "0.0.0.0:9000");
    let stream = tcp::connect_from(&c1.ns, from_port(20000), outside(9000)).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    assert_eq!(server.peers(), [SocketAddr::from((HOST, 20000))], "a free port of the range is kept");
}

fn udp_leaves_with_the_hosts_address(host: &Host) {
    let rnet = Rnet::start(host);
    let c1 = rnet.run("c1", &[]);
    let server = udp::echo(&host.client, "0.0.0.0:9000");
    let socket = udp::connect_from(&c1.ns, from_port(20000), outside(9000));
    udp::exchange(&socket, TEN_MIB, 2);
    assert!(server.peers().iter().all(|p| *p == SocketAddr::from((HOST, 20000))));
}

fn pings_leave_with_the_hosts_address(host: &Host) {
    let rnet = Rnet::start(host);
    let (c1, c2) = (rnet.run("c1", &[]), rnet.run("c2", &[]));
    let capture = Capture::start(&host.client, UPLINK);
    // One identifier for both: the replies have to find their own containers.
    for (container, seq) in [(&c1, 1), (&c2, 2), (&c1, 3)] {
        let echo = IcmpEchoHeader { id: 77, seq };
        icmp::ping_with(&container.ns, CLIENT, echo, 1000).expect("the client answers");
    }
    let sources: Vec<_> = capture.stop().iter().filter_map(|f| packet::tuple(f)).filter(is_ping).collect();
    assert!(sources.len() >= 6, "three requests and three replies: {sources:?}");
    assert!(sources.iter().all(|t| [t.src.ip(), t.dst.ip()].contains(&HOST.into())), "{sources:?}");
}

fn is_ping(tuple: &packet::Tuple) -> bool {
    tuple.protocol == 1
}

fn two_containers_may_use_one_source_port_to_one_remote(host: &Host) {
    let rnet = Rnet::start(host);
    let containers = [rnet.run("c1", &[]), rnet.run("c2", &[])];
    let (over_tcp, over_udp) =
        (tcp::echo(&host.client, "0.0.0.0:9000"), udp::echo(&host.client, "0.0.0.0:9000"));
    let streams =
        containers.each_ref().map(|c| tcp::connect_from(&c.ns, from_port(20000), outside(9000)).unwrap());
    let sockets = containers.each_ref().map(|c| udp::connect_from(&c.ns, from_port(20000), outside(9000)));
    // In turns, so that both are alive together.
    for round in 0..3 {
        for i in 0..2 {
            tcp::exchange(&streams[i], 100_000, round * 2 + i as u64);
            udp::exchange(&sockets[i], 10_000, round * 2 + i as u64);
        }
    }
    for server in [over_tcp, over_udp] {
        let mut peers = server.peers();
        peers.sort();
        peers.dedup();
        assert_eq!(peers.len(), 2, "the remote tells them apart: {peers:?}");
        assert!(peers.iter().all(|p| p.ip() == HOST && SNAT_PORTS.contains(&p.port())), "{peers:?}");
        assert!(peers.iter().any(|p| p.port() == 20000), "the first one keeps its port: {peers:?}");
    }
}

#[test]
fn a_source_port_outside_the_range_is_changed_into_one_inside() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &[]);
    let server = tcp::echo(&host.client, "0.0.0.0:9000");
    tcp::ask_from(&c1.ns, from_port(40000), outside(9000));
    tcp::ask_from(&c1.ns, from_port(80), outside(9000));
    assert!(server.peers().iter().all(|p| SNAT_PORTS.contains(&p.port())), "{:?}", server.peers());
}

#[test]
fn a_published_port_is_nobodys_source_port() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "20001:80"]);
    let c1 = rnet.run("c1", &[]);
    let _web = tcp::echo(&web.ns, "0.0.0.0:80");
    let server = tcp::echo(&host.client, "0.0.0.0:9000");
    tcp::ask_from(&c1.ns, from_port(20001), outside(9000));
    let peer = server.peers()[0];
    assert!(peer.port() != 20001 && SNAT_PORTS.contains(&peer.port()), "{peer}");
    tcp::ask(&host.client, host.at(20001));
}

#[test]
fn hosts_behind_a_router_are_reached_too() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &[]);
    let server = udp::echo(host.far(), "0.0.0.0:9000");
    let answered = udp::ask_unconnected(&c1.ns, (FAR, 9000).into());
    assert_eq!(answered, Ok((FAR, 9000).into()));
    assert_eq!(server.peers()[0].ip(), HOST);
    icmp::ping(&c1.ns, FAR).expect("it answers pings");
}

#[test]
fn nothing_leaves_with_a_containers_address_or_a_foreign_one() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _web = tcp::echo(&web.ns, "0.0.0.0:80");
    let _outside = (tcp::echo(&host.client, "0.0.0.0:9000"), udp::echo(&host.client, "0.0.0.0:9000"));
    let capture = Capture::start(&host.ns, UPLINK);

    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&web.ns, outside(9000));
    icmp::ping(&web.ns, CLIENT).expect("the client answers");

    // Packets of connections that nobody knows of, and of a sender that is not the container.
    let link = Ethernet { src: web.ns.mac("eth0"), dst: host.ns.mac("rnet0") };
    let to = SocketAddrV4::new(CLIENT, 9000);
    let own = |port| SocketAddrV4::new(web.addr, port);
    let late = TcpHeader { ack: true, ..TcpHeader::new(0, 0, 1000, 1000) };
    let foreign = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 9), 30004);
    let frames = [
        packet::tcp(link, own(30001), to, TcpHeader { rst: true, ..late.clone() }, b""),
        packet::tcp(link, own(30002), to, TcpHeader { fin: true, ..late.clone() }, b""),
        packet::tcp(link, own(30003), to, late, b"data"),
        packet::udp(link, foreign, to, b"spoofed"),
        packet::tcp(link, foreign, to, packet::syn(1), b""),
    ];
    capture::send(&web.ns, "eth0", &frames);
    // What comes after them on the same way has them behind it.
    let fence = udp::connect(&web.ns, outside(9000));
    udp::exchange(&fence, 10_000, 9);

    let seen: Vec<_> = capture.stop().iter().filter_map(|f| packet::tuple(f)).collect();
    let from_host = seen.iter().filter(|t| t.src.ip() == HOST).count();
    assert!(from_host > 10, "the capture sees what leaves: {from_host} packets");
    let neighbours = [IpAddr::from(HOST), IpAddr::from(CLIENT)];
    let strangers: Vec<_> = seen
        .iter()
        .filter(|t| {
            t.src.is_ipv4() && !(neighbours.contains(&t.src.ip()) && neighbours.contains(&t.dst.ip()))
        })
        .map(ToString::to_string)
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let stray: Vec<_> = seen.iter().filter(|t| (30001..=30004).contains(&t.src.port())).collect();
    assert!(stray.is_empty(), "packets of unknown connections left: {stray:?}");
}

#[test]
fn a_network_may_keep_its_addresses_towards_some_destinations() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let told = rnet.fails(&["network", "create", "-o", "rnet.non_masquerade=192.0.2.1/24", "bad"]);
    assert!(told.contains("rnet.non_masquerade") && told.contains("10.0.0.0/8,fd00::/8"), "{told}");
    let exempt = format!("rnet.non_masquerade={CLIENT}/32,fd00:77::/64");
    let subnet = ["network", "create", "--subnet", "172.30.9.0/24", "-o", &exempt];
    // As another node of a cluster would know it: by a route, and may open connections too.
    let open = ["-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected", "pods"];
    rnet.ok(&[&subnet[..], &open].concat());
    host.client.ip(&format!("route add 172.30.9.0/24 via {HOST}"));
    let pod = rnet.run("pod", &["--network", "pods"]);
    let (there, inside) = (tcp::echo(&host.client, "0.0.0.0:9000"), tcp::echo(&pod.ns, "0.0.0.0:80"));
    let seen = |expected: Ipv4Addr| {
        tcp::ask(&pod.ns, outside(9000));
        assert_eq!(there.peers().last().unwrap().ip(), expected);
    };
    seen(pod.addr);
    assert_eq!(tcp::ask(&host.client, pod.at(80)).ip(), CLIENT);
    // What a restart takes up, and what is only masqueraded: another network.
    rnet.kill9();
    rnet.start_daemon();
    seen(pod.addr);
    let other = rnet.run("other", &[]);
    tcp::ask(&other.ns, outside(9000));
    assert_eq!(there.peers().last().unwrap().ip(), HOST);
    drop(inside);
}
