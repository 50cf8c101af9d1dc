//! IPv6 on real packets: what IPv4 does, over the same ports.

use std::net::{Ipv6Addr, SocketAddr};

use testbed::{
    Host, Netns, Rnet, TEN_MIB,
    capture::Capture,
    packet::verify_checksums,
    topology::UPLINK,
    traffic::{Failure, random_bytes, tcp, udp},
};

with_and_without_offload!(
    a_published_port_is_reached_over_ipv6,
    a_container_leaves_with_the_host_s_address,
    containers_reach_one_another,
    a_container_reaches_published_ports_of_its_host,
    large_datagrams_pass,
    closed_ports_refuse,
    the_path_s_mtu_is_found,
);

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1);
const BULK: usize = 1 << 20;

/// A daemon on a host with IPv6 outside, and a network with it.
fn start(host: &Host) -> Rnet<'_> {
    host.client.ip(&format!("addr add {CLIENT}/64 dev {UPLINK} nodad"));
    host.ns.ip(&format!(
        "addr add {HOST}/64 dev {UPLINK} nodad
         -6 route add default via {CLIENT}"
    ));
    let rnet = Rnet::start(host);
    rnet.ok(&["network", "create", "--ipv6", "--subnet", "10.88.0.0/24", "--subnet", "fd00:88::/64", "six"]);
    rnet
}

/// A container on that network: its namespace and its address.
fn run(rnet: &Rnet<'_>, name: &str, args: &[&str]) -> (Netns, Ipv6Addr) {
    let container = rnet.run(name, &[&["--network", "six"], args].concat());
    let list = ["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"];
    let addrs = container.ns.output_of("ip", &list).unwrap();
    let addr = addrs.split_whitespace().skip_while(|word| *word != "inet6").nth(1).unwrap();
    (container.ns, addr.split('/').next().unwrap().parse().unwrap())
}

fn a_published_port_is_reached_over_ipv6(host: &Host) {
    let rnet = start(host);
    let (web, _) = run(&rnet, "web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let (over_tcp, over_udp) = (tcp::echo(&web, "[::]:80"), udp::echo(&web, "[::]:80"));
    let stream = tcp::connect(&host.client, (HOST, 8080).into()).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    let socket = udp::connect(&host.client, (HOST, 8080).into());
    udp::exchange(&socket, BULK, 2);
    for peer in [over_tcp.peers(), over_udp.peers()].concat() {
        assert_eq!(peer.ip(), CLIENT, "the client's own address");
    }
}

fn a_container_leaves_with_the_host_s_address(host: &Host) {
    let rnet = start(host);
    let (app, _) = run(&rnet, "app", &[]);
    let (over_tcp, over_udp) = (tcp::echo(&host.client, "[::]:9000"), udp::echo(&host.client, "[::]:9000"));
    let stream = tcp::connect(&app, (CLIENT, 9000).into()).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    let socket = udp::connect(&app, (CLIENT, 9000).into());
    udp::exchange(&socket, BULK, 2);
    for peer in [over_tcp.peers(), over_udp.peers()].concat() {
        assert_eq!(peer.ip(), HOST);
    }
}

fn containers_reach_one_another(host: &Host) {
    let rnet = start(host);
    let ((web, addr), (app, own)) = (run(&rnet, "web", &[]), run(&rnet, "app", &[]));
    let server = tcp::echo(&web, "[::]:80");
    let stream = tcp::connect(&app, (addr, 80).into()).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    assert!(server.peers().iter().all(|peer| peer.ip() == own));
}

fn a_container_reaches_published_ports_of_its_host(host: &Host) {
    let rnet = start(host);
    let (web, _) = run(&rnet, "web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let (app, _) = run(&rnet, "app", &[]);
    let (server, _udp) = (tcp::echo(&web, "[::]:80"), udp::echo(&web, "[::]:80"));
    for client in [&web, &app] {
        for addr in [HOST, GATEWAY] {
            let stream = tcp::connect(client, (addr, 8080).into()).unwrap();
            tcp::exchange(&stream, BULK, 1);
            assert_eq!(udp::ask_unconnected(client, (addr, 8080).into()), Ok((addr, 8080).into()));
        }
    }
    assert!(server.peers().iter().any(|peer| peer.ip() == GATEWAY), "a container does not meet itself");
}

fn large_datagrams_pass(host: &Host) {
    let rnet = start(host);
    let (web, _) = run(&rnet, "web", &["-p", "8080:80/udp"]);
    let (_inside, _outside) = (udp::echo(&web, "[::]:80"), udp::echo(&host.client, "[::]:9000"));
    let inward = udp::connect(&host.client, (HOST, 8080).into());
    let outward = udp::connect(&web, (CLIENT, 9000).into());
    for (seed, size) in [1453, 4000, 60_000].into_iter().enumerate() {
        udp::ask(&inward, &random_bytes(seed as u64, size)).unwrap();
        udp::ask(&outward, &random_bytes(seed as u64, size)).unwrap();
    }
}

fn closed_ports_refuse(host: &Host) {
    let rnet = start(host);
    let (app, _) = run(&rnet, "app", &["-p", "8080:80/udp"]);
    let outside = udp::connect(&app, (CLIENT, 9999).into());
    assert_eq!(udp::ask(&outside, b"anybody there"), Err(Failure::Refused));
    let inside = udp::connect(&host.client, (HOST, 8080).into());
    assert_eq!(udp::ask(&inside, b"anybody there"), Err(Failure::Refused));
}

/// The client in between takes 1300 bytes only towards the far machine.
fn the_path_s_mtu_is_found(host: &Host) {
    let far = host.far();
    host.client.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    host.client.ip("addr add 2001:db8:1::1/64 dev far0 nodad");
    far.ip(&format!(
        "addr add {FAR}/64 dev far0 nodad
         -6 route add default via 2001:db8:1::1"
    ));
    let rnet = start(host);
    let (web, _) = run(&rnet, "web", &["-p", "8080:80"]);
    let (_inside, _outside) = (tcp::echo(&web, "[::]:80"), tcp::echo(far, "[::]:9000"));
    let inward = tcp::connect(far, (HOST, 8080).into()).unwrap();
    tcp::exchange(&inward, 2 << 20, 1);
    let outward = tcp::connect(&web, (FAR, 9000).into()).unwrap();
    tcp::exchange(&outward, 2 << 20, 2);
}

#[test]
fn every_packet_on_the_uplink_has_right_checksums() {
    testbed::require_root!();
    let host = Host::with(testbed::Checksums::Finalised);
    let rnet = start(&host);
    let (web, _) = run(&rnet, "web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let (_tcp, _udp) = (tcp::echo(&web, "[::]:80"), udp::echo(&web, "[::]:80"));
    let _outside = udp::echo(&host.client, "[::]:9000");
    let capture = Capture::start(&host.client, UPLINK);
    tcp::exchange(&tcp::connect(&host.client, (HOST, 8080).into()).unwrap(), 100_000, 1);
    udp::exchange(&udp::connect(&host.client, (HOST, 8080).into()), 50_000, 2);
    udp::exchange(&udp::connect(&web, (CLIENT, 9000).into()), 50_000, 3);
    let frames = capture.stop();
    assert!(frames.len() > 100);
    for frame in &frames {
        verify_checksums(frame).unwrap();
    }
}

#[test]
fn a_route_to_the_containers_does_not_open_them() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    let (web, addr) = run(&rnet, "web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web, "[::]:80");
    host.client.ip(&format!("-6 route add fd00:88::/64 via {HOST}"));
    let direct: SocketAddr = (addr, 80).into();
    assert_eq!(tcp::connect(&host.client, direct).err(), Some(Failure::TimedOut));
    tcp::ask(&host.client, (HOST, 8080).into());
}
