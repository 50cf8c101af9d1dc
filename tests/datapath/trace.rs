//! Records of packets for who looks: exactly what is asked for, and nothing when nobody asks.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::maps::{Array, PerCpuArray, RingBuf};
use nix::time::{ClockId, clock_gettime};
use rnet_common::{
    Be16, Ip6, Program, Reason, TraceFilter, TraceRecord, Tuple,
    trace::{BURST, Prefix, Recorder, trace_flags, widened},
};

use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, frame, with_ttl},
    frames6::{Kind6, Way6, frame6},
    lab::{CLIENT, CLIENT6, From, HOST, HOST6, Lab, WEB},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const SYN: u8 = 2;

/// Everything, whatever becomes of it.
fn all() -> TraceFilter {
    TraceFilter { reasons: u64::MAX, ..TraceFilter::default() }
}

fn look(lab: &mut Lab, filter: TraceFilter) {
    let map = lab.ebpf.map_mut("TRACE_FILTERS").unwrap();
    Array::try_from(map).unwrap().set(0, filter, 0).unwrap();
    switch(lab, 60);
}

/// Has the programs record for so many seconds from now on, or that long ago.
fn switch(lab: &mut Lab, seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    let until = u64::try_from(now + seconds).unwrap() * 1_000_000_000;
    Array::try_from(lab.ebpf.map_mut(".bss").unwrap()).unwrap().set(0, until, 0).unwrap();
}

fn seen(lab: &mut Lab) -> Vec<TraceRecord> {
    let mut records = RingBuf::try_from(lab.ebpf.map_mut("TRACE_RECORDS").unwrap()).unwrap();
    let mut seen = Vec::new();
    while let Some(bytes) = records.next() {
        let bytes: [u8; size_of::<TraceRecord>()] = bytes.as_ref().try_into().unwrap();
        // SAFETY: as many bytes as the record has, all of whose fields are numbers.
        seen.push(unsafe { std::mem::transmute::<[u8; size_of::<TraceRecord>()], TraceRecord>(bytes) });
    }
    seen
}

fn wide(addr: Ipv4Addr) -> Ip6 {
    widened(addr.into())
}

fn tuple((src, sport): (Ipv4Addr, u16), (dst, dport): (Ipv4Addr, u16)) -> Tuple<Ip6> {
    Tuple { src: wide(src), dst: wide(dst), sport: Be16::new(sport), dport: Be16::new(dport) }
}

fn to_port_8080(lab: &Lab) -> Vec<u8> {
    frame(Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) }, &Kind::syn())
}

#[test]
fn a_packet_is_recorded_with_what_it_was_and_what_it_became() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    look(&mut lab, all());
    let packet = to_port_8080(&lab);
    assert_eq!(lab.judge(From::Uplink, &packet).1, Reason::Published);
    assert_eq!(lab.judge(From::Uplink, &packet).1, Reason::Published);
    let answer = frame(
        Way { link: lab.web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) },
        &Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
    );
    assert_eq!(lab.judge(lab.web.from(), &answer).1, Reason::PublishedReply);

    let first = TraceRecord {
        came: tuple((CLIENT, 40_000), (HOST, 8080)),
        left: tuple((CLIENT, 40_000), (WEB, 80)),
        ifindex: lab.uplink,
        length: packet.len() as u32,
        ethertype: Be16::new(0x0800),
        program: Program::FromUplink as u8,
        reason: Reason::Published as u8,
        proto: 6,
        detail: SYN,
        flags: trace_flags::NEW_FLOW,
        ..TraceRecord::default()
    };
    let reply = TraceRecord {
        came: tuple((WEB, 80), (CLIENT, 40_000)),
        left: tuple((HOST, 8080), (CLIENT, 40_000)),
        ifindex: lab.web.ifindex,
        length: answer.len() as u32,
        program: Program::FromContainer as u8,
        reason: Reason::PublishedReply as u8,
        detail: 0x12,
        flags: 0,
        ..first
    };
    let seen: Vec<TraceRecord> =
        seen(&mut lab).into_iter().map(|record| TraceRecord { time: 0, ..record }).collect();
    assert_eq!(seen, [first, TraceRecord { flags: 0, ..first }, reply]);
}

#[test]
fn a_packet_that_is_dropped_is_recorded_as_it_came() {
    testbed::require_root!();
    let mut lab = Lab::new();
    look(&mut lab, all());
    let forged = frame(
        Way { link: lab.web.to_gateway(), src: (Ipv4Addr::new(10, 9, 8, 7), 1), dst: (CLIENT, 2) },
        &Kind::udp(b"x"),
    );
    assert_eq!(lab.judge(lab.web.from(), &forged).1, Reason::Spoofed);
    let [record] = seen(&mut lab)[..] else { panic!("one packet is one record") };
    let came = tuple((Ipv4Addr::new(10, 9, 8, 7), 1), (CLIENT, 2));
    assert_eq!((record.came, record.left), (came, came));
    assert_eq!((record.reason, record.proto), (Reason::Spoofed as u8, 17));
}

#[test]
fn a_packet_that_is_answered_opens_nothing() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    look(&mut lab, all());
    let last_hop = with_ttl(to_port_8080(&lab), 1);
    assert_eq!(lab.judge(From::Uplink, &last_hop).1, Reason::Answered);
    let [record] = seen(&mut lab)[..] else { panic!("one packet is one record") };
    assert_eq!((record.reason, record.flags), (Reason::Answered as u8, 0));
}

#[test]
fn only_what_is_asked_for_is_recorded() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(ANY, 8080, 6, WEB, 80);
    let packet = to_port_8080(&lab);
    let prefix = |addr: Ipv4Addr| Prefix { addr: wide(addr), mask: wide(Ipv4Addr::BROADCAST) };
    let matching = [
        TraceFilter { host: prefix(WEB), port: Be16::new(80), ..all() },
        TraceFilter { src: prefix(CLIENT), dst: prefix(HOST), dport: Be16::new(8080), ..all() },
        TraceFilter { ifindex: lab.uplink, proto: 6, ethertype: Be16::new(0x0800), ..all() },
        TraceFilter { reasons: 1 << Reason::Published as u8, ..all() },
    ];
    let others = [
        TraceFilter { host: prefix(HOST), port: Be16::new(80), ..all() },
        TraceFilter { dst: prefix(CLIENT), ..all() },
        TraceFilter { ifindex: lab.web.ifindex, ..all() },
        TraceFilter { proto: 17, ..all() },
        TraceFilter { reasons: 1 << Reason::Spoofed as u8, ..all() },
        TraceFilter::default(),
    ];
    for (filters, wanted) in [(&matching[..], 1), (&others[..], 0)] {
        for filter in filters {
            look(&mut lab, *filter);
            lab.run(From::Uplink, &packet);
            assert_eq!(seen(&mut lab).len(), wanted, "{filter:?}");
        }
    }
}

#[test]
fn nothing_is_recorded_when_nobody_looks_any_more() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let packet = to_port_8080(&lab);
    lab.run(From::Uplink, &packet);
    assert_eq!(seen(&mut lab), []);
    look(&mut lab, all());
    // Whoever looked has been killed, and nobody has taken the filter away.
    switch(&mut lab, -1);
    lab.run(From::Uplink, &packet);
    assert_eq!(seen(&mut lab), []);
    switch(&mut lab, 60);
    lab.run(From::Uplink, &packet);
    assert_eq!(seen(&mut lab).len(), 1);
}

fn wide6((src, sport): (Ipv6Addr, u16), (dst, dport): (Ipv6Addr, u16)) -> Tuple<Ip6> {
    Tuple { src: src.into(), dst: dst.into(), sport: Be16::new(sport), dport: Be16::new(dport) }
}

#[test]
fn ipv6_is_recorded_with_its_ports_or_identifiers() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web.addr6();
    lab.publish6(8080, 6, web, 80);
    look(&mut lab, all());
    let inward = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    assert_eq!(lab.judge(From::Uplink, &frame6(inward, Kind6::Syn)).1, Reason::Published);
    let outward = Way6::new(lab.web.to_gateway(), (web, 77), (CLIENT6, 0));
    assert_eq!(lab.judge(lab.web.from(), &frame6(outward, Kind6::Ping)).1, Reason::Masqueraded);

    let [syn, ping] = seen(&mut lab)[..] else { panic!("two packets are two records") };
    assert_eq!(
        (syn.came, syn.left),
        (wide6((CLIENT6, 40_000), (HOST6, 8080)), wide6((CLIENT6, 40_000), (web, 80)),)
    );
    assert_eq!((syn.ethertype, syn.proto, syn.detail), (Be16::new(0x86dd), 6, SYN));
    assert_eq!(syn.flags, trace_flags::NEW_FLOW);
    const ECHO_REQUEST: u8 = 128;
    assert_eq!((ping.came.src, ping.came.sport), (web.into(), Be16::new(77)));
    assert_eq!((ping.left.src, ping.left.dst), (HOST6.into(), CLIENT6.into()));
    assert_ne!(ping.left.sport, Be16::ZERO, "the identifier that it leaves with");
    assert_eq!((ping.proto, ping.detail), (58, ECHO_REQUEST));
}

#[test]
fn what_a_bridge_s_programs_judge_is_recorded_as_theirs() {
    testbed::require_root!();
    let mut lab = Lab::new();
    look(&mut lab, all());
    let bridge = lab.web.bridge;
    let (stranger, mac) = (Ipv4Addr::new(172, 17, 0, 77), [2, 0x42, 172, 17, 0, 77]);
    let up = Ethernet { src: mac, dst: lab.web.gateway_mac };
    let outward = frame(Way { link: up, src: (stranger, 4000), dst: (CLIENT, 53) }, &Kind::udp(b"x"));
    assert_eq!(lab.judge(From::Bridge(bridge), &outward).1, Reason::Unserved);
    let down = Ethernet { src: lab.web.gateway_mac, dst: mac };
    let inward = frame(Way { link: down, src: (CLIENT, 53), dst: (stranger, 4000) }, &Kind::udp(b"x"));
    let (_, reason) = lab.judge(From::ToBridge(lab.uplink, bridge), &inward);

    let [first, second] = seen(&mut lab)[..] else { panic!("two packets are two records") };
    let told = |record: TraceRecord| (record.program, record.ifindex, record.reason, record.came);
    let there = tuple((stranger, 4000), (CLIENT, 53));
    let back = tuple((CLIENT, 53), (stranger, 4000));
    assert_eq!(told(first), (Program::FromBridge as u8, bridge, Reason::Unserved as u8, there));
    assert_eq!(told(second), (Program::ToBridge as u8, bridge, reason as u8, back));
}

#[test]
fn more_than_can_be_read_is_counted_and_not_written() {
    testbed::require_root!();
    let mut lab = Lab::new();
    look(&mut lab, all());
    let packet = to_port_8080(&lab);
    let lost = |lab: &Lab| {
        let recorders = lab.ebpf.map("TRACE_RECORDERS").unwrap();
        let recorders = PerCpuArray::<_, Recorder>::try_from(recorders).unwrap().get(&0, 0).unwrap();
        recorders.iter().map(|recorder| recorder.lost).sum::<u64>()
    };
    // Far more than windows have room for: the machine may be slow, and has then more windows for them.
    const PACKETS: u64 = 40_000;
    lab.run_repeatedly(From::Uplink, &packet, PACKETS as u32);
    let seen = seen(&mut lab).len() as u64;
    assert!(seen >= u64::from(BURST), "{seen} records");
    assert_eq!(seen + lost(&lab), PACKETS, "each packet is written, or counted as lost");
    assert!(lost(&lab) > 0);
}
