//! The configuration file: what each key does to packets and containers, what is refused, and SIGHUP.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{
    Host, Rnet, Snapshot, bpf,
    commands::assert_refused,
    topology::{CLIENT, HOST, HOST_SECOND},
    traffic::{Failure, tcp, udp},
    uninterrupted,
};

/// A file that a daemon is told to read.
struct File {
    dir: TempDir,
}

impl File {
    fn new(content: &Value) -> Self {
        let file = Self { dir: tempfile::tempdir().unwrap() };
        file.write(&content.to_string());
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("daemon.json")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    fn start(&self, rnet: &Rnet<'_>) {
        rnet.start_daemon_with(&["--config", self.path().to_str().unwrap()]);
    }
}

#[test]
fn validate_says_whether_a_file_is_right_and_does_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let file = File::new(&json!({"bip": "10.9.0.1/24", "rnet": {"timeouts": {"udp": "5s"}}}));
    let path = file.path().display().to_string();
    let validate = ["daemon", "--validate", "--config", &path];
    let finished = rnet.cmd(&validate).assert_ok("validate");
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", "configuration OK\n"));
    file.write("{\n  \"bip\": \"10.9.0.1/24\",\n  \"bipp\": 1\n}");
    let refusal = format!("error: {path}:3:3: unknown key `bipp`; did you mean `bip`?");
    assert_eq!(rnet.fails(&validate), refusal);
    assert_eq!(rnet.fails(&["daemon", "--config", &path]), refusal);
    let line = rnet.fails(&["daemon", "--config", "/no/such/file.json"]);
    assert!(line.contains("/no/such/file.json: No such file"), "{line}");
    file.write(r#"{"rnet": {"max-flows": 7}}"#);
    let line = rnet.fails(&["daemon", "--config", &path, "--max-flows", "8"]);
    assert!(line.contains("specified both as a flag and in the configuration file: rnet.max-flows: (from flag: 8, from file: 7)"), "{line}");
    before.assert_restored(&host.ns, rnet.instance(), "daemons that were refused");
}

#[test]
fn the_default_network_is_as_the_file_says() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let file = File::new(&json!({
        "bip": "10.9.0.254/24", "fixed-cidr": "10.9.0.64/26", "ipv6": true, "fixed-cidr-v6": "fd00:9::/64",
        "default-gateway-v6": "fd00:9::99", "mtu": 1400, "icc": false, "ip-masq": false,
    }));
    file.start(&rnet);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let other = rnet.run("other", &[]);
    assert_eq!([web.addr, other.addr].map(|a| a.to_string()), ["10.9.0.64", "10.9.0.65"]);
    let bridge = host.ns.output_of("ip", &["addr", "show", "rnet0"]).unwrap();
    for part in ["10.9.0.254/24", "fd00:9::99/64", "mtu 1400"] {
        assert!(bridge.contains(part), "{part} in\n{bridge}");
    }
    let routes = ["-4", "-6"].map(|v| web.ns.output_of("ip", &[v, "route", "show", "default"]).unwrap());
    assert!(routes[0].contains("via 10.9.0.254") && routes[1].contains("via fd00:9::99"), "{routes:?}");
    assert!(web.ns.output_of("ip", &["link", "show", "eth0"]).unwrap().contains("mtu 1400"));

    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    tcp::ask(&host.client, host.at(8080));
    assert_eq!(tcp::connect(&other.ns, web.at(80)).unwrap_err(), Failure::TimedOut, "no icc");
    // Without masquerade the client sees the container, and has to know the way back.
    host.client.ip(&format!("route add 10.9.0.0/24 via {HOST}"));
    assert_eq!(tcp::ask(&other.ns, (CLIENT, 9000).into()), servers.1.peers()[0]);
    assert_eq!(servers.1.peers()[0].ip(), other.addr);
}

#[test]
fn what_nobody_asks_for_otherwise_is_as_the_file_says() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let second = HOST_SECOND.to_string();
    let file = File::new(&json!({
        "ip": second, "dns": ["192.0.2.53"], "dns-search": ["example.com"], "dns-opts": ["ndots:3"],
        "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}],
        "rnet": {
            "snat-port-range": "2000-2007", "timeouts": {"udp": 5, "tcp-established": "2h"},
            "max-flows": 1024, "max-ports": 256, "uplinks": ["eth0"], "xdp": "off",
        },
    }));
    file.start(&rnet);
    let web = rnet.run("web", &["-p", "8080:80"]);
    assert_eq!(web.addr.to_string(), "10.77.0.2");
    rnet.ok(&["network", "create", "n1"]);
    assert!(rnet.ok(&["network", "inspect", "n1"]).contains("10.77.1.0/24"));
    let resolv_conf = rnet.ok(&["exec", "web", "cat", "/etc/resolv.conf"]);
    for line in ["nameserver 192.0.2.53\n", "search example.com\n", "options ndots:3\n"] {
        assert!(resolv_conf.contains(line), "{resolv_conf}");
    }

    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    assert_eq!(rnet.ok(&["port", "web"]), format!("80/tcp -> {second}:8080\n"));
    tcp::ask(&host.client, (HOST_SECOND, 8080).into());
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    tcp::ask(&web.ns, (CLIENT, 9000).into());
    assert!((2000..=2007).contains(&servers.1.peers()[0].port()), "{:?}", servers.1.peers());

    let timeouts = &rnet.json(&["conntrack", "timeouts"])[0];
    assert_eq!((&timeouts["udp"], &timeouts["tcp-established"]), (&json!(5), &json!(7200)));
    let pins = rnet.json(&["status"])[0]["pins"].as_str().unwrap().to_owned();
    for (map, entries) in [("PORTS4", 256), ("FLOWS6", 2048)] {
        let pin = Path::new(&pins).join(map);
        let shown = bpf::bpftool(&["map", "show", "pinned", pin.to_str().unwrap()]).unwrap();
        assert_eq!(shown["max_entries"], json!(entries), "{map}");
    }
}

#[test]
fn sighup_puts_in_force_what_can_change_and_names_the_rest() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let file = File::new(&json!({"log-level": "warn", "icc": true}));
    file.start(&rnet);
    assert!(!rnet.log().contains(" INFO "), "{}", rnet.log());
    let old = rnet.run("old", &["-p", "8080:80"]);
    let _server = tcp::echo(&old.ns, "0.0.0.0:80");
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();

    let next = json!({
        "log-level": "info", "icc": false, "mtu": 1400, "ip": HOST_SECOND.to_string(), "dns": ["192.0.2.53"],
        "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}], "rnet": {"timeouts": {"icmp": 7}},
    });
    file.write(&next.to_string());
    let said = rnet.reload();
    assert!(said.contains("configuration reloaded"), "info is logged: {said}");
    assert!(said.contains("these keys take effect when the daemon is started again: icc, mtu"), "{said}");
    rnet.run("new", &["-p", "8081:80"]);
    assert_eq!(rnet.ok(&["port", "new"]), format!("80/tcp -> {HOST_SECOND}:8081\n"));
    assert!(rnet.ok(&["exec", "new", "cat", "/etc/resolv.conf"]).contains("nameserver 192.0.2.53\n"));
    rnet.ok(&["network", "create", "n1"]);
    assert!(rnet.ok(&["network", "inspect", "n1"]).contains("10.77.0.0/24"));
    assert_eq!(rnet.json(&["conntrack", "timeouts"])[0]["icmp"], json!(7));
    assert_eq!(rnet.ok(&["port", "old"]), "80/tcp -> 0.0.0.0:8080\n");
    tcp::exchange(&stream, 100_000, 1);
    assert!(!rnet.reload().contains("started again"), "once is enough");
    let events = rnet.ok(&["events", "--since", "10m", "--until", "0s", "--filter", "type=daemon"]);
    assert_eq!(events.matches("daemon reload").count(), 2, "{events}");

    // Broken: everything stays as it is.
    file.write("{\"ip\": \"127.0.0.1\",\n \"dsn\": []}");
    let said = rnet.reload();
    assert!(said.contains("which stays as it was") && said.contains(":2:2: unknown key `dsn`"), "{said}");
    rnet.run("newer", &["-p", "8082:80"]);
    assert_eq!(rnet.ok(&["port", "newer"]), format!("80/tcp -> {HOST_SECOND}:8082\n"));
    fs::remove_file(file.path()).unwrap();
    assert!(rnet.reload().contains("No such file"));
    tcp::exchange(&stream, 100_000, 2);
}

#[test]
fn uplinks_can_be_changed_while_traffic_flows() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let file = File::new(&json!({"rnet": {"uplinks": ["eth0"]}}));
    file.start(&rnet);
    let web = rnet.run("web", &["-p", "5300:53/udp"]);
    let _server = udp::echo(&web.ns, "0.0.0.0:53");
    udp::exchange(&udp::connect(&host.client, host.at(5300)), 1000, 1);
    file.write(r#"{"rnet": {"uplinks": ["eth7"]}}"#);
    rnet.reload();
    assert_eq!(rnet.json(&["status"])[0]["uplinks"], json!([]));
    let carried = rnet.packets("carried");
    assert_eq!(tcp::connect(&host.client, host.at(5300)).unwrap_err(), Failure::Refused, "the host answers");
    assert_eq!(rnet.packets("carried"), carried);
    file.write("{}");
    rnet.reload();
    assert_eq!(rnet.json(&["status"])[0]["uplinks"], json!(["eth0"]));
    udp::exchange(&udp::connect(&host.client, host.at(5300)), 1000, 2);
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_end() {
    testbed::require_root!();
    let host = Host::new();
    let mut rnet = Rnet::new(&host);
    let file = File::new(&json!({}));
    let path = file.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut message = [0; 1000];
        let length = uninterrupted(|| manager.recv(&mut message)).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    rnet.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
    file.start(&rnet);
    assert_eq!(told(), "READY=1\n");
    rnet.reload();
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1\n");
    rnet.terminate();
    assert_eq!(told(), "STOPPING=1\n");
}

#[test]
fn a_default_network_that_cannot_be_had_is_refused_and_leaves_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let file = File::new(&json!({"bip": format!("{HOST}/24")}));
    let finished = rnet.cmd(&["daemon", "--config", file.path().to_str().unwrap()]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("10.200.0.0/24 overlaps"), "{}", finished.stderr);
    before.assert_restored(&host.ns, rnet.instance(), "a daemon that could not start");
    let file = File::new(&json!({"rnet": {"snat-port-range": "30000-40000"}}));
    let finished = rnet.cmd(&["daemon", "--config", file.path().to_str().unwrap()]);
    assert!(finished.stderr.contains("change net.ipv4.ip_local_port_range"), "{}", finished.stderr);
    before.assert_restored(&host.ns, rnet.instance(), "another daemon that could not start");
    assert_refused("it", &rnet.cmd(&["ps"]));
}
