//! Quotas of containers, and the rate of sources outside while the flow table fills up.
//!
//! What the collector does in a daemon is done here by hand: it says how much room there is.

use std::net::{Ipv4Addr, Ipv6Addr};

use rnet_common::{Ip4, Ip6, Pressure, Reason, SourceNet, settings::SECOND};

use crate::{
    frames::{Kind, Way, frame},
    frames6::{Kind6, Way6, frame6},
    lab::{APP, CLIENT, CLIENT6, Container, From, HOST, HOST6, Lab, REDIRECT, SHOT, WEB},
    stack,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Of the collector's clock, so that somebody counts as long as the test runs.
const ALWAYS: u64 = u64::MAX;
const MUCH: i32 = 1000;

/// A lab in which somebody counts, and tables have room.
fn counted() -> Lab {
    let mut lab = Lab::new();
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [MUCH; 2], source_interval: SECOND });
    lab
}

/// What becomes of a packet from a container to the client.
fn leaves(lab: &mut Lab, container: Container, port: u16, kind: &Kind) -> Reason {
    let way = Way { link: container.to_gateway(), src: (container.addr, port), dst: (CLIENT, 80) };
    lab.judge(container.from(), &frame(way, kind)).1
}

/// What becomes of a packet from outside to the published port.
fn arrives(lab: &mut Lab, source: Ipv4Addr, port: u16, kind: &Kind) -> Reason {
    let way = Way { link: lab.client_link(), src: (source, port), dst: (HOST, 8080) };
    lab.judge(From::Uplink, &frame(way, kind)).1
}

fn arrives6(lab: &mut Lab, source: Ipv6Addr, port: u16) -> Reason {
    let way = Way6::new(lab.client_link(), (source, port), (HOST6, 8080));
    lab.judge(From::Uplink, &frame6(way, Kind6::Syn)).1
}

#[test]
fn a_container_at_its_quota_opens_no_more_and_its_flows_go_on() {
    testbed::require_root!();
    let mut lab = counted();
    let (web, app) = (lab.web, lab.app);
    lab.set_room(&web, 3);
    for (port, kind) in [(5001, Kind::syn()), (5002, Kind::udp(b"x")), (5003, Kind::Ping)] {
        assert_eq!(leaves(&mut lab, web, port, &kind), Reason::Masqueraded, "{kind:?}");
    }
    let flows = lab.flows().len();
    for (port, kind) in [(5004, Kind::syn()), (5005, Kind::udp(b"x")), (5006, Kind::Ping)] {
        let way = Way { link: web.to_gateway(), src: (WEB, port), dst: (CLIENT, 80) };
        let (outcome, reason) = lab.judge(web.from(), &frame(way, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::FlowQuota), "{kind:?}");
    }
    assert_eq!(lab.flows().len(), flows, "nothing is left of what was refused");
    // Those that it has.
    assert_eq!(leaves(&mut lab, web, 5001, &Kind::tcp(|header| header.ack = true)), Reason::Masqueraded);
    assert_eq!(leaves(&mut lab, web, 5002, &Kind::udp(b"more")), Reason::Masqueraded);
    let answer = Way { link: lab.client_link(), src: (CLIENT, 80), dst: (HOST, 5002) };
    assert_eq!(lab.judge(From::Uplink, &frame(answer, &Kind::udp(b"y"))).1, Reason::MasqueradedReply);
    // A neighbour.
    assert_eq!(leaves(&mut lab, app, 5004, &Kind::syn()), Reason::Masqueraded);
    assert_eq!(lab.mapping(web.mapping).room, 0);
    // The collector has found one that is over.
    lab.set_room(&web, 1);
    assert_eq!(leaves(&mut lab, web, 5004, &Kind::syn()), Reason::Masqueraded);
    assert_eq!(leaves(&mut lab, web, 5005, &Kind::syn()), Reason::FlowQuota);
}

#[test]
fn a_container_that_has_more_than_its_quota_by_now_opens_none() {
    testbed::require_root!();
    let mut lab = counted();
    let web = lab.web;
    lab.set_room(&web, -5);
    assert_eq!(leaves(&mut lab, web, 5001, &Kind::syn()), Reason::FlowQuota);
    assert_eq!(lab.mapping(web.mapping).room, -5);
}

#[test]
fn what_opens_nothing_takes_nothing_of_the_quota() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.set_snat_ports(2000, 2000);
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [MUCH; 2], source_interval: 0 });
    let (web, app) = (lab.web, lab.app);
    lab.set_room(&web, 5);
    assert_eq!(leaves(&mut lab, app, 2000, &Kind::syn()), Reason::Masqueraded);
    assert_eq!(leaves(&mut lab, web, 2000, &Kind::syn()), Reason::PortsExhausted);
    let late = Kind::tcp(|header| header.ack = true);
    assert_eq!(leaves(&mut lab, web, 2001, &late), Reason::NoFlowOut);
    // To a neighbour there is no flow.
    let way = Way {
        link: testbed::packet::Ethernet { src: web.mac, dst: app.mac },
        src: (WEB, 5000),
        dst: (APP, 80),
    };
    assert_eq!(lab.judge(web.from(), &frame(way, &Kind::syn())).1, Reason::Switched);
    assert_eq!(lab.mapping(web.mapping).room, 5);
    assert_eq!(lab.pressure().room, [MUCH - 1, MUCH]);
}

#[test]
fn what_others_open_towards_a_container_is_not_its_own() {
    testbed::require_root!();
    let mut lab = counted();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let (web, app) = (lab.web, lab.app);
    lab.set_room(&web, 0);
    assert_eq!(arrives(&mut lab, CLIENT, 40_000, &Kind::syn()), Reason::Published);
    let answer = Way { link: web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let syn_ack = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    assert_eq!(lab.judge(web.from(), &frame(answer, &syn_ack)).1, Reason::PublishedReply);
    // From a container it is the opener's, whosever port it is.
    lab.set_room(&app, 1);
    let hairpin = |port| Way { link: app.to_gateway(), src: (APP, port), dst: (HOST, 8080) };
    assert_eq!(lab.judge(app.from(), &frame(hairpin(5000), &Kind::syn())).1, Reason::Hairpin);
    let (outcome, reason) = lab.judge(app.from(), &frame(hairpin(5001), &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::FlowQuota));
    assert_eq!(lab.mapping(web.mapping).room, 0);
}

#[test]
fn containers_whose_packets_take_the_stack_are_counted_too() {
    testbed::require_root!();
    let mut lab = stack::lab();
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [MUCH; 2], source_interval: SECOND });
    let web = lab.web;
    lab.set_room(&web, 1);
    let way = |port| Way { link: web.to_gateway(), src: (WEB, port), dst: (CLIENT, 80) };
    assert_eq!(stack::send(&mut lab, web, way(5001), &Kind::syn()).1, Reason::Masqueraded);
    assert_eq!(stack::send(&mut lab, web, way(5002), &Kind::syn()).1, Reason::FlowQuota);
    let (outcome, reason) = stack::send(&mut lab, web, way(5001), &Kind::syn());
    assert_ne!(outcome.action, SHOT);
    assert_eq!(reason, Reason::Masqueraded);
}

#[test]
fn quotas_hold_for_ipv6() {
    testbed::require_root!();
    let mut lab = counted();
    let (web, app) = (lab.web, lab.app);
    lab.set_room(&web, 1);
    let mut open = |container: Container, port| {
        let way = Way6::new(container.to_gateway(), (container.addr6(), port), (CLIENT6, 80));
        let (outcome, reason) = lab.judge(container.from(), &frame6(way, Kind6::Syn));
        (outcome.action, reason)
    };
    assert_eq!(open(web, 5001), (REDIRECT, Reason::Masqueraded));
    assert_eq!(open(web, 5002), (SHOT, Reason::FlowQuota));
    assert_eq!(open(web, 5001), (REDIRECT, Reason::Masqueraded));
    assert_eq!(open(app, 5002), (REDIRECT, Reason::Masqueraded));
    assert_eq!(lab.pressure().room, [MUCH, MUCH - 2], "each family has its own table");
}

#[test]
fn nothing_is_limited_when_nobody_counts() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let web = lab.web;
    // 1 ns after the start of the machine, which is over.
    for counted_until in [0, 1] {
        lab.set_pressure(Pressure { counted_until, room: [0; 2], source_interval: SECOND });
        lab.set_room(&web, 0);
        for port in [5001, 5002] {
            let port = port + 10 * u16::try_from(counted_until).unwrap();
            assert_eq!(leaves(&mut lab, web, port, &Kind::syn()), Reason::Masqueraded);
            assert_eq!(arrives(&mut lab, CLIENT, port, &Kind::syn()), Reason::Published);
        }
    }
    assert_eq!(lab.table::<SourceNet, u64>("SOURCE_RATES").iter().count(), 0, "nothing is looked up");
}

/// Notes that a source has opened so many flows that it is not to open one for as long as the test runs.
fn exceed(lab: &mut Lab, source: impl Into<SourceNet>) {
    lab.table("SOURCE_RATES").insert(source.into(), ALWAYS / 2, 0).unwrap();
}

#[test]
fn a_source_beyond_its_rate_is_held_up_only_while_the_table_fills_up() {
    testbed::require_root!();
    let other = Ipv4Addr::new(198, 51, 100, 7);
    let mut lab = counted();
    lab.publish(ANY, 8080, 6, WEB, 80);
    lab.publish(ANY, 8080, 17, WEB, 80);
    let web = lab.web;
    exceed(&mut lab, Ip4::from(CLIENT));
    let room = |lab: &mut Lab, room| {
        lab.set_pressure(Pressure { counted_until: ALWAYS, room: [room, MUCH], source_interval: SECOND });
    };
    room(&mut lab, 2);
    assert_eq!(arrives(&mut lab, CLIENT, 40_000, &Kind::syn()), Reason::Published);
    assert_eq!(arrives(&mut lab, CLIENT, 40_001, &Kind::udp(b"x")), Reason::Published);
    assert_eq!(lab.pressure().room[0], 0, "that were the last two before it fills up");

    for (port, kind) in [(40_002, Kind::syn()), (40_003, Kind::udp(b"x"))] {
        let way = Way { link: lab.client_link(), src: (CLIENT, port), dst: (HOST, 8080) };
        let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::SourceRate), "{kind:?}");
    }
    assert_eq!(lab.flows().len(), 4, "nothing is left of what was refused");
    // What it has goes on.
    assert_eq!(arrives(&mut lab, CLIENT, 40_000, &Kind::tcp(|header| header.ack = true)), Reason::Published);
    assert_eq!(arrives(&mut lab, CLIENT, 40_001, &Kind::udp(b"more")), Reason::Published);
    // Others may, and so may containers.
    assert_eq!(arrives(&mut lab, other, 40_002, &Kind::syn()), Reason::Published);
    assert_eq!(leaves(&mut lab, web, 5000, &Kind::syn()), Reason::Masqueraded);
    assert_eq!(lab.pressure().room[0], -2);
    // What opens nothing is not looked at.
    assert_eq!(arrives(&mut lab, CLIENT, 41_000, &Kind::tcp(|header| header.ack = true)), Reason::NotOurs);

    room(&mut lab, 1);
    assert_eq!(arrives(&mut lab, CLIENT, 40_002, &Kind::syn()), Reason::Published);
}

#[test]
fn the_first_flow_of_a_source_is_let_pass_and_noted() {
    testbed::require_root!();
    let mut lab = counted();
    lab.publish(ANY, 8080, 6, WEB, 80);
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [0; 2], source_interval: SECOND });
    let due =
        |lab: &mut Lab| lab.table::<SourceNet, u64>("SOURCE_RATES").get(&Ip4::from(CLIENT).into(), 0).ok();
    assert_eq!(due(&mut lab), None);
    assert_eq!(arrives(&mut lab, CLIENT, 40_000, &Kind::syn()), Reason::Published);
    assert!(due(&mut lab).unwrap() > SECOND);
    // The clock has gone on since.
    lab.table("SOURCE_RATES").insert(SourceNet::from(Ip4::from(CLIENT)), 1u64, 0).unwrap();
    assert_eq!(arrives(&mut lab, CLIENT, 40_001, &Kind::syn()), Reason::Published);
    assert!(due(&mut lab).unwrap() > SECOND);
}

#[test]
fn no_interval_is_no_limit() {
    testbed::require_root!();
    let mut lab = counted();
    lab.publish(ANY, 8080, 6, WEB, 80);
    exceed(&mut lab, Ip4::from(CLIENT));
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [0; 2], source_interval: 0 });
    assert_eq!(arrives(&mut lab, CLIENT, 40_000, &Kind::syn()), Reason::Published);
}

#[test]
fn sources_of_ipv6_are_told_apart_by_their_link() {
    testbed::require_root!();
    let mut lab = counted();
    let web = lab.web;
    lab.publish6(8080, 6, web.addr6(), 80);
    lab.set_pressure(Pressure { counted_until: ALWAYS, room: [MUCH, 0], source_interval: SECOND });
    exceed(&mut lab, Ip6::from(CLIENT6));
    let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 7, 7, 7, 7);
    let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 0x100);
    assert_eq!(arrives6(&mut lab, CLIENT6, 40_000), Reason::SourceRate);
    assert_eq!(arrives6(&mut lab, neighbour, 40_000), Reason::SourceRate);
    assert_eq!(arrives6(&mut lab, elsewhere, 40_000), Reason::Published);
    assert_eq!(lab.pressure().room, [MUCH, -1]);
}
