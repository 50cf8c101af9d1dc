//! ICMP errors: about flows of ours, and of our own.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use rnet_common::Reason;
use testbed::packet::{self, Ethernet, verify_checksums};

use crate::{
    frames::{Kind, Way, forwarded, frame, with_ttl},
    frames6::{Kind6, Way6, frame6},
    lab::{APP, CLIENT, CLIENT6, From, HOST, HOST6, Lab, REDIRECT, SHOT, UNSPEC, WEB},
};

pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

pub(crate) fn too_big() -> Icmpv4Type {
    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: 1400,
    })
}

pub(crate) fn unreachable() -> Icmpv4Type {
    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port)
}

/// An error about a frame, of which it quotes `length` bytes.
pub(crate) fn error(
    link: Ethernet,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    what: Icmpv4Type,
    about: &[u8],
    length: usize,
) -> Vec<u8> {
    let quoted = &about[14..];
    packet::icmp(link, src, dst, what, &quoted[..length.min(quoted.len())])
}

#[test]
fn an_error_about_what_left_reaches_the_container_with_its_own_packet() {
    testbed::require_root!();
    for kind in [Kind::syn(), Kind::udp(b"some question"), Kind::Ping] {
        // The least that a router quotes, and all of it.
        for length in [28, 200] {
            let mut lab = Lab::new();
            lab.set_snat_ports(6000, 6001);
            let web = lab.web;
            let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
            let left = lab.run(web.from(), &frame(sent, &kind)).frame;
            let arrives = error(lab.client_link(), ROUTER, HOST, too_big(), &left, length);
            let (outcome, reason) = lab.judge(From::Uplink, &arrives);
            assert_eq!((outcome.action, reason), (REDIRECT, Reason::Related), "{kind:?}");
            let into = Ethernet { src: web.gateway_mac, dst: web.mac };
            // As it left the container, but for the time to live that the quote shows.
            let own = forwarded(sent, &kind);
            let expected = with_ttl(error(into, ROUTER, WEB, too_big(), &own, length), packet::TTL - 1);
            assert_eq!(outcome.frame, expected, "{kind:?}, {length} bytes quoted");
        }
    }
}

#[test]
fn an_error_about_an_answer_reaches_the_container() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    let web = lab.web;
    let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    lab.run(From::Uplink, &frame(asked, &Kind::syn()));
    let answer = Way { link: web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let data = Kind::tcp(|header| header.ack = true);
    let left = lab.run(web.from(), &frame(answer, &data)).frame;
    let arrives = error(lab.client_link(), ROUTER, HOST, too_big(), &left, 28);
    let (outcome, reason) = lab.judge(From::Uplink, &arrives);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Related));
    let into = Ethernet { src: web.gateway_mac, dst: web.mac };
    let own = forwarded(answer, &data);
    assert_eq!(outcome.frame, with_ttl(error(into, ROUTER, WEB, too_big(), &own, 28), packet::TTL - 1));
}

#[test]
fn a_container_s_own_error_leaves_with_the_packet_that_the_client_sent() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let web = lab.web;
    let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let kind = Kind::udp(b"some question");
    let delivered = lab.run(From::Uplink, &frame(asked, &kind)).frame;
    let sent = error(web.to_gateway(), WEB, CLIENT, unreachable(), &delivered, 200);
    let (outcome, reason) = lab.judge(web.from(), &sent);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Related));
    let expected = error(web.to_gateway(), HOST, CLIENT, unreachable(), &forwarded(asked, &kind), 200);
    assert_eq!(outcome.frame, with_ttl(expected, packet::TTL - 1));
}

#[test]
fn errors_about_nothing_of_ours_are_the_host_s_or_stay() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let unknown = frame(Way { link: web.to_gateway(), src: (HOST, 9), dst: (CLIENT, 80) }, &Kind::syn());
    let arrives = error(lab.client_link(), ROUTER, HOST, too_big(), &unknown, 28);
    let (outcome, reason) = lab.judge(From::Uplink, &arrives);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
    assert_eq!(outcome.frame, arrives);
    let sent = error(web.to_gateway(), WEB, CLIENT, unreachable(), &unknown, 28);
    assert_eq!(lab.judge(web.from(), &sent).1, Reason::NoFlowOut);
}

#[test]
fn nobody_complains_in_another_s_name() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let (web, app) = (lab.web, lab.app);
    let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let delivered = lab.run(From::Uplink, &frame(asked, &Kind::udp(b"x"))).frame;
    // Of a flow that the neighbour has no part in.
    let forged = error(app.to_gateway(), APP, CLIENT, unreachable(), &delivered, 28);
    let (outcome, reason) = lab.judge(app.from(), &forged);
    assert_eq!((outcome.action, reason), (SHOT, Reason::NoFlowOut));
    let forged = error(web.to_gateway(), ROUTER, CLIENT, unreachable(), &delivered, 28);
    assert_eq!(lab.judge(web.from(), &forged).1, Reason::Spoofed);
}

#[test]
fn ipv6_errors_too() {
    testbed::require_root!();
    for kind in [Kind6::Syn, Kind6::Udp(b"some question"), Kind6::Ping] {
        let mut lab = Lab::new();
        lab.set_snat_ports(6000, 6001);
        let web = lab.web;
        let sent = Way6::new(web.to_gateway(), (web.addr6(), 5000), (CLIENT6, 80));
        let left = lab.run(web.from(), &frame6(sent, kind)).frame;
        let message = |link: Ethernet, src: Ipv6Addr, dst: Ipv6Addr, hops, about: &[u8]| {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(link.src, link.dst)
                .ipv6(src.octets(), dst.octets(), hops)
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 })
                .write(&mut frame, &about[14..])
                .unwrap();
            frame
        };
        let arrives = message(lab.client_link(), ROUTER6, HOST6, 64, &left);
        let (outcome, reason) = lab.judge(From::Uplink, &arrives);
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Related), "{kind:?}");
        let into = Ethernet { src: web.gateway_mac, dst: web.mac };
        let expected = message(into, ROUTER6, web.addr6(), 63, &frame6(sent.forwarded(), kind));
        assert_eq!(outcome.frame, expected, "{kind:?}");
    }
}

/// The answer to a packet that could not be delivered, with what it says.
fn answered(lab: &mut Lab, sent: &[u8]) -> Vec<u8> {
    let (outcome, reason) = lab.judge(From::Uplink, sent);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Answered));
    verify_checksums(&outcome.frame).unwrap();
    assert_eq!(
        (&outcome.frame[..6], &outcome.frame[6..12]),
        (&sent[6..12], &sent[..6]),
        "back where it came from"
    );
    outcome.frame
}

#[test]
fn a_packet_out_of_time_is_answered() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    for kind in [Kind::syn(), Kind::Tcp(Box::new(packet::syn(1)), vec![7; 900])] {
        let sent = with_ttl(frame(way, &kind), 1);
        let answer = answered(&mut lab, &sent);
        let quote = 72.min(sent.len() - 14);
        let expected = error(
            Ethernet { src: lab.uplink_mac, dst: crate::lab::CLIENT_MAC },
            HOST,
            CLIENT,
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            &sent,
            quote,
        );
        // Precedence and identification are the sender's choice.
        assert_eq!(answer[26..], expected[26..]);
        assert_eq!(answer.len(), expected.len());
    }
    assert!(lab.flows().is_empty());
}

#[test]
fn a_packet_too_large_for_the_container_is_answered_with_its_mtu() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let fits = frame(way, &Kind::udp(&[1; 1472]));
    assert_eq!(lab.judge(From::Uplink, &fits).1, Reason::Published);
    let sent = frame(way, &Kind::udp(&[1; 1473]));
    let answer = answered(&mut lab, &sent);
    assert_eq!(answer[34..36], [3, 4]);
    assert_eq!(u16::from_be_bytes([answer[40], answer[41]]), 1500);
    assert_eq!(answer[42..], sent[14..14 + 72]);
}

#[test]
fn ipv6_packets_are_answered_too() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.publish6(8080, 17, web.addr6(), 80);
    let way = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    let sent =
        frame6(Way6 { hops: 1, ..way }, Kind6::Udp(b"some question that is long enough to be cut short"));
    let answer = answered(&mut lab, &sent);
    let mut expected = Vec::new();
    PacketBuilder::ethernet2(lab.uplink_mac, crate::lab::CLIENT_MAC)
        .ipv6(HOST6.octets(), CLIENT6.octets(), 64)
        .icmpv6(Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded))
        .write(&mut expected, &sent[14..14 + 72])
        .unwrap();
    assert_eq!(answer, expected);
}

#[test]
fn errors_are_not_answered() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let left = lab.run(web.from(), &frame(sent, &Kind::syn())).frame;
    let arrives = with_ttl(error(lab.client_link(), ROUTER, HOST, too_big(), &left, 28), 1);
    let (outcome, reason) = lab.judge(From::Uplink, &arrives);
    assert_eq!((outcome.action, reason), (SHOT, Reason::Undeliverable));
}
