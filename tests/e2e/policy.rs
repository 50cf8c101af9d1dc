//! What networks keep apart: neighbours with communication switched off, internal networks, networks among
//! themselves, and what each gateway mode opens. Both address families, by the same tests.

use std::net::{IpAddr, Ipv6Addr};

use testbed::{
    Host, Netns, Rnet,
    capture::{self, Capture},
    packet,
    topology::{self, UPLINK},
    traffic::{Failure, Server, tcp, udp},
    uninterrupted,
};

pub(super) const HOST: [IpAddr; 2] = [IpAddr::V4(topology::HOST), IpAddr::V6(HOST6)];
pub(super) const CLIENT: [IpAddr; 2] = [IpAddr::V4(topology::CLIENT), IpAddr::V6(CLIENT6)];
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// For local experiments (IEEE 802): nothing answers it, and a bridge forwards it as it does any other.
pub(super) const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// A container, and its addresses of both families.
pub(super) struct Peer {
    pub(super) ns: Netns,
    pub(super) addrs: [IpAddr; 2],
    pub(super) mac: [u8; 6],
}

/// A daemon on a host with IPv6 outside.
pub(super) fn start(host: &Host) -> Rnet<'_> {
    host.client.ip(&format!("addr add {CLIENT6}/64 dev {UPLINK} nodad"));
    host.ns.ip(&format!(
        "addr add {HOST6}/64 dev {UPLINK} nodad
         -6 route add default via {CLIENT6}"
    ));
    Rnet::start(host)
}

/// Makes a network of both families on a bridge of its own name: 10.NUMBER.0.0/24 and fd00:NUMBER::/64.
pub(super) fn create(rnet: &Rnet<'_>, name: &str, number: u8, args: &[&str]) {
    let bridge = format!("com.docker.network.bridge.name={name}");
    let (v4, v6) = (format!("10.{number}.0.0/24"), format!("fd00:{number}::/64"));
    let create = ["network", "create", "--ipv6", "--subnet", &v4, "--subnet", &v6, "-o", &bridge];
    rnet.ok(&[&create[..], args, &[name]].concat());
}

pub(super) fn run(rnet: &Rnet<'_>, name: &str, network: &str, args: &[&str]) -> Peer {
    let container = rnet.run(name, &[&["--network", network], args].concat());
    let list = ["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"];
    let listed = container.ns.output_of("ip", &list).unwrap();
    let six = listed.split_whitespace().skip_while(|word| *word != "inet6").nth(1).unwrap();
    let six = six.split('/').next().unwrap().parse().unwrap();
    let mac = container.ns.mac("eth0");
    Peer { addrs: [container.addr.into(), six], mac, ns: container.ns }
}

/// The packets that were dropped for a reason.
pub(super) fn drops(rnet: &Rnet<'_>, reason: &str) -> u64 {
    let listed = rnet.json(&["drops"]);
    listed.iter().filter(|row| row["reason"] == reason).map(|row| row["packets"].as_u64().unwrap()).sum()
}

pub(super) fn gateways(number: u8) -> [IpAddr; 2] {
    [[10, number, 0, 1].into(), format!("fd00:{number}::1").parse().unwrap()]
}

pub(super) fn pings(ns: &Netns, to: IpAddr) -> bool {
    ns.output_of("ping", &["-c1", "-W5", &to.to_string()]).is_some()
}

fn is_silent(ns: &Netns, to: IpAddr) -> bool {
    ns.output_of("ping", &["-c1", "-W1", &to.to_string()]).is_none()
}

pub(super) fn servers(ns: &Netns, port: u16) -> [Server; 2] {
    let addr = format!("[::]:{port}");
    [tcp::echo(ns, &addr), udp::echo(ns, &addr)]
}

/// Sees nothing of `to` from `ns`: TCP, UDP, pings.
fn assert_closed(ns: &Netns, to: IpAddr, port: u16) {
    let outcome = tcp::connect(ns, (to, port).into()).unwrap_err();
    assert!(matches!(outcome, Failure::TimedOut | Failure::Unreachable), "{to}: {outcome:?}");
    let silent = ns.run(|| {
        let socket = std::net::UdpSocket::bind((unspecified(to), 0)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        // That there is no way there is as good as silence.
        socket.send_to(b"anybody there", (to, port)).is_err()
            || uninterrupted(|| socket.recv(&mut [0; 64])).is_err()
    });
    assert!(silent, "{to} answers over UDP");
    assert!(is_silent(ns, to), "{to} answers pings");
}

fn unspecified(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(super) fn assert_open(ns: &Netns, to: IpAddr, port: u16) {
    tcp::ask(ns, (to, port).into());
    assert_eq!(udp::ask_unconnected(ns, (to, port).into()), Ok((to, port).into()));
}

pub(super) fn peer_addrs(server: &Server) -> Vec<IpAddr> {
    let mut addrs: Vec<_> = server.peers().iter().map(|peer| peer.ip().to_canonical()).collect();
    addrs.dedup();
    addrs
}

#[test]
fn without_icc_neighbours_meet_at_published_ports_only() {
    testbed::require_root!();
    meet_at_published_ports_only(&Host::new(), &[]);
}

/// On a network that is created with these arguments and without icc.
pub(super) fn meet_at_published_ports_only(host: &Host, args: &[&str]) {
    let rnet = start(host);
    create(&rnet, "closed", 88, &[&["-o", "com.docker.network.bridge.enable_icc=false"], args].concat());
    let web = run(&rnet, "web", "closed", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let app = run(&rnet, "app", "closed", &[]);
    let servers = servers(&web.ns, 80);
    for to in web.addrs {
        assert_closed(&app.ns, to, 80);
    }
    // Whoever knows the neighbour's Ethernet address without asking gets no further.
    let mac = web.mac.map(|b| format!("{b:02x}")).join(":");
    for to in web.addrs {
        app.ns.ip(&format!("neigh replace {to} lladdr {mac} dev eth0 nud permanent"));
        let before = drops(&rnet, "icc-disabled");
        assert_closed(&app.ns, to, 80);
        assert!(drops(&rnet, "icc-disabled") >= before + 3, "TCP, UDP and a ping are counted");
    }
    assert!(servers.iter().all(|server| server.peers().is_empty()));
    for addr in HOST {
        assert_open(&app.ns, addr, 8080);
        assert_open(&host.client, addr, 8080);
    }
    for gateway in gateways(88) {
        assert!(pings(&app.ns, gateway), "{gateway}");
    }
}

#[test]
fn without_icc_a_bridge_carries_nothing_between_neighbours() {
    testbed::require_root!();
    carry_nothing_between_neighbours(&Host::new(), &[]);
}

/// Of two networks that are created with these arguments, the one without icc.
pub(super) fn carry_nothing_between_neighbours(host: &Host, args: &[&str]) {
    let rnet = start(host);
    create(&rnet, "open", 87, args);
    create(&rnet, "closed", 88, &[&["-o", "com.docker.network.bridge.enable_icc=false"], args].concat());
    for (network, icc) in [("open", true), ("closed", false)] {
        let web = run(&rnet, &format!("{network}-web"), network, &[]);
        let app = run(&rnet, &format!("{network}-app"), network, &[]);
        let (neighbour, bridge) = (Capture::start(&web.ns, "eth0"), Capture::start(&host.ns, network));
        // Broadcast, multicast of both families, and a neighbour that the bridge knows.
        let groups = [[0xff; 6], [1, 0, 0x5e, 0, 0, 251], [0x33, 0x33, 0, 0, 0, 1]];
        let frames: Vec<_> = groups.iter().chain([&web.mac]).map(|to| experiment(*to, app.mac)).collect();
        capture::send(&app.ns, "eth0", &frames);
        app.ns.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(b"to everybody", "255.255.255.255:67").unwrap();
        });
        let is_broadcast = |t: &packet::Tuple| t.dst.port() == 67;
        testbed::wait_until("the bridge gets it", std::time::Duration::from_secs(5), || {
            bridge.has(is_broadcast).then_some(())
        });
        assert!(pings(&host.ns, web.addrs[0]), "behind all of it");
        let seen = neighbour.has(is_broadcast);
        let arrived = neighbour.stop();
        for frame in &frames {
            assert_eq!(arrived.contains(frame), icc, "{network}: {:02x?}", &frame[..14]);
        }
        assert_eq!(seen, icc, "{network}");
        if !icc {
            assert!(
                arrived.iter().all(|frame| frame[6..12] != app.mac),
                "something of a neighbour's was seen"
            );
        }
    }
}

fn experiment(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &EXPERIMENT, b"to whom it may concern, at least 46 bytes of it"].concat()
}

#[test]
fn an_internal_network_has_no_way_out() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    create(&rnet, "inside", 88, &["--internal"]);
    let (web, app) = (run(&rnet, "web", "inside", &[]), run(&rnet, "app", "inside", &[]));
    for family in ["-4", "-6"] {
        let routes = app.ns.output_of("ip", &[family, "route", "show", "default"]).unwrap();
        assert_eq!(routes, "");
    }
    // All that could turn the host into a router.
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        host.ns.set_sysctl(key, "1");
    }
    let [gateway4, gateway6] = gateways(88);
    app.ns.ip(&format!(
        "route add default via {gateway4}
         -6 route add default via {gateway6}"
    ));
    let outside = servers(&host.client, 9000);
    let uplink = Capture::start(&host.client, UPLINK);
    for to in CLIENT {
        let before = drops(&rnet, "internal");
        assert_closed(&app.ns, to, 9000);
        assert!(drops(&rnet, "internal") >= before + 3, "TCP, UDP and a ping are counted");
    }
    assert!(outside.iter().all(|server| server.peers().is_empty()));

    let servers = servers(&web.ns, 80);
    for (to, gateway) in web.addrs.into_iter().zip(gateways(88)) {
        assert!(pings(&app.ns, gateway), "{gateway}");
        assert_open(&app.ns, to, 80);
        assert_open(&host.ns, to, 80);
    }
    assert!(servers.iter().all(|server| server.peers().len() == 4));
    // Behind all of it.
    tcp::ask(&host.ns, (CLIENT[0], 9000).into());
    let seen = uplink.stop();
    let tuples: Vec<_> = seen.iter().filter_map(|f| packet::tuple(f)).collect();
    assert!(tuples.iter().any(|t| t.dst.port() == 9000), "the host's own connection is seen");
    let own = |t: &&packet::Tuple| {
        t.protocol == 6 && HOST.contains(&t.src.ip()) || t.src.ip() == CLIENT[0] || t.protocol == 58
    };
    let others: Vec<_> = tuples.iter().filter(|t| !own(t)).collect();
    assert!(others.is_empty(), "{others:?}");
    let pings = seen.iter().filter(|f| f[12..14] == [0x86, 0xdd] && f[20] == 58 && f[54] == 128);
    assert_eq!(pings.count(), 0, "a ping left");
}

#[test]
fn an_isolated_network_is_its_containers_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    create(&rnet, "alone", 88, &[&["--internal"], &modes("isolated")[..]].concat());
    let (web, app) = (run(&rnet, "web", "alone", &[]), run(&rnet, "app", "alone", &[]));
    let _servers = servers(&web.ns, 80);
    for to in web.addrs {
        assert_open(&app.ns, to, 80);
        let outcome = tcp::connect(&host.ns, (to, 80).into()).unwrap_err();
        assert!(matches!(outcome, Failure::TimedOut | Failure::Unreachable), "{outcome:?}");
    }
}

#[test]
fn networks_meet_at_published_ports_only() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        host.ns.set_sysctl(key, "1");
    }
    create(&rnet, "n1", 88, &[]);
    create(&rnet, "n2", 89, &[]);
    let app = run(&rnet, "app", "n1", &[]);
    let web = run(&rnet, "web", "n2", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let servers = servers(&web.ns, 80);
    for to in web.addrs {
        let before = drops(&rnet, "other-network");
        assert_closed(&app.ns, to, 80);
        assert!(drops(&rnet, "other-network") >= before + 3, "TCP, UDP and a ping are counted");
    }
    for (from, to) in [(&web, &app), (&app, &web)] {
        assert!(to.addrs.iter().all(|addr| is_silent(&from.ns, *addr)));
    }
    assert!(servers.iter().all(|server| server.peers().is_empty()));
    for addr in HOST.into_iter().chain(gateways(88)) {
        assert_open(&app.ns, addr, 8080);
    }
}

fn modes(mode: &str) -> [&'static str; 4] {
    match mode {
        "isolated" => [
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv4=isolated",
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv6=isolated",
        ],
        "routed" => [
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv4=routed",
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv6=routed",
        ],
        _ => [
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected",
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv6=nat-unprotected",
        ],
    }
}

/// Routes to the containers of network 88, as a router outside would be given.
fn route_there(host: &Host) {
    host.client.ip(&format!(
        "route add 10.88.0.0/24 via {}
         -6 route add fd00:88::/64 via {}",
        HOST[0], HOST[1]
    ));
}

#[test]
fn nat_unprotected_opens_every_port_and_hides_the_sender_still() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    create(&rnet, "open", 88, &modes("nat-unprotected"));
    let web = run(&rnet, "web", "open", &["-p", "8080:80"]);
    route_there(&host);
    let (inside, outside) = (servers(&web.ns, 81), servers(&host.client, 9000));
    for (to, client) in web.addrs.into_iter().zip(CLIENT) {
        assert_open(&host.client, to, 81);
        assert!(pings(&host.client, to), "{to}");
        assert_open(&web.ns, client, 9000);
    }
    assert!(inside.iter().all(|server| peer_addrs(server) == CLIENT), "the client's own addresses");
    assert!(outside.iter().all(|server| peer_addrs(server) == HOST), "the host's addresses");
    let _web = tcp::echo(&web.ns, "[::]:80");
    for addr in HOST {
        tcp::ask(&host.client, (addr, 8080).into());
    }
}

#[test]
fn routed_opens_published_ports_at_the_containers_own_address() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    create(&rnet, "routed", 88, &modes("routed"));
    let web = run(&rnet, "web", "routed", &["-p", "8080:80", "-p", "8080:80/udp"]);
    route_there(&host);
    let (inside, outside) = (servers(&web.ns, 80), servers(&host.client, 9000));
    let closed = servers(&web.ns, 81);
    for (to, client) in web.addrs.into_iter().zip(CLIENT) {
        assert_open(&host.client, to, 80);
        assert!(pings(&host.client, to), "{to}");
        let before = drops(&rnet, "unpublished");
        assert_eq!(tcp::connect(&host.client, (to, 81).into()).unwrap_err(), Failure::TimedOut);
        udp::assert_silent(&host.client, (to, 81).into());
        assert!(drops(&rnet, "unpublished") >= before + 2);
        assert_open(&web.ns, client, 9000);
    }
    assert!(inside.iter().all(|server| peer_addrs(server) == CLIENT), "the client's own addresses");
    assert!(outside.iter().all(|server| peer_addrs(server) == web.addrs), "the container's own addresses");
    assert!(closed.iter().all(|server| server.peers().is_empty()));
    for addr in HOST {
        assert_eq!(tcp::connect(&host.client, (addr, 8080).into()).unwrap_err(), Failure::Refused);
    }
}
