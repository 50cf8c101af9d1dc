//! From outside to a published port, and back.

use std::net::SocketAddr;

use testbed::{
    Checksums, Host, Rnet, TEN_MIB,
    capture::Capture,
    packet,
    topology::{CLIENT, HOST, HOST_SECOND, UPLINK},
    traffic::{Failure, icmp, tcp, udp},
};

with_and_without_offload!(
    tcp_carries_10_mib_each_way_to_another_port,
    udp_carries_10_mib_each_way_to_another_port,
    tcp_and_udp_of_one_port_lead_to_two_containers,
    one_address_is_published_and_the_other_is_not,
    every_address_is_published_by_default,
    a_port_without_a_listener_refuses,
);

fn tcp_carries_10_mib_each_way_to_another_port(host: &Host) {
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    let client = stream.local_addr().unwrap();
    assert_eq!(client.ip(), CLIENT);
    assert_eq!(server.peers(), [client], "the container sees the client's own address and port");
    assert!(rnet.packets("carried") > 0, "the datapath counts what it carries");
}

fn udp_carries_10_mib_each_way_to_another_port(host: &Host) {
    let rnet = Rnet::start(host);
    let dns = rnet.run("dns", &["-p", "5300:53/udp"]);
    let server = udp::echo(&dns.ns, "0.0.0.0:53");
    let socket = udp::connect(&host.client, host.at(5300));
    udp::exchange(&socket, TEN_MIB, 2);
    let client = socket.local_addr().unwrap();
    assert!(
        server.peers().iter().all(|p| *p == client),
        "the container sees the client's own address and port"
    );
    let answered = udp::ask_unconnected(&host.client, host.at(5300));
    assert_eq!(answered, Ok(host.at(5300)), "replies come from the address that was asked");
}

fn tcp_and_udp_of_one_port_lead_to_two_containers(host: &Host) {
    let rnet = Rnet::start(host);
    let c1 = rnet.run("c1", &["-p", "8080:80"]);
    let c2 = rnet.run("c2", &["-p", "8080:80/udp"]);
    let servers = [tcp::echo(&c1.ns, "0.0.0.0:80"), udp::echo(&c2.ns, "0.0.0.0:80")];
    let over_tcp = tcp::ask(&host.client, host.at(8080));
    let socket = udp::connect(&host.client, host.at(8080));
    udp::exchange(&socket, 100_000, 3);
    assert_eq!(servers[0].peers(), [over_tcp]);
    assert_eq!(servers[1].peers()[0], socket.local_addr().unwrap());
}

fn one_address_is_published_and_the_other_is_not(host: &Host) {
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "10.200.0.9:8080:80", "-p", "10.200.0.9:8080:80/udp"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    let second = SocketAddr::from((HOST_SECOND, 8080));
    tcp::ask(&host.client, second);
    assert_eq!(udp::ask_unconnected(&host.client, second), Ok(second));
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    assert_eq!(udp::ask(&udp::connect(&host.client, host.at(8080)), b"x"), Err(Failure::Refused));
}

fn every_address_is_published_by_default(host: &Host) {
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    for addr in [HOST, HOST_SECOND] {
        let port = SocketAddr::from((addr, 8080));
        tcp::ask(&host.client, port);
        assert_eq!(udp::ask_unconnected(&host.client, port), Ok(port));
    }
}

fn a_port_without_a_listener_refuses(host: &Host) {
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    // The flow that the reset closed is not in the way of the next connection.
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
}

#[test]
fn what_nobody_published_is_closed() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&web.ns, "0.0.0.0:81"));
    for port in [80, 81, 8081] {
        assert_eq!(tcp::connect(&host.client, host.at(port)).unwrap_err(), Failure::Refused, "port {port}");
    }
    assert_eq!(udp::ask(&udp::connect(&host.client, host.at(8080)), b"x"), Err(Failure::Refused));
    tcp::ask(&host.client, host.at(8080));
}

#[test]
fn a_route_to_the_containers_does_not_open_them() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    host.client.ip("route add 172.16.0.0/12 via 10.200.0.1");
    for port in [80, 8080] {
        let outcome = tcp::connect(&host.client, web.at(port)).unwrap_err();
        assert!(matches!(outcome, Failure::TimedOut | Failure::Unreachable), "port {port}: {outcome:?}");
    }
    assert!(icmp::is_silent(&host.client, web.addr));
    assert_eq!(server.peers(), []);
}

#[test]
fn the_hosts_own_services_stay_reachable() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let _web = rnet.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&host.ns, "0.0.0.0:22");
    let client = tcp::ask(&host.client, host.at(22));
    assert_eq!(server.peers(), [client]);
    icmp::ping(&host.client, HOST).expect("the host answers pings itself");
    // The replies to the host's own connections are its own, too.
    let outside = tcp::echo(&host.client, "0.0.0.0:9000");
    tcp::ask(&host.ns, SocketAddr::from((CLIENT, 9000)));
    assert_eq!(outside.peers()[0].ip(), HOST);
}

/// What leaves is completed by the uplink's kernel side, out of what the datapath made of it.
#[test]
fn every_packet_on_the_uplink_has_right_checksums() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    let capture = Capture::start(&host.client, UPLINK);
    exchange_over_both(&host);
    assert_right(&capture.stop(), "uplink");
}

/// With the container's own sender completing checksums too, the datapath sees complete ones in both directions.
#[test]
fn checksums_that_were_complete_stay_right() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    host.set_tx_checksum(&web.ns, "eth0", false);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    let captures = [Capture::start(&host.client, UPLINK), Capture::start(&web.ns, "eth0")];
    exchange_over_both(&host);
    for (capture, place) in captures.into_iter().zip(["uplink", "container"]) {
        assert_right(&capture.stop(), place);
    }
}

fn exchange_over_both(host: &Host) {
    tcp::exchange(&tcp::connect(&host.client, host.at(8080)).expect("it is published"), TEN_MIB / 10, 4);
    udp::exchange(&udp::connect(&host.client, host.at(5300)), TEN_MIB / 10, 5);
}

fn assert_right(frames: &[Vec<u8>], place: &str) {
    let packets = frames.iter().filter(|f| packet::is_ip(f)).count();
    assert!(packets > 1000, "{place}: only {packets} packets were seen");
    // Segments that the host has joined carry the pseudo header's sum alone, as those of one that is yet to be cut do.
    const FULL: usize = 14 + 1500;
    for frame in frames.iter().filter(|frame| frame.len() <= FULL) {
        if let Err(wrong) = packet::verify_checksums(frame) {
            panic!("{place}: {wrong}");
        }
    }
}
