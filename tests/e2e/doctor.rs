//! `rnet doctor` finds nothing on a host that is well, names what somebody has broken, and its remedy works.

use std::time::Duration;

use serde_json::Value;
use testbed::{
    Host, Rnet, bpf,
    topology::{CLIENT, UPLINK},
    traffic::{tcp, udp},
    wait_until,
};

const SOON: Duration = Duration::from_secs(20);

/// What it says of one check.
fn found(rnet: &Rnet<'_>, check: &str) -> (String, String) {
    let finished = rnet.cmd(&["doctor", "--format", "json"]);
    let lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["check"] == check).unwrap();
    (line["level"].as_str().unwrap().to_owned(), line["found"].as_str().unwrap().to_owned())
}

/// Checks that a fault is told by the check's name, and that the exit status says whether it is an error.
#[track_caller]
fn tells(rnet: &Rnet<'_>, check: &str, level: &str, word: &str) {
    let told = found(rnet, check);
    assert_eq!(told.0, level, "{check}: {}", told.1);
    assert!(told.1.contains(word), "{check}: {}", told.1);
    let status = rnet.cmd(&["doctor"]).status.code();
    assert_eq!(status, Some(i32::from(level == "error")), "{check}");
}

fn is_well(rnet: &Rnet<'_>, check: &str) {
    let told = found(rnet, check);
    assert_eq!(told.0, "ok", "{check}: {}", told.1);
}

fn start_again(rnet: &Rnet<'_>) {
    rnet.terminate();
    rnet.start_daemon();
}

#[test]
fn a_host_that_is_well_has_no_error() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "a"]);
    rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp", "--network", "a"]);
    let finished = rnet.cmd(&["doctor"]).assert_ok("rnet doctor");
    assert!(finished.stdout.lines().all(|line| !line.starts_with("error")), "{}", finished.stdout);
    for check in [
        "kernel",
        "capabilities",
        "bpffs",
        "cgroup",
        "configuration",
        "daemon",
        "layout",
        "other-programs",
        "uplinks",
        "bridges",
        "containers",
        "socket-programs",
        "tables",
        "flow-quotas",
        "leftovers",
        "mtu",
        "forwarding",
        "held-ports",
        "listeners",
        "name-servers",
    ] {
        is_well(&rnet, check);
    }
}

#[test]
fn a_program_that_is_missing_is_put_back_by_a_new_start() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let links = std::path::Path::new("/sys/fs/bpf").join(rnet.instance());
    let links = std::fs::read_dir(links).unwrap().next().unwrap().unwrap().path().join("links");
    let pins = std::fs::read_dir(&links).unwrap().map(|entry| entry.unwrap().path());
    for pin in pins.filter(|pin| pin.to_string_lossy().contains("from_uplink-")) {
        std::fs::remove_file(pin).unwrap();
    }
    tells(&rnet, "uplinks", "error", UPLINK);
    start_again(&rnet);
    is_well(&rnet, "uplinks");
    tcp::ask(&host.client, host.at(8080));

    std::fs::remove_file(links.join("sock_bind4")).unwrap();
    tells(&rnet, "socket-programs", "error", "sock_bind4");
    assert_eq!(found(&rnet, "held-ports").0, "error");
    start_again(&rnet);
    is_well(&rnet, "socket-programs");
    is_well(&rnet, "held-ports");
}

/// The daemon makes it again by itself as soon as it hears of it.
#[test]
fn a_bridge_that_is_gone_is_made_again_and_then_well() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "-o", "com.docker.network.bridge.name=br-a", "a"]);
    host.ns.ip("link del br-a");
    wait_until("the bridge is there again", SOON, || {
        host.ns.output_of("ip", &["link", "show", "br-a"]).filter(|shown| !shown.is_empty())
    });
    is_well(&rnet, "bridges");
}

#[test]
fn settings_and_leftovers_are_told_and_their_remedies_work() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    host.ns.set_sysctl("net/ipv4/ip_local_port_range", "30000 60999");
    tells(&rnet, "port-range", "error", "30000-60999");
    host.ns.set_sysctl("net/ipv4/ip_local_port_range", "32768 60999");
    is_well(&rnet, "port-range");

    host.ns.set_sysctl("net/ipv4/conf/all/route_localnet", "1");
    tells(&rnet, "route-localnet", "warning", "127.0.0.1");
    host.ns.set_sysctl("net/ipv4/conf/all/route_localnet", "0");
    is_well(&rnet, "route-localnet");

    host.ns.ip(&format!("link set {UPLINK} mtu 1400"));
    tells(&rnet, "mtu", "warning", "bridge 1500");
    host.ns.ip(&format!("link set {UPLINK} mtu 1500"));

    let old = format!("{}-old", rnet.instance());
    host.ns.ip(&format!("netns add {old}"));
    tells(&rnet, "leftovers", "warning", &old);
    host.ns.ip(&format!("netns delete {old}"));
    is_well(&rnet, "leftovers");
}

#[test]
fn what_others_have_put_at_the_same_hooks_is_told() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let theirs = bpf::Foreign::at_ingress(&host.ns, UPLINK);
    tells(
        &rnet,
        "other-programs",
        "warning",
        &format!("tcx ingress of {UPLINK}: {}, before rnet's", bpf::Foreign::NAME),
    );
    drop(theirs);
    is_well(&rnet, "other-programs");
    // The hook of older tools.
    assert!(host.ns.output_of("tc", &["qdisc", "add", "dev", UPLINK, "clsact"]).is_some());
    tells(&rnet, "other-programs", "warning", "clsact");
    assert!(host.ns.output_of("tc", &["qdisc", "del", "dev", UPLINK, "clsact"]).is_some());
    is_well(&rnet, "other-programs");
}

#[test]
fn tables_that_are_nearly_full_are_told_and_larger_ones_help() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--max-ports", "10"]);
    rnet.run("web", &["-p", "8000-8008:8000-8008"]);
    tells(&rnet, "tables", "warning", "PORTS4 9 of 10");
    rnet.down();
    rnet.start_daemon_with(&["--max-ports", "100"]);
    rnet.run("web", &["-p", "8000-8008:8000-8008"]);
    is_well(&rnet, "tables");
}

#[test]
fn a_container_that_uses_up_its_flows_is_told() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "-o", "rnet.max_flows=5", "few"]);
    let app = rnet.run("app", &["--network", "few"]);
    is_well(&rnet, "flow-quotas");
    let sockets: Vec<_> = (20_000..20_005).map(|port| udp::connect(&app.ns, (CLIENT, port).into())).collect();
    wait_until("its flows are counted", SOON, || {
        // That nobody listens there may be told of an earlier datagram.
        sockets.iter().for_each(|socket| _ = socket.send(b"x"));
        (found(&rnet, "flow-quotas").0 == "warning").then_some(())
    });
    tells(&rnet, "flow-quotas", "warning", "app has 5 of 5 over ipv4");
    rnet.ok(&["rm", "-f", "app"]);
    is_well(&rnet, "flow-quotas");
}

#[test]
fn without_the_daemon_the_rest_is_looked_at() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let finished = rnet.cmd(&["doctor"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("no rnet daemon answers"), "{}", finished.stdout);
    assert!(finished.stdout.contains("what only it knows is not checked"), "{}", finished.stdout);
    is_well(&rnet, "kernel");
}
