//! Networks that are delivered via the host's stack: translation at the uplink alone, on either side of the stack.

use std::net::Ipv4Addr;

use rnet_common::{EndpointFlags, Reason, Side};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, finish_header, forwarded, frame},
    frames6::{Kind6, Way6, frame6},
    lab::{
        CLIENT, CLIENT_MAC, CLIENT6, Container, From, HOST, HOST6, Lab, OTHER, REDIRECT, SHOT, UNSPEC, WEB,
        tuple,
    },
};

pub(crate) const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(crate) const VIA_STACK: u32 = EndpointFlags::ICC | EndpointFlags::MASQUERADE | EndpointFlags::VIA_STACK;

/// The first network is delivered via the stack, the other is not.
pub(crate) fn lab() -> Lab {
    let mut lab = Lab::new();
    for container in [lab.web, lab.app] {
        lab.set_endpoint(&container, VIA_STACK);
    }
    lab
}

/// What the stack sends out of the uplink.
pub(crate) fn out(lab: &Lab) -> Ethernet {
    Ethernet { src: lab.uplink_mac, dst: CLIENT_MAC }
}

/// Lets the container's packet past its own program, which must leave it as it is, and the stack, which routes it to
/// the uplink.
pub(crate) fn send(
    lab: &mut Lab,
    container: Container,
    way: Way,
    kind: &Kind,
) -> (crate::lab::Outcome, Reason) {
    let sent = frame(way, kind);
    let (outcome, reason) = lab.judge(container.from(), &sent);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::ViaStack));
    assert_eq!(outcome.frame, sent, "left to the stack as it came");
    let routed = forwarded(Way { link: out(lab), ..way }, kind);
    lab.judge(container.via_stack(), &routed)
}

fn published(asked: &Kind, answered: &Kind) {
    let mut lab = lab();
    let mapping = lab.publish(ANY, 8080, asked.proto(), WEB, 80);
    let web = lab.web;
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    for _ in 0..2 {
        let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, asked));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Published));
        // Time to live and Ethernet addresses are the stack's affair.
        assert_eq!(outcome.frame, frame(Way { dst: (WEB, 80), ..arrives }, asked));
    }
    let answer = Way { link: web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let (outcome, reason) = send(&mut lab, web, answer, answered);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::PublishedReply));
    let left = Way { link: out(&lab), src: (HOST, 8080), ..answer };
    assert_eq!(outcome.frame, forwarded(left, answered));

    let forward = lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), asked.proto(), Side::Uplink).unwrap();
    let reply = lab.flow(tuple((WEB, 80), (CLIENT, 40_000)), asked.proto(), Side::Container).unwrap();
    assert_eq!((forward.packets, reply.packets), (1, 1), "each is counted once, but for the first");
    assert_eq!(lab.mapping(mapping).flows, 1);
}

#[test]
fn published_tcp() {
    testbed::require_root!();
    published(&Kind::syn(), &Kind::tcp(|header| (header.syn, header.ack) = (true, true)));
}

#[test]
fn published_udp() {
    testbed::require_root!();
    published(&Kind::udp(b"question"), &Kind::udp(b"a longer answer"));
}

fn masqueraded(asked: &Kind, answered: &Kind, port: u16) {
    let mut lab = lab();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, port) };
    for _ in 0..2 {
        let (outcome, reason) = send(&mut lab, web, sent, asked);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Masqueraded));
        let left = Way { link: out(&lab), src: (HOST, 5000), ..sent };
        assert_eq!(outcome.frame, forwarded(left, asked));
    }
    let arrives = Way { link: lab.client_link(), src: (CLIENT, port), dst: (HOST, 5000) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, answered));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::MasqueradedReply));
    assert_eq!(outcome.frame, frame(Way { dst: (WEB, 5000), ..arrives }, answered));
}

#[test]
fn masqueraded_tcp() {
    testbed::require_root!();
    masqueraded(&Kind::syn(), &Kind::tcp(|header| (header.syn, header.ack) = (true, true)), 80);
}

#[test]
fn masqueraded_udp() {
    testbed::require_root!();
    masqueraded(&Kind::udp(b"who"), &Kind::udp(b"me"), 53);
}

#[test]
fn masqueraded_ping() {
    testbed::require_root!();
    masqueraded(&Kind::Ping, &Kind::Pong, 0);
}

#[test]
fn ipv6_both_ways() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    lab.publish6(8080, 6, web.addr6(), 80);
    let arrives = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, Kind6::Syn));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::Published));
    assert_eq!(outcome.frame, frame6(Way6 { dst: (web.addr6(), 80), ..arrives }, Kind6::Syn));
    let answer = Way6::new(web.to_gateway(), (web.addr6(), 80), (CLIENT6, 40_000));
    let sent = frame6(answer, Kind6::SynAck);
    let (outcome, reason) = lab.judge(web.from(), &sent);
    assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::ViaStack, sent));
    let (outcome, reason) = lab.judge(web.via_stack(), &frame6(answer.forwarded(), Kind6::SynAck));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::PublishedReply));
    assert_eq!(outcome.frame, frame6(Way6 { src: (HOST6, 8080), ..answer.forwarded() }, Kind6::SynAck));

    for (asked, answered, port) in
        [(Kind6::Udp(b"who"), Kind6::Udp(b"me"), 53), (Kind6::Ping, Kind6::Pong, 0)]
    {
        let sent = Way6::new(web.to_gateway(), (web.addr6(), 5000), (CLIENT6, port));
        assert_eq!(lab.judge(web.from(), &frame6(sent, asked)).1, Reason::ViaStack);
        let (outcome, reason) = lab.judge(web.via_stack(), &frame6(sent.forwarded(), asked));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Masqueraded));
        assert_eq!(outcome.frame, frame6(Way6 { src: (HOST6, 5000), ..sent.forwarded() }, asked));
        let arrives = Way6::new(lab.client_link(), (CLIENT6, port), (HOST6, 5000));
        let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, answered));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::MasqueradedReply));
        assert_eq!(outcome.frame, frame6(Way6 { dst: (web.addr6(), 5000), ..arrives }, answered));
    }
}

#[test]
fn nothing_leaves_untranslated() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    let leaves = Way { link: out(&lab), src: (WEB, 5000), dst: (CLIENT, 80) };
    let sent = Way { link: web.to_gateway(), ..leaves };
    let strays = [
        Kind::tcp(|header| header.ack = true),
        Kind::tcp(|header| header.rst = true),
        Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
        Kind::Pong,
    ];
    for kind in &strays {
        for (from, way) in [(web.from(), sent), (web.via_stack(), leaves), (From::Stack(0), leaves)] {
            let (outcome, reason) = lab.judge(from, &frame(way, kind));
            assert_eq!((outcome.action, reason), (SHOT, Reason::NoFlowOut), "{kind:?}");
        }
    }
    for (from, way) in [(web.from(), sent), (web.via_stack(), leaves)] {
        let mut packet = frame(way, &Kind::udp(b"x"));
        packet[14 + 9] = 47;
        finish_header(&mut packet);
        let (outcome, reason) = lab.judge(from, &packet);
        assert_eq!((outcome.action, reason), (SHOT, Reason::Untranslatable));
    }
    let mut cut = frame(leaves, &Kind::syn());
    cut.truncate(40);
    let (outcome, reason) = lab.judge(web.via_stack(), &cut);
    assert_eq!((outcome.action, reason), (SHOT, Reason::Malformed));
    assert!(lab.flows().is_empty());
}

#[test]
fn what_is_not_such_a_network_s_leaves_as_it_came() {
    testbed::require_root!();
    let mut lab = lab();
    let other = lab.other;
    let link = out(&lab);
    let leaves = |src| Way { link, src: (src, 5000), dst: (CLIENT, 80) };
    // The host's own, another network's that is translated already, and one that is not to be.
    for (from, src) in [(0, HOST), (other.ifindex, HOST), (other.ifindex, OTHER), (other.bridge, OTHER)] {
        for kind in
            [Kind::syn(), Kind::tcp(|header| header.rst = true), Kind::udp(b"x"), Kind::Ping, Kind::Pong]
        {
            let packet = frame(leaves(src), &kind);
            let (outcome, reason) = lab.judge(From::Stack(from), &packet);
            assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs), "{kind:?}");
            assert_eq!(outcome.frame, packet);
        }
    }
    let mut arp = frame(leaves(HOST), &Kind::Ping);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(lab.judge(From::Stack(0), &arp).1, Reason::NotOurs);
    let host6 = Way6::new(link, (HOST6, 5000), (CLIENT6, 80));
    let packet = frame6(host6, Kind6::Syn);
    let (outcome, reason) = lab.judge(From::Stack(0), &packet);
    assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::NotOurs, packet));
    assert!(lab.flows().is_empty());
}

#[test]
fn another_network_s_packets_go_their_way() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 6, OTHER, 80);
    let other = lab.other;
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let sent = Way { link: other.to_gateway(), src: (OTHER, 5000), dst: (CLIENT, 80) };
    let (outcome, reason) = lab.judge(other.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Masqueraded));
}

#[test]
fn only_a_container_s_own_packets_are_translated() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let (web, app, other) = (lab.web, lab.app, lab.other);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    lab.run(From::Uplink, &frame(arrives, &Kind::syn()));
    let answer = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    let forged = Way { link: app.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let (outcome, reason) = lab.judge(app.from(), &frame(forged, &answer));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed));
    // The stack may have taken it in from a neighbour outside, or from another network.
    for from in [lab.uplink, other.bridge] {
        let packet = frame(Way { link: out(&lab), ..forged }, &answer);
        let (outcome, reason) = lab.judge(From::Stack(from), &packet);
        assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed));
    }
    let own = Way { link: web.to_gateway(), ..forged };
    assert_eq!(send(&mut lab, web, own, &answer).1, Reason::PublishedReply);
}

#[test]
fn a_rule_s_reset_in_a_container_s_name_is_translated() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    lab.run(From::Uplink, &frame(arrives, &Kind::syn()));
    let reset = Kind::tcp(|header| (header.rst, header.ack) = (true, true));
    let leaves = Way { link: out(&lab), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let (outcome, reason) = lab.judge(From::Stack(0), &frame(leaves, &reset));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::PublishedReply));
    assert_eq!(outcome.frame, frame(Way { src: (HOST, 8080), ..leaves }, &reset));
}

#[test]
fn a_container_s_packets_go_to_the_host_and_to_no_neighbour() {
    testbed::require_root!();
    let mut lab = lab();
    let (web, app) = (lab.web, lab.app);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let astray = Way { link: Ethernet { dst: app.mac, ..sent.link }, ..sent };
    let (outcome, reason) = lab.judge(web.from(), &frame(astray, &Kind::syn()));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::ViaStack));
    assert_eq!(outcome.frame, frame(sent, &Kind::syn()));
}
