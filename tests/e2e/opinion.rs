//! A second opinion: the same packets through a host whose NAT is iptables as Docker sets it up, and through rnet.
//! What client and container see of each is compared, but for what [`KNOWN`] lists.
//!
//! Client and container have no addresses while packets are sent, so that their kernels answer nothing themselves.

mod site;

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Ipv4Header, icmpv4};
use site::{
    Seen,
    Side::{Client, Container},
    Site, client, container,
};
use testbed::{
    Checksums, Host, Rnet, docker, packet,
    topology::{CLIENT, HOST},
};

/// Protocol, port of the host, port of the container. The last is for [`Site::settle`].
const PORTS: [(&str, u16, u16); 3] = [("tcp", 8080, 80), ("udp", 5300, 53), ("udp", 7, 7)];
const FLOW: u16 = 20_000;

/// A step that is seen differently, and by design. The reasons are in `docs/datapath.md`.
struct Known {
    step: &'static str,
    iptables: &'static [&'static str],
    rnet: &'static [&'static str],
}

const KNOWN: &[Known] = &[
    Known {
        step: "errors: container's, about no flow",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 172.17.0.2 > 10.200.0.2 icmp 3/3 0 [ttl 63 tos 0 fragment 4000 protocol 17 10.200.0.2:999 > 172.17.0.2:53 \"a payload to be quoted\"]",
        ],
        rnet: &[],
    },
    Known {
        step: "ping: reply that nobody asked for",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 172.17.0.2 > 10.200.0.2 icmp 0 id 9 seq 1 \"payload\"",
        ],
        rnet: &[],
    },
    Known {
        step: "stray ack to a published port",
        iptables: &[
            "Container: ttl 63 tos 0 fragment 4000 tcp 10.200.0.2:40300 > 172.17.0.2:80 50/10 seq 7 ack 9 \"\"",
        ],
        rnet: &[
            "Client: ttl 64 tos 0 fragment 4000 tcp 10.200.0.1:8080 > 10.200.0.2:40300 50/04 seq 9 ack 0 \"\"",
        ],
    },
    Known {
        step: "stray ack outwards",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 tcp 10.200.0.1:free > 10.200.0.2:9003 50/10 seq 7 ack 9 \"\"",
        ],
        rnet: &[],
    },
    Known {
        step: "stray reset outwards",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 tcp 172.17.0.2:20011 > 10.200.0.2:9003 50/04 seq 7 ack 9 \"\"",
        ],
        rnet: &[],
    },
    Known {
        step: "stray fin outwards",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 tcp 172.17.0.2:20012 > 10.200.0.2:9003 50/11 seq 7 ack 9 \"\"",
        ],
        rnet: &[],
    },
    Known {
        step: "stray syn-ack outwards",
        iptables: &[
            "Client: ttl 63 tos 0 fragment 4000 tcp 172.17.0.2:20013 > 10.200.0.2:9003 50/12 seq 7 ack 9 \"\"",
        ],
        rnet: &[],
    },
];

/// Steps after which nothing arrives anywhere. After every other step something must, or nothing is compared.
const SILENT: [&str; 2] = ["ping: reply of another id", "stray reset to a published port"];

#[test]
fn iptables_and_rnet_agree_but_for_what_is_listed() {
    testbed::require_root!();
    let theirs = {
        let host = Host::with(Checksums::Finalised);
        let Some(container) = docker::container(&host, &PORTS) else {
            return testbed::skip("no iptables works in a namespace");
        };
        script(Site::new(&host, &container))
    };
    let ours = {
        let host = Host::with(Checksums::Finalised);
        let rnet = Rnet::start(&host);
        let ports: Vec<_> = PORTS.iter().map(|(p, outer, inner)| format!("{outer}:{inner}/{p}")).collect();
        let args: Vec<_> = ports.iter().flat_map(|p| ["-p", p]).collect();
        let web = rnet.run("web", &args);
        assert_eq!(web.addr, docker::CONTAINER);
        let seen = script(Site::new(&host, &web.ns));
        let dropped = KNOWN.iter().filter(|k| k.rnet.is_empty()).count() as u64;
        assert_eq!(rnet.packets_for("no-flow-out"), dropped, "what is dropped is counted");
        seen
    };
    let silent: Vec<_> = theirs.iter().filter(|(_, seen)| seen.is_empty()).map(|(step, _)| *step).collect();
    assert_eq!(silent, SILENT);
    let mut report = String::new();
    for (step, theirs) in &theirs {
        let ours = &ours[step];
        let known = KNOWN.iter().find(|k| k.step == *step);
        let (want_theirs, want_ours) = known.map_or_else(
            || (theirs.clone(), theirs.clone()),
            |k| {
                (
                    k.iptables.iter().map(ToString::to_string).collect(),
                    k.rnet.iter().map(ToString::to_string).collect(),
                )
            },
        );
        if *theirs != want_theirs || *ours != want_ours {
            let _ = writeln!(report, "{step}\n  iptables: {theirs:#?}\n  rnet: {ours:#?}");
        }
    }
    assert!(report.is_empty(), "seen differently, or not as listed:\n{report}");
    let listed = include_str!("../../docs/datapath.md");
    for Known { step, iptables, rnet } in KNOWN {
        assert!(theirs.contains_key(step), "no step is called {step:?}");
        assert_ne!(iptables, rnet, "{step}");
        assert!(listed.contains(&format!("| {step} |")), "docs/datapath.md does not explain {step:?}");
    }
}

fn script(mut site: Site<'_>) -> Seen {
    published_tcp(&mut site);
    published_udp(&mut site);
    masqueraded_tcp(&mut site);
    masqueraded_udp(&mut site);
    masqueraded_ping(&mut site);
    errors(&mut site);
    hops(&mut site);
    hairpin(&mut site);
    strays(&mut site);
    site.seen
}

fn published_tcp(site: &mut Site<'_>) {
    let (from, to) = (client(40_000), HOST_TCP);
    let (inner, back) = (container(80), client(40_000));
    site.tcp("published tcp: syn", Client, from, to, "S", (100, 0), b"");
    site.tcp("published tcp: syn-ack", Container, inner, back, "SA", (500, 101), b"");
    site.tcp("published tcp: ack", Client, from, to, "A", (101, 501), b"");
    site.tcp("published tcp: request", Client, from, to, "PA", (101, 501), b"request");
    site.tcp("published tcp: response", Container, inner, back, "PA", (501, 108), b"response");
    site.tcp("published tcp: client's fin", Client, from, to, "FA", (108, 509), b"");
    site.tcp("published tcp: container's fin", Container, inner, back, "FA", (509, 109), b"");
    site.tcp("published tcp: last ack", Client, from, to, "A", (109, 510), b"");
    site.tcp("published tcp: ack again", Client, from, to, "A", (109, 510), b"");
    let (from, back) = (client(40_001), client(40_001));
    site.tcp("published tcp: syn to be reset", Client, from, to, "S", (100, 0), b"");
    site.tcp("published tcp: reset", Container, inner, back, "RA", (0, 101), b"");
    site.tcp("published tcp: late data from client", Client, from, to, "PA", (101, 1), b"late");
    site.tcp("published tcp: late data from container", Container, inner, back, "PA", (1, 101), b"late");
}

fn published_udp(site: &mut Site<'_>) {
    site.udp("published udp: request", Client, client(40_000), HOST_UDP, b"request");
    site.udp("published udp: response", Container, container(53), client(40_000), b"response");
    site.udp("published udp: second request", Client, client(40_000), HOST_UDP, b"");
    let mut frame = packet::udp(site.link(Client), client(40_000), HOST_UDP, b"no checksum");
    frame[40..42].fill(0);
    site.step("published udp: request without checksum", Client, frame);
    let mut frame = packet::udp(site.link(Container), container(53), client(40_000), b"no checksum");
    frame[40..42].fill(0);
    site.step("published udp: response without checksum", Container, frame);
    site.udp("unpublished udp", Client, client(40_000), SocketAddrV4::new(HOST, 5301), b"anybody");
}

fn masqueraded_tcp(site: &mut Site<'_>) {
    let (from, to) = (container(FLOW), client(9000));
    site.tcp("masqueraded tcp: syn", Container, from, to, "S", (100, 0), b"");
    let nat = site.nat();
    site.tcp("masqueraded tcp: syn-ack", Client, to, nat, "SA", (500, 101), b"");
    site.tcp("masqueraded tcp: ack", Container, from, to, "A", (101, 501), b"");
    site.tcp("masqueraded tcp: data", Container, from, to, "PA", (101, 501), b"data");
    site.tcp("masqueraded tcp: answer", Client, to, nat, "PA", (501, 105), b"answer");
    site.tcp("masqueraded tcp: reset", Client, to, nat, "R", (507, 0), b"");
    site.tcp("masqueraded tcp: late data from outside", Client, to, nat, "PA", (507, 105), b"late");
    site.tcp("masqueraded tcp: late data from container", Container, from, to, "PA", (105, 507), b"late");
}

fn masqueraded_udp(site: &mut Site<'_>) {
    site.udp("masqueraded udp: request", Container, container(FLOW), client(9000), b"request");
    let nat = site.nat();
    site.udp("masqueraded udp: answer", Client, client(9000), nat, b"answer");
    site.udp("masqueraded udp: from another port", Client, client(9001), nat, b"unasked");
}

fn masqueraded_ping(site: &mut Site<'_>) {
    let ping = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: FLOW, seq: 1 });
    site.icmp("ping", Container, docker::CONTAINER, CLIENT, ping, b"payload");
    let id = site.nat().port();
    let pong = |id| Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq: 1 });
    site.icmp("ping: reply", Client, CLIENT, HOST, pong(id), b"payload");
    site.icmp("ping: reply of another id", Client, CLIENT, HOST, pong(id + 1), b"payload");
    site.icmp("ping: reply that nobody asked for", Container, docker::CONTAINER, CLIENT, pong(9), b"payload");
}

fn errors(site: &mut Site<'_>) {
    use icmpv4::{DestUnreachableHeader as Unreachable, TimeExceededCode};
    let kinds = || {
        [
            Icmpv4Type::DestinationUnreachable(Unreachable::Port),
            Icmpv4Type::DestinationUnreachable(Unreachable::FragmentationNeeded { next_hop_mtu: 1200 }),
            Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        ]
    };
    site.udp("errors: udp outwards", Container, container(FLOW + 1), client(9002), b"a payload to be quoted");
    let quote = site.last(Client);
    let names = ["errors: port unreachable", "errors: fragmentation needed", "errors: time exceeded"];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Client, CLIENT, HOST, kind, &quote);
    }
    let router = Ipv4Addr::new(10, 202, 0, 1);
    let [.., exceeded] = kinds();
    site.icmp("errors: time exceeded from a router", Client, router, HOST, exceeded, &quote[..28]);
    site.tcp("errors: tcp outwards", Container, container(FLOW + 1), client(9002), "S", (1, 0), b"");
    let quote = site.last(Client);
    let names =
        ["errors: port unreachable, tcp", "errors: fragmentation needed, tcp", "errors: time exceeded, tcp"];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Client, CLIENT, HOST, kind, &quote[..28]);
    }
    site.udp("errors: udp inwards", Client, client(40_100), HOST_UDP, b"a payload to be quoted");
    let quote = site.last(Container);
    let names = [
        "errors: container's port unreachable",
        "errors: container's fragmentation needed",
        "errors: container's time exceeded",
    ];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Container, docker::CONTAINER, CLIENT, kind, &quote);
    }
    let mut unknown = quote;
    // The port that the client sent from.
    unknown[20..22].copy_from_slice(&999_u16.to_be_bytes());
    let [unreachable, ..] = kinds();
    site.icmp(
        "errors: container's, about no flow",
        Container,
        docker::CONTAINER,
        CLIENT,
        unreachable,
        &unknown,
    );
}

fn hops(site: &mut Site<'_>) {
    let inwards = ["hops: ttl 1 inwards", "hops: ttl 2 inwards"];
    let outwards = ["hops: ttl 1 outwards", "hops: ttl 2 outwards"];
    for (ttl, (inwards, outwards)) in (1..).zip(inwards.into_iter().zip(outwards)) {
        let link = site.link(Client);
        site.step(inwards, Client, with_ttl(packet::udp(link, client(40_200), HOST_UDP, b"probe"), ttl));
        let link = site.link(Container);
        let probe = packet::udp(link, container(FLOW + 2), client(33_434), b"probe");
        site.step(outwards, Container, with_ttl(probe, ttl));
    }
    let nat = site.nat();
    let replies = ["hops: reply to a probe outwards, ttl 1", "hops: reply to a probe outwards, ttl 2"];
    let responses = ["hops: response to a probe inwards, ttl 1", "hops: response to a probe inwards, ttl 2"];
    for (ttl, (reply, response)) in (1..).zip(replies.into_iter().zip(responses)) {
        let link = site.link(Client);
        site.step(reply, Client, with_ttl(packet::udp(link, client(33_434), nat, b"reply"), ttl));
        let link = site.link(Container);
        let frame = packet::udp(link, container(53), client(40_200), b"response");
        site.step(response, Container, with_ttl(frame, ttl));
    }
}

/// A container to its own published port: it is asked by the host, from a port of the host's choice.
fn hairpin(site: &mut Site<'_>) {
    let (from, to, own) = (container(FLOW + 3), HOST_TCP, container(80));
    site.tcp("hairpin: syn", Container, from, to, "S", (100, 0), b"");
    let asker = site.sender(Container);
    site.tcp("hairpin: syn-ack", Container, own, asker, "SA", (500, 101), b"");
    site.tcp("hairpin: data", Container, from, to, "PA", (101, 501), b"data");
    site.tcp("hairpin: reset", Container, own, asker, "RA", (501, 105), b"");
}

fn strays(site: &mut Site<'_>) {
    let flags = ["A", "R", "FA", "SA"];
    let inwards = [
        "stray ack to a published port",
        "stray reset to a published port",
        "stray fin to a published port",
        "stray syn-ack to a published port",
    ];
    let outwards =
        ["stray ack outwards", "stray reset outwards", "stray fin outwards", "stray syn-ack outwards"];
    // A port for each: what one leaves behind must not change what becomes of the next.
    for (n, (flags, (inwards, outwards))) in
        (0..).zip(flags.into_iter().zip(inwards.into_iter().zip(outwards)))
    {
        site.tcp(inwards, Client, client(40_300 + n), HOST_TCP, flags, (7, 9), b"");
        site.tcp(outwards, Container, container(FLOW + 10 + n), client(9003), flags, (7, 9), b"");
    }
}

const HOST_TCP: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);
const HOST_UDP: SocketAddrV4 = SocketAddrV4::new(HOST, 5300);

fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    let mut header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.time_to_live = ttl;
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
    frame
}
