//! Published ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use testbed::{
    engine::Machine,
    topology::{CLIENT, HOST, HOST_SECOND},
    traffic::{tcp, udp},
};

use super::{Site, exec};

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[test]
fn ports_are_reached_from_everywhere_and_keep_the_source() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let ports = ["-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8081:81", "-p", "10.200.0.9:8082:82"];
    let web = site.run("web", &ports);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let names = udp::echo(&web.ns, "0.0.0.0:53");
    let [_local_only, _second_only] = ["0.0.0.0:81", "0.0.0.0:82"].map(|addr| tcp::echo(&web.ns, addr));

    // From outside, with the client's own address.
    let from = tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers(), [SocketAddr::from((CLIENT, from.port()))]);
    udp::ask(&udp::connect(&machine.client, machine.at(5353)), b"one").unwrap();
    assert_eq!(names.peers()[0].ip(), IpAddr::from(CLIENT));
    tcp::ask(&machine.client, (HOST_SECOND, 8082).into());
    assert!(tcp::connect(&machine.client, machine.at(8082)).is_err(), "published on the other address");
    assert!(tcp::connect(&machine.client, machine.at(8081)).is_err(), "published on 127.0.0.1");

    // From the host itself.
    for to in [local(8080), machine.at(8080), (HOST_SECOND, 8080).into(), (web.addr, 80).into(), local(8081)]
    {
        tcp::ask(&machine.ns, to);
    }
    udp::ask(&udp::connect(&machine.ns, local(5353)), b"two").unwrap();
    assert!(tcp::connect(&machine.ns, local(8082)).is_err());

    // From containers: its own port (hairpin), a neighbour's, and straight to the neighbour.
    let app = site.run("app", &[]);
    tcp::ask(&web.ns, machine.at(8080));
    tcp::ask(&app.ns, machine.at(8080));
    tcp::ask(&app.ns, web.at(80));
    assert!(tcp::connect(&app.ns, machine.at(8081)).is_err(), "published on 127.0.0.1");

    // From the host and its containers, somebody else's program gets none of these ports.
    assert!(machine.ns.run(|| std::net::TcpListener::bind(("0.0.0.0", 8080))).is_err());

    site.assert_no_rule();
    site.assert_nothing_private();
}

#[test]
fn every_way_to_ask_for_a_port_gives_the_one_that_docker_shows() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let any = site.run("any", &["--expose", "80", "--expose", "81", "-P"]);
    let one = site.run("one", &["-p", "80"]);
    let range = site.run("range", &["-p", "7000-7002:7000-7002", "-p", "7100-7110:80"]);
    let port = |name: &str, port: &str| -> SocketAddr {
        let shown = site.line(&["port", name, port]);
        let shown: SocketAddr = shown.lines().next().unwrap().parse().unwrap();
        machine.at(shown.port())
    };
    for (name, container, inside) in [
        ("any", &any, 80),
        ("any", &any, 81),
        ("one", &one, 80),
        ("range", &range, 7001),
        ("range", &range, 80),
    ] {
        let server = tcp::echo(&container.ns, &format!("0.0.0.0:{inside}"));
        tcp::ask(&machine.client, port(name, &format!("{inside}/tcp")));
        assert_eq!(server.peers().len(), 1, "{name} {inside}");
    }
    // What rnet's own commands show of them.
    let shown = site.rnet.ok(&["ps"]);
    assert!(["any", "one", "range"].iter().all(|name| shown.contains(name)), "{shown}");
    assert!(shown.contains("0.0.0.0:7000-7002->7000-7002/tcp"), "{shown}");
    let stats = site.rnet.ok(&["stats"]);
    assert!(stats.contains("any") && stats.contains("published"), "{stats}");
    assert!(site.rnet.ok(&["network", "ls"]).contains("docker/bridge"));
    let refused = site.rnet.fails(&["rm", "-f", "one"]);
    assert!(refused.contains("docker"), "{refused}");
    site.ok(&["rm", "-f", "one"]);
    site.await_forgotten("one");
    site.assert_nothing_private();
}

#[test]
fn what_a_container_sends_out_has_the_hosts_address() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let app = site.run("app", &[]);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    let names = udp::echo(&machine.client, "0.0.0.0:9001");
    let to = |port: u16| SocketAddr::from((CLIENT, port));
    // The source port is kept while nobody else has it.
    tcp::ask_from(&app.ns, (app.addr, 12345).into(), to(9000));
    assert_eq!(outside.peers(), [SocketAddr::from((HOST, 12345))]);
    let twin = site.run("twin", &[]);
    let open = tcp::connect_from(&app.ns, (app.addr, 23456).into(), to(9000)).unwrap();
    let same = tcp::connect_from(&twin.ns, (twin.addr, 23456).into(), to(9000)).unwrap();
    tcp::exchange(&open, 1000, 1);
    tcp::exchange(&same, 1000, 2);
    let ports: std::collections::BTreeSet<_> = outside.peers().iter().map(SocketAddr::port).collect();
    assert_eq!(ports.len(), 3, "two containers with one source port are told apart");
    udp::ask(&udp::connect(&app.ns, to(9001)), b"out").unwrap();
    assert!(names.peers().iter().all(|peer| peer.ip() == IpAddr::from(HOST)));
    testbed::traffic::icmp::ping(&app.ns, CLIENT).unwrap();
    let resolved = exec(&site.dockerd, "app", "ping -c 1 -W 5 10.200.0.2");
    assert!(resolved.contains("1 packets received"), "{resolved}");
    site.assert_no_rule();
    site.assert_nothing_private();
}
