//! Between containers, and between a container and its host.

use std::net::Ipv4Addr;

use testbed::{
    Host, Rnet, TEN_MIB,
    traffic::{Failure, icmp, tcp, udp},
};

with_and_without_offload!(
    containers_of_one_network_see_one_anothers_addresses,
    containers_of_a_network_of_their_own_talk_too,
    containers_of_two_networks_do_not_reach_one_another,
);

fn containers_of_one_network_see_one_anothers_addresses(host: &Host) {
    let rnet = Rnet::start(host);
    let (c1, c2) = (rnet.run("c1", &[]), rnet.run("c2", &[]));
    let (over_tcp, over_udp) = (tcp::echo(&c2.ns, "0.0.0.0:80"), udp::echo(&c2.ns, "0.0.0.0:80"));
    let stream = tcp::connect(&c1.ns, c2.at(80)).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    let socket = udp::connect(&c1.ns, c2.at(80));
    udp::exchange(&socket, TEN_MIB / 10, 2);
    assert_eq!(stream.local_addr().unwrap().ip(), c1.addr);
    assert_eq!(over_tcp.peers(), [stream.local_addr().unwrap()]);
    assert_eq!(over_udp.peers()[0], socket.local_addr().unwrap());
    let reply = icmp::ping(&c1.ns, c2.addr).expect("c2 answers");
    assert_eq!(reply.ttl, 64, "no router lies between them");
    icmp::ping(&c2.ns, c1.addr).expect("c1 answers");
}

fn containers_of_a_network_of_their_own_talk_too(host: &Host) {
    let rnet = Rnet::start(host);
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    let (c1, c2) =
        (rnet.run("c1", &["--network", "n1"]), rnet.run("c2", &["--network", "n1", "-p", "8080:80"]));
    assert_eq!([c1.addr, c2.addr], [Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 88, 0, 3)]);
    let server = tcp::echo(&c2.ns, "0.0.0.0:80");
    let inside = tcp::ask(&c1.ns, c2.at(80));
    let outside = tcp::ask(&host.client, host.at(8080));
    assert_eq!(server.peers(), [inside, outside]);
}

fn containers_of_two_networks_do_not_reach_one_another(host: &Host) {
    let rnet = Rnet::start(host);
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    let (c1, c2) = (rnet.run("c1", &[]), rnet.run("c2", &["--network", "n1", "-p", "8080:80"]));
    let servers = [tcp::echo(&c2.ns, "0.0.0.0:80"), udp::echo(&c2.ns, "0.0.0.0:80")];
    let outcome = tcp::connect(&c1.ns, c2.at(80)).unwrap_err();
    assert!(matches!(outcome, Failure::TimedOut | Failure::Unreachable), "{outcome:?}");
    udp::assert_silent(&c1.ns, c2.at(80));
    assert!(icmp::is_silent(&c1.ns, c2.addr));
    assert!(icmp::is_silent(&c2.ns, c1.addr));
    for server in &servers {
        assert_eq!(server.peers(), []);
    }
}

#[test]
fn host_and_container_reach_one_another() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &[]);
    let gateway = Ipv4Addr::new(172, 17, 0, 1);
    let server = tcp::echo(&c1.ns, "0.0.0.0:80");
    tcp::ask(&host.ns, c1.at(80));
    assert_eq!(server.peers()[0].ip(), gateway);
    icmp::ping(&host.ns, c1.addr).expect("the container answers its host");
    icmp::ping(&c1.ns, gateway).expect("the gateway answers");
    let hosts = tcp::echo(&host.ns, "0.0.0.0:7000");
    let client = tcp::ask(&c1.ns, (gateway, 7000).into());
    assert_eq!(hosts.peers(), [client]);
}
