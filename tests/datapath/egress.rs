//! From containers to the outside, and the answers.

use std::{collections::HashSet, net::Ipv4Addr};

use rnet_common::{EndpointFlags, Reason, Side, Uplink};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, forwarded, frame, with_ttl},
    lab::{APP, CLIENT, From, HOST, Lab, REDIRECT, SHOT, UNSPEC, WEB, tuple},
};

fn there_and_back(asked: &Kind, answered: &Kind, remote_port: u16) {
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, remote_port) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, asked));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Masqueraded));
    assert_eq!(outcome.frame, forwarded(Way { src: (HOST, 5000), ..sent }, asked));

    let arrives = Way { link: lab.client_link(), src: (CLIENT, remote_port), dst: (HOST, 5000) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, answered));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::MasqueradedReply));
    let delivered =
        Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, dst: (WEB, 5000), ..arrives };
    assert_eq!(outcome.frame, forwarded(delivered, answered));
}

#[test]
fn tcp() {
    testbed::require_root!();
    there_and_back(&Kind::syn(), &Kind::tcp(|header| (header.syn, header.ack) = (true, true)), 80);
}

#[test]
fn udp() {
    testbed::require_root!();
    there_and_back(&Kind::udp(b"who"), &Kind::udp(b"me"), 53);
}

#[test]
fn ping() {
    testbed::require_root!();
    there_and_back(&Kind::Ping, &Kind::Pong, 0);
}

#[test]
fn a_port_that_is_taken_or_outside_the_range_is_changed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.set_snat_ports(5000, 5003);
    let mut ports = HashSet::new();
    for (container, port) in [(lab.web, 5000), (lab.app, 5000), (lab.web, 60_000), (lab.app, 40)] {
        let sent = Way { link: container.to_gateway(), src: (container.addr, port), dst: (CLIENT, 80) };
        let (outcome, reason) = lab.judge(container.from(), &frame(sent, &Kind::syn()));
        assert_eq!(reason, Reason::Masqueraded);
        let flow = lab.flow(tuple((container.addr, port), (CLIENT, 80)), 6, Side::Container).unwrap();
        let chosen = flow.to.sport.get();
        assert_eq!(outcome.frame, forwarded(Way { src: (HOST, chosen), ..sent }, &Kind::syn()));
        assert!((5000..=5003).contains(&chosen) && ports.insert(chosen), "{chosen} of {ports:?}");
    }
    // All are taken towards this remote, and none towards another.
    let sent = Way { link: lab.web.to_gateway(), src: (WEB, 5001), dst: (CLIENT, 80) };
    let (outcome, reason) = lab.judge(lab.web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::PortsExhausted));
    let sent = Way { dst: (CLIENT, 81), ..sent };
    assert_eq!(lab.judge(lab.web.from(), &frame(sent, &Kind::syn())).1, Reason::Masqueraded);
}

#[test]
fn exhaustion_ends_with_the_flows_that_caused_it() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.set_snat_ports(5000, 5000);
    let sent = |container: crate::lab::Container| Way {
        link: container.to_gateway(),
        src: (container.addr, 5000),
        dst: (CLIENT, 80),
    };
    let (web, app) = (lab.web, lab.app);
    assert_eq!(lab.judge(web.from(), &frame(sent(web), &Kind::syn())).1, Reason::Masqueraded);
    assert_eq!(lab.judge(app.from(), &frame(sent(app), &Kind::syn())).1, Reason::PortsExhausted);
    // As if it had been idle since the machine was started.
    for (key, flow) in lab.flows() {
        let side = if key.side == Side::Uplink as u8 { Side::Uplink } else { Side::Container };
        lab.set_flow(key.tuple, 6, side, rnet_common::Flow { last_seen: 0, seen: 0x8, ..flow });
    }
    assert_eq!(lab.judge(app.from(), &frame(sent(app), &Kind::syn())).1, Reason::Masqueraded);
    let mut owners: Vec<Ipv4Addr> = lab.flows().iter().map(|(key, _)| key.tuple.src.into()).collect();
    owners.sort();
    assert_eq!(owners, [APP, CLIENT], "both halves of the first are gone");
}

#[test]
fn a_published_port_is_nobody_s_source_port() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 5000, 6, APP, 80);
    let sent = Way { link: lab.web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    lab.run(lab.web.from(), &frame(sent, &Kind::syn()));
    let flow = lab.flow(tuple((WEB, 5000), (CLIENT, 80)), 6, Side::Container).unwrap();
    assert_ne!(flow.to.sport.get(), 5000);
}

#[test]
fn two_containers_may_ping_with_one_identifier() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    for container in [web, app] {
        let sent = Way { link: container.to_gateway(), src: (container.addr, 9), dst: (CLIENT, 0) };
        assert_eq!(lab.judge(container.from(), &frame(sent, &Kind::Ping)).1, Reason::Masqueraded);
    }
    let flow = lab.flow(tuple((APP, 9), (CLIENT, 0)), 1, Side::Container).unwrap();
    let id = flow.to.sport.get();
    assert_ne!(id, 9);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 0), dst: (HOST, id) };
    let outcome = lab.run(From::Uplink, &frame(arrives, &Kind::Pong));
    let delivered = Way { link: Ethernet { src: app.gateway_mac, dst: app.mac }, dst: (APP, 9), ..arrives };
    assert_eq!(outcome.frame, forwarded(delivered, &Kind::Pong));
}

#[test]
fn without_masquerade_the_address_stays() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.set_endpoint(&web, EndpointFlags::ICC);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Routed));
    assert_eq!(outcome.frame, forwarded(sent, &Kind::syn()));
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 80), dst: (WEB, 5000) };
    let answer = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    assert_eq!(lab.judge(From::Uplink, &frame(arrives, &answer)).1, Reason::RoutedReply);
}

#[test]
fn an_internal_network_has_no_way_out() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.set_endpoint(&web, EndpointFlags::ICC | EndpointFlags::MASQUERADE | EndpointFlags::INTERNAL);
    for kind in [Kind::syn(), Kind::udp(b"x"), Kind::Ping] {
        let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
        let (outcome, reason) = lab.judge(web.from(), &frame(sent, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Internal));
    }
}

#[test]
fn nothing_leaves_that_belongs_to_no_flow() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    for kind in [
        Kind::tcp(|header| header.ack = true),
        Kind::tcp(|header| header.rst = true),
        Kind::tcp(|header| (header.fin, header.ack) = (true, true)),
        Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
        Kind::Pong,
    ] {
        let (outcome, reason) = lab.judge(web.from(), &frame(sent, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::NoFlowOut), "{kind:?}");
    }
    let mut unknown = frame(sent, &Kind::udp(b"x"));
    unknown[14 + 9] = 47;
    crate::frames::finish_header(&mut unknown);
    let (outcome, reason) = lab.judge(web.from(), &unknown);
    assert_eq!((outcome.action, reason), (SHOT, Reason::Untranslatable));
    assert!(lab.flows().is_empty());
}

#[test]
fn what_runs_out_of_time_or_way_is_the_host_s_to_report() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let last_hop = with_ttl(frame(sent, &Kind::syn()), 1);
    let (outcome, reason) = lab.judge(web.from(), &last_hop);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::TtlExpired));
    assert_eq!(outcome.frame, last_hop);
    assert!(lab.flows().is_empty());

    let long = frame(sent, &Kind::udp(&[0; 1600]));
    let (outcome, reason) = lab.judge(web.from(), &long);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::TooBig));
    assert_eq!(outcome.frame, long);
}

#[test]
fn what_would_leave_through_no_uplink_is_stopped() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, uplink) = (lab.web, lab.uplink);
    lab.table::<u32, Uplink>("UPLINKS").remove(&uplink).unwrap();
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::OtherNetwork));
}

/// Two processors hand out the same few ports at once.
#[test]
fn no_port_is_given_out_twice() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.set_snat_ports(5000, 5399);
    let containers = [lab.web, lab.app];
    let open = |lab: &Lab, container: crate::lab::Container| {
        for port in 20_000..20_300 {
            let sent = Way { link: container.to_gateway(), src: (container.addr, port), dst: (CLIENT, 80) };
            lab.run(container.from(), &frame(sent, &Kind::syn()));
        }
    };
    let shared = &lab;
    std::thread::scope(|scope| {
        for container in containers {
            scope.spawn(move || open(shared, container));
        }
    });
    let flows = lab.flows();
    let (opened, answers): (Vec<_>, Vec<_>) =
        flows.iter().partition(|(key, _)| key.side == Side::Container as u8);
    assert!(opened.len() > 300, "{} of 600 found one of 400 ports", opened.len());
    let ports: HashSet<u16> = opened.iter().map(|(_, flow)| flow.to.sport.get()).collect();
    assert_eq!((ports.len(), answers.len()), (opened.len(), opened.len()));
    for (key, flow) in opened {
        let answer = lab.flow(flow.to.reversed(), 6, Side::Uplink).unwrap();
        assert_eq!(answer.to, key.tuple.reversed(), "the answer goes back where the flow began");
    }
}

/// Four ports, taken, given back and taken again.
#[test]
fn a_range_of_four_is_used_up_and_recovers() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.set_snat_ports(5000, 5003);
    let web = lab.web;
    let open = |lab: &mut Lab, port: u16| {
        let sent = Way { link: web.to_gateway(), src: (WEB, port), dst: (CLIENT, 80) };
        lab.judge(web.from(), &frame(sent, &Kind::syn())).1
    };
    for port in 20_000..20_004 {
        assert_eq!(open(&mut lab, port), Reason::Masqueraded);
    }
    assert_eq!(open(&mut lab, 20_004), Reason::PortsExhausted);
    assert_eq!(lab.flows().len(), 8);
    for (key, flow) in lab.flows() {
        let side = if key.side == Side::Uplink as u8 { Side::Uplink } else { Side::Container };
        lab.set_flow(key.tuple, 6, side, rnet_common::Flow { last_seen: 0, seen: 0x8, ..flow });
    }
    for port in 20_010..20_014 {
        // One expired port is taken over at a time, and it may be one that was taken just now.
        let taken = (0..64).map(|_| open(&mut lab, port)).find(|reason| *reason == Reason::Masqueraded);
        assert_eq!(taken, Some(Reason::Masqueraded));
    }
    assert_eq!(open(&mut lab, 20_014), Reason::PortsExhausted);
}

#[test]
fn what_goes_to_an_exempt_destination_keeps_its_address_and_the_rest_does_not() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let list = rnet_common::source::exempt(web.network);
    lab.allow(list, Ipv4Addr::new(192, 0, 2, 0).into(), 24);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let judged = |lab: &mut Lab, sent: Way| {
        let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
        (outcome, reason, lab.flow(tuple(sent.src, sent.dst), 6, Side::Container).unwrap())
    };
    // A network without the flag has no list, whatever there is under its number.
    assert_eq!(judged(&mut lab, sent).1, Reason::Masqueraded);

    let flags = EndpointFlags::ICC | EndpointFlags::MASQUERADE | EndpointFlags::EXEMPTS;
    lab.set_endpoint(&web, flags);
    let exempt = Way { src: (WEB, 5001), ..sent };
    let (outcome, reason, _) = judged(&mut lab, exempt);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Routed));
    assert_eq!(outcome.frame, forwarded(exempt, &Kind::syn()));
    // The answer comes to the container's own address.
    let answered = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    let arrives = Way { link: lab.client_link(), src: exempt.dst, dst: exempt.src };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, &answered));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::RoutedReply));
    let delivered = Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, ..arrives };
    assert_eq!(outcome.frame, forwarded(delivered, &answered));

    // Another network's list, and another destination.
    lab.allow(rnet_common::source::exempt(web.network + 1), Ipv4Addr::UNSPECIFIED.into(), 0);
    let beyond = Way { src: (WEB, 5002), dst: (Ipv4Addr::new(198, 51, 100, 1), 80), ..sent };
    let (_, reason, flow) = judged(&mut lab, beyond);
    assert_eq!((reason, flow.to.src), (Reason::Masqueraded, HOST.into()));
}
