//! Published ports that are open to some sources only.

use testbed::{
    Host, Rnet,
    topology::CLIENT,
    traffic::{Failure, tcp, udp},
};

#[test]
fn only_the_sources_that_were_named_reach_the_port() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let client = format!("{CLIENT}/32");
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp", "--from", &client]);
    let _servers = (
        tcp::echo(&web.ns, "0.0.0.0:80"),
        tcp::echo(&web.ns, "0.0.0.0:81"),
        udp::echo(&web.ns, "0.0.0.0:53"),
    );
    tcp::ask(&host.client, host.at(8080));
    udp::exchange(&udp::connect(&host.client, host.at(5300)), 1000, 1);

    rnet.ok(&["publish", "web", "--from", "198.51.100.0/24", "8081:81"]);
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::TimedOut);
    assert!(rnet.packets_for("source") > 0);
    // The host itself is no source that could be shut out: it reaches containers at their own addresses.
    tcp::ask(&host.ns, "127.0.0.1:8081".parse().unwrap());

    // Containers are, by their own addresses.
    rnet.ok(&["network", "create", "n1"]);
    let peer = rnet.run("peer", &["--network", "n1"]);
    assert_eq!(tcp::connect(&peer.ns, host.at(8080)).unwrap_err(), Failure::TimedOut);
    rnet.ok(&["unpublish", "web", "8081:81"]);
    rnet.ok(&["publish", "web", "--from", &format!("{}/32", peer.addr), "8081:81"]);
    tcp::ask(&peer.ns, host.at(8081));
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::TimedOut);
}

#[test]
fn a_restart_keeps_the_lists_and_established_connections() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let client = format!("{CLIENT}/32");
    let web = rnet.run("web", &["-p", "8080:80", "--from", &client]);
    rnet.ok(&["publish", "web", "--from", "198.51.100.0/24", "8081:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, 1000, 1);
    rnet.kill9();
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::TimedOut);
    rnet.start_daemon();
    tcp::exchange(&stream, 1000, 2);
    tcp::ask(&host.client, host.at(8080));
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::TimedOut);
    rnet.ok(&["rm", "-f", "web"]);
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::Refused);
}
