//! Published ports, both directions.

use std::net::Ipv4Addr;

use rnet_common::{Program, Reason, Side};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, forwarded, frame, with_ttl},
    lab::{APP, CLIENT, From, HOST, HOST_SECOND, Lab, REDIRECT, SHOT, UNSPEC, WEB, tuple},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Sends a packet to port 8080 and its answer back, both compared whole.
fn there_and_back(asked: &Kind, answered: &Kind) {
    let mut lab = Lab::new();
    let mapping = lab.publish(ANY, 8080, asked.proto(), WEB, 80);
    let web = lab.web;
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(arrives, asked));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let delivered = Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, dst: (WEB, 80), ..arrives };
    assert_eq!(outcome.frame, forwarded(delivered, asked));

    let forward = lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), asked.proto(), Side::Uplink).unwrap();
    let reply = lab.flow(tuple((WEB, 80), (CLIENT, 40_000)), asked.proto(), Side::Container).unwrap();
    assert_eq!(forward.to, tuple((CLIENT, 40_000), (WEB, 80)));
    assert_eq!(reply.to, tuple((HOST, 8080), (CLIENT, 40_000)));
    assert_eq!((forward.mapping, forward.generation), (mapping, lab.mapping(mapping).generation));
    assert_eq!(reply.from_ifindex, web.ifindex);
    assert_eq!(lab.mapping(mapping).flows, 1);

    let answer = Way { link: web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let (outcome, reason) = lab.judge(web.from(), &frame(answer, answered));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::PublishedReply));
    // Ethernet addresses are written when the next hop's is known.
    let leaves = Way { src: (HOST, 8080), ..answer };
    assert_eq!(outcome.frame, forwarded(leaves, answered));
}

#[test]
fn tcp() {
    testbed::require_root!();
    there_and_back(&Kind::syn(), &Kind::tcp(|header| (header.syn, header.ack) = (true, true)));
}

#[test]
fn udp() {
    testbed::require_root!();
    there_and_back(&Kind::udp(b"question"), &Kind::udp(b"a longer answer"));
}

#[test]
fn udp_without_a_checksum_stays_without() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let mut packet = frame(arrives, &Kind::udp(b"question"));
    packet[40..42].fill(0);
    let outcome = lab.run(From::Uplink, &packet);
    assert_eq!(outcome.action, REDIRECT);
    assert_eq!(outcome.frame[40..42], [0, 0]);
    assert_eq!(outcome.frame[36..38], 80u16.to_be_bytes());
}

#[test]
fn a_computed_udp_checksum_of_zero_is_written_as_ones() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let delivered = |way: Way| Way {
        link: Ethernet { src: lab.web.gateway_mac, dst: lab.web.mac },
        dst: (WEB, 80),
        ..way
    };
    let becomes = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| forwarded(delivered(arrives), &Kind::udp(payload))[40..42] == [0xff, 0xff]);
    let kind = Kind::udp(&becomes.unwrap());
    let expected = forwarded(delivered(arrives), &kind);
    assert_eq!(lab.run(From::Uplink, &frame(arrives, &kind)).frame, expected);
}

#[test]
fn one_address_is_published_and_the_other_is_not() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(HOST_SECOND, 8080, 6, WEB, 80);
    let way = |dst| Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (dst, 8080) };
    let (to_first, to_second) = (frame(way(HOST), &Kind::syn()), frame(way(HOST_SECOND), &Kind::syn()));
    let (outcome, reason) = lab.judge(From::Uplink, &to_first);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
    assert_eq!(outcome.frame, to_first, "left as it came");
    assert_eq!(lab.judge(From::Uplink, &to_second).1, Reason::Published);
}

#[test]
fn an_address_s_own_port_goes_before_that_of_every_address() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 17, WEB, 80);
    lab.publish(HOST_SECOND, 8080, 17, APP, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST_SECOND, 8080) };
    lab.run(From::Uplink, &frame(way, &Kind::udp(b"x")));
    let flow = lab.flow(tuple((CLIENT, 40_000), (HOST_SECOND, 8080)), 17, Side::Uplink).unwrap();
    assert_eq!(Ipv4Addr::from(flow.to.dst), APP);
}

#[test]
fn what_opens_nothing_is_left_to_the_host() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    for kind in [
        Kind::tcp(|header| header.ack = true),
        Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
        Kind::tcp(|header| header.rst = true),
        Kind::tcp(|header| (header.fin, header.ack) = (true, true)),
    ] {
        let packet = frame(way, &kind);
        let (outcome, reason) = lab.judge(From::Uplink, &packet);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs), "{kind:?}");
        assert_eq!(outcome.frame, packet);
    }
    assert!(lab.flows().is_empty());
}

#[test]
fn transit_traffic_is_left_alone() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let elsewhere = Ipv4Addr::new(198, 51, 100, 7);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (elsewhere, 8080) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &Kind::syn()));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
}

#[test]
fn a_port_that_leads_nowhere_is_closed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, Ipv4Addr::new(172, 17, 0, 99), 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::NoEndpoint));
}

#[test]
fn a_container_s_own_address_is_closed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 80, 6, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (WEB, 80) };
    for kind in [Kind::syn(), Kind::udp(b"x"), Kind::Ping, Kind::tcp(|header| header.ack = true)] {
        let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Unpublished), "{kind:?}");
    }
}

#[test]
fn an_answer_whose_time_has_run_out_is_the_host_s_to_report() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    lab.run(From::Uplink, &frame(arrives, &Kind::syn()));
    let answer = Way { link: lab.web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let packet = with_ttl(frame(answer, &Kind::tcp(|header| header.ack = true)), 1);
    let (outcome, reason) = lab.judge(lab.web.from(), &packet);
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::TtlExpired));
    assert_eq!(outcome.frame, packet);
}

#[test]
fn packets_are_counted_by_program_with_their_bytes() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 17, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let packet = frame(way, &Kind::udp(b"question"));
    for _ in 0..3 {
        lab.run(From::Uplink, &packet);
    }
    let counter = lab.counter(Program::FromUplink, Reason::Published);
    assert_eq!((counter.packets, counter.bytes), (3, 3 * packet.len() as u64));
    assert_eq!(lab.counter(Program::FromContainer, Reason::Published).packets, 0);
    let flow = lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), 17, Side::Uplink).unwrap();
    // The first opened the flow.
    assert_eq!((flow.packets, flow.bytes), (2, 2 * (packet.len() as u64 - 14)));
}

/// An SCTP packet: ports, a tag, the checksum over all of it, and one chunk.
fn sctp(way: Way, chunk: u8, checksum: u32) -> Vec<u8> {
    let mut frame = frame(way, &Kind::udp(&[]));
    frame.truncate(38);
    frame[23] = 132;
    frame.extend([0, 0, 0, 9]);
    frame.extend(checksum.to_be_bytes());
    frame.extend([chunk, 0, 0, 20]);
    frame.extend([7; 16]);
    let length = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    crate::frames::finish_header(&mut frame);
    frame
}

#[test]
fn sctp_keeps_its_ports_and_its_checksum() {
    testbed::require_root!();
    const INIT: u8 = 1;
    const DATA: u8 = 0;
    let mut lab = Lab::new();
    lab.publish(ANY, 9899, 132, WEB, 9899);
    let web = lab.web;
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 9899) };
    assert_eq!(lab.judge(From::Uplink, &sctp(arrives, DATA, 1)).1, Reason::NotOurs, "it opens nothing");
    let (outcome, reason) = lab.judge(From::Uplink, &sctp(arrives, INIT, 0x1234_5678));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
    let into = Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, dst: (WEB, 9899), ..arrives };
    assert_eq!(outcome.frame, with_ttl(sctp(into, INIT, 0x1234_5678), 63));
    let answer = Way { link: web.to_gateway(), src: (WEB, 9899), dst: (CLIENT, 40_000) };
    let (outcome, reason) = lab.judge(web.from(), &sctp(answer, DATA, 5));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::PublishedReply));
    assert_eq!(outcome.frame, with_ttl(sctp(Way { src: (HOST, 9899), ..answer }, DATA, 5), 63));
    // What leaves keeps its port, or does not leave.
    let (web, app) = (lab.web, lab.app);
    let leaves = |addr, link| Way { link, src: (addr, 40_000), dst: (CLIENT, 9899) };
    let first = sctp(leaves(WEB, web.to_gateway()), INIT, 1);
    assert_eq!(lab.judge(web.from(), &first).1, Reason::Masqueraded);
    let second = sctp(leaves(APP, app.to_gateway()), INIT, 1);
    assert_eq!(lab.judge(app.from(), &second).1, Reason::PortsExhausted);
}
