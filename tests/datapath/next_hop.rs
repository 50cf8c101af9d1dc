//! The next hop, which the kernel is asked for once a tick.

use std::time::Duration;

use rnet_common::{EndpointFlags, Reason};
use testbed::packet::TTL;

use crate::{
    frames::{Kind, Way, finish_header, frame, with_ttl},
    lab::{CLIENT, CLIENT_MAC, Lab, REDIRECT, UNSPEC, WEB},
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const LIMIT: Duration = Duration::from_secs(10);

/// A lab whose container `web` has an open flow to the client, and what it sends on it. Its network does not masquerade,
/// so that a packet stays what it is but for its time to live, and may be sent again as it came back.
fn open() -> (Lab, Way) {
    let mut lab = Lab::new();
    let web = lab.web;
    lab.set_endpoint(&web, EndpointFlags::ICC);
    neighbour(&lab, CLIENT_MAC);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 53) };
    assert_eq!(lab.judge(web.from(), &frame(sent, &Kind::udp(b"first"))).1, Reason::Routed);
    (lab, sent)
}

fn neighbour(lab: &Lab, mac: [u8; 6]) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    lab.ns.ip(&format!("neigh replace {CLIENT} lladdr {mac} nud permanent dev up0"));
}

/// Sends a packet 20 times on end until that happens within a tick: the last then has the Ethernet addresses of the next
/// hop, which the kernel writes later where it is asked. Returns the frame.
fn sent_within_a_tick(lab: &Lab, sent: Way) -> Vec<u8> {
    testbed::wait_until("20 packets within a tick", LIMIT, || {
        let packet = frame(sent, &Kind::udp(b"more"));
        let (outcome, _) = lab.run_repeatedly(lab.web.from(), &packet, 20);
        assert_eq!(outcome.action, REDIRECT);
        (outcome.frame[6..12] == lab.uplink_mac).then_some(outcome.frame)
    })
}

#[test]
fn what_follows_within_a_tick_goes_the_same_way() {
    testbed::require_root!();
    let (lab, sent) = open();
    let left = sent_within_a_tick(&lab, sent);
    let mut expected = with_ttl(frame(sent, &Kind::udp(b"more")), TTL - 20);
    expected[0..6].copy_from_slice(&CLIENT_MAC);
    expected[6..12].copy_from_slice(&lab.uplink_mac);
    assert_eq!(left, expected);
}

#[test]
fn a_neighbour_with_another_address_is_found() {
    testbed::require_root!();
    let (lab, sent) = open();
    assert_eq!(sent_within_a_tick(&lab, sent)[0..6], CLIENT_MAC);
    neighbour(&lab, OTHER_MAC);
    testbed::wait_until("the new address is used", LIMIT, || {
        (sent_within_a_tick(&lab, sent)[0..6] == OTHER_MAC).then_some(())
    });
}

#[test]
fn a_route_that_is_gone_is_no_longer_used() {
    testbed::require_root!();
    let (mut lab, sent) = open();
    sent_within_a_tick(&lab, sent);
    lab.ns.ip("link set up0 down");
    let web = lab.web.from();
    testbed::wait_until("nothing leaves", LIMIT, || {
        (lab.judge(web, &frame(sent, &Kind::udp(b"late"))).1 == Reason::Unroutable).then_some(())
    });
}

#[test]
fn another_flow_and_what_is_too_large_are_asked_for() {
    testbed::require_root!();
    let (mut lab, sent) = open();
    let web = lab.web.from();
    for port in 54..74 {
        sent_within_a_tick(&lab, sent);
        let (outcome, reason) = lab.judge(web, &frame(sent, &Kind::udp(&[0; 1600])));
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::TooBig));
        let other = Way { dst: (CLIENT, port), ..sent };
        let (outcome, reason) = lab.judge(web, &frame(other, &Kind::udp(b"other")));
        assert_eq!(reason, Reason::Routed);
        assert_ne!(outcome.frame[6..12], lab.uplink_mac, "the kernel is asked for the first of a flow");
    }
}

/// The kernel says first that it does not know the neighbour, and then does not say that the way is too small.
#[test]
fn what_is_too_large_is_seen_without_a_neighbour_too() {
    testbed::require_root!();
    let (mut lab, sent) = open();
    lab.ns.ip("link set up0 mtu 1400");
    let web = lab.web.from();
    let mut large = frame(sent, &Kind::udp(&[0; 1450]));
    // May be fragmented.
    large[20] &= !0x40;
    finish_header(&mut large);
    for known in [true, false] {
        if !known {
            lab.ns.ip(&format!("neigh del {CLIENT} dev up0"));
        }
        let (outcome, reason) = lab.judge(web, &large);
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Routed));
        assert_eq!(outcome.frame, large, "the host's stack fragments it, and takes the time to live");
    }
}
