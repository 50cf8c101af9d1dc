//! Podman 5 with rnet as netavark's plugin.

use std::{fs, os::unix::fs::PermissionsExt as _};

use testbed::{
    Rnet, Snapshot, commands,
    engine::{Machine, Podman},
    traffic::{Failure, tcp, udp},
};

/// Makes rnet one of Podman's network drivers, for this instance.
fn add_plugin(machine: &Machine, podman: &Podman<'_>, rnet: &Rnet<'_>) {
    let file = podman.plugin_dir().join("rnet");
    let script = format!(
        "#!/bin/sh\nRNET_INSTANCE={} exec {} \"$@\"\n",
        rnet.instance(),
        commands::binary().canonicalize().unwrap().display()
    );
    let written = machine.ns.run(|| {
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
    });
    written.unwrap();
}

#[test]
fn podmans_containers_are_on_a_network_of_rnet() {
    testbed::require_engines!(trixie);
    let machine = Machine::trixie();
    let rnet = Rnet::start(&machine);
    let podman = Podman::start(&machine);
    add_plugin(&machine, &podman, &rnet);
    let before = Snapshot::take(&machine.ns, rnet.instance());
    podman.ok(&["network", "create", "--driver", "rnet", "--subnet", "10.89.5.0/24", "n1"]);
    let known = &podman.json(&["network", "inspect", "n1"])[0];
    assert_eq!((&known["driver"], &known["subnets"][0]["gateway"]), (&"rnet".into(), &"10.89.5.1".into()));
    before.assert_restored(&machine.ns, rnet.instance(), "podman network create");

    let ports = ["--network", "n1", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5300-5301:53-54/udp"];
    let web = podman.run("web", &ports);
    let fixed = ["--network", "n1", "--ip", "10.89.5.77", "--mac-address", "02:11:22:33:44:55"];
    let db = podman.run("db", &fixed);
    assert_eq!(db.addr.octets(), [10, 89, 5, 77]);
    assert_eq!(db.ns.mac("eth0"), [2, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let servers = (
        tcp::echo(&web.ns, "0.0.0.0:80"),
        udp::echo(&web.ns, "0.0.0.0:54"),
        tcp::echo(&machine.client, "0.0.0.0:9000"),
    );
    // From outside, with the source kept; from the host; from a neighbour by the host's address; and back out.
    assert_eq!(tcp::ask(&machine.client, machine.at(8080)).ip(), testbed::topology::CLIENT);
    udp::ask(&udp::connect(&machine.client, machine.at(5301)), b"x").unwrap();
    tcp::ask(&machine.ns, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(tcp::connect(&machine.client, machine.at(8081)).unwrap_err(), Failure::Refused);
    tcp::ask(&db.ns, machine.at(8080));
    tcp::ask(&db.ns, web.at(80));
    tcp::ask(&db.ns, (testbed::topology::CLIENT, 9000).into());
    let mut shown: Vec<_> = podman.ok(&["port", "web"]).lines().map(str::to_owned).collect();
    shown.sort();
    assert_eq!(shown[2..], ["80/tcp -> 0.0.0.0:8080", "80/tcp -> 127.0.0.1:8081"]);
    assert!(rnet.ok(&["port", "web"]).contains("80/tcp -> 127.0.0.1:8081"));
    // By name, as rnet's name server tells.
    let told = podman.ok(&["exec", "db", "nslookup", "web", "10.89.5.1"]);
    assert!(told.contains(&web.addr.to_string()), "{told}");
    let resolver = podman.ok(&["exec", "db", "cat", "/etc/resolv.conf"]);
    assert!(resolver.contains("nameserver 10.89.5.1"), "{resolver}");

    // A port that is taken: podman says why, and nothing is left of the container.
    let asked = ["run", "--detach", "--cgroup-parent", machine.cgroup(), "--network", "n1", "-p", "8080:80"];
    let refused = podman.cmd(&[&asked[..], &[testbed::engine::IMAGE]].concat());
    assert!(!refused.status.success() && refused.stderr.contains("already in use"), "{}", refused.stderr);

    // The daemon may be started anew under connections, and containers come and go meanwhile.
    let stream = tcp::connect(&machine.client, machine.at(8080)).unwrap();
    rnet.kill9();
    rnet.start_daemon();
    tcp::exchange(&stream, 100_000, 1);
    podman.ok(&["restart", "--time", "0", "web"]);
    let web = podman.container("web");
    let again = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));

    podman.ok(&["rm", "--force", "--time", "0", "--all"]);
    podman.ok(&["network", "rm", "n1"]);
    before.assert_restored(&machine.ns, rnet.instance(), "podman rm");
    drop((servers, again));
}

#[test]
fn podmans_networks_are_internal_of_ipv6_and_many() {
    testbed::require_engines!(trixie);
    let machine = Machine::trixie();
    let rnet = Rnet::start(&machine);
    let podman = Podman::start(&machine);
    add_plugin(&machine, &podman, &rnet);
    let before = Snapshot::take(&machine.ns, rnet.instance());
    podman.ok(&["network", "create", "--driver", "rnet", "--internal", "closed"]);
    podman.ok(&["network", "create", "--driver", "rnet", "--ipv6", "open"]);
    let web = podman.run("web", &["--network", "closed", "--network", "open", "-p", "8080:80"]);
    let db = podman.run("db", &["--network", "closed"]);
    let servers = (tcp::echo(&web.ns, "[::]:80"), tcp::echo(&machine.client, "0.0.0.0:9000"));
    let outside = (testbed::topology::CLIENT, 9000).into();
    tcp::ask(&machine.client, machine.at(8080));
    tcp::ask(&web.ns, outside);
    assert_eq!(tcp::connect(&db.ns, outside).unwrap_err(), Failure::Unreachable);
    let addrs = web.ns.output_of("ip", &["-6", "-o", "addr", "show", "scope", "global"]).unwrap();
    assert_eq!(addrs.lines().count(), 1, "{addrs}");
    let shown = rnet.ok(&["port", "web", "80"]);
    assert_eq!(shown.lines().collect::<Vec<_>>(), ["0.0.0.0:8080", "[::]:8080"]);

    // A third network comes while it runs, and goes.
    podman.ok(&["network", "create", "--driver", "rnet", "third"]);
    podman.ok(&["network", "connect", "third", "web"]);
    tcp::ask(&machine.client, machine.at(8080));
    podman.ok(&["network", "disconnect", "third", "web"]);
    tcp::ask(&machine.client, machine.at(8080));
    podman.ok(&["rm", "--force", "--time", "0", "--all"]);
    before.assert_restored(&machine.ns, rnet.instance(), "podman rm");
    drop(servers);
}
