//! What commands print, and what they refuse.

use std::net::Ipv4Addr;

use serde_json::Value;
use testbed::{Container, Host, Rnet, Snapshot};

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
}

#[test]
fn run_prints_the_id_and_takes_the_lowest_free_address() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let id = rnet.ok(&["run", "-d", "--name", "c1"]);
    assert!(is_id(id.trim_end()) && id.ends_with('\n'), "{id}");
    let addrs = |containers: &[Container]| containers.iter().map(|c| c.addr.octets()[3]).collect::<Vec<_>>();
    assert_eq!(rnet.container("c1").addr, Ipv4Addr::new(172, 17, 0, 2));
    assert_eq!(addrs(&[rnet.run("c2", &[]), rnet.run("c3", &[])]), [3, 4]);
    assert_eq!(rnet.ok(&["rm", "-f", "c2"]), "c2\n");
    assert_eq!(addrs(&[rnet.run("c4", &[]), rnet.run("c5", &[])]), [3, 5]);
    let line = rnet.fails(&["run", "-d", "--name", "c5"]);
    assert!(line.contains("c5"), "{line}");
}

#[test]
fn a_container_has_eth0_a_default_route_and_files_of_its_own() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &[]);
    let route = c1.ns.output_of("ip", &["route", "show", "default"]).unwrap();
    assert!(route.starts_with("default via 172.17.0.1 dev eth0"), "{route}");
    let links = c1.ns.output_of("ip", &["-o", "link"]).unwrap();
    assert_eq!(links.lines().count(), 2, "lo and eth0:\n{links}");
    assert!(links.lines().all(|l| l.contains(",UP") || l.contains("UP,")), "both are up:\n{links}");
    let hosts = rnet.ok(&["exec", "c1", "cat", "/etc/hosts"]);
    assert!(hosts.contains("172.17.0.2"), "{hosts}");
    let addr = rnet.ok(&["exec", "c1", "ip", "-o", "addr", "show", "eth0"]);
    assert!(addr.contains("172.17.0.2/16"), "{addr}");
    assert_eq!(rnet.cmd(&["exec", "c1", "sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn port_prints_as_docker_does() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &["-p", "8080:80", "-p", "10.200.0.9:5300:53/udp"]);
    assert_eq!(rnet.ok(&["port", "web"]), "53/udp -> 10.200.0.9:5300\n80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(rnet.ok(&["port", "web", "80"]), "0.0.0.0:8080\n");
    assert_eq!(rnet.ok(&["port", "web", "53/udp"]), "10.200.0.9:5300\n");
    let line = rnet.fails(&["port", "web", "81"]);
    assert!(line.contains("no public port '81' published for web"), "{line}");
    rnet.run("plain", &[]);
    assert_eq!(rnet.ok(&["port", "plain"]), "");
    assert!(rnet.fails(&["port", "ghost"]).contains("ghost"));
}

#[test]
fn ps_lists_containers_with_their_ports() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let header = rnet.ok(&["ps"]);
    assert_eq!(header.lines().count(), 1, "{header}");
    assert!(header.starts_with("CONTAINER ID") && header.trim_end().ends_with("NAMES"), "{header}");
    let id = rnet.ok(&["run", "-d", "--name", "web", "-p", "8080:80"]);
    let list = rnet.ok(&["ps"]);
    let line = list.lines().nth(1).unwrap_or_else(|| panic!("no container in {list}"));
    assert!(line.starts_with(&id[..12]) && line.trim_end().ends_with("web"), "{line}");
    assert!(line.contains("0.0.0.0:8080->80/tcp"), "{line}");
    let json = rnet.json(&["ps"]);
    assert_eq!(json.len(), 1, "{json:?}");
    assert!(json[0].to_string().contains("web"), "{json:?}");
}

#[test]
fn networks_are_listed_inspected_and_removed_as_docker_does() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let id = rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "--gateway", "10.88.0.254", "n1"]);
    assert!(is_id(id.trim_end()), "{id}");
    let list = rnet.ok(&["network", "ls"]);
    let header: Vec<_> = list.lines().next().unwrap_or_default().split("  ").map(str::trim).collect();
    assert_eq!(
        header.iter().filter(|c| !c.is_empty()).collect::<Vec<_>>(),
        [&"NETWORK ID", &"NAME", &"DRIVER", &"SCOPE"]
    );
    let rows: Vec<Vec<_>> = list.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    for wanted in [["bridge", "bridge", "local"], ["n1", "bridge", "local"]] {
        assert!(rows.iter().any(|r| r[1..] == wanted), "{wanted:?} in\n{list}");
    }
    assert!(rows.iter().any(|r| r[0] == &id[..12]), "{list}");

    let c1 = rnet.run("c1", &["--network", "n1"]);
    let inspected: Value = serde_json::from_str(&rnet.ok(&["network", "inspect", "n1"])).unwrap();
    let n1 = &inspected[0];
    assert_eq!(inspected.as_array().unwrap().len(), 1);
    assert_eq!(
        (&n1["Name"], &n1["Id"], &n1["Driver"]),
        (&"n1".into(), &id.trim_end().into(), &"bridge".into())
    );
    let config = &n1["IPAM"]["Config"][0];
    assert_eq!((&config["Subnet"], &config["Gateway"]), (&"10.88.0.0/24".into(), &"10.88.0.254".into()));
    let member = n1["Containers"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&member["Name"], &member["IPv4Address"]), (&"c1".into(), &"10.88.0.1/24".into()));
    assert_eq!(c1.addr, Ipv4Addr::new(10, 88, 0, 1));

    let line = rnet.fails(&["network", "rm", "n1"]);
    assert!(line.contains("n1 has active endpoints (c1)"), "{line}");
    rnet.ok(&["rm", "-f", "c1"]);
    assert_eq!(rnet.ok(&["network", "rm", "n1"]), "n1\n");
    assert!(!rnet.ok(&["network", "ls"]).contains("n1 "));
    let line = rnet.fails(&["network", "rm", "bridge"]);
    assert!(line.contains("pre-defined network and cannot be removed"), "{line}");
}

#[test]
fn the_default_network_is_there_from_the_start() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let inspected: Value = serde_json::from_str(&rnet.ok(&["network", "inspect", "bridge"])).unwrap();
    let config = &inspected[0]["IPAM"]["Config"][0];
    assert_eq!((&config["Subnet"], &config["Gateway"]), (&"172.17.0.0/16".into(), &"172.17.0.1".into()));
    let addrs = host.ns.output_of("ip", &["-4", "-o", "addr", "show", "rnet0"]).unwrap();
    assert!(addrs.contains("172.17.0.1/16"), "{addrs}");
}

#[test]
fn a_taken_default_subnet_is_passed_over() {
    testbed::require_root!();
    let host = Host::new();
    host.ns.ip("route add 172.17.4.0/24 via 10.200.0.2");
    let rnet = Rnet::start(&host);
    assert_eq!(rnet.run("c1", &[]).addr, Ipv4Addr::new(172, 18, 0, 2));
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    for (args, wanted) in [
        (&["run", "-d", "--name", "c1", "--network", "ghost"][..], "network ghost not found"),
        (&["network", "rm", "ghost"], "network ghost not found"),
        (&["rm", "ghost"], "ghost"),
        (&["exec", "ghost", "true"], "ghost"),
    ] {
        let line = rnet.fails(args);
        assert!(line.contains(wanted), "{args:?}: {line}");
    }
    // Docker prints an empty array beside the error; a script may rely on either.
    let inspected = rnet.cmd(&["network", "inspect", "ghost"]);
    assert_eq!(inspected.status.code(), Some(1));
    assert!(inspected.stderr.contains("network ghost not found"), "{}", inspected.stderr);
    before.assert_restored(&host.ns, rnet.instance(), "refused commands");
}

#[test]
fn subnets_that_overlap_are_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    host.ns.ip("route add 10.50.0.0/16 via 10.200.0.2");
    let before = Snapshot::take(&host.ns, rnet.instance());
    for (subnet, with) in [
        ("172.17.5.0/24", "the default network"),
        ("172.16.0.0/12", "the default network"),
        ("10.200.0.0/25", "the uplink's own subnet"),
        ("10.50.7.0/24", "a route"),
    ] {
        let line = rnet.fails(&["network", "create", "--subnet", subnet, "n1"]);
        assert!(line.contains(subnet), "{subnet} overlaps {with}: {line}");
    }
    let line = rnet.fails(&["network", "create", "--subnet", "10.0.0.1/24", "n1"]);
    assert!(line.contains("it should be 10.0.0.0/24"), "{line}");
    before.assert_restored(&host.ns, rnet.instance(), "refused networks");
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    let line = rnet.fails(&["network", "create", "--subnet", "10.89.0.0/24", "n1"]);
    assert!(line.contains("network with name n1 already exists"), "{line}");
}

#[test]
fn specs_that_cannot_be_meant_are_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    for (spec, wanted) in [
        ("", "no port specified"),
        (":", "no port specified"),
        ("8080:", "no port specified"),
        ("abc", "invalid containerPort: abc"),
        ("8080:abc", "invalid containerPort: abc"),
        ("8080:65536", "invalid containerPort: 65536"),
        ("99999:80", "invalid hostPort: 99999"),
        ("8080:80/icmp", "invalid proto: icmp"),
        ("8080:80/tcp,udp", "invalid proto: tcp,udp"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
    ] {
        let line = rnet.fails(&["run", "-d", "--name", "c1", "-p", spec]);
        assert!(line.contains(wanted), "{spec:?}: {line}");
    }
    before.assert_restored(&host.ns, rnet.instance(), "refused ports");
}

#[test]
fn wrong_usage_is_told_apart() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    for args in [&["frobnicate"][..], &["run", "--no-such-flag"], &["network", "create"]] {
        let finished = rnet.cmd(args);
        assert_eq!(finished.status.code(), Some(2), "{args:?}: {}", finished.stderr);
    }
    assert_eq!(rnet.cmd(&["--help"]).status.code(), Some(0));
}
