//! rnet as a CNI plugin of Podman and of containerd, which calls it as it does for a kubelet.

use std::{fs, net::IpAddr, os::unix::fs::symlink, path::Path, time::Duration};

use serde_json::{Value, json};
use testbed::{
    Rnet, Snapshot, commands,
    engine::{
        Containerd, Machine, Podman,
        cri::{DnsConfig, PortMapping},
    },
    process,
    topology::{CLIENT, HOST, HOST_SECOND},
    traffic::{Failure, tcp, udp},
};

/// Puts rnet among an engine's plugins.
fn install(machine: &Machine, dir: &Path) {
    machine.ns.run(|| symlink(commands::binary(), dir.join("rnet")).unwrap());
}

fn list(rnet: &Rnet<'_>, version: &str, name: &str, plugin: &Value) -> String {
    let mut own = json!({ "type": "rnet", "instance": rnet.instance() });
    own.as_object_mut().unwrap().extend(plugin.as_object().unwrap().clone());
    json!({ "cniVersion": version, "name": name, "plugins": [own] }).to_string()
}

fn capabilities() -> Value {
    json!({ "portMappings": true, "aliases": true, "ips": true, "mac": true, "dns": true, "bandwidth": true,
            "io.kubernetes.cri.pod-annotations": true })
}

#[test]
fn podman_runs_containers_on_rnets_networks() {
    testbed::require_engines!();
    let machine = Machine::new();
    let podman = Podman::start(&machine);
    let rnet = Rnet::start(&machine);
    install(&machine, &podman.plugin_dir());
    for (name, number) in [("n1", 90), ("n2", 91)] {
        let plugin = json!({
            "bridge": name, "nameServer": true, "capabilities": capabilities(),
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": format!("10.{number}.0.0/24") }]],
                      "routes": [{ "dst": "0.0.0.0/0" }] },
        });
        podman.add_network(&format!("{name}.conflist"), &list(&rnet, "0.4.0", name, &plugin));
    }
    let own = json!({ "subnet": "10.92.0.0/24", "capabilities": capabilities(), "nameServer": true });
    podman.add_network("own.conflist", &list(&rnet, "1.0.0", "own", &own));
    let before = Snapshot::take(&machine.ns, rnet.instance());

    let web = podman.run("web", &["--network", "n1", "-p", "8080:80", "-p", "10.200.0.9:5300:53/udp"]);
    let (server, names) = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    tcp::ask(&machine.client, machine.at(8080));
    udp::ask(&udp::connect(&machine.client, (HOST_SECOND, 5300).into()), b"name").unwrap();
    assert_eq!(server.peers()[0].ip(), CLIENT);
    let ports = podman.ok(&["port", "web"]);
    assert!(
        ports.contains("80/tcp -> 0.0.0.0:8080") && ports.contains("53/udp -> 10.200.0.9:5300"),
        "{ports}"
    );
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    tcp::ask(&web.ns, (CLIENT, 9000).into());
    assert_eq!(outside.peers()[0].ip(), HOST);
    let taken = podman.refused(&["run", "-d", "--network", "n1", "-p", "8080:80", testbed::engine::IMAGE]);
    assert!(taken.contains("8080"), "{taken}");
    assert_eq!(rnet.json(&["ps"]).len(), 1, "of what was refused nothing is left");

    // Two networks, an address and an Ethernet address that are asked for, names.
    // Podman goes through networks in no certain order, and names interfaces by it.
    let first = "n1:interface_name=eth0,ip=10.90.0.77,mac=02:00:00:00:00:77";
    let args = ["--network", first, "--network", "n2:interface_name=eth1", "-p", "8081:80"];
    let both = podman.run("both", &args);
    assert_eq!(both.addr.to_string(), "10.90.0.77");
    assert_eq!(both.ns.mac("eth0"), [2, 0, 0, 0, 0, 0x77]);
    let second = both.ns.output_of("ip", &["-4", "-o", "addr", "show", "dev", "eth1"]).unwrap();
    assert!(second.contains("10.91.0.2/24"), "{second}");
    let both_server = tcp::echo(&both.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8081));
    tcp::ask(&web.ns, both.at(80));
    assert!(podman.ok(&["exec", "both", "cat", "/etc/resolv.conf"]).contains("nameserver 10.90.0.1"));
    let found = podman.ok(&["exec", "both", "nslookup", "web"]);
    assert!(found.contains(&web.addr.to_string()), "{found}");
    let inspected =
        podman.line(&["inspect", "--format", "{{.NetworkSettings.Networks.n2.IPAddress}}", "both"]);
    assert_eq!(inspected, "10.91.0.2");

    // rnet gives the addresses itself.
    let own = podman.run("own", &["--network", "own", "-p", "8082:80"]);
    let own_server = tcp::echo(&own.ns, "0.0.0.0:80");
    assert_eq!(own.addr.to_string(), "10.92.0.2");
    tcp::ask(&machine.client, machine.at(8082));

    let fixed = podman.run("fixed", &["--network", "own", "--ip", "10.92.0.9"]);
    assert_eq!(fixed.addr.to_string(), "10.92.0.9");
    let taken =
        podman.refused(&["run", "-d", "--network", "own", "--ip", "10.92.0.9", testbed::engine::IMAGE]);
    assert!(taken.contains("Address already in use: 10.92.0.9"), "{taken}");

    podman.ok(&["network", "reload", "web"]);
    tcp::ask(&machine.client, machine.at(8080));
    drop((server, names, both_server, own_server));
    podman.ok(&["stop", "--time", "0", "web"]);
    assert_eq!(tcp::connect(&machine.client, machine.at(8080)).unwrap_err(), Failure::Refused);
    podman.ok(&["start", "web"]);
    let web = podman.container("web");
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));
    drop(server);
    podman.ok(&["rm", "--force", "--time", "0", "web", "both", "own", "fixed"]);
    drop(outside);
    before.assert_restored(&machine.ns, rnet.instance(), "podman rm");
}

fn port(host: i32, container: i32, protocol: i32, host_ip: &str) -> PortMapping {
    PortMapping { protocol, container_port: container, host_port: host, host_ip: host_ip.into() }
}

#[test]
fn containerd_runs_pods_on_rnets_network() {
    testbed::require_engines!();
    let machine = Machine::new();
    let rnet = Rnet::start(&machine);
    let plugin = json!({ "subnet": "10.92.0.0/24", "capabilities": capabilities() });
    let network = list(&rnet, "1.0.0", "pods", &plugin);
    let containerd = Containerd::start(&machine, "10-pods.conflist", &network);
    install(&machine, &containerd.plugin_dir());
    let before = Snapshot::take(&machine.ns, rnet.instance());

    let ports = [port(8080, 80, 0, ""), port(5300, 53, 1, "10.200.0.9"), port(0, 81, 0, "")];
    let mut config = containerd.pod("web", &ports);
    config.dns_config = Some(DnsConfig { servers: vec!["10.200.0.2".into()], ..DnsConfig::default() });
    let web = containerd.run_pod(config);
    assert_eq!(web.addrs, ["10.92.0.2".parse::<IpAddr>().unwrap()]);
    let (server, names) = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    tcp::ask(&machine.client, machine.at(8080));
    udp::ask(&udp::connect(&machine.client, (HOST_SECOND, 5300).into()), b"name").unwrap();
    udp::ask(&udp::connect(&machine.client, machine.at(5300)), b"name").unwrap_err();
    // From pod to pod, from pod to host, from host to pod, and outwards.
    let mut config = containerd.pod("other", &[]);
    config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "100M".into());
    let other = containerd.run_pod(config);
    let queues = other.ns.output_of("tc", &["qdisc", "show", "dev", "eth0"]).unwrap();
    assert!(queues.contains("tbf") && queues.contains("rate 100Mbit"), "{queues}");
    tcp::ask(&other.ns, (web.addrs[0], 80).into());
    tcp::ask(&other.ns, machine.at(8080));
    tcp::ask(&machine.ns, (web.addrs[0], 80).into());
    let (on_host, outside) =
        (tcp::echo(&machine.ns, "0.0.0.0:9001"), tcp::echo(&machine.client, "0.0.0.0:9000"));
    tcp::ask(&web.ns, machine.at(9001));
    tcp::ask(&web.ns, (CLIENT, 9000).into());
    assert_eq!((on_host.peers()[0].ip(), outside.peers()[0].ip()), (web.addrs[0], HOST.into()));
    assert!(rnet.ok(&["ps"]).contains("default_web"));
    // Nobody but rnet keeps the port of a pod.
    let bound = machine.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let taken =
        containerd.cri().run_pod_sandbox(containerd.pod("third", &[port(8080, 80, 0, "")])).unwrap_err();
    assert!(taken.contains("8080"), "{taken}");

    containerd.kill9();
    rnet.kill9();
    rnet.start_daemon();
    containerd.start_daemon();
    tcp::ask(&machine.client, machine.at(8080));
    // A sandbox cannot be taken down without rnet, and is once it is there again.
    rnet.kill9();
    let waiting = containerd.cri().stop_pod_sandbox(&other.id).unwrap_err();
    assert!(waiting.contains("no rnet daemon answers"), "{waiting}");
    rnet.start_daemon();
    containerd.remove(&other);
    drop((server, names, on_host, outside));
    // Stopped and then removed, a sandbox is taken down twice: the second time without a namespace.
    containerd.remove(&web);
    assert_eq!(tcp::connect(&machine.client, machine.at(8080)).unwrap_err(), Failure::Refused);
    before.assert_restored(&machine.ns, rnet.instance(), "the removal of all pods");

    // A pod that nobody takes down, and the list of those that there are.
    let lost = containerd.run("lost", &[port(8080, 80, 0, "")]);
    containerd.kill9();
    let mut gc: Value = serde_json::from_str(&list(&rnet, "1.1.0", "pods", &plugin)).unwrap();
    let mut config = gc["plugins"][0].take();
    config["cniVersion"] = json!("1.1.0");
    config["name"] = json!("pods");
    config["cni.dev/valid-attachments"] = json!([]);
    let mut shell = machine.ns.command("sh");
    shell.args(["-c", r#"printf %s "$INPUT" | "$PLUGIN""#]).env("PLUGIN", commands::binary());
    shell.env("INPUT", config.to_string()).env("CNI_COMMAND", "GC");
    process::run(shell, Duration::from_secs(30)).assert_ok("GC");
    before.assert_restored(&machine.ns, rnet.instance(), "GC");
    containerd.start_daemon();
    containerd.remove(&lost);
    before.assert_restored(&machine.ns, rnet.instance(), "DEL of what was collected");
}

/// The same pods behind CNI's own bridge, whose ports either plugin publishes.
#[test]
fn containerd_has_rnet_publish_the_ports_of_another_plugins_pods() {
    testbed::require_engines!();
    let machine = Machine::new();
    let rnet = Rnet::start(&machine);
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": { "type": "host-local", "subnet": "10.93.0.0/24" },
    });
    let ports = json!({ "portMappings": true });
    let chained = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [
        bridge, { "type": "rnet", "mode": "portmap", "instance": rnet.instance(), "capabilities": ports },
    ] });
    let file = "10-pods.conflist";
    let containerd = Containerd::start(&machine, file, &chained.to_string());
    install(&machine, &containerd.plugin_dir());
    let before = known(&rnet);
    let published = |what: &str| {
        let web = containerd.run("web", &[port(8080, 80, 0, "")]);
        let (server, outside) =
            (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&machine.client, "0.0.0.0:9000"));
        tcp::ask(&machine.client, machine.at(8080));
        tcp::ask(&machine.ns, machine.at(8080));
        tcp::ask(&web.ns, machine.at(8080));
        tcp::ask(&web.ns, (CLIENT, 9000).into());
        assert_eq!(outside.peers()[0].ip(), HOST, "{what}: the bridge plugin masquerades");
        let mut peers: Vec<IpAddr> = server.peers().iter().map(|peer| peer.ip()).collect();
        peers.truncate(1);
        assert_eq!(peers, [IpAddr::from(CLIENT)], "{what}: the client is seen as it is");
        let rules = machine.ns.output_of("iptables-save", &["-t", "nat"]).unwrap_or_default();
        drop((server, outside));
        containerd.remove(&web);
        assert!(tcp::connect(&machine.client, machine.at(8080)).is_err(), "{what}");
        rules
    };
    let rules = published("rnet");
    assert!(!rules.contains("8080"), "{rules}");
    assert_eq!(known(&rnet), before);
    // What is published in the same way by CNI's portmap.
    let theirs = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [
        bridge, { "type": "portmap", "capabilities": ports },
    ] });
    let dir = containerd.plugin_dir().with_file_name("networks");
    machine.ns.run(|| fs::write(dir.join(file), theirs.to_string()).unwrap());
    // Configurations are watched, but read at some later time.
    containerd.stop();
    containerd.start_daemon();
    let rules = published("portmap");
    assert!(rules.contains("8080"), "{rules}");
}

/// What rnet knows of containers and networks.
fn known(rnet: &Rnet<'_>) -> (String, usize) {
    (rnet.ok(&["network", "ls"]), rnet.json(&["ps"]).len())
}
