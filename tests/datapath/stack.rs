//! Networks that are delivered via the host's stack: translation at the uplink alone, on either side of the stack.

use std::net::{IpAddr, Ipv4Addr};

use rnet_common::{EndpointFlags, Reason, Side};
use testbed::packet::Ethernet;

use crate::{
    fragments::fragments,
    frames::{Kind, Way, finish_header, forwarded, frame, with_ttl},
    frames6::{Kind6, Way6, frame6},
    lab::{
        APP, CLIENT, CLIENT_MAC, CLIENT6, Container, From, HOST, HOST6, Lab, OTHER, OTHER_GATEWAY, REDIRECT,
        SHOT, UNSPEC, WEB, tuple,
    },
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const VIA_STACK: u32 = EndpointFlags::ICC | EndpointFlags::MASQUERADE | EndpointFlags::VIA_STACK;

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
fn send(lab: &mut Lab, container: Container, way: Way, kind: &Kind) -> (crate::lab::Outcome, Reason) {
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

#[test]
fn policy_is_as_on_any_network() {
    testbed::require_root!();
    let mut lab = lab();
    let (web, app, uplink) = (lab.web, lab.app, lab.uplink);
    let way = |dst| Way { link: web.to_gateway(), src: (WEB, 5000), dst };
    assert_eq!(lab.judge(web.from(), &frame(way((OTHER, 80)), &Kind::syn())).1, Reason::OtherNetwork);
    assert_eq!(lab.judge(web.from(), &frame(way((HOST, 22)), &Kind::syn())).1, Reason::ToHost);
    let (outcome, reason) = lab.judge(web.from(), &frame(way((APP, 80)), &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Switched));
    lab.set_endpoint(&web, VIA_STACK & !EndpointFlags::ICC);
    assert_eq!(lab.judge(web.from(), &frame(way((APP, 80)), &Kind::syn())).1, Reason::IccDisabled);
    let closed = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (APP, 80) };
    assert_eq!(lab.judge(From::Uplink, &frame(closed, &Kind::syn())).1, Reason::Unpublished);
    lab.publish(ANY, 8080, 6, APP, 80);
    lab.restrict(8080, 6, 7);
    lab.allow(7, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24);
    let arrives = Way { dst: (HOST, 8080), ..closed };
    assert_eq!(lab.judge(From::Uplink, &frame(arrives, &Kind::syn())).1, Reason::Source);

    // A flow that is there is no reason to leave where nothing is translated.
    let sent = Way { link: app.to_gateway(), src: (APP, 5000), dst: (CLIENT, 80) };
    assert_eq!(send(&mut lab, app, sent, &Kind::syn()).1, Reason::Masqueraded);
    lab.table::<u32, u32>("UPLINKS").remove(&uplink).unwrap();
    for kind in [Kind::syn(), Kind::tcp(|header| header.ack = true)] {
        let (outcome, reason) = lab.judge(app.from(), &frame(sent, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::OtherNetwork));
    }
}

#[test]
fn withdrawing_a_port_ends_its_flows() {
    testbed::require_root!();
    let mut lab = lab();
    let mapping = lab.publish(ANY, 8080, 6, WEB, 80);
    let web = lab.web;
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    lab.run(From::Uplink, &frame(arrives, &Kind::syn()));
    let generation = lab.mapping(mapping).generation;
    lab.set_mapping(mapping, generation + 1);
    let answer = Way { link: out(&lab), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let data = Kind::tcp(|header| header.ack = true);
    assert_eq!(lab.judge(web.via_stack(), &frame(answer, &data)).1, Reason::NoFlowOut);
    assert_eq!(lab.judge(From::Uplink, &frame(arrives, &data)).1, Reason::NotOurs);
}

#[test]
fn two_containers_do_not_share_a_port() {
    testbed::require_root!();
    let mut lab = lab();
    lab.set_snat_ports(5000, 5001);
    let mut ports = Vec::new();
    for container in [lab.web, lab.app] {
        let sent = Way { link: container.to_gateway(), src: (container.addr, 5000), dst: (CLIENT, 80) };
        let (outcome, reason) = send(&mut lab, container, sent, &Kind::syn());
        assert_eq!(reason, Reason::Masqueraded);
        let flow = lab.flow(tuple((container.addr, 5000), (CLIENT, 80)), 6, Side::Container).unwrap();
        let chosen = flow.to.sport.get();
        let left = Way { link: out(&lab), src: (HOST, chosen), ..sent };
        assert_eq!(outcome.frame, forwarded(left, &Kind::syn()));
        ports.push(chosen);
    }
    assert_eq!(ports, [5000, 5001]);
    let sent = Way { link: lab.web.to_gateway(), src: (WEB, 5001), dst: (CLIENT, 80) };
    let web = lab.web;
    let (outcome, reason) = send(&mut lab, web, sent, &Kind::syn());
    assert_eq!((outcome.action, reason), (SHOT, Reason::PortsExhausted));
}

#[test]
fn containers_reach_its_ports_past_the_stack() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let (web, app, other) = (lab.web, lab.app, lab.other);
    let answer = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    // A neighbour is seen as itself, a container of another network as the gateway.
    for (client, seen) in [(app, APP), (other, web.gateway)] {
        let sent = Way { link: client.to_gateway(), src: (client.addr, 5000), dst: (HOST, 8080) };
        let (outcome, reason) = lab.judge(client.from(), &frame(sent, &Kind::syn()));
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Hairpin));
        let answered = Way { link: web.to_gateway(), src: (WEB, 80), dst: (seen, 5000) };
        let (outcome, reason) = lab.judge(web.from(), &frame(answered, &answer));
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::HairpinReply));
        let into = Ethernet { src: client.gateway_mac, dst: client.mac };
        let back = Way { link: into, src: (HOST, 8080), dst: (client.addr, 5000) };
        assert_eq!(outcome.frame, forwarded(back, &answer));
    }
    lab.publish(ANY, 9090, 6, OTHER, 80);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (HOST, 9090) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Hairpin));
    let into = Ethernet { src: other.gateway_mac, dst: other.mac };
    let delivered = Way { link: into, src: (OTHER_GATEWAY, 5000), dst: (OTHER, 80) };
    assert_eq!(outcome.frame, forwarded(delivered, &Kind::syn()));
}

#[test]
fn gateway_modes_that_open_a_container_s_address_go_through_the_stack_untranslated() {
    testbed::require_root!();
    for (flags, kind, answered) in [
        (
            EndpointFlags::UNPROTECTED,
            Kind::syn(),
            Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
        ),
        (EndpointFlags::ROUTED, Kind::Ping, Kind::Pong),
    ] {
        let mut lab = lab();
        let web = lab.web;
        lab.set_endpoint(&web, EndpointFlags::VIA_STACK | flags);
        let (client, server) = if kind.proto() == 1 { (40_000, 0) } else { (40_000, 80) };
        let arrives = Way { link: lab.client_link(), src: (CLIENT, client), dst: (WEB, server) };
        let packet = frame(arrives, &kind);
        let (outcome, reason) = lab.judge(From::Uplink, &packet);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::Direct, packet));
        let answer = Way { link: web.to_gateway(), src: (WEB, server), dst: (CLIENT, client) };
        let (outcome, reason) = send(&mut lab, web, answer, &answered);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::DirectReply));
        assert_eq!(outcome.frame, forwarded(Way { link: out(&lab), ..answer }, &answered));

        let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 81) };
        let (outcome, reason) = send(&mut lab, web, sent, &Kind::udp(b"x"));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Routed));
        assert_eq!(outcome.frame, forwarded(Way { link: out(&lab), ..sent }, &Kind::udp(b"x")));
        let back = Way { link: lab.client_link(), src: (CLIENT, 81), dst: (WEB, 5000) };
        let packet = frame(back, &Kind::udp(b"y"));
        let (outcome, reason) = lab.judge(From::Uplink, &packet);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::RoutedReply, packet));
    }
}

#[test]
fn fragments_follow_their_first() {
    testbed::require_root!();
    let mut lab = lab();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let web = lab.web;
    let kind = Kind::udp(&(0..1000).map(|n| n as u8).collect::<Vec<_>>());
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let delivered = frame(Way { dst: (WEB, 80), ..arrives }, &kind);
    for (sent, expected) in fragments(&frame(arrives, &kind)).iter().zip(fragments(&delivered)) {
        let (outcome, reason) = lab.judge(From::Uplink, sent);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::Published, expected));
    }
    let answer = Way { link: out(&lab), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let parts = fragments(&frame(answer, &kind));
    let (outcome, reason) = lab.judge(web.via_stack(), &parts[1]);
    assert_eq!((outcome.action, reason), (SHOT, Reason::Fragment), "its first has not passed");
    let left = fragments(&frame(Way { src: (HOST, 8080), ..answer }, &kind));
    for (sent, expected) in parts.iter().zip(left) {
        let (outcome, reason) = lab.judge(web.via_stack(), sent);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::PublishedReply, expected));
    }
    // The stack may keep them all until the last has come, before any of them opens the flow.
    let elsewhere = Ipv4Addr::new(203, 0, 113, 5);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (elsewhere, 53) };
    let (outcome, reason) = lab.judge(web.from(), &fragments(&frame(sent, &kind))[1]);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::FragmentEarly));
    for part in fragments(&frame(sent, &kind)) {
        let (outcome, reason) = lab.judge(web.from(), &part);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::ViaStack, part));
    }
    let left = fragments(&frame(Way { link: out(&lab), src: (HOST, 5000), ..sent }, &kind));
    for (part, expected) in fragments(&frame(Way { link: out(&lab), ..sent }, &kind)).iter().zip(left) {
        let (outcome, reason) = lab.judge(web.via_stack(), part);
        assert_eq!((outcome.action, reason, outcome.frame), (UNSPEC, Reason::Masqueraded, expected));
    }
    let host = Way { src: (HOST, 9), ..answer };
    for part in fragments(&with_ttl(frame(host, &kind), 64)) {
        assert_eq!(lab.judge(From::Stack(0), &part).1, Reason::NotOurs);
    }
}
