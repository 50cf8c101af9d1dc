//! From container to container.

use rnet_common::{EndpointFlags, Reason};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, frame},
    lab::{APP, Lab, OTHER, REDIRECT, SHOT, WEB},
};

#[test]
fn neighbours_get_what_was_sent() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    for kind in [Kind::syn(), Kind::udp(b"x"), Kind::Ping, Kind::Pong, Kind::tcp(|header| header.rst = true)]
    {
        let sent = Way { link: Ethernet { src: web.mac, dst: app.mac }, src: (WEB, 5000), dst: (APP, 80) };
        let packet = frame(sent, &kind);
        let (outcome, reason) = lab.judge(web.from(), &packet);
        assert_eq!((outcome.action, reason), (REDIRECT, Reason::Switched), "{kind:?}");
        assert_eq!(outcome.frame, packet, "nothing in it changes, the time to live least of all");
    }
    assert!(lab.flows().is_empty(), "nothing is translated, so nothing is tracked");
}

#[test]
fn what_was_sent_by_way_of_the_gateway_gets_the_neighbour_s_address() {
    testbed::require_root!();
    let lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (APP, 80) };
    let outcome = lab.run(web.from(), &frame(sent, &Kind::syn()));
    let direct = Way { link: Ethernet { src: web.mac, dst: app.mac }, ..sent };
    assert_eq!(outcome.frame, frame(direct, &Kind::syn()));
}

#[test]
fn other_networks_are_closed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (OTHER, 80) };
    for kind in [Kind::syn(), Kind::udp(b"x"), Kind::Ping] {
        let (outcome, reason) = lab.judge(web.from(), &frame(sent, &kind));
        assert_eq!((outcome.action, reason), (SHOT, Reason::OtherNetwork));
    }
}

#[test]
fn without_icc_neighbours_are_closed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    lab.set_endpoint(&web, EndpointFlags::MASQUERADE);
    let sent = Way { link: Ethernet { src: web.mac, dst: app.mac }, src: (WEB, 5000), dst: (APP, 80) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::IccDisabled));
}
