//! What containers of one network may do to one another, and options of networks.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use testbed::{
    engine::Machine,
    topology::{CLIENT, HOST, UPLINK},
    traffic::{icmp, random_bytes, tcp, udp},
};

use super::{Site, exec};

/// Whether a datagram that one sends to all on its network comes to the other.
fn hears_broadcast(from: &testbed::Container, to: &testbed::Container) -> bool {
    let listener = to.ns.run(|| UdpSocket::bind("0.0.0.0:7777")).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    from.ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"all", (Ipv4Addr::BROADCAST, 7777)).unwrap();
    });
    testbed::uninterrupted(|| listener.recv(&mut [0; 16])).is_ok()
}

#[test]
fn without_icc_containers_reach_one_another_by_published_ports_alone() {
    testbed::require_engines!();
    let machine = Machine::new();
    // dockerd refuses `--icc=false` without iptables: what its default network is like is rnet's to be told.
    let mut site = Site::configured(&machine, &[], serde_json::json!({ "icc": false }));
    site.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet"]);
    site.ok(&["network", "create", "open"]);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    for (network, port, talks) in [("bridge", 8080, false), ("quiet", 8081, false), ("open", 8082, true)] {
        let name = |role: &str| format!("{role}-{network}");
        let web = site.run(&name("web"), &["--network", network, "-p", &format!("{port}:80")]);
        let app = site.run(&name("app"), &["--network", network]);
        let _echo = tcp::echo(&web.ns, "0.0.0.0:80");
        let _names = udp::echo(&web.ns, "0.0.0.0:53");
        assert_eq!(tcp::connect(&app.ns, web.at(80)).is_ok(), talks, "{network}");
        assert_eq!(!icmp::is_silent(&app.ns, web.addr), talks, "{network}");
        assert_eq!(hears_broadcast(&app, &web), talks, "{network}");
        // By the host's port they do, and the host and the outside are there for both.
        tcp::ask(&app.ns, machine.at(port));
        tcp::ask(&machine.client, machine.at(port));
        // The host is told apart by its port alone from a neighbour that came by it, whose port may be the same.
        let by_host = || tcp::connect(&machine.ns, web.at(80)).ok();
        testbed::wait_until("the host reaches its container", Duration::from_secs(10), by_host);
        tcp::ask(&app.ns, SocketAddr::from((CLIENT, 9000)));
    }
    assert_eq!(outside.peers().len(), 3);
    site.assert_no_rule();
    site.assert_nothing_private();
}

#[test]
fn options_of_networks_are_served() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::new(&machine);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    let to = SocketAddr::from((CLIENT, 9000));

    // Without masquerade the outside has to know the way.
    let plain = ["-o", "com.docker.network.bridge.enable_ip_masquerade=false", "--subnet", "10.77.0.0/24"];
    site.ok(&[&["network", "create"], &plain[..], &["plain"]].concat());
    machine.client.ip("route add 10.77.0.0/24 via 10.200.0.1");
    let routed = site.run("routed", &["--network", "plain"]);
    tcp::ask(&routed.ns, to);
    assert_eq!(outside.peers()[0].ip(), std::net::IpAddr::from(routed.addr));
    let _closed = tcp::echo(&routed.ns, "0.0.0.0:80");
    assert!(tcp::connect(&machine.client, routed.at(80)).is_err(), "nobody published it");

    // Ports go where the network says.
    let bound = ["-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"];
    site.ok(&[&["network", "create"], &bound[..], &["bound"]].concat());
    let local = site.run("local", &["--network", "bound", "-p", "8090:80"]);
    let _echo = tcp::echo(&local.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, (Ipv4Addr::LOCALHOST, 8090).into());
    assert!(tcp::connect(&machine.client, machine.at(8090)).is_err());

    // A name of its own for the bridge, and a smaller MTU.
    let named = ["-o", "com.docker.network.bridge.name=web0", "-o", "com.docker.network.driver.mtu=1400"];
    site.ok(&[&["network", "create"], &named[..], &["named"]].concat());
    let small = site.run("small", &["--network", "named", "-p", "8091:80"]);
    let _echo = tcp::echo(&small.ns, "0.0.0.0:80");
    let stream = tcp::connect(&machine.client, machine.at(8091)).unwrap();
    tcp::exchange(&stream, 100_000, 1);

    // What rnet has beside: the host's own rules see the network.
    machine.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    site.ok(&["network", "create", "-o", "rnet.via_stack=true", "edge"]);
    let edge = site.run("edge", &["--network", "edge", "-p", "8092:80"]);
    let _echo = tcp::echo(&edge.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8092));
    tcp::ask(&edge.ns, to);
    assert!(site.rnet.packets_for("via-stack") > 0);

    // What cannot be served is said.
    site.ok(&["network", "create", "-o", "com.docker.network.host_ipv4=10.200.0.9", "odd"]);
    testbed::wait_until("rnet tells of it", super::LIMIT, || {
        site.rnet.ok(&["status"]).contains("host_ipv4=10.200.0.9 is not served").then_some(())
    });

    // No network of rnet's: these are not its business, and work as they do.
    site.ok(&["run", "-d", "--name", "hosted", "--network", "host", testbed::engine::IMAGE]);
    site.ok(&["run", "-d", "--name", "none", "--network", "none", testbed::engine::IMAGE]);
    site.ok(&["run", "-d", "--name", "sharing", "--network", "container:small", testbed::engine::IMAGE]);
    let shared = exec(&site.dockerd, "sharing", "ip -4 addr show dev eth0");
    assert!(shared.contains(&small.addr.to_string()), "{shared}");
    let known = site.rnet.ok(&["ps"]);
    assert!(!["hosted", "none", "sharing"].iter().any(|name| known.contains(name)), "{known}");
    site.assert_no_rule();
}

/// Who leaves the fragmenting to the routers gets it from the host, on Docker's bridges too.
#[test]
fn what_is_too_large_for_the_way_out_is_fragmented() {
    testbed::require_engines!();
    let machine = Machine::new();
    for ns in [&machine.ns, &machine.client] {
        ns.ip(&format!("link set {UPLINK} mtu 1400"));
    }
    // Strict, as some distributions have it; what Docker makes later has it too.
    machine.ns.set_sysctl("net/ipv4/conf/default/rp_filter", "1");
    machine.ns.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    let mut site = Site::new(&machine);
    site.ok(&["network", "create", "user"]);
    let server = udp::echo(&machine.client, "0.0.0.0:9000");
    for (name, network) in [("one", "bridge"), ("two", "user")] {
        let app = site.run(name, &["--network", network]);
        app.ns.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1");
        let socket = udp::connect(&app.ns, (CLIENT, 9000).into());
        for seed in 0..3 {
            udp::ask(&socket, &random_bytes(seed, 1472)).unwrap();
        }
    }
    assert!(server.peers().iter().all(|peer| peer.ip() == std::net::IpAddr::from(HOST)));
    site.assert_nothing_private();
}
