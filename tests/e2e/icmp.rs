//! ICMP errors: that they reach whom they are about, and that path-MTU discovery works through translation.

use std::net::SocketAddr;

use testbed::{
    Host, Rnet,
    capture::Capture,
    packet::{self, verify_checksums},
    topology::{CLIENT, FAR, HOST, UPLINK},
    traffic::{Failure, tcp, udp},
    wait_until,
};

with_and_without_offload!(
    downloads_find_the_path_s_mtu,
    uploads_find_the_path_s_mtu,
    a_closed_port_outside_refuses,
    a_closed_port_inside_refuses,
);

const BULK: usize = 2 << 20;

/// The client in between takes 1300 bytes only towards the far machine.
fn downloads_find_the_path_s_mtu(host: &Host) {
    let far = host.far();
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect(far, host.at(8080)).unwrap();
    tcp::exchange(&stream, BULK, 1);
}

fn uploads_find_the_path_s_mtu(host: &Host) {
    let far = host.far();
    let rnet = Rnet::start(host);
    let app = rnet.run("app", &[]);
    let _server = tcp::echo(far, "0.0.0.0:9000");
    let stream = tcp::connect(&app.ns, (FAR, 9000).into()).unwrap();
    tcp::exchange(&stream, BULK, 2);
}

fn a_closed_port_outside_refuses(host: &Host) {
    let rnet = Rnet::start(host);
    let app = rnet.run("app", &[]);
    let socket = udp::connect(&app.ns, (CLIENT, 9999).into());
    assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused));
}

fn a_closed_port_inside_refuses(host: &Host) {
    let rnet = Rnet::start(host);
    rnet.run("web", &["-p", "8080:80/udp"]);
    let socket = udp::connect(&host.client, host.at(8080));
    assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused));
}

#[test]
fn a_trace_shows_the_container_its_own_packets() {
    testbed::require_root!();
    let host = Host::new();
    host.far();
    let rnet = Rnet::start(&host);
    let app = rnet.run("app", &[]);
    let capture = Capture::start(&app.ns, "eth0");
    let socket = udp::connect(&app.ns, (FAR, 33434).into());
    socket.set_ttl(2).unwrap();
    socket.send(b"probe").unwrap();
    let local = socket.local_addr().unwrap();
    wait_until("the router between answers", std::time::Duration::from_secs(10), || {
        capture.frames().iter().find(|frame| is_time_exceeded(frame)).map(|frame| {
            verify_checksums(frame).unwrap();
            // The quote begins behind 14 + 20 + 8 bytes: an IP header, then the ports.
            assert_eq!(frame[26..30], CLIENT.octets(), "the router's own address");
            assert_eq!(frame[54..58], app.addr.octets(), "the source as the container knows it");
            assert_eq!(frame[62..64], local.port().to_be_bytes());
        })
    });
}

fn is_time_exceeded(frame: &[u8]) -> bool {
    packet::tuple(frame).is_some_and(|tuple| tuple.protocol == 1) && frame[34..36] == [11, 0]
}

/// A probe from outside whose time runs out at the host is answered by the host.
#[test]
fn a_trace_to_a_published_port_shows_the_host() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80/udp"]);
    let server = udp::echo(&web.ns, "0.0.0.0:80");
    let capture = Capture::start(&host.client, UPLINK);
    let socket = udp::connect(&host.client, host.at(8080));
    socket.set_ttl(1).unwrap();
    socket.send(b"probe").unwrap();
    wait_until("the host answers", std::time::Duration::from_secs(10), || {
        let frames = capture.frames();
        frames.iter().find(|frame| is_time_exceeded(frame)).map(|frame| {
            assert_eq!(frame[26..30], HOST.octets());
            verify_checksums(frame).unwrap();
        })
    });
    assert_eq!(server.peers(), Vec::<SocketAddr>::new(), "the container saw nothing of it");
    socket.set_ttl(2).unwrap();
    udp::ask(&socket, b"a hop more").unwrap();
}

/// A network of a smaller MTU than the uplink's: who sends more is told so.
#[test]
fn a_network_s_smaller_mtu_is_found() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "-o", "com.docker.network.driver.mtu=1280", "small"]);
    let web = rnet.run("web", &["--network", "small", "-p", "8080:80"]);
    let _tcp = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, BULK, 3);
    let udp_port = rnet.run("dns", &["--network", "small", "-p", "5353:53/udp"]);
    let _udp = udp::echo(&udp_port.ns, "0.0.0.0:53");
    let socket = udp::connect(&host.client, host.at(5353));
    let payload = vec![7; 1400];
    // The first is answered with an ICMP error, which is told to whoever sends next; from then on the client's kernel
    // cuts what it sends.
    wait_until("the client is told", std::time::Duration::from_secs(10), || {
        let error = socket.send(&payload).err()?;
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        Some(())
    });
    udp::ask(&socket, &payload).unwrap();
}
