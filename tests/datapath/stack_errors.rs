//! ICMP errors on networks that are delivered via the host's stack: by routers outside, by containers, and by the stack
//! itself, which quotes what it saw.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use rnet_common::Reason;
use testbed::packet::{self, Ethernet};

use crate::{
    frames::{Kind, Way, forwarded, frame, with_ttl},
    frames6::{Kind6, Way6, frame6},
    icmp::{ROUTER, error, too_big, unreachable},
    lab::{APP, CLIENT, CLIENT6, From, HOST, HOST6, SHOT, UNSPEC, WEB},
    stack::{lab, out},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn expired() -> Icmpv4Type {
    Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit)
}

#[test]
fn an_error_about_what_left_goes_to_the_stack_as_one_about_what_was_sent() {
    testbed::require_root!();
    for kind in [Kind::syn(), Kind::udp(b"some question"), Kind::Ping] {
        // The least that a router quotes, and all of it.
        for length in [28, 200] {
            let mut lab = lab();
            lab.set_snat_ports(6000, 6001);
            let web = lab.web;
            let sent = Way { link: out(&lab), src: (WEB, 5000), dst: (CLIENT, 80) };
            let own = forwarded(sent, &kind);
            let left = lab.run(web.via_stack(), &own).frame;
            let arrives = error(lab.client_link(), ROUTER, HOST, too_big(), &left, length);
            let (outcome, reason) = lab.judge(From::Uplink, &arrives);
            assert_eq!((outcome.action, reason), (UNSPEC, Reason::Related), "{kind:?}");
            assert_eq!(outcome.frame, error(lab.client_link(), ROUTER, WEB, too_big(), &own, length));
        }
    }
}

#[test]
fn a_container_s_own_error_leaves_with_the_packet_that_the_client_sent() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let web = lab.web;
    let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let kind = Kind::udp(b"some question");
    let delivered = lab.run(From::Uplink, &frame(asked, &kind)).frame;
    let sent = error(web.to_gateway(), WEB, CLIENT, unreachable(), &delivered, 200);
    let (outcome, reason) = lab.judge(web.from(), &sent);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::ViaStack));
    assert_eq!(outcome.frame, sent);
    let routed = with_ttl(error(out(&lab), WEB, CLIENT, unreachable(), &delivered, 200), packet::TTL - 1);
    let (outcome, reason) = lab.judge(web.via_stack(), &routed);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::Related));
    let expected = error(out(&lab), HOST, CLIENT, unreachable(), &frame(asked, &kind), 200);
    assert_eq!(outcome.frame, with_ttl(expected, packet::TTL - 1));
}

#[test]
fn what_the_stack_answers_quotes_the_packet_that_the_client_sent() {
    testbed::require_root!();
    let last_hop = |packet| with_ttl(packet, 1);
    for kind in [Kind::syn(), Kind::udp(b"some question")] {
        let mut lab = lab();
        lab.publish(ANY, 8080, kind.proto(), WEB, 80);
        let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
        let (outcome, reason) = lab.judge(From::Uplink, &last_hop(frame(asked, &kind)));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Published));
        let seen = last_hop(frame(Way { dst: (WEB, 80), ..asked }, &kind));
        assert_eq!(outcome.frame, seen, "the stack's to report");
        for what in [expired(), too_big(), unreachable()] {
            let answer = error(out(&lab), HOST, CLIENT, what.clone(), &seen, 200);
            let (outcome, reason) = lab.judge(From::Stack(0), &answer);
            assert_eq!((outcome.action, reason), (UNSPEC, Reason::Related));
            let own = last_hop(frame(asked, &kind));
            assert_eq!(outcome.frame, error(out(&lab), HOST, CLIENT, what, &own, 200));
        }
    }
}

#[test]
fn a_packet_too_large_is_the_stack_s_to_answer() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let large = Kind::udp(&[1; 1473]);
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &large));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::Published));
    assert_eq!(outcome.frame, frame(Way { dst: (WEB, 80), ..way }, &large));
}

#[test]
fn what_a_container_sends_too_far_is_the_stack_s_to_answer() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    for (packet, expected) in [
        (with_ttl(frame(sent, &Kind::syn()), 1), Reason::TtlExpired),
        (frame(sent, &Kind::udp(&[0; 1600])), Reason::TooBig),
    ] {
        let (outcome, reason) = lab.judge(web.from(), &packet);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, expected, packet));
    }
}

#[test]
fn errors_about_nothing_of_ours_are_left_alone_or_stay() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let (web, app) = (lab.web, lab.app);
    let link = out(&lab);
    // About what went to the host, and about a container that nothing has been sent to.
    for dst in [(HOST, 9), (APP, 80)] {
        let unknown = frame(Way { link: lab.client_link(), src: (CLIENT, 40_000), dst }, &Kind::syn());
        let answer = error(link, HOST, CLIENT, unreachable(), &unknown, 28);
        let (outcome, reason) = lab.judge(From::Stack(0), &answer);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
        assert_eq!(outcome.frame, answer);
        let sent = error(link, WEB, CLIENT, unreachable(), &unknown, 28);
        assert_eq!(lab.judge(web.via_stack(), &sent).1, Reason::NoFlowOut);
    }
    let asked = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let delivered = lab.run(From::Uplink, &frame(asked, &Kind::udp(b"x"))).frame;
    // To somebody else than who sent it, by the host, and of a flow that the neighbour has no part in.
    let elsewhere = error(link, HOST, ROUTER, unreachable(), &delivered, 28);
    let (outcome, reason) = lab.judge(From::Stack(0), &elsewhere);
    assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::NotOurs, elsewhere));
    let forged = error(link, APP, CLIENT, unreachable(), &delivered, 28);
    let (outcome, reason) = lab.judge(app.via_stack(), &forged);
    assert_eq!((outcome.action, reason), (SHOT, Reason::NoFlowOut));
    let forged = error(app.to_gateway(), ROUTER, CLIENT, unreachable(), &delivered, 28);
    assert_eq!(lab.judge(app.from(), &forged).1, Reason::Spoofed);
}

#[test]
fn ipv6_errors_too() {
    testbed::require_root!();
    const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    let message = |link: Ethernet, src: Ipv6Addr, dst: Ipv6Addr, what: Icmpv6Type, about: &[u8]| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(link.src, link.dst)
            .ipv6(src.octets(), dst.octets(), 64)
            .icmpv6(what)
            .write(&mut frame, &about[14..])
            .unwrap();
        frame
    };
    let too_big = || Icmpv6Type::PacketTooBig { mtu: 1400 };
    let expired = || Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
    let refused = || Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
    for kind in [Kind6::Syn, Kind6::Udp(b"some question"), Kind6::Ping] {
        let mut lab = lab();
        lab.set_snat_ports(6000, 6001);
        let web = lab.web;
        let sent = Way6::new(out(&lab), (web.addr6(), 5000), (CLIENT6, 80)).forwarded();
        let left = lab.run(web.via_stack(), &frame6(sent, kind)).frame;
        let arrives = message(lab.client_link(), ROUTER6, HOST6, too_big(), &left);
        let (outcome, reason) = lab.judge(From::Uplink, &arrives);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Related), "{kind:?}");
        let own = frame6(sent, kind);
        assert_eq!(outcome.frame, message(lab.client_link(), ROUTER6, web.addr6(), too_big(), &own));
    }
    let mut lab = lab();
    let web = lab.web;
    lab.publish6(8080, 17, web.addr6(), 80);
    let asked = Way6 { hops: 1, ..Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080)) };
    let kind = Kind6::Udp(b"some question");
    let seen = lab.run(From::Uplink, &frame6(asked, kind)).frame;
    for (from, src, what) in [(From::Stack(0), HOST6, expired()), (web.via_stack(), web.addr6(), refused())] {
        let answer = message(out(&lab), src, CLIENT6, what, &seen);
        let (outcome, reason) = lab.judge(from, &answer);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Related));
        assert_eq!(outcome.frame, message(out(&lab), HOST6, CLIENT6, what, &frame6(asked, kind)));
    }
    let unknown = frame6(Way6 { dst: (HOST6, 9), ..asked }, kind);
    let answer = message(out(&lab), HOST6, CLIENT6, refused(), &unknown);
    let (outcome, reason) = lab.judge(From::Stack(0), &answer);
    assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::NotOurs, answer));
}
