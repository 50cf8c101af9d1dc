//! Ports that are open to some sources only.

use std::net::{IpAddr, Ipv4Addr};

use rnet_common::{Reason, Side};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, forwarded, frame},
    frames6::{Kind6, Way6, frame6},
    lab::{APP, CLIENT, CLIENT6, From, HOST, HOST6, Lab, OTHER, REDIRECT, SHOT, UNSPEC, WEB, tuple},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LIST: u32 = 7;

/// A lab with port 8080 of `web` published for the list alone, which is empty.
fn restricted() -> Lab {
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    lab.restrict(8080, 6, LIST);
    lab
}

fn arriving(lab: &Lab, src: Ipv4Addr) -> Way {
    Way { link: lab.client_link(), src: (src, 40_000), dst: (HOST, 8080) }
}

/// What becomes of a connection's first packet from outside.
fn judged(lab: &mut Lab, src: Ipv4Addr) -> (i32, Reason) {
    let packet = frame(arriving(lab, src), &Kind::syn());
    let (outcome, reason) = lab.judge(From::Uplink, &packet);
    (outcome.action, reason)
}

#[test]
fn a_source_of_the_list_is_let_in_unchanged() {
    testbed::require_root!();
    let mut lab = restricted();
    lab.allow(LIST, IpAddr::from([192, 0, 2, 0]), 24);
    let arrives = arriving(&lab, CLIENT);
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let into = Ethernet { src: lab.web.gateway_mac, dst: lab.web.mac };
    let delivered = Way { link: into, dst: (WEB, 80), ..arrives };
    assert_eq!(outcome.frame, forwarded(delivered, &Kind::syn()));
}

#[test]
fn another_is_dropped_and_opens_nothing() {
    testbed::require_root!();
    let mut lab = restricted();
    lab.allow(LIST, IpAddr::from([198, 51, 100, 0]), 24);
    lab.allow(LIST + 1, IpAddr::from([192, 0, 2, 0]), 24);
    assert_eq!(judged(&mut lab, CLIENT), (SHOT, Reason::Source), "another list's sources are not this one's");
    assert!(lab.flows().is_empty());
}

#[test]
fn prefixes_end_where_they_end() {
    testbed::require_root!();
    let mut lab = restricted();
    lab.allow(LIST, IpAddr::from([192, 0, 2, 96]), 29);
    for (last, expected) in
        [(95, Reason::Source), (96, Reason::Published), (103, Reason::Published), (104, Reason::Source)]
    {
        let src = Ipv4Addr::new(192, 0, 2, last);
        assert_eq!(judged(&mut lab, src).1, expected, "{src}");
    }
    lab.allow(LIST, IpAddr::from([0, 0, 0, 0]), 0);
    assert_eq!(judged(&mut lab, Ipv4Addr::new(203, 0, 113, 9)).1, Reason::Published);
}

#[test]
fn other_ports_and_protocols_are_as_open_as_before() {
    testbed::require_root!();
    let mut lab = restricted();
    lab.publish(ANY, 8081, 17, WEB, 81);
    let way = Way { dst: (HOST, 8081), ..arriving(&lab, CLIENT) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &Kind::udp(b"question")));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let way = Way { dst: (HOST, 8082), ..arriving(&lab, CLIENT) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &Kind::syn()));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
}

#[test]
fn a_flow_that_is_open_goes_on_when_its_source_is_shut_out() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    assert_eq!(judged(&mut lab, CLIENT).1, Reason::Published);
    lab.restrict(8080, 6, LIST);
    let data = Kind::tcp(|header| header.ack = true);
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arriving(&lab, CLIENT), &data));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    assert!(lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), 6, Side::Uplink).is_some());
    assert_eq!(judged(&mut lab, Ipv4Addr::new(192, 0, 2, 101)).1, Reason::Source);
}

#[test]
fn containers_are_sources_by_their_own_address() {
    testbed::require_root!();
    let mut lab = restricted();
    lab.allow(LIST, APP.into(), 32);
    for (client, expected) in
        [(lab.app, Reason::Hairpin), (lab.other, Reason::Source), (lab.web, Reason::Source)]
    {
        let sent = Way { link: client.to_gateway(), src: (client.addr, 5000), dst: (HOST, 8080) };
        let (_, reason) = lab.judge(client.from(), &frame(sent, &Kind::syn()));
        assert_eq!(reason, expected, "{}", client.addr);
    }
    lab.allow(LIST, OTHER.into(), 32);
    let sent = Way { link: lab.other.to_gateway(), src: (OTHER, 5001), dst: (HOST, 8080) };
    assert_eq!(lab.judge(lab.other.from(), &frame(sent, &Kind::syn())).1, Reason::Hairpin);
}

#[test]
fn lists_are_kept_for_ipv6_as_well() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.publish6(8080, 6, web.addr6(), 80);
    lab.restrict6(8080, 6, LIST);
    lab.allow(LIST, IpAddr::from([192, 0, 2, 0]), 24);
    let arrives = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, Kind6::Syn));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Source));
    lab.allow(LIST, CLIENT6.into(), 64);
    let (outcome, reason) = lab.judge(From::Uplink, &frame6(arrives, Kind6::Syn));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let delivered = Way6 {
        link: Ethernet { src: web.gateway_mac, dst: web.mac },
        dst: (web.addr6(), 80),
        ..arrives.forwarded()
    };
    assert_eq!(outcome.frame, frame6(delivered, Kind6::Syn));
}
