//! Bridges that engines have made: what is not served passes to the host and no further.

use std::net::{Ipv4Addr, SocketAddrV4};

use rnet_common::{Reason, counter};
use testbed::packet::{self, Ethernet};

use crate::{
    frames6::{Kind6, Way6, frame6},
    lab::{
        CLIENT, CLIENT_MAC, CLIENT6, Container, From, GATEWAY, HOST, HOST6, Lab, OTHER_GATEWAY, SHOT, UNSPEC,
        WEB,
    },
    stack::VIA_STACK,
};

/// On the first network's subnet, and not known.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 77);
const STRANGER_MAC: [u8; 6] = [2, 0x42, 172, 17, 0, 77];

fn udp(link: Ethernet, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    packet::udp(link, SocketAddrV4::new(src, 4000), SocketAddrV4::new(dst, 53), b"payload")
}

fn up(container: &Container) -> Ethernet {
    Ethernet { src: STRANGER_MAC, dst: container.gateway_mac }
}

#[test]
fn who_is_not_served_reaches_the_host_and_nothing_outside() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, other) = (lab.web, lab.other);
    let from = From::Bridge(web.bridge);
    let mut judge = |frame: &[u8]| {
        let (outcome, reason) = lab.judge(from, frame);
        assert_eq!(outcome.frame, frame);
        (outcome.action, reason)
    };
    for to in [CLIENT, other.addr, Ipv4Addr::new(198, 51, 100, 1)] {
        assert_eq!(judge(&udp(up(&web), STRANGER, to)), (SHOT, Reason::Unserved), "{to}");
    }
    for to in [GATEWAY, HOST, OTHER_GATEWAY, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
        assert_eq!(judge(&udp(up(&web), STRANGER, to)), (UNSPEC, Reason::NotOurs), "{to}");
    }
    assert_eq!(
        judge(&udp(up(&web), WEB, CLIENT)),
        (UNSPEC, Reason::NotOurs),
        "its own program has let it pass"
    );
    assert_eq!(judge(&udp(up(&web), HOST, CLIENT)), (UNSPEC, Reason::NotOurs), "it is to be fragmented");
    // What the bridge floods is for others than the host.
    let aside = Ethernet { src: STRANGER_MAC, dst: CLIENT_MAC };
    assert_eq!(judge(&udp(aside, STRANGER, CLIENT)), (UNSPEC, Reason::NotOurs));
    let arp = [&web.gateway_mac[..], &STRANGER_MAC, &[8, 6], &[0; 46]].concat();
    assert_eq!(judge(&arp), (UNSPEC, Reason::NotOurs));
}

#[test]
fn the_same_holds_for_ipv6() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let stranger = "fd00:1::77".parse().unwrap();
    let frame = |to| frame6(Way6::new(up(&web), (stranger, 4000), (to, 53)), Kind6::Udp(b"payload"));
    let from = From::Bridge(web.bridge);
    assert_eq!(lab.judge(from, &frame(CLIENT6)).1, Reason::Unserved);
    for to in [HOST6, "ff02::1".parse().unwrap(), "fe80::1".parse().unwrap()] {
        assert_eq!(lab.judge(from, &frame(to)).1, Reason::NotOurs, "{to}");
    }
}

#[test]
fn nobody_outside_is_forwarded_to_who_is_not_served() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, uplink) = (lab.web, lab.uplink);
    let down = Ethernet { src: web.gateway_mac, dst: STRANGER_MAC };
    let judge = |lab: &mut Lab, came_in, from, to| {
        lab.judge(From::ToBridge(came_in, web.bridge), &udp(down, from, to)).1
    };
    assert_eq!(judge(&mut lab, uplink, CLIENT, STRANGER), Reason::Unserved);
    assert_eq!(judge(&mut lab, uplink, CLIENT, WEB), Reason::Unserved, "nothing for it takes this way");
    assert_eq!(judge(&mut lab, uplink, CLIENT, Ipv4Addr::new(224, 0, 0, 1)), Reason::NotOurs);
    assert_eq!(judge(&mut lab, 0, GATEWAY, STRANGER), Reason::NotOurs, "the host's own");
    assert_eq!(judge(&mut lab, web.bridge, WEB, STRANGER), Reason::NotOurs, "from the bridge itself");
    lab.set_endpoint(&web, VIA_STACK);
    assert_eq!(judge(&mut lab, uplink, CLIENT, WEB), Reason::NotOurs, "translated, and through the stack");
    assert_eq!(Reason::Unserved.verdict(), counter::Verdict::Dropped);
}
