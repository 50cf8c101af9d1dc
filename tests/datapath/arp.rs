//! ARP and other frames that a bridge handles.

use std::net::Ipv4Addr;

use rnet_common::Reason;

use crate::lab::{APP, Container, GATEWAY, Lab, SHOT, UNSPEC, WEB};

/// An ARP packet: who sends it and claims which addresses, and whom it is about.
fn arp(from: [u8; 6], mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr, reply: bool) -> Vec<u8> {
    let operation = if reply { 2 } else { 1 };
    [
        &[0xff; 6][..],
        &from,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &mac,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat()
}

#[test]
fn a_container_speaks_arp_for_itself_alone() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let own = |sender, target, reply| arp(web.mac, web.mac, sender, target, reply);
    for (what, frame, expected) in [
        ("asks for its gateway", own(WEB, GATEWAY, false), Reason::Bridged),
        ("answers", own(WEB, GATEWAY, true), Reason::Bridged),
        ("looks whether an address is free", own(Ipv4Addr::UNSPECIFIED, WEB, false), Reason::Bridged),
        ("answers for a neighbour", own(APP, GATEWAY, true), Reason::Spoofed),
        ("answers for the gateway", own(GATEWAY, APP, true), Reason::Spoofed),
        ("claims a neighbour's interface", arp(web.mac, app.mac, WEB, GATEWAY, true), Reason::Spoofed),
        ("sends as a neighbour", arp(app.mac, web.mac, WEB, GATEWAY, true), Reason::Spoofed),
    ] {
        let (outcome, reason) = lab.judge(web.from(), &frame);
        assert_eq!(reason, expected, "{what}");
        let action = if expected == Reason::Bridged { UNSPEC } else { SHOT };
        assert_eq!((outcome.action, outcome.frame), (action, frame), "{what}");
    }
    let cut = own(WEB, GATEWAY, true);
    assert_eq!(lab.judge(web.from(), &cut[..40]).1, Reason::Malformed);
}

#[test]
fn other_frames_are_the_bridge_s_under_the_sender_s_own_address() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let frame = |container: Container, mac: [u8; 6]| {
        // An EtherType for experiments (RFC 9542).
        [&container.gateway_mac[..], &mac, &[0x88, 0xb5], &[0; 50]].concat()
    };
    let (web, app) = (lab.web, lab.app);
    let (outcome, reason) = lab.judge(web.from(), &frame(web, web.mac));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::Bridged));
    let (outcome, reason) = lab.judge(web.from(), &frame(web, app.mac));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed));
}
