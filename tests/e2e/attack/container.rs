//! Whoever is root in a container, and may send any frame from its interface.

use std::{net::IpAddr, path::Path, time::Duration};

use etherparse::PacketBuilder;
use testbed::{
    Host,
    capture::{self, Capture},
    topology::UPLINK,
    traffic::{tcp, udp as traffic},
    wait_until,
};

use super::{
    BROADCAST, CUSTOMER, MARK, PROVIDER, Stage, assert_unseen, carries, gratuitous_arp, tagged, udp,
};
use crate::policy::{CLIENT, HOST, create, drops, gateways, pings, run};

/// In the clouds' metadata service's place.
const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));
/// For local experiments (IEEE 802).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

#[test]
fn a_priority_tag_hides_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, neighbour, other, gateway_mac, .. } = &stage;
    create(&stage.rnet, "inside", 90, &["--internal"]);
    let prisoner = run(&stage.rnet, "prisoner", "inside", &[]);
    let up = (liar.mac, *gateway_mac);
    let foreign: IpAddr = [198, 51, 100, 7].into();
    let forged: Vec<_> = [
        udp(up, foreign, (CLIENT[0], 4001).into(), MARK),
        udp(up, neighbour.addrs[1], (CLIENT[1], 4001).into(), MARK),
        udp((liar.mac, neighbour.mac), gateways(88)[0], (neighbour.addrs[0], 4001).into(), MARK),
        gratuitous_arp(liar.mac, gateways(88)[0]),
        gratuitous_arp(liar.mac, neighbour.addrs[0]),
        udp(up, liar.addrs[0], (other.addrs[0], 4001).into(), MARK),
        udp(up, liar.addrs[1], (other.addrs[1], 4001).into(), MARK),
    ]
    .into();
    let inside = (prisoner.mac, host.ns.mac("inside"));
    let escaped: Vec<_> = (0..2)
        .map(|family| udp(inside, prisoner.addrs[family], (CLIENT[family], 4001).into(), MARK))
        .collect();
    let honest = udp(up, liar.addrs[0], (CLIENT[0], 4001).into(), b"what is honest");
    // The ways are known, so that nothing of this waits for an answer.
    assert!(gateways(88).iter().all(|gateway| pings(&liar.ns, *gateway)));
    let captures = [
        ("outside", Capture::start(&host.client, UPLINK)),
        ("the neighbour", Capture::start(&neighbour.ns, "eth0")),
        ("the other network", Capture::start(&other.ns, "eth0")),
    ];
    let priority = |frames: &[Vec<u8>]| frames.iter().map(|f| tagged(f, CUSTOMER, 0)).collect::<Vec<_>>();
    let dropped = stage.dropped(["spoofed", "other-network", "internal", "tagged"], || {
        capture::send(&liar.ns, "eth0", &priority(&forged));
        capture::send(&prisoner.ns, "eth0", &priority(&escaped));
        // Below several tags the kernel finds the packet, too.
        let twice: Vec<_> = forged.iter().map(|f| tagged(&tagged(f, CUSTOMER, 0), PROVIDER, 0)).collect();
        capture::send(&liar.ns, "eth0", &twice);
        capture::send(&liar.ns, "eth0", &priority(std::slice::from_ref(&honest)));
    });
    assert_eq!(dropped, [5, 2, 2, forged.len() as u64]);
    for (what, ns) in [("the neighbour", &neighbour.ns), ("the other network", &other.ns)] {
        assert!(pings(ns, HOST[0]), "{what}");
    }
    wait_until("what is honest arrives", Duration::from_secs(10), || {
        captures[0].1.frames().iter().any(|f| carries(f, b"what is honest")).then_some(())
    });
    for (what, capture) in captures {
        let seen = capture.stop();
        assert_unseen(what, &seen, &[&forged[..], &escaped].concat());
        // From the host's address, as if it had no tag, and without it. The client's stack quotes it in an error.
        let IpAddr::V4(host) = HOST[0] else { panic!("the first is IPv4") };
        let from_host = |f: &&Vec<u8>| carries(f, b"what is honest") && f[6..12] == stage.host.ns.mac(UPLINK);
        let honest: Vec<_> = seen.iter().filter(from_host).collect();
        assert!(honest.iter().all(|f| f[12..14] == [8, 0] && f[26..30] == host.octets()), "{honest:02x?}");
    }
}

#[test]
fn an_internal_network_reaches_neither_clouds_nor_the_host_s_other_addresses() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    create(&stage.rnet, "inside", 90, &["--internal"]);
    let prisoner = run(&stage.rnet, "prisoner", "inside", &[]);
    let gateway = host.ns.mac("inside");
    let link_local = "fe80::7".parse::<IpAddr>().unwrap();
    let host_socket = traffic::echo(&host.ns, "[::]:4001");
    let outside = Capture::start(&host.client, UPLINK);
    let up = (prisoner.mac, gateway);
    let forged = [
        udp(up, prisoner.addrs[0], (METADATA, 4001).into(), MARK),
        udp((prisoner.mac, BROADCAST), prisoner.addrs[0], (HOST[0], 4001).into(), MARK),
        udp((prisoner.mac, BROADCAST), prisoner.addrs[1], (HOST[1], 4001).into(), MARK),
        udp(up, link_local, (HOST[1], 4001).into(), MARK),
    ];
    let dropped = stage.dropped(["internal", "spoofed"], || {
        capture::send(&prisoner.ns, "eth0", &forged);
    });
    assert_eq!(dropped, [3, 1]);
    // Its gateway it does reach, and others reach what it may not.
    assert_eq!(
        traffic::ask_unconnected(&prisoner.ns, (gateways(90)[0], 4001).into()),
        Ok((gateways(90)[0], 4001).into())
    );
    assert_eq!(host_socket.peers().len(), 1, "{:?}", host_socket.peers());
    let honest =
        udp((stage.liar.mac, stage.gateway_mac), stage.liar.addrs[0], (METADATA, 80).into(), b"honest");
    capture::send(&stage.liar.ns, "eth0", &[honest]);
    wait_until("what is honest leaves", Duration::from_secs(10), || {
        outside.has(|t| t.dst == (METADATA, 80).into() && t.src.ip() == HOST[0]).then_some(())
    });
    assert_unseen("outside", &outside.stop(), &forged);
}

#[test]
fn a_bridge_learns_no_address_that_is_forged() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, neighbour, .. } = &stage;
    let forged: Vec<_> = (0..128)
        .flat_map(|n: u8| {
            let mac = [2, 0x66, 0, 0, 0, n];
            let plain = [&neighbour.mac[..], &mac, &EXPERIMENT, MARK, &[0; 40]].concat();
            [
                udp((mac, neighbour.mac), liar.addrs[0], (neighbour.addrs[0], 4001).into(), MARK),
                gratuitous_arp(mac, liar.addrs[0]),
                tagged(&plain, CUSTOMER, 7),
                plain,
            ]
        })
        .chain([neighbour.mac, stage.gateway_mac].map(|mac| gratuitous_arp(mac, liar.addrs[0])))
        // A group's address as the sender's, which no frame has.
        .chain([udp((BROADCAST, neighbour.mac), liar.addrs[0], (neighbour.addrs[0], 1).into(), MARK)])
        .collect();
    let inside = Capture::start(&neighbour.ns, "eth0");
    let [dropped] = stage.dropped(["spoofed"], || capture::send(&liar.ns, "eth0", &forged));
    assert_eq!(dropped, forged.len() as u64);
    let _server = tcp::echo(&neighbour.ns, "[::]:80");
    tcp::ask(&liar.ns, (neighbour.addrs[0], 80).into());
    assert_unseen("the neighbour", &inside.stop(), &forged);
    let learned = host.ns.output_of("bridge", &["fdb", "show", "br", "n1"]).unwrap();
    assert!(!learned.contains("02:66:"), "{learned}");
    let own = liar.mac.map(|b| format!("{b:02x}")).join(":");
    assert!(learned.contains(&own), "the container's own is learned: {learned}");
}

#[test]
fn a_second_interface_on_top_of_its_own_has_no_address() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, .. } = &stage;
    let add = ["link", "add", "mv0", "link", "eth0", "type", "macvlan", "mode", "bridge"];
    if liar.ns.output_of("ip", &add).is_none() {
        return testbed::skip("the kernel has no macvlan");
    }
    liar.ns.ip("link set mv0 up
                addr add 10.88.0.77/24 dev mv0
                route add 10.200.0.2/32 via 10.88.0.1 dev mv0 src 10.88.0.77");
    let uplink = Capture::start(&host.client, UPLINK);
    let server = tcp::echo(&host.client, "[::]:90");
    let before = drops(&stage.rnet, "spoofed");
    assert!(tcp::connect(&liar.ns, (CLIENT[0], 90).into()).is_err());
    assert!(drops(&stage.rnet, "spoofed") > before);
    assert!(server.peers().is_empty());
    liar.ns.ip("link del mv0");
    tcp::ask(&liar.ns, (CLIENT[0], 90).into());
    assert!(!uplink.has(|t| t.src.ip() == IpAddr::from([10, 88, 0, 77])));
}

#[test]
fn a_container_does_not_become_the_root_of_the_bridge() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, neighbour, .. } = &stage;
    // A configuration BPDU (IEEE 802.1D §9.3.1) of a bridge with the best of all priorities, which is its own root.
    let root = [&[0, 0][..], &liar.mac].concat();
    let body =
        [&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &root, &[0; 4], &root, &[0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]];
    let body = body.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let bpdu = [&[1, 0x80, 0xc2, 0, 0, 0][..], &liar.mac, &length, &body, &[0; 22]].concat();
    capture::send(&liar.ns, "eth0", &vec![bpdu; 3]);
    assert!(pings(&liar.ns, neighbour.addrs[0]), "no port is blocked");
    let details = host.ns.output_of("ip", &["-d", "link", "show", "n1"]).unwrap();
    let word = |name: &str| {
        let mut words = details.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap_or_else(|| panic!("no {name}: {details}")).to_owned()
    };
    assert_eq!(word("designated_root"), word("bridge_id"));
    assert_eq!(word("root_port"), "0");
}

#[test]
fn a_tunnel_or_a_source_route_leads_to_no_other_network() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, other, gateway_mac, .. } = &stage;
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("{addr} is no IPv4 address"),
    };
    let (own, target, client) = (octets(liar.addrs[0]), octets(other.addrs[0]), octets(CLIENT[0]));
    let ip = || PacketBuilder::ethernet2(liar.mac, *gateway_mac);
    // IPIP, IPv6 in IPv4, GRE, ESP and UDP-Lite to the outside, each around a packet for the other network.
    let inner = &udp((liar.mac, *gateway_mac), liar.addrs[0], (other.addrs[0], 4001).into(), MARK)[14..];
    let tunnels: Vec<_> = [4u8, 41, 47, 50, 136]
        .into_iter()
        .map(|protocol| {
            let mut frame = Vec::new();
            ip().ipv4(own, client, 64).write(&mut frame, protocol.into(), inner).unwrap();
            frame
        })
        .collect();
    // Loose and strict source routing (RFC 791 §3.1): by way of the gateway to the other network.
    let routed: Vec<_> = [131u8, 137]
        .into_iter()
        .map(|kind| {
            let option = [&[kind, 7, 4][..], &target, &[0]].concat();
            let header = etherparse::IpHeaders::Ipv4(
                etherparse::Ipv4Header {
                    options: option.as_slice().try_into().unwrap(),
                    ..etherparse::Ipv4Header::new(
                        0,
                        64,
                        etherparse::IpNumber::UDP,
                        own,
                        octets(gateways(88)[0]),
                    )
                    .unwrap()
                },
                etherparse::Ipv4Extensions::default(),
            );
            let mut frame = Vec::new();
            ip().ip(header).udp(4000, 4001).write(&mut frame, MARK).unwrap();
            frame
        })
        .collect();
    let captures = [Capture::start(&other.ns, "eth0"), Capture::start(&host.client, UPLINK)];
    let [dropped] = stage
        .dropped(["untranslatable"], || capture::send(&liar.ns, "eth0", &[tunnels.clone(), routed].concat()));
    assert_eq!(dropped, tunnels.len() as u64);
    assert!(pings(&liar.ns, gateways(88)[0]) && pings(&other.ns, CLIENT[0]) && pings(&liar.ns, CLIENT[0]));
    for capture in captures {
        assert_unseen("beyond the network", &capture.stop(), &tunnels);
    }
}

#[test]
fn forged_icmp_errors_change_nobody_s_ways() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { liar, neighbour, gateway_mac, .. } = &stage;
    let _server = tcp::echo(&host.client, "[::]:90");
    let connection = tcp::connect(&neighbour.ns, (CLIENT[0], 90).into()).unwrap();
    let port = connection.local_addr().unwrap().port();
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("{addr} is no IPv4 address"),
    };
    let mut quoted = Vec::new();
    let sent = PacketBuilder::ipv4(octets(neighbour.addrs[0]), octets(CLIENT[0]), 64);
    sent.tcp(port, 90, 1, 1000).write(&mut quoted, b"").unwrap();
    // Fragmentation needed with an MTU of 68, host unreachable, redirect to the liar: from the gateway and the client.
    let errors: Vec<_> = [gateways(88)[0], CLIENT[0]]
        .into_iter()
        .flat_map(|from| {
            [(3, 4, [0, 0, 0, 68]), (3, 1, [0; 4]), (5, 1, octets(liar.addrs[0]))].map(
                |(kind, code, word)| {
                    let mut frame = Vec::new();
                    PacketBuilder::ethernet2(liar.mac, neighbour.mac)
                        .ipv4(octets(from), octets(neighbour.addrs[0]), 64)
                        .icmpv4_raw(kind, code, word)
                        .write(&mut frame, &quoted)
                        .unwrap();
                    frame
                },
            )
        })
        .collect();
    let inside = Capture::start(&neighbour.ns, "eth0");
    let [dropped] = stage.dropped(["spoofed"], || capture::send(&liar.ns, "eth0", &errors));
    assert_eq!(dropped, errors.len() as u64);
    // The same about its neighbour's flow from its own address is an error of the flow's for nobody but itself.
    let mut own = Vec::new();
    PacketBuilder::ethernet2(liar.mac, *gateway_mac)
        .ipv4(octets(liar.addrs[0]), octets(CLIENT[0]), 64)
        .icmpv4_raw(3, 1, [0; 4])
        .write(&mut own, &quoted)
        .unwrap();
    let [strayed] = stage.dropped(["no-flow-out"], || capture::send(&liar.ns, "eth0", &[own]));
    assert_eq!(strayed, 1);
    tcp::exchange(&connection, 10_000, 1);
    assert_unseen("the neighbour", &inside.stop(), &errors);
    let route = neighbour.ns.output_of("ip", &["route", "get", &CLIENT[0].to_string()]).unwrap();
    assert!(!route.contains("mtu") && route.contains("via 10.88.0.1"), "{route}");
}

#[test]
fn the_host_s_interface_is_not_there_to_be_spoken_to() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let secret = tcp::echo(&host.ns, "127.0.0.1:7000");
    for to in [HOST[0], gateways(88)[0]] {
        assert_eq!(
            tcp::connect(&stage.liar.ns, (to, 7000).into()).unwrap_err(),
            testbed::traffic::Failure::Refused
        );
    }
    assert!(secret.peers().is_empty());
    tcp::ask(&host.ns, "127.0.0.1:7000".parse().unwrap());
    // No socket of the daemon's is within a container's reach but the name server's.
    let ports = ["2375", "2376"];
    for port in ports {
        let to = (gateways(88)[0], port.parse().unwrap()).into();
        assert!(tcp::connect(&stage.liar.ns, to).is_err(), "{to}");
    }
    assert!(Path::new(&stage.rnet.socket()).exists());
}
