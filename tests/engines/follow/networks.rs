//! Networks: what is on which, and what they may.

use std::net::{Ipv6Addr, SocketAddr};

use testbed::{
    engine::Machine,
    topology::{CLIENT, UPLINK},
    traffic::{icmp, tcp},
    wait_until,
};

use super::{LIMIT, Site, exec};

fn outside() -> SocketAddr {
    (CLIENT, 9000).into()
}

#[test]
fn networks_are_apart_and_names_are_dockers() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let server = tcp::echo(&machine.client, "0.0.0.0:9000");
    for network in ["front", "back"] {
        site.ok(&["network", "create", network]);
    }
    // As a compose file would have it: a database that only the back network knows, and a web server on both.
    let db = site.run("db", &["--network", "back", "--network-alias", "database"]);
    let web = site.run("web", &["--network", "front", "-p", "8080:80"]);
    site.ok(&["network", "connect", "back", "web"]);
    site.await_served("web");
    let lonely = site.run("lonely", &["--network", "front"]);
    let db_server = tcp::echo(&db.ns, "0.0.0.0:5432");
    let web_server = tcp::echo(&web.ns, "0.0.0.0:80");

    let found = exec(&site.dockerd, "web", "nslookup database 127.0.0.11");
    assert!(found.contains(&db.addr.to_string()), "{found}");
    tcp::ask(&web.ns, db.at(5432));
    assert_eq!(db_server.peers()[0].ip().to_string(), site.address_on("web", "back"));
    assert!(tcp::connect(&lonely.ns, db.at(5432)).is_err(), "another network");
    assert!(icmp::is_silent(&lonely.ns, db.addr));
    tcp::ask(&lonely.ns, web.at(80));
    tcp::ask(&machine.client, machine.at(8080));
    tcp::ask(&lonely.ns, machine.at(8080));
    tcp::ask(&db.ns, machine.at(8080));
    for container in [&db, &web, &lonely] {
        tcp::ask(&container.ns, outside());
    }
    assert_eq!(server.peers().len(), 3);

    // Off the network, and on it again.
    site.ok(&["network", "disconnect", "back", "web"]);
    site.await_served("web");
    assert!(tcp::connect(&web.ns, db.at(5432)).is_err());
    tcp::ask(&machine.client, machine.at(8080));
    site.ok(&["network", "connect", "back", "web"]);
    site.await_served("web");
    tcp::ask(&web.ns, db.at(5432));
    // Off the one that its ports were on: they go with the other.
    site.ok(&["network", "disconnect", "front", "web"]);
    site.await_served("web");
    tcp::ask(&machine.client, machine.at(8080));
    assert!(tcp::connect(&lonely.ns, web.at(80)).is_err());
    assert!(!web_server.peers().is_empty());

    // A name is Docker's to change.
    site.ok(&["rename", "lonely", "single"]);
    site.await_served("single");
    assert!(!site.rnet.cmd(&["inspect", "lonely"]).status.success());
    for name in ["web", "db", "single"] {
        site.ok(&["rm", "-f", name]);
        site.await_forgotten(name);
    }
    for network in ["front", "back"] {
        site.ok(&["network", "rm", network]);
        wait_until("the network is forgotten", LIMIT, || {
            (!site.rnet.ok(&["network", "ls"]).contains(network)).then_some(())
        });
    }
    site.assert_no_rule();
    site.assert_nothing_private();
}

#[test]
fn an_internal_network_reaches_the_host_alone() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let server = tcp::echo(&machine.client, "0.0.0.0:9000");
    site.ok(&["network", "create", "--internal", "inner"]);
    let one = site.run("one", &["--network", "inner"]);
    let two = site.run("two", &["--network", "inner"]);
    let _echo = tcp::echo(&two.ns, "0.0.0.0:80");
    tcp::ask(&one.ns, two.at(80));
    tcp::ask(&machine.ns, two.at(80));
    let gateway =
        site.line(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "inner"]);
    let gateway: std::net::Ipv4Addr = gateway.parse().unwrap();
    icmp::ping(&one.ns, gateway).unwrap();
    // Whatever routes it has, or makes itself, lead nowhere.
    assert!(tcp::connect(&one.ns, outside()).is_err());
    one.ns.ip(&format!("route replace default via {gateway}"));
    assert!(tcp::connect(&one.ns, outside()).is_err());
    assert!(site.rnet.packets_for("internal") > 0, "{}", site.rnet.ok(&["stats"]));
    assert!(server.peers().is_empty());
    site.assert_nothing_private();
}

#[test]
fn ipv6_is_served_as_ipv4_is() {
    testbed::require_engines!();
    let machine = Machine::new();
    machine.ns.ip(&format!("addr add 2001:db8::1/64 dev {UPLINK} nodad"));
    machine.client.ip(&format!("addr add 2001:db8::2/64 dev {UPLINK} nodad"));
    machine.ns.ip("route add default via 2001:db8::2");
    let mut site = Site::with(&machine, &["--ipv6", "--fixed-cidr-v6", "fd77:1::/64"]);
    site.ok(&["network", "create", "--ipv6", "--subnet", "fd77:2::/64", "six"]);
    let server = tcp::echo(&machine.client, "[::]:9000");
    let client: Ipv6Addr = "2001:db8::2".parse().unwrap();
    let host: Ipv6Addr = "2001:db8::1".parse().unwrap();
    for (name, network, port) in [("web", "bridge", "8080"), ("other", "six", "8081")] {
        let container = site.run(name, &["--network", network, "-p", &format!("{port}:80")]);
        let echo = tcp::echo(&container.ns, "[::]:80");
        let published: u16 = port.parse().unwrap();
        tcp::ask(&container.ns, (client, 9000).into());
        let from = tcp::ask(&machine.client, (host, published).into());
        assert_eq!(echo.peers(), [from], "{name}: the client's own address");
        tcp::ask(&machine.ns, (Ipv6Addr::LOCALHOST, published).into());
        tcp::ask(&machine.ns, (host, published).into());
        tcp::ask(&container.ns, (host, published).into());
        tcp::ask(&machine.client, machine.at(published));
    }
    assert!(server.peers().iter().all(|peer| peer.ip() == host), "{:?}", server.peers());
    assert_eq!(server.peers().len(), 2);
    site.assert_no_rule();
    site.assert_nothing_private();
}
