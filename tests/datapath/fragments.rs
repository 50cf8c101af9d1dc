//! Fragments, which have ports only in the first.

use std::net::Ipv4Addr;

use rnet_common::Reason;
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, finish_header, frame, with_ttl},
    lab::{CLIENT, From, HOST, Lab, REDIRECT, SHOT, UNSPEC, WEB},
};

/// The frame's packet in three fragments, as a router cuts it.
pub(crate) fn fragments(frame: &[u8]) -> Vec<Vec<u8>> {
    const SIZE: usize = 400;
    let (header, payload) = frame.split_at(34);
    let count = payload.len().div_ceil(SIZE);
    let cut = |(n, part): (usize, &[u8])| {
        let mut fragment = [header, part].concat();
        let length = u16::try_from(fragment.len() - 14).unwrap();
        let more = if n + 1 < count { 0x2000 } else { 0 };
        let offset = more | u16::try_from(n * SIZE / 8).unwrap();
        fragment[16..18].copy_from_slice(&length.to_be_bytes());
        fragment[18..20].copy_from_slice(&[0x12, 0x34]);
        fragment[20..22].copy_from_slice(&offset.to_be_bytes());
        finish_header(&mut fragment);
        fragment
    };
    payload.chunks(SIZE).enumerate().map(cut).collect()
}

#[test]
fn fragments_follow_their_first() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let web = lab.web;
    let kind = Kind::udp(&(0..1000).map(|n| n as u8).collect::<Vec<_>>());
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let into = Ethernet { src: web.gateway_mac, dst: web.mac };
    let delivered = frame(Way { link: into, dst: (WEB, 80), ..arrives }, &kind);
    for (sent, expected) in fragments(&frame(arrives, &kind)).iter().zip(fragments(&delivered)) {
        let (outcome, reason) = lab.judge(From::Uplink, sent);
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Published));
        assert_eq!(outcome.frame, with_ttl(expected, 63));
    }
    let answer = Way { link: web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
    let left = frame(Way { src: (HOST, 8080), ..answer }, &kind);
    for (sent, expected) in fragments(&frame(answer, &kind)).iter().zip(fragments(&left)) {
        let (outcome, reason) = lab.judge(web.from(), sent);
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::PublishedReply));
        assert_eq!(outcome.frame, with_ttl(expected, 63));
    }
}

#[test]
fn a_fragment_before_its_first_is_put_back() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let parts = fragments(&frame(arrives, &Kind::udp(&[3; 1000])));
    let (outcome, reason) = lab.judge(From::Uplink, &parts[1]);
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::FragmentEarly));
    assert_eq!(outcome.frame, parts[1], "as it came");
    assert_eq!(lab.judge(From::Uplink, &parts[0]).1, Reason::Published);
    assert_eq!(lab.judge(From::Uplink, &parts[1]).1, Reason::Published);
}

#[test]
fn fragments_of_another_packet_are_told_apart() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let parts = fragments(&frame(arrives, &Kind::udp(&[3; 1000])));
    lab.run(From::Uplink, &parts[0]);
    let mut other = parts[1].clone();
    other[19] ^= 1;
    finish_header(&mut other);
    assert_eq!(lab.judge(From::Uplink, &other).1, Reason::FragmentEarly);
}

#[test]
fn the_host_s_own_fragments_are_left_alone() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 9) };
    for part in fragments(&frame(arrives, &Kind::udp(&[3; 1000]))) {
        let (outcome, reason) = lab.judge(From::Uplink, &part);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
        assert_eq!(outcome.frame, part);
    }
}

#[test]
fn a_fragment_opens_no_container() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let arrives = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (WEB, 80) };
    let parts = fragments(&frame(arrives, &Kind::udp(&[3; 1000])));
    for part in &parts {
        let (outcome, reason) = lab.judge(From::Uplink, part);
        assert_eq!((outcome.action, reason), (SHOT, Reason::Unpublished));
    }
}
