//! Whoever is on the uplink's link, and may send any frame to the host.

use std::{net::IpAddr, time::Duration};

use etherparse::{Ipv4Extensions, Ipv4Header, PacketBuilder, TcpHeader};
use serde_json::Value;
use testbed::{
    Host, Rnet,
    capture::{self, Capture},
    packet::{self, Ethernet},
    topology::UPLINK,
    traffic::{tcp, udp as traffic},
    wait_until,
};

use super::{BROADCAST, CUSTOMER, MARK, PROVIDER, Stage, assert_unseen, tagged, udp};
use crate::policy::{CLIENT, HOST, pings};

fn octets(addr: IpAddr) -> [u8; 4] {
    match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("{addr} is no IPv4 address"),
    }
}

/// The states of the host's flows from the client's port.
fn states(rnet: &Rnet<'_>, port: u16) -> Vec<String> {
    let of_port = |row: &Value| row.to_string().contains(&format!(":{port}\""));
    let state = |row: &Value| row["state"].as_str().unwrap().to_owned();
    rnet.json(&["conntrack", "ls"]).iter().filter(|row| of_port(row)).map(state).collect()
}

#[test]
fn a_priority_tag_opens_no_port() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { other, .. } = &stage;
    let link = (host.client.mac(UPLINK), host.ns.mac(UPLINK));
    let forged: Vec<_> =
        (0..2).map(|family| udp(link, CLIENT[family], (other.addrs[family], 80).into(), MARK)).collect();
    let server = traffic::echo(&other.ns, "[::]:80");
    assert!(HOST.iter().all(|addr| pings(&host.client, *addr)), "the ways are known");
    let inside = Capture::start(&other.ns, "eth0");
    let priority: Vec<_> = forged.iter().map(|f| tagged(f, CUSTOMER, 0)).collect();
    let twice: Vec<_> = priority.iter().map(|f| tagged(f, PROVIDER, 0)).collect();
    let dropped = stage.dropped(["unpublished", "tagged"], || {
        capture::send(&host.client, UPLINK, &[priority, twice].concat());
    });
    assert_eq!(dropped, [2, 2]);
    // A published port is open to a frame with such a tag as to any other; some switches send nothing else.
    let honest = udp(link, CLIENT[0], (HOST[0], 8080).into(), b"what is honest");
    capture::send(&host.client, UPLINK, &[tagged(&honest, CUSTOMER, 0)]);
    wait_until("what is honest arrives", Duration::from_secs(10), || {
        (server.peers().len() == 1).then_some(())
    });
    assert_eq!(server.peers()[0].ip().to_canonical(), CLIENT[0]);
    assert_unseen("the container", &inside.stop(), &forged);
}

#[test]
fn an_idle_connection_survives_forged_ends() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let connection = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&connection, 1000, 1);
    let own = connection.local_addr().unwrap();
    let link = Ethernet { src: host.client.mac(UPLINK), dst: host.ns.mac(UPLINK) };
    let (std::net::SocketAddr::V4(src), std::net::SocketAddr::V4(dst)) = (own, host.at(8080)) else {
        panic!("both are IPv4 addresses")
    };
    // As far from where the connection is as can be: what a guess is near of one time in 16384.
    let first = TcpHeader::new(0, 0, 0, 1000);
    let live = Capture::start(&host.client, UPLINK);
    tcp::exchange(&connection, 1000, 2);
    let seen = live.stop();
    let sequence = seen
        .iter()
        .filter(|f| packet::tuple(f).is_some_and(|t| t.src == own))
        .find_map(|f| f.get(38..42)?.try_into().ok().map(u32::from_be_bytes))
        .unwrap();
    let guess = sequence ^ 0x8000_0000;
    let forged = [
        packet::tcp(link, src, dst, TcpHeader { rst: true, sequence_number: guess, ..first.clone() }, b""),
        packet::tcp(link, src, dst, TcpHeader { fin: true, ack: true, sequence_number: guess, ..first }, b""),
    ];
    let before = rnet.packets_for("published");
    capture::send(&host.client, UPLINK, &forged);
    wait_until("they have passed", Duration::from_secs(10), || {
        (rnet.packets_for("published") >= before + 2).then_some(())
    });
    let found = states(&rnet, own.port());
    assert!(!found.is_empty() && found.iter().all(|state| state == "established"), "{found:?}");
    tcp::exchange(&connection, 1000, 3);

    // The client's own reset counts.
    socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO)).unwrap();
    drop(connection);
    wait_until("the connection is reset", Duration::from_secs(10), || {
        let found = states(&rnet, own.port());
        (!found.is_empty() && found.iter().all(|state| state == "reset")).then_some(())
    });
}

#[test]
fn an_icmp_error_forged_blindly_makes_no_packets_small() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let connection = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&connection, 1000, 1);
    // The sequence number is far from the connection's, of which nothing is under way.
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(octets(HOST[0]), octets(CLIENT[0]), 64)
        .tcp(8080, connection.local_addr().unwrap().port(), 1, 1000)
        .write(&mut quoted, b"")
        .unwrap();
    let mut error = Vec::new();
    PacketBuilder::ethernet2(host.client.mac(UPLINK), host.ns.mac(UPLINK))
        .ipv4([198, 51, 100, 1], octets(HOST[0]), 64)
        .icmpv4_raw(3, 4, [0, 0, 0, 68])
        .write(&mut error, &quoted)
        .unwrap();
    let before = rnet.packets_for("related");
    capture::send(&host.client, UPLINK, &[error]);
    wait_until("it is passed on", Duration::from_secs(10), || {
        (rnet.packets_for("related") > before).then_some(())
    });
    tcp::exchange(&connection, 100_000, 2);
    let route = web.ns.output_of("ip", &["route", "get", &CLIENT[0].to_string()]).unwrap();
    assert!(!route.contains("mtu"), "{route}");
}

#[test]
fn neither_a_source_route_nor_a_broadcast_leads_into_a_container() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { other, .. } = &stage;
    let link = (host.client.mac(UPLINK), host.ns.mac(UPLINK));
    let server = traffic::echo(&other.ns, "[::]:80");
    let source_route = |kind: u8| {
        let option = [&[kind, 7, 4][..], &octets(other.addrs[0]), &[0]].concat();
        let plain =
            Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, octets(CLIENT[0]), octets(HOST[0])).unwrap();
        let header = Ipv4Header { options: option.as_slice().try_into().unwrap(), ..plain };
        let header = etherparse::IpHeaders::Ipv4(header, Ipv4Extensions::default());
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(link.0, link.1).ip(header).udp(4000, 80).write(&mut frame, MARK).unwrap();
        frame
    };
    let all = (link.0, BROADCAST);
    let forged = [
        source_route(131),
        source_route(137),
        udp(all, CLIENT[0], (HOST[0], 8080).into(), MARK),
        udp(all, CLIENT[0], ("10.200.0.255".parse::<IpAddr>().unwrap(), 8080).into(), MARK),
        udp(all, CLIENT[0], ("255.255.255.255".parse::<IpAddr>().unwrap(), 8080).into(), MARK),
        udp(all, CLIENT[0], (other.addrs[0], 80).into(), MARK),
        udp(link, CLIENT[0], ("224.0.0.1".parse::<IpAddr>().unwrap(), 8080).into(), MARK),
    ];
    let inside = Capture::start(&other.ns, "eth0");
    let before = stage.rnet.packets_for("not-ours");
    capture::send(&host.client, UPLINK, &forged);
    assert!(stage.rnet.packets_for("not-ours") >= before + forged.len() as u64);
    let client = udp(link, CLIENT[0], (HOST[0], 8080).into(), b"what is honest");
    capture::send(&host.client, UPLINK, &[client]);
    wait_until("what is honest arrives", Duration::from_secs(10), || {
        (server.peers().len() == 1).then_some(())
    });
    assert_unseen("the container", &inside.stop(), &forged);
}

#[test]
fn fragments_without_a_first_do_not_keep_a_processor_busy() {
    testbed::require_root!();
    const SENT: u16 = 20_000;
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80/udp"]);
    let _server = traffic::echo(&web.ns, "0.0.0.0:80");
    let (from, to) = (octets(CLIENT[0]), octets(HOST[0]));
    let link = (host.client.mac(UPLINK), host.ns.mac(UPLINK));
    let forged: Vec<_> = (0..SENT)
        .map(|identification| {
            let header = Ipv4Header {
                identification,
                fragment_offset: 50.try_into().unwrap(),
                dont_fragment: false,
                ..Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, from, to).unwrap()
            };
            let header = etherparse::IpHeaders::Ipv4(header, Ipv4Extensions::default());
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(link.0, link.1)
                .ip(header)
                .write(&mut frame, etherparse::IpNumber::UDP, MARK)
                .unwrap();
            frame
        })
        .collect();
    let inside = Capture::start(&web.ns, "eth0");
    let before = rnet.packets_for("not-ours");
    capture::send(&host.client, UPLINK, &forged);
    wait_until("all of them are given up", Duration::from_secs(60), || {
        (rnet.packets_for("not-ours") >= before + u64::from(SENT)).then_some(())
    });
    // Each alone is put back 128 times.
    let put_back = rnet.packets_for("fragment-early");
    assert!(put_back < u64::from(SENT) * 128 / 2, "{put_back}");
    let socket = traffic::connect(&host.client, host.at(8080));
    traffic::ask(&socket, &testbed::traffic::random_bytes(1, 20_000)).unwrap();
    assert_unseen("the container", &inside.stop(), &[]);
}
