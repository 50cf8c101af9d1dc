//! What containers may not send, and what nobody can read.

use std::net::Ipv4Addr;

use rnet_common::Reason;
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, frame},
    lab::{APP, CLIENT, From, HOST, Lab, SHOT, UNSPEC, WEB},
};

#[test]
fn a_container_has_no_address_but_its_own() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let own = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    assert_eq!(lab.judge(web.from(), &frame(own, &Kind::syn())).1, Reason::Masqueraded);
    let stolen_mac = Ethernet { src: app.mac, dst: web.gateway_mac };
    for (what, way) in [
        ("a neighbour's address", Way { src: (APP, 5000), ..own }),
        ("the host's address", Way { src: (HOST, 5000), ..own }),
        ("an address of nobody", Way { src: (Ipv4Addr::new(10, 9, 9, 9), 5000), ..own }),
        ("a neighbour's Ethernet address", Way { link: stolen_mac, src: (WEB, 5001), ..own }),
    ] {
        let (outcome, reason) = lab.judge(web.from(), &frame(way, &Kind::syn()));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed), "{what}");
    }
    // The flow is there, but not for whoever sends from another interface.
    let (outcome, reason) = lab.judge(app.from(), &frame(own, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed));
}

#[test]
fn loopback_addresses_do_not_leave_a_container() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let own = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    for way in [
        Way { src: (Ipv4Addr::LOCALHOST, 5000), ..own },
        Way { dst: (Ipv4Addr::new(127, 1, 2, 3), 80), ..own },
    ] {
        let (outcome, reason) = lab.judge(web.from(), &frame(way, &Kind::udp(b"x")));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Martian));
    }
}

#[test]
fn a_loopback_port_is_not_for_the_outside() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::LOCALHOST, 8080, 6, WEB, 80);
    let way = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (Ipv4Addr::LOCALHOST, 8080) };
    let (outcome, reason) = lab.judge(From::Uplink, &frame(way, &Kind::syn()));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::NotOurs));
    assert!(lab.flows().is_empty());
}

#[test]
fn only_containers_use_the_flows_of_containers() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    lab.run(web.from(), &frame(sent, &Kind::syn()));
    let replayed = Way { link: lab.client_link(), ..sent };
    let (_, reason) = lab.judge(From::Uplink, &frame(replayed, &Kind::tcp(|header| header.ack = true)));
    assert_eq!(reason, Reason::NotOurs);
}

#[test]
fn a_packet_cut_short_anywhere_is_never_rewritten() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    let web = lab.web;
    let inward = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    let outward = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    for kind in [Kind::syn(), Kind::udp(b"question"), Kind::Ping] {
        let (inward, outward) = (frame(inward, &kind), frame(outward, &kind));
        // The kernel runs no program on less than an IP header.
        for length in 34..inward.len() {
            let (outcome, reason) = lab.judge(From::Uplink, &inward[..length]);
            assert_eq!((outcome.action, reason), (UNSPEC, Reason::Unparsed), "{kind:?} of {length}");
            assert_eq!(outcome.frame, inward[..length]);
            let (outcome, reason) = lab.judge(web.from(), &outward[..length]);
            assert_eq!((outcome.action, reason), (SHOT, Reason::Malformed), "{kind:?} of {length}");
        }
    }
    assert!(lab.flows().is_empty());
}

#[test]
fn headers_that_contradict_themselves_are_not_guessed_at() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let good = frame(Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) }, &Kind::udp(b"x"));
    for (what, offset, value) in [
        ("version 5", 14, 0x55),
        ("a header of 16 bytes", 14, 0x44),
        ("a length of 4", 17, 4),
        ("a long one", 16, 9),
    ] {
        let mut bad = good.clone();
        bad[offset] = value;
        crate::frames::finish_header(&mut bad);
        let (outcome, reason) = lab.judge(web.from(), &bad);
        assert_eq!((outcome.action, reason), (SHOT, Reason::Malformed), "{what}");
    }
}

#[test]
fn what_a_bridge_handles_is_left_to_it() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let broadcast = Ethernet { src: web.mac, dst: [0xff; 6] };
    let way = Way { link: broadcast, src: (WEB, 68), dst: (Ipv4Addr::BROADCAST, 67) };
    let multicast = Way { dst: (Ipv4Addr::new(224, 0, 0, 251), 5353), ..way };
    for way in [way, multicast] {
        let packet = frame(way, &Kind::udp(b"x"));
        let (outcome, reason) = lab.judge(web.from(), &packet);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::Bridged));
        assert_eq!(outcome.frame, packet);
    }
}

#[test]
fn options_are_stepped_over() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let way = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let plain = frame(way, &Kind::udp(b"x"));
    // Three no-operations and an end of options.
    let with_options = |plain: &[u8]| {
        let mut packet = [&plain[..34], &[1, 1, 1, 0], &plain[34..]].concat();
        packet[14] = 0x46;
        packet[17] += 4;
        crate::frames::finish_header(&mut packet);
        packet
    };
    let (outcome, reason) = lab.judge(web.from(), &with_options(&plain));
    assert_eq!(reason, Reason::Masqueraded);
    let left = crate::frames::forwarded(Way { src: (HOST, 5000), ..way }, &Kind::udp(b"x"));
    assert_eq!(outcome.frame, with_options(&left));
}
