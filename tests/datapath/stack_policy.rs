//! Networks that are delivered via the host's stack: what their containers may do, and what of it stays as it is on
//! others.

use std::net::{IpAddr, Ipv4Addr};

use rnet_common::{EndpointFlags, Reason, Side, Uplink};
use testbed::packet::Ethernet;

use crate::{
    fragments::fragments,
    frames::{Kind, Way, forwarded, frame, with_ttl},
    lab::{APP, CLIENT, From, HOST, OTHER, OTHER_GATEWAY, REDIRECT, SHOT, UNSPEC, WEB, tuple},
    stack::{ANY, VIA_STACK, lab, out, send},
};

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
    lab.table::<u32, Uplink>("UPLINKS").remove(&uplink).unwrap();
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
fn what_the_hosts_rules_masquerade_is_no_flow_here() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let left = Way { link: out(&lab), ..sent };
    let translated = Way { src: (HOST, 5000), ..left };
    let data = Kind::tcp(|header| header.ack = true);
    assert_eq!(lab.judge(web.from(), &frame(sent, &data)).1, Reason::NoFlowOut, "where rnet masquerades");
    lab.set_endpoint(&web, EndpointFlags::ICC | EndpointFlags::VIA_STACK);
    for kind in [Kind::syn(), data.clone()] {
        let (outcome, reason) = lab.judge(web.from(), &frame(sent, &kind));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::ViaStack));
        assert_eq!(lab.run(web.via_stack(), &frame(translated, &kind)).action, UNSPEC);
    }
    // What no rule has translated belongs to nobody.
    let (outcome, reason) = lab.judge(web.via_stack(), &frame(left, &data));
    assert_eq!((outcome.action, reason), (SHOT, Reason::NoFlowOut));
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
