//! IPv6: the same code over other tables.

use std::net::Ipv6Addr;

use rnet_common::Reason;
use testbed::packet::{Ethernet, verify_checksums};

use crate::{
    frames6::{Kind6, Way6, frame6},
    lab::{CLIENT6, From, HOST6, Lab, REDIRECT, SHOT, UNSPEC},
};

fn published(asked: Kind6, answered: Kind6) {
    let mut lab = Lab::new();
    let web = lab.web;
    let mapping = lab.publish6(8080, asked.proto(), web.addr6(), 80);
    let arrives = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, asked));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let into = Ethernet { src: web.gateway_mac, dst: web.mac };
    let delivered = Way6 { link: into, dst: (web.addr6(), 80), ..arrives.forwarded() };
    assert_eq!(outcome.frame, frame6(delivered, asked));
    assert_eq!(lab.mapping(mapping).flows, 1);

    let answer = Way6::new(web.to_gateway(), (web.addr6(), 80), (CLIENT6, 40_000));
    let (outcome, reason) = lab.judge(web.from(), &frame6(answer, answered));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::PublishedReply));
    assert_eq!(outcome.frame, frame6(Way6 { src: (HOST6, 8080), ..answer.forwarded() }, answered));
}

#[test]
fn published_tcp() {
    testbed::require_root!();
    published(Kind6::Syn, Kind6::SynAck);
}

#[test]
fn published_udp() {
    testbed::require_root!();
    published(Kind6::Udp(b"question"), Kind6::Udp(b"a longer answer"));
}

fn masqueraded(asked: Kind6, answered: Kind6, remote_port: u16) {
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way6::new(web.to_gateway(), (web.addr6(), 5000), (CLIENT6, remote_port));
    let (outcome, reason) = lab.judge(web.from(), &frame6(sent, asked));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Masqueraded));
    assert_eq!(outcome.frame, frame6(Way6 { src: (HOST6, 5000), ..sent.forwarded() }, asked));

    let arrives = Way6::new(lab.client_link(), (CLIENT6, remote_port), (HOST6, 5000));
    let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, answered));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::MasqueradedReply));
    let into = Ethernet { src: web.gateway_mac, dst: web.mac };
    let delivered = Way6 { link: into, dst: (web.addr6(), 5000), ..arrives.forwarded() };
    assert_eq!(outcome.frame, frame6(delivered, answered));
}

#[test]
fn masqueraded_tcp() {
    testbed::require_root!();
    masqueraded(Kind6::Syn, Kind6::SynAck, 80);
}

#[test]
fn masqueraded_udp() {
    testbed::require_root!();
    masqueraded(Kind6::Udp(b"who"), Kind6::Udp(b"me"), 53);
}

#[test]
fn masqueraded_ping() {
    testbed::require_root!();
    masqueraded(Kind6::Ping, Kind6::Pong, 0);
}

#[test]
fn a_taken_port_and_a_taken_identifier_are_changed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    for kind in [Kind6::Udp(b"x"), Kind6::Ping] {
        for container in [lab.web, lab.app] {
            let sent = Way6::new(container.to_gateway(), (container.addr6(), 5000), (CLIENT6, 0));
            let (outcome, reason) = lab.judge(container.from(), &frame6(sent, kind));
            assert_eq!(reason, Reason::Masqueraded);
            verify_checksums(&outcome.frame).unwrap();
            let chosen = match kind {
                Kind6::Ping => &outcome.frame[58..60],
                Kind6::Syn | Kind6::SynAck | Kind6::Udp(_) | Kind6::Pong => &outcome.frame[54..56],
            };
            let chosen = u16::from_be_bytes(chosen.try_into().unwrap());
            assert_eq!(chosen == 5000, container.ifindex == lab.web.ifindex, "{kind:?}");
        }
    }
}

#[test]
fn hairpin_to_itself_and_to_a_neighbour() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    lab.publish6(8080, 6, web.addr6(), 80);
    for (client, seen) in [(web, crate::lab::GATEWAY6), (app, app.addr6())] {
        let sent = Way6::new(client.to_gateway(), (client.addr6(), 5000), (HOST6, 8080));
        let (outcome, reason) = lab.judge(client.from(), &frame6(sent, Kind6::Syn));
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Hairpin));
        let into = Ethernet { src: web.gateway_mac, dst: web.mac };
        let delivered = Way6 { link: into, src: (seen, 5000), dst: (web.addr6(), 80), ..sent.forwarded() };
        assert_eq!(outcome.frame, frame6(delivered, Kind6::Syn));
    }
}

#[test]
fn extension_headers_are_stepped_over() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way6::new(web.to_gateway(), (web.addr6(), 5000), (CLIENT6, 53));
    // Destination options: eight bytes, all padding.
    let with_options = |frame: &[u8]| {
        let mut packet = [&frame[..54], &[frame[20], 0, 1, 4, 0, 0, 0, 0], &frame[54..]].concat();
        packet[20] = 60;
        packet[19] += 8;
        packet
    };
    let (outcome, reason) = lab.judge(web.from(), &with_options(&frame6(sent, Kind6::Udp(b"x"))));
    assert_eq!(reason, Reason::Masqueraded);
    let left = frame6(Way6 { src: (HOST6, 5000), ..sent.forwarded() }, Kind6::Udp(b"x"));
    assert_eq!(outcome.frame, with_options(&left));
}

#[test]
fn a_network_without_ipv6_leaks_none() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let other = lab.other;
    let addresses = [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3), Ipv6Addr::UNSPECIFIED];
    for src in addresses {
        let sent = Way6::new(other.to_gateway(), (src, 5000), (CLIENT6, 53));
        let (outcome, reason) = lab.judge(other.from(), &frame6(sent, Kind6::Udp(b"x")));
        assert_eq!((outcome.action, reason), (SHOT, Reason::NoIpv6), "{src}");
    }
    let sent =
        Way6::new(other.to_gateway(), (Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 3), 5000), (CLIENT6, 53));
    assert_eq!(lab.judge(other.from(), &frame6(sent, Kind6::Udp(b"x"))).1, Reason::Spoofed);
}

#[test]
fn a_packet_cut_short_anywhere_is_never_rewritten() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    for kind in [Kind6::Syn, Kind6::Udp(b"question"), Kind6::Ping] {
        lab.publish6(8080, kind.proto(), web.addr6(), 80);
        let inward = frame6(Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080)), kind);
        let outward = frame6(Way6::new(web.to_gateway(), (web.addr6(), 5000), (CLIENT6, 53)), kind);
        for length in 54..inward.len() {
            let (outcome, reason) = lab.judge(From::Uplink, &inward[..length]);
            assert_eq!((outcome.action, reason), (UNSPEC, Reason::Unparsed), "{kind:?} of {length}");
            assert_eq!(outcome.frame, inward[..length]);
            let (outcome, reason) = lab.judge(web.from(), &outward[..length]);
            assert_eq!((outcome.action, reason), (SHOT, Reason::Malformed), "{kind:?} of {length}");
        }
    }
}

/// A neighbour discovery message: its type, and the target or nothing.
fn discovery(way: Way6, kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut frame = frame6(Way6 { hops: 255, ..way }, Kind6::Ping);
    frame.truncate(58);
    frame[54] = kind;
    frame[57] = 0;
    frame.extend([0; 4]);
    frame.extend(target.octets());
    let length = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn neighbours_may_speak_of_themselves_and_nobody_plays_the_router() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let group = Ethernet { src: web.mac, dst: [0x33, 0x33, 0, 0, 0, 1] };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let says = |src, link| Way6::new(link, (src, 0), (all_nodes, 0));
    for (what, src, kind, target, expected) in [
        ("asks for a neighbour", web.addr6(), 135, app.addr6(), Reason::Bridged),
        ("tells of itself", web.addr6(), 136, web.addr6(), Reason::Bridged),
        ("tells of its link-local address", local, 136, local, Reason::Bridged),
        ("tells of a neighbour's address", web.addr6(), 136, app.addr6(), Reason::Spoofed),
        ("tells of the gateway", web.addr6(), 136, crate::lab::GATEWAY6, Reason::Spoofed),
        ("asks in a neighbour's name", app.addr6(), 135, web.addr6(), Reason::Spoofed),
        ("looks whether its address is free", Ipv6Addr::UNSPECIFIED, 135, web.addr6(), Reason::Bridged),
        ("looks whether a neighbour's is", Ipv6Addr::UNSPECIFIED, 135, app.addr6(), Reason::Spoofed),
        ("advertises a router", local, 134, local, Reason::RogueRouter),
        ("redirects", local, 137, local, Reason::RogueRouter),
    ] {
        let frame = discovery(says(src, group), kind, target);
        let (outcome, reason) = lab.judge(web.from(), &frame);
        assert_eq!(reason, expected, "{what}");
        let action = if expected == Reason::Bridged { UNSPEC } else { SHOT };
        assert_eq!((outcome.action, outcome.frame), (action, frame), "{what}");
    }
    let stolen = Ethernet { src: app.mac, ..group };
    let frame = discovery(says(local, stolen), 136, local);
    assert_eq!(lab.judge(web.from(), &frame).1, Reason::Spoofed);
}
