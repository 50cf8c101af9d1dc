//! `xdp_uplink`: what it carries leaves as `from_uplink` would have it leave, and all else stays as it came.

use std::net::Ipv4Addr;

use aya::{
    maps::xdp::DevMapHash,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use etherparse::PacketBuilder;
use rnet_common::{
    Counter, Flow, FlowKey, Ip6, Mac, Program, Reason, Side, Tuple, Uplink, flow::seen, uplink::uplink_flags,
};
use testbed::packet::{Ethernet, verify_checksums};

use crate::{
    frames::{Kind, Way, finish_header, forwarded, frame, with_ttl},
    frames6::{Kind6, Way6, frame6},
    lab::{CLIENT, CLIENT6, From, HOST, HOST6, Lab, Outcome, REDIRECT, WEB, tuple},
    random::{self, Source},
};

/// XDP actions (linux/bpf.h).
const XDP_PASS: i32 = 2;
const XDP_REDIRECT: i32 = 4;

/// Length of a frame of UDP over IPv4 without data.
const HEADERS: usize = 42;

/// A lab whose containers take frames.
fn lab() -> Lab {
    taking_frames(Lab::new())
}

fn taking_frames(mut lab: Lab) -> Lab {
    let veths = [lab.web, lab.app, lab.other].map(|container| container.ifindex);
    let mut map = DevMapHash::try_from(lab.ebpf.map_mut("FRAME_VETHS").unwrap()).unwrap();
    for ifindex in veths {
        map.insert(ifindex, ifindex, None, 0).unwrap();
    }
    lab
}

fn set_uplink(lab: &mut Lab, mac: [u8; 6], flags: u16) {
    let index = lab.uplink;
    lab.table("UPLINKS").insert(index, Uplink { mac: Mac(mac), flags }, 0).unwrap();
}

/// Runs the program on a frame that arrives at the uplink.
fn run(lab: &Lab, frame: &[u8]) -> Outcome {
    /// `xdp_md` in words (linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    const WORDS: usize = 6;
    let mut words = [0u32; WORDS];
    words[1] = u32::try_from(frame.len()).unwrap();
    words[3] = lab.uplink;
    let context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut out = vec![0; frame.len() + 256];
    let program: &Xdp = lab.ebpf.program("xdp_uplink").unwrap().try_into().unwrap();
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    });
    let result = result.unwrap_or_else(|e| panic!("run xdp_uplink: {e:?}"));
    out.truncate(result.data_size_out as usize);
    Outcome { action: result.return_value.cast_signed(), frame: out }
}

fn counters(lab: &Lab) -> Vec<Counter> {
    Program::ALL.iter().flat_map(|p| Reason::ALL.iter().map(|r| lab.counter(*p, *r))).collect()
}

/// Expects that a frame is left alone, and neither counted nor noted anywhere.
#[track_caller]
fn passes(lab: &mut Lab, frame: &[u8]) {
    let (counted, noted) = (counters(lab), lab.flows());
    let outcome = run(lab, frame);
    assert_eq!(outcome.action, XDP_PASS);
    assert_eq!(outcome.frame, frame);
    assert_eq!(counters(lab), counted);
    assert_eq!(lab.flows(), noted);
}

fn way(lab: &Lab) -> Way {
    Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) }
}

/// Where the lab's one flow leads.
fn delivered(lab: &Lab) -> Way {
    let web = lab.web;
    Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, dst: (WEB, 80), ..way(lab) }
}

/// Publishes port 8080 and opens a flow to it.
fn open(lab: &mut Lab, proto: u8) {
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, proto, WEB, 80);
    let first = if proto == 6 { Kind::syn() } else { Kind::udp(b"first") };
    let outcome = lab.run(From::Uplink, &frame(way(lab), &first));
    assert_eq!(outcome.action, REDIRECT);
}

fn flow(lab: &mut Lab, proto: u8) -> Flow<rnet_common::Ip4> {
    lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), proto, Side::Uplink).unwrap()
}

/// A segment that acknowledges.
fn ack() -> Kind {
    Kind::tcp(|header| (header.ack, header.psh) = (true, true))
}

/// A frame of exactly so many bytes.
fn udp_of(lab: &Lab, len: usize) -> Vec<u8> {
    frame(way(lab), &Kind::Udp(vec![7; len - HEADERS]))
}

fn carried(kind: &Kind) {
    let mut lab = lab();
    open(&mut lab, kind.proto());
    let before = flow(&mut lab, kind.proto());
    let packet = frame(way(&lab), kind);
    let outcome = run(&lab, &packet);
    assert_eq!(outcome.action, XDP_REDIRECT);
    assert_eq!(outcome.frame, forwarded(delivered(&lab), kind));

    let after = flow(&mut lab, kind.proto());
    let length = packet.len() as u64;
    assert_eq!((after.packets - before.packets, after.bytes - before.bytes), (1, length - 14));
    let acknowledged = if kind.proto() == 6 { seen::ACK } else { 0 };
    assert_eq!(after.seen, before.seen | acknowledged);
    let counter = lab.counter(Program::XdpUplink, Reason::Published);
    assert_eq!((counter.packets, counter.bytes), (1, length));
    assert_eq!(lab.counter(Program::FromUplink, Reason::Published).packets, 1, "the one that opened");
}

#[test]
fn tcp() {
    testbed::require_root!();
    carried(&ack());
}

#[test]
fn udp() {
    testbed::require_root!();
    for payload in [&b""[..], b"x", b"question", b"an odd one"] {
        carried(&Kind::udp(payload));
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    for flags in [0, uplink_flags::UNFINISHED] {
        let mac = lab.uplink_mac;
        set_uplink(&mut lab, mac, flags);
        let mut packet = frame(way(&lab), &Kind::udp(b"question"));
        packet[40..42].fill(0);
        let mut expected = forwarded(delivered(&lab), &Kind::udp(b"question"));
        expected[40..42].fill(0);
        let outcome = run(&lab, &packet);
        assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, expected));
    }
}

#[test]
fn a_computed_udp_checksum_of_zero_is_written_as_ones() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    let becomes = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| forwarded(delivered(&lab), &Kind::udp(payload))[40..42] == [0xff, 0xff]);
    let kind = Kind::udp(&becomes.unwrap());
    let outcome = run(&lab, &frame(way(&lab), &kind));
    assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, forwarded(delivered(&lab), &kind)));
}

#[test]
fn ipv6() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    let arrives = Way6::new(lab.client_link(), (CLIENT6, 40_000), (HOST6, 8080));
    let into = Ethernet { src: web.gateway_mac, dst: web.mac };
    let delivered = Way6 { link: into, dst: (web.addr6(), 80), ..arrives.forwarded() };
    let acknowledge = |way: Way6| {
        let Way6 { link, src, dst, hops } = way;
        let ip = PacketBuilder::ethernet2(link.src, link.dst).ipv6(src.0.octets(), dst.0.octets(), hops);
        let mut frame = Vec::new();
        ip.tcp(src.1, dst.1, 8, 4096).ack(9).write(&mut frame, b"data").unwrap();
        frame
    };
    for proto in [6, 17] {
        lab.publish6(8080, proto, web.addr6(), 80);
    }
    for first in [Kind6::Syn, Kind6::Udp(b"first")] {
        assert_eq!(lab.run(From::Uplink, &frame6(arrives, first)).action, REDIRECT);
    }
    let udp = |way| frame6(way, Kind6::Udp(b"question"));
    for flags in [0, uplink_flags::UNFINISHED] {
        let mac = lab.uplink_mac;
        set_uplink(&mut lab, mac, flags);
        for (asked, expected) in
            [(udp(arrives), udp(delivered)), (acknowledge(arrives), acknowledge(delivered))]
        {
            let outcome = run(&lab, &asked);
            assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, expected));
        }
    }
    assert_eq!(lab.counter(Program::XdpUplink, Reason::Published).packets, 4);
    let key = Tuple {
        src: Ip6::from(CLIENT6),
        dst: Ip6::from(HOST6),
        sport: rnet_common::Be16::new(40_000),
        dport: rnet_common::Be16::new(8080),
    };
    let udp_flow: Flow<Ip6> = lab.table("FLOWS6").get(&FlowKey::new(key, 17, Side::Uplink), 0).unwrap();
    assert_eq!(udp_flow.packets, 2);
    // An extension header, and a packet that says it is longer than it is.
    let mut extended = udp(arrives);
    extended[20] = 0;
    passes(&mut lab, &extended);
    let mut long = udp(arrives);
    long[19] += 1;
    passes(&mut lab, &long);
    passes(&mut lab, &frame6(Way6 { hops: 1, ..arrives }, Kind6::Udp(b"question")));
    passes(&mut lab, &frame6(arrives, Kind6::Syn));
}

#[test]
fn answers_to_a_container_are_carried() {
    testbed::require_root!();
    let mut lab = lab();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 53) };
    assert_eq!(lab.judge(web.from(), &frame(sent, &Kind::udp(b"who"))).1, Reason::Masqueraded);
    let answer = Way { link: lab.client_link(), src: (CLIENT, 53), dst: (HOST, 5000) };
    let outcome = run(&lab, &frame(answer, &Kind::udp(b"me")));
    let into = Way { link: Ethernet { src: web.gateway_mac, dst: web.mac }, dst: (WEB, 5000), ..answer };
    assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, forwarded(into, &Kind::udp(b"me"))));
    assert_eq!(lab.counter(Program::XdpUplink, Reason::MasqueradedReply).packets, 1);
    // What the container sends has an entry too, for its own side.
    let replayed = frame(Way { link: lab.client_link(), ..sent }, &Kind::udp(b"who"));
    passes(&mut lab, &replayed);
}

#[test]
fn what_opens_or_ends_a_connection_is_left_alone() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 6);
    for kind in [
        Kind::syn(),
        Kind::tcp(|header| (header.syn, header.ack) = (true, true)),
        Kind::tcp(|header| (header.fin, header.ack) = (true, true)),
        Kind::tcp(|header| header.rst = true),
    ] {
        let packet = frame(way(&lab), &kind);
        passes(&mut lab, &packet);
    }
    // Without a flow there is nothing to belong to.
    let other = frame(Way { src: (CLIENT, 40_001), ..way(&lab) }, &ack());
    passes(&mut lab, &other);
    let ping = frame(way(&lab), &Kind::Ping);
    passes(&mut lab, &ping);
}

#[test]
fn what_is_not_plain_is_left_alone() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    let plain = frame(way(&lab), &Kind::udp(b"question"));
    let changed = |at: usize, value: u8| {
        let mut frame = plain.clone();
        frame[at] = value;
        finish_header(&mut frame);
        frame
    };
    assert_eq!(run(&lab, &plain).action, XDP_REDIRECT);
    // More fragments; an offset; a time to live that runs out; SCTP; another version.
    for packet in [changed(20, 0x20), changed(21, 1), with_ttl(plain.clone(), 1), changed(23, 132)] {
        passes(&mut lab, &packet);
    }
    let mut version = plain.clone();
    version[14] = 0x65;
    passes(&mut lab, &version);
    // An option: four bytes of nothing.
    let mut options = plain.clone();
    options.splice(34..34, [1, 1, 1, 0]);
    options[14] = 0x46;
    options[17] += 4;
    finish_header(&mut options);
    passes(&mut lab, &options);
    // A tag.
    let mut vlan = plain.clone();
    vlan.splice(12..12, [0x81, 0, 0, 5]);
    passes(&mut lab, &vlan);
    // Shorter than it says, and than a header is.
    passes(&mut lab, &plain[..plain.len() - 1]);
    passes(&mut lab, &changed(17, 20 + 7));
    passes(&mut lab, &changed(17, 19));
    passes(&mut lab, &plain[..14]);
    passes(&mut lab, &plain[..40]);
}

#[test]
fn large_frames_are_left_alone() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    let (largest, larger) = (udp_of(&lab, 256), udp_of(&lab, 257));
    let outcome = run(&lab, &largest);
    assert_eq!(outcome.action, XDP_REDIRECT);
    verify_checksums(&outcome.frame).unwrap();
    passes(&mut lab, &larger);
    // Nor what the container's interface does not take.
    let key = tuple((CLIENT, 40_000), (HOST, 8080));
    let small = Flow { mtu: 100, ..flow(&mut lab, 17) };
    lab.set_flow(key, 17, Side::Uplink, small);
    let (fits, too_large) = (udp_of(&lab, 114), udp_of(&lab, 115));
    assert_eq!(run(&lab, &fits).action, XDP_REDIRECT);
    passes(&mut lab, &too_large);
}

/// A network card fills short frames up.
#[test]
fn bytes_behind_a_packet_are_carried_along() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    for flags in [0, uplink_flags::UNFINISHED] {
        let mac = lab.uplink_mac;
        set_uplink(&mut lab, mac, flags);
        let mut packet = frame(way(&lab), &Kind::udp(b"x"));
        packet.resize(60, 0xee);
        let mut expected = forwarded(delivered(&lab), &Kind::udp(b"x"));
        expected.resize(60, 0xee);
        let outcome = run(&lab, &packet);
        assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, expected));
    }
}

#[test]
fn frames_for_others_are_left_alone() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    let mut packet = frame(way(&lab), &Kind::udp(b"question"));
    assert_eq!(run(&lab, &packet).action, XDP_REDIRECT);
    for mac in [[0xff; 6], [2, 9, 9, 9, 9, 9]] {
        packet[..6].copy_from_slice(&mac);
        passes(&mut lab, &packet);
    }
    // The uplink has got another address, or is none any more.
    set_uplink(&mut lab, [2, 9, 9, 9, 9, 9], 0);
    assert_eq!(run(&lab, &packet).action, XDP_REDIRECT);
    let uplink = lab.uplink;
    lab.table::<u32, Uplink>("UPLINKS").remove(&uplink).unwrap();
    passes(&mut lab, &packet);
}

#[test]
fn dead_flows_and_containers_that_take_no_frames_are_left_alone() {
    testbed::require_root!();
    let mut lab = lab();
    open(&mut lab, 17);
    let packet = frame(way(&lab), &Kind::udp(b"question"));
    assert_eq!(run(&lab, &packet).action, XDP_REDIRECT);
    let key = tuple((CLIENT, 40_000), (HOST, 8080));
    let entry = flow(&mut lab, 17);
    lab.set_flow(key, 17, Side::Uplink, Flow { from_ifindex: lab.web.ifindex, ..entry });
    passes(&mut lab, &packet);
    // Routed rather than delivered.
    lab.set_flow(key, 17, Side::Uplink, Flow { flags: 0, ..entry });
    passes(&mut lab, &packet);
    lab.set_flow(key, 17, Side::Uplink, entry);
    assert_eq!(run(&lab, &packet).action, XDP_REDIRECT);
    let web = lab.web.ifindex;
    DevMapHash::try_from(lab.ebpf.map_mut("FRAME_VETHS").unwrap()).unwrap().remove(web).unwrap();
    passes(&mut lab, &packet);
    let mut map = DevMapHash::try_from(lab.ebpf.map_mut("FRAME_VETHS").unwrap()).unwrap();
    map.insert(web, web, None, 0).unwrap();
    assert_eq!(run(&lab, &packet).action, XDP_REDIRECT);
    lab.set_mapping(entry.mapping, entry.generation + 1);
    passes(&mut lab, &packet);
}

/// A sender that takes the link for a network card leaves the pseudo header's sum where the checksum should be.
#[test]
fn unfinished_checksums_are_left_alone_where_they_may_be() {
    testbed::require_root!();
    let mut lab = lab();
    let mac = lab.uplink_mac;
    for (kind, at) in [(ack(), 34 + 16), (Kind::udp(b"question"), 34 + 6)] {
        open(&mut lab, kind.proto());
        let finished = frame(way(&lab), &kind);
        let mut unfinished = finished.clone();
        unfinished[at] ^= 0x10;
        set_uplink(&mut lab, mac, uplink_flags::UNFINISHED);
        passes(&mut lab, &unfinished);
        let outcome = run(&lab, &finished);
        assert_eq!((outcome.action, outcome.frame), (XDP_REDIRECT, forwarded(delivered(&lab), &kind)));
        // From a network card a wrong one is wrong: it stays so, for the container to see.
        set_uplink(&mut lab, mac, 0);
        let outcome = run(&lab, &unfinished);
        assert_eq!(outcome.action, XDP_REDIRECT);
        verify_checksums(&outcome.frame).unwrap_err();
    }
}

/// Whatever is carried is carried as `from_uplink` does it, right or broken, and what is not is left as it came. With
/// checksums looked at, what is carried has right ones.
#[test]
fn packets_at_random_leave_as_from_uplink_has_them_leave() {
    testbed::require_root!();
    let (mut lab, mut source) = (taking_frames(random::lab()), Source::new());
    source.longest = 230;
    let (mut carried, packets) = (0, random::packets());
    for n in 0..packets {
        let mut packet = source.packet_from_outside(&lab);
        // The flow, if there can be one.
        let (proto, flags) = if packet[12] == 8 { (packet[23], 47) } else { (packet[20], 67) };
        let mut first = packet.clone();
        if proto == 6 {
            first[flags] = 2;
        }
        lab.run(From::Uplink, &first);
        if n % 3 == 0 {
            source.spoil(&mut packet);
        }
        let looked_at = n % 2 == 0;
        let mac = lab.uplink_mac;
        set_uplink(&mut lab, mac, if looked_at { uplink_flags::UNFINISHED } else { 0 });
        let early = run(&lab, &packet);
        let said = format!("RNET_RANDOM_SEED={}, packet {n}", source.seed);
        if early.action == XDP_PASS {
            assert_eq!(early.frame, packet, "{said}");
            continue;
        }
        carried += 1;
        assert_eq!(early.action, XDP_REDIRECT, "{said}");
        let late = lab.run(From::Uplink, &packet);
        assert_eq!((late.action, late.frame), (REDIRECT, early.frame.clone()), "{said}");
        if looked_at {
            // The IPv4 header's is the container's to look at.
            if packet[12] == 8 {
                packet = early.frame;
                finish_header(&mut packet);
                verify_checksums(&packet).unwrap_or_else(|e| panic!("{said}: {e}"));
            } else {
                verify_checksums(&early.frame).unwrap_or_else(|e| panic!("{said}: {e}"));
            }
        }
    }
    println!("{carried} of {packets} carried");
    assert!(carried > packets / 6, "{carried} of {packets}");
}
