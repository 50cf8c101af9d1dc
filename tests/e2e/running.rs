//! Ports that are published, and withdrawn, while their container runs.

use testbed::{
    Host, Rnet, Snapshot,
    traffic::{Failure, tcp, udp},
};

#[test]
fn ports_come_and_go_and_other_connections_never_notice() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _servers = (
        tcp::echo(&web.ns, "0.0.0.0:80"),
        tcp::echo(&web.ns, "0.0.0.0:81"),
        udp::echo(&web.ns, "0.0.0.0:81"),
    );
    let before = Snapshot::take(&host.ns, rnet.instance());
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, 10_000, 1);
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::Refused);

    let printed = rnet.ok(&["publish", "web", "8081:81", "8081:81/udp", "9000-9099:9000-9099"]);
    assert_eq!(printed.lines().count(), 102);
    assert!(printed.contains("81/udp -> 0.0.0.0:8081\n"), "{printed}");
    tcp::ask(&host.client, host.at(8081));
    udp::exchange(&udp::connect(&host.client, host.at(8081)), 1000, 1);
    tcp::exchange(&stream, 10_000, 2);
    let bound = host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:9050"));
    assert!(bound.is_err(), "the port is held");
    rnet.kill9();
    rnet.start_daemon();
    tcp::ask(&host.client, host.at(8081));

    let printed = rnet.ok(&["unpublish", "web", "81", "9000-9099:9000-9099"]);
    assert_eq!(printed.lines().count(), 101);
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::Refused);
    udp::exchange(&udp::connect(&host.client, host.at(8081)), 1000, 2);
    rnet.ok(&["unpublish", "web", "8081:81/udp"]);
    tcp::exchange(&stream, 10_000, 3);
    host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:9050")).expect("the port is free");
    assert_eq!(rnet.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n");
    before.assert_restored(&host.ns, rnet.instance(), "ports that came and went");
}

#[test]
fn a_clash_names_who_has_the_port_and_publishes_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &["-p", "8080:80"]);
    rnet.run("db", &[]);
    let _listener = host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8090")).unwrap();
    for (ports, expected) in [
        (["7000:70", "8080:1"], "port is already allocated (container web has 0.0.0.0:8080/tcp)"),
        (
            ["7000:70", "8090:1"],
            "failed to bind host port 0.0.0.0:8090/tcp: address already in use (held by ",
        ),
        (["7000:70", "10.9.9.9:1:1"], "cannot assign requested address"),
        (["7000:70", "x"], "invalid containerPort: x"),
    ] {
        let told = rnet.fails(&[&["publish", "db"][..], &ports].concat());
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
        assert_eq!(rnet.ok(&["port", "db"]), "");
        host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:7000")).expect("nothing is held");
    }
    let told = rnet.fails(&["unpublish", "web", "81"]);
    assert_eq!(told, "error: container web does not publish 81: see what it does with `rnet port web`");
    let told = rnet.fails(&["publish", "nobody", "80"]);
    assert_eq!(told, "error: No such container: nobody");
}
