//! What containers on rnet's networks have, and what they have not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use testbed::{
    Container, Snapshot,
    engine::{IMAGE, Machine},
    topology::{CLIENT, HOST},
    traffic::{Failure, icmp, tcp, udp},
};

use super::Site;

fn v4(addr: Ipv4Addr, port: u16) -> SocketAddr {
    (addr, port).into()
}

fn local(port: u16) -> SocketAddr {
    v4(Ipv4Addr::LOCALHOST, port)
}

#[test]
fn driver_networks_serve_containers_as_dockers_own_do() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start(&machine, &[]);
    let docker = &site.dockerd;
    let before = Snapshot::take(&machine.ns, site.rnet.instance());
    let mtu = ["-o", "com.docker.network.driver.mtu=1400"];
    let n1 = site.network(
        "n1",
        &[&["--subnet", "10.91.0.0/16", "--ip-range", "10.91.7.0/24", "--gateway", "10.91.0.9"], &mtu[..]]
            .concat(),
    );
    let ports = [
        "-p",
        "8080:80",
        "-p",
        "5353:53/udp",
        "-p",
        "90",
        "-p",
        "9000-9001:9000-9001",
        "-P",
        "--expose",
        "70",
    ];
    let web = docker.run("web", &[&["--network", "n1"], &ports[..]].concat());
    let other = site.run_with_mac("other", "n1", "10.91.3.3", "02:00:00:00:00:99");
    assert_eq!(other.ns.mac("eth0"), [2, 0, 0, 0, 0, 0x99]);
    assert_eq!(
        (web.addr.octets()[2], other.addr),
        (7, [10, 91, 3, 3].into()),
        "Docker's own choice, and a fixed one"
    );
    let shown = web.ns.output_of("ip", &["-o", "link", "show", "eth0"]).unwrap();
    assert!(shown.contains("mtu 1400"), "{shown}");
    let mac = docker.line(&["inspect", "--format", "{{.NetworkSettings.Networks.n1.MacAddress}}", "web"]);
    assert!(
        web.ns.output_of("ip", &["link"]).unwrap().contains(&mac),
        "Docker knows the address that rnet chose: {mac}"
    );
    assert!(web.ns.output_of("ip", &["route"]).unwrap().starts_with("default via 10.91.0.9"));

    // From outside, from the host, and from containers of the network, itself included.
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let names = udp::echo(&web.ns, "0.0.0.0:53");
    tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers()[0].ip(), CLIENT, "the source is kept");
    for (from, to) in [
        (&machine.ns, machine.at(8080)),
        (&machine.ns, local(8080)),
        (&machine.ns, web.at(80)),
        (&web.ns, machine.at(8080)),
        (&other.ns, machine.at(8080)),
        (&other.ns, web.at(80)),
    ] {
        tcp::ask(from, to);
    }
    icmp::ping(&other.ns, web.addr).unwrap();
    for (from, to) in
        [(&machine.client, machine.at(5353)), (&machine.ns, local(5353)), (&other.ns, web.at(53))]
    {
        udp::ask(&udp::connect(from, to), b"hello").unwrap();
    }
    assert_eq!(names.peers()[0].ip(), CLIENT);
    let range = tcp::echo(&web.ns, "0.0.0.0:9001");
    tcp::ask(&machine.client, machine.at(9001));
    let chosen = site.port("web", "n1", "90");
    let random = tcp::echo(&web.ns, "0.0.0.0:90");
    tcp::ask(&machine.client, machine.at(chosen[0].port()));
    assert_ne!(site.port("web", "n1", "70")[0].port(), chosen[0].port(), "-P chooses as well");
    let listed = site.endpoints();
    let listed = listed.iter().find(|e| e["ID"] == site.endpoint("web", "n1")[..12]).unwrap();
    assert!(listed["Ports"].as_str().unwrap().contains("0.0.0.0:8080->80/tcp"), "{listed}");
    assert_eq!(docker.line(&["port", "web"]), "", "Docker takes no ports from a driver that is not its own");

    // Names are Docker's, and rnet's name server does not listen on the gateway.
    for name in ["web", "web.n1"] {
        let found = docker.ok(&["exec", "other", "nslookup", name]);
        assert!(found.contains("127.0.0.11") && found.contains(&web.addr.to_string()), "{found}");
    }
    let gateway = udp::connect(&other.ns, "10.91.0.9:53".parse().unwrap());
    assert_eq!(udp::ask(&gateway, b"hello"), Err(Failure::Refused));

    // To the outside.
    let outside = tcp::echo(&machine.client, "0.0.0.0:7777");
    tcp::ask(&web.ns, v4(CLIENT, 7777));
    assert_eq!(outside.peers()[0].ip(), HOST);
    drop((server, names, range, random, outside));

    // The host's stack remembers Ethernet addresses, as long as somebody else keeps the bridge up.
    docker.ok(&["restart", "--time", "1", "web"]);
    let web = docker.container("web");
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, web.at(80));
    tcp::ask(&other.ns, web.at(80));
    drop(server);

    let in_use = site.endpoints();
    for (port, words) in [
        ("8080:80", "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ("192.0.2.77:81:80", "cannot assign requested address"),
    ] {
        let refused = docker.refused(&["run", "-d", "--name", "late", "--network", "n1", "-p", port, IMAGE]);
        assert!(refused.contains(words) && refused.matches("driver failed").count() == 1, "{refused}");
        docker.ok(&["rm", "late"]);
    }
    assert_eq!(site.endpoints().len(), in_use.len(), "nothing is left of what was refused");
    assert_eq!(site.veths().len(), 2);
    let refused = docker.refused(&["network", "rm", "n1"]);
    assert!(refused.contains("has active endpoints"), "{refused}");
    docker.ok(&["rm", "-f", "web", "other"]);
    assert_eq!(site.rnet.json(&["network", "inspect", &n1])[0]["Containers"], serde_json::json!({}));
    docker.ok(&["network", "rm", "n1"]);
    before.assert_restored(&machine.ns, site.rnet.instance(), "everything is removed");
}

#[test]
fn driver_networks_are_apart_from_one_another_and_from_dockers_own() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start(&machine, &[]);
    let docker = &site.dockerd;
    let before = site.made();
    let ids = [
        site.network("n1", &["--subnet", "10.91.0.0/24"]),
        site.network("n2", &["--ipv6", "--subnet", "10.92.0.0/24", "--subnet", "fd92::/64"]),
        site.network("inner", &["--internal", "--subnet", "10.93.0.0/24"]),
        site.network(
            "mute",
            &["--subnet", "10.94.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false"],
        ),
    ];
    let web = docker.run("web", &["--network", "n1", "-p", "8080:80"]);
    let both = docker.run("both", &["--network", "n2", "-p", "8081:80"]);
    let plain = docker.run("plain", &["-p", "8082:80"]);
    let [inner, within] =
        ["inner", "within"].map(|name| docker.run(name, &["--network", "inner", "-p", "8083:80"]));
    let [mute, deaf] = ["mute", "deaf"].map(|name| docker.run(name, &["--network", "mute"]));
    let all = [&web, &both, &plain, &inner, &within, &mute, &deaf];
    let servers = all.map(|container| tcp::echo(&container.ns, "0.0.0.0:80"));
    // Docker lets what its own networks send out anywhere, and as the host's own it reaches any container of rnet's. A
    // rule of the user's keeps it away.
    tcp::ask(&plain.ns, web.at(80));
    for id in ids {
        let bridge = format!("br-{}", &id[..12]);
        let rule = ["-I", "DOCKER-USER", "-o", &bridge, "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"];
        machine.ns.output_of("iptables", &rule).unwrap();
    }
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
    let pairs: Vec<_> = pairs.filter(|(from, to)| from.name != to.name).collect();
    // All at once: most wait in vain.
    let reached: Vec<_> = thread::scope(|scope| {
        let tries = pairs.iter().map(|(from, to)| scope.spawn(|| tcp::connect(&from.ns, to.at(80)).is_ok()));
        let tries: Vec<_> = tries.collect();
        tries.into_iter().map(|reached| reached.join().unwrap()).collect()
    });
    let is_inside = |container: &Container| ["inner", "within"].contains(&container.name.as_str());
    for ((from, to), reached) in pairs.into_iter().zip(reached) {
        assert_eq!(reached, is_inside(from) && is_inside(to), "{} reaches {}", from.name, to.name);
    }
    drop(servers);

    // By published ports networks meet, as they do with Docker.
    let servers = [&web, &both, &plain, &inner].map(|container| tcp::echo(&container.ns, "0.0.0.0:80"));
    tcp::ask(&web.ns, machine.at(8081));
    tcp::ask(&web.ns, machine.at(8082));
    for port in [8080, 8081, 8082] {
        tcp::ask(&machine.client, machine.at(port));
    }
    let outside = tcp::echo(&machine.client, "0.0.0.0:7777");
    tcp::ask(&mute.ns, v4(CLIENT, 7777));
    tcp::ask(&plain.ns, v4(CLIENT, 7777));
    assert!(tcp::connect(&inner.ns, v4(CLIENT, 7777)).is_err(), "an internal network leads nowhere");
    assert_eq!(inner.ns.output_of("ip", &["route"]).unwrap().lines().count(), 1, "and has no gateway");
    assert_eq!(site.rnet.ok(&["port", &site.endpoint("inner", "inner")]), "", "nor ports");
    assert!(tcp::connect(&machine.client, machine.at(8083)).is_err());
    // Docker's own bridges are no way in: on the host itself nobody listens.
    assert_eq!(tcp::connect(&plain.ns, machine.at(8080)).unwrap_err(), Failure::Refused);
    drop((servers, outside));

    let v6 = tcp::echo(&both.ns, "[::]:80");
    tcp::ask(&machine.ns, "[::1]:8081".parse().unwrap());
    let own =
        docker.line(&["inspect", "--format", "{{.NetworkSettings.Networks.n2.GlobalIPv6Address}}", "both"]);
    tcp::ask(&machine.ns, format!("[{own}]:80").parse().unwrap());
    let routes = both.ns.output_of("ip", &["-6", "route"]).unwrap();
    assert!(routes.contains("default via fd92::1"), "{routes}");
    drop(v6);

    // What takes the host's stack is for Docker's rules to judge.
    let seen_id = site.network("seen", &["--subnet", "10.95.0.0/24", "-o", "rnet.via_stack=true"]);
    let seen = docker.run("seen", &["--network", "seen", "-p", "8084:80"]);
    let server = tcp::echo(&seen.ns, "0.0.0.0:80");
    assert!(tcp::connect(&machine.client, machine.at(8084)).is_err());
    for way in ["-i", "-o"] {
        let bridge = format!("br-{}", &seen_id[..12]);
        machine.ns.output_of("iptables", &["-I", "DOCKER-USER", way, &bridge, "-j", "ACCEPT"]).unwrap();
    }
    tcp::ask(&machine.client, machine.at(8084));
    drop(server);

    let unknown = docker.refused(&["network", "create", "-d", "rnet", "-o", "nonsense=1", "n5"]);
    assert!(
        unknown.contains("unknown network option \"nonsense\": known are com.docker.network"),
        "{unknown}"
    );
    let taken = docker.refused(&["network", "create", "-d", "rnet", "--subnet", "10.200.0.0/24", "n5"]);
    assert!(taken.contains("overlaps route 10.200.0.0/24 of this host"), "{taken}");
    assert_eq!(docker.line(&["network", "ls", "-q", "--filter", "name=n5"]), "");
    docker.ok(&["rm", "-f", "web", "both", "plain", "inner", "within", "mute", "deaf", "seen"]);
    docker.ok(&["network", "rm", "n1", "n2", "inner", "mute", "seen"]);
    assert_eq!(site.made(), before, "everything is removed");
}
