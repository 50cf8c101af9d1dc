//! Containers that reach published ports through an address of the host.

use std::net::Ipv4Addr;

use rnet_common::{EndpointFlags, Reason, Side};
use testbed::packet::Ethernet;

use crate::{
    frames::{Kind, Way, forwarded, frame},
    lab::{APP, Container, GATEWAY, HOST, Lab, OTHER_GATEWAY, REDIRECT, SHOT, UNSPEC, WEB, tuple},
};

/// `client` asks the port that `server` has published, and is answered. `seen` is the client's address as the server
/// sees it.
fn there_and_back(
    client: impl Fn(&mut Lab) -> Container,
    server: impl Fn(&mut Lab) -> Container,
    seen: Ipv4Addr,
) {
    let mut lab = Lab::new();
    let (client, server) = (client(&mut lab), server(&mut lab));
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, server.addr, 80);
    let sent = Way { link: client.to_gateway(), src: (client.addr, 5000), dst: (HOST, 8080) };
    let (outcome, reason) = lab.judge(client.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::Hairpin));
    let into = |container: Container| Ethernet { src: container.gateway_mac, dst: container.mac };
    let delivered = Way { link: into(server), src: (seen, 5000), dst: (server.addr, 80) };
    assert_eq!(outcome.frame, forwarded(delivered, &Kind::syn()));

    let answer = Kind::tcp(|header| (header.syn, header.ack) = (true, true));
    let answered = Way { link: server.to_gateway(), src: (server.addr, 80), dst: (seen, 5000) };
    let (outcome, reason) = lab.judge(server.from(), &frame(answered, &answer));
    assert_eq!((outcome.action, reason), (REDIRECT, Reason::HairpinReply));
    let back = Way { link: into(client), src: (HOST, 8080), dst: (client.addr, 5000) };
    assert_eq!(outcome.frame, forwarded(back, &answer));
}

#[test]
fn a_container_reaches_itself_and_sees_its_gateway() {
    testbed::require_root!();
    there_and_back(|lab| lab.web, |lab| lab.web, GATEWAY);
}

#[test]
fn a_neighbour_is_seen_as_itself() {
    testbed::require_root!();
    there_and_back(|lab| lab.app, |lab| lab.web, APP);
}

#[test]
fn a_neighbour_that_may_not_be_reached_is_seen_as_the_gateway() {
    testbed::require_root!();
    let close = |lab: &mut Lab, container: Container| {
        lab.set_endpoint(&container, EndpointFlags::MASQUERADE);
        container
    };
    there_and_back(|lab| close(lab, lab.app), |lab| close(lab, lab.web), GATEWAY);
}

#[test]
fn another_network_sees_its_own_gateway() {
    testbed::require_root!();
    there_and_back(|lab| lab.web, |lab| lab.other, OTHER_GATEWAY);
}

#[test]
fn the_host_s_other_ports_are_the_host_s() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    for (kind, port) in
        [(Kind::syn(), 22), (Kind::udp(b"x"), 8080), (Kind::Ping, 8080), (Kind::tcp(|h| h.ack = true), 8080)]
    {
        let sent = Way { link: lab.app.to_gateway(), src: (APP, 5000), dst: (HOST, port) };
        let packet = frame(sent, &kind);
        let (outcome, reason) = lab.judge(lab.app.from(), &packet);
        assert_eq!((outcome.action, reason), (UNSPEC, Reason::ToHost), "{kind:?}");
        assert_eq!(outcome.frame, packet);
    }
}

#[test]
fn from_an_internal_network_other_networks_ports_stay_closed() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, lab.other.addr, 80);
    lab.set_endpoint(&web, EndpointFlags::ICC | EndpointFlags::INTERNAL);
    let sent = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (HOST, 8080) };
    let (outcome, reason) = lab.judge(web.from(), &frame(sent, &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Internal));
}

#[test]
fn equal_source_ports_of_two_networks_are_told_apart() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, lab.other.addr, 80);
    let (web, app) = (lab.web, lab.app);
    for container in [web, app] {
        let sent = Way { link: container.to_gateway(), src: (container.addr, 5000), dst: (HOST, 8080) };
        assert_eq!(lab.judge(container.from(), &frame(sent, &Kind::syn())).1, Reason::Hairpin);
    }
    let port = |lab: &mut Lab, addr| {
        lab.flow(tuple((addr, 5000), (HOST, 8080)), 6, Side::Container).unwrap().to.sport.get()
    };
    assert_ne!(port(&mut lab, WEB), port(&mut lab, APP));
}
