//! IPv6 and gateway modes as the control side shows them: addresses, routes, inspection, refusals.

use serde_json::Value;
use testbed::{Host, Rnet, Snapshot, traffic::tcp};

fn inspect(rnet: &Rnet<'_>, network: &str) -> Value {
    let inspected: Value = serde_json::from_str(&rnet.ok(&["network", "inspect", network])).unwrap();
    inspected[0].clone()
}

#[test]
fn a_container_has_an_address_and_a_route_of_each_family() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "--ipv6", "--subnet", "10.88.0.0/24", "--subnet", "fd00:88::/64", "n1"]);
    let c1 = rnet.run("c1", &["--network", "n1"]);
    let c2 = rnet.run("c2", &["--network", "n1", "--ip6", "fd00:88::beef"]);

    let addrs = |ns: &testbed::Netns| {
        ns.output_of("ip", &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]).unwrap()
    };
    let (first, second) = (addrs(&c1.ns), addrs(&c2.ns));
    assert!(first.contains("fd00:88::2/64") && !first.contains("tentative"), "{first}");
    assert!(second.contains("fd00:88::beef/64"), "{second}");
    let route = c1.ns.output_of("ip", &["-6", "route", "show", "default"]).unwrap();
    assert!(route.starts_with("default via fd00:88::1 dev eth0"), "{route}");
    let hosts = rnet.ok(&["exec", "c1", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.88.0.2\t") && hosts.contains("fd00:88::2\t"), "{hosts}");

    let n1 = inspect(&rnet, "n1");
    assert_eq!(n1["EnableIPv6"], true);
    let configs = n1["IPAM"]["Config"].as_array().unwrap();
    assert_eq!(
        (&configs[1]["Subnet"], &configs[1]["Gateway"]),
        (&"fd00:88::/64".into(), &"fd00:88::1".into())
    );
    let members: Vec<_> =
        n1["Containers"].as_object().unwrap().values().map(|m| m["IPv6Address"].clone()).collect();
    assert!(
        members.contains(&"fd00:88::2/64".into()) && members.contains(&"fd00:88::beef/64".into()),
        "{members:?}"
    );
    let c2: Value = serde_json::from_str(&rnet.ok(&["inspect", "c2"])).unwrap();
    let endpoint = &c2[0]["NetworkSettings"]["Networks"]["n1"];
    assert_eq!(endpoint["GlobalIPv6Address"], "fd00:88::beef");
    assert_eq!(
        (&endpoint["GlobalIPv6PrefixLen"], &endpoint["IPv6Gateway"]),
        (&64.into(), &"fd00:88::1".into())
    );
}

#[test]
fn a_network_without_ipv6_has_none_anywhere() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &[]);
    for (ns, interface) in [(&c1.ns, "eth0"), (&host.ns, "rnet0")] {
        let addrs = ns.output_of("ip", &["-6", "-o", "addr", "show", "dev", interface]).unwrap();
        assert_eq!(addrs, "", "{interface}");
    }
    let line = rnet.fails(&["network", "create", "--subnet", "fd00:88::/64", "n1"]);
    assert!(line.contains("add --ipv6"), "{line}");
    let line = rnet.fails(&["run", "-d", "--ip6", "fd00:88::2", "true"]);
    assert!(line.contains("user-defined networks only"), "{line}");
}

#[test]
fn a_default_network_with_ipv6_is_told_at_the_start() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"]);
    let c1 = rnet.run("c1", &[]);
    let addrs = c1.ns.output_of("ip", &["-6", "-o", "addr", "show", "dev", "eth0"]).unwrap();
    assert!(addrs.contains("fd00:17::2/64"), "{addrs}");
    let gateway = host.ns.output_of("ip", &["-6", "-o", "addr", "show", "dev", "rnet0"]).unwrap();
    assert!(gateway.contains("fd00:17::1/64"), "{gateway}");
    assert_eq!(inspect(&rnet, "bridge")["EnableIPv6"], true);
}

#[test]
fn an_isolated_network_has_neither_gateway_nor_route() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let mode = "com.docker.network.bridge.gateway_mode_ipv4";
    let isolated = format!("{mode}=isolated");
    let line = rnet.fails(&["network", "create", "-o", &isolated, "n1"]);
    assert!(line.contains("gateway mode 'isolated' can only be used for an internal network"), "{line}");
    let line = rnet.fails(&["network", "create", "-o", &format!("{mode}=open"), "n1"]);
    assert!(line.contains("unknown gateway mode \"open\""), "{line}");
    let before = Snapshot::take(&host.ns, rnet.instance());
    let create = ["network", "create", "--internal", "--subnet", "10.88.0.0/31", "-o", &isolated];
    rnet.ok(&[&create[..], &["-o", "com.docker.network.bridge.name=iso0", "n1"]].concat());
    let addrs = host.ns.output_of("ip", &["-o", "addr", "show", "dev", "iso0"]).unwrap();
    assert!(!addrs.contains("inet"), "{addrs}");
    let (c1, c2) = (rnet.run("c1", &["--network", "n1"]), rnet.run("c2", &["--network", "n1"]));
    assert_eq!([c1.addr, c2.addr].map(|a| a.octets()[3]), [0, 1]);
    assert_eq!(c1.ns.output_of("ip", &["route", "show", "default"]).unwrap(), "");
    let line = rnet.fails(&["run", "-d", "--network", "n1", "true"]);
    assert!(line.contains("no available addresses on this pool"), "{line}");
    rnet.ok(&["rm", "-f", "c1", "c2"]);
    rnet.ok(&["network", "rm", "n1"]);
    before.assert_restored(&host.ns, rnet.instance(), "removing an isolated network");
}

#[test]
fn timeouts_and_table_sizes_are_set_and_shown() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--timeout", "udp=45s", "--max-flows", "1000"]);
    let shown = |rnet: &Rnet<'_>| rnet.json(&["conntrack", "timeouts"])[0].clone();
    assert_eq!((&shown(&rnet)["udp"], &shown(&rnet)["tcp-established"]), (&45.into(), &7440.into()));
    let table = rnet.ok(&["conntrack", "timeouts", "icmp=2m"]);
    assert!(
        table.starts_with("NAME") && table.lines().any(|l| l.starts_with("icmp ") && l.ends_with("120s")),
        "{table}"
    );
    assert_eq!(shown(&rnet)["icmp"], 120);
    let line = rnet.fails(&["conntrack", "timeouts", "gre=5s"]);
    assert!(line.contains("unknown timeout \"gre\""), "{line}");
    assert_eq!(rnet.ok(&["conntrack", "flush"]), "0 flow entries have been deleted\n");
    assert!(rnet.json(&["conntrack", "ls", "-p", "tcp", "--dst", "10.200.0.1/32"]).is_empty());
    rnet.terminate();
    let refused = rnet.cmd(&["daemon", "--max-flows", "2000"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("4000 entries, and the one in use has 2000"), "{}", refused.stderr);
}

#[test]
fn thousands_of_ports_are_published_and_withdrawn_at_once() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    // More than the descriptors that a program is given unless it asks for more.
    rnet.run("web", &["-p", "10000-13999:20000-23999"]);
    let lines = rnet.ok(&["port", "web"]);
    assert_eq!(lines.lines().count(), 4000);
    assert!(lines.contains("23999/tcp -> 0.0.0.0:13999\n"), "the last one is missing");
    let line = rnet.fails(&["run", "-d", "-p", "13999:1"]);
    assert!(line.contains("Bind for 0.0.0.0:13999 failed: port is already allocated"), "{line}");
    rnet.ok(&["rm", "-f", "web"]);
    rnet.run("db", &["-p", "13999:1"]);
}

#[test]
fn a_containers_limit_of_open_files_is_the_daemons_at_its_start() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["run", "-d", "--name", "web", "--", "sh", "-c", "ulimit -Sn; exec sleep 60"]);
    let limit = testbed::wait_until("the limit is logged", std::time::Duration::from_secs(10), || {
        rnet.ok(&["logs", "web"]).lines().next().map(str::to_owned)
    });
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let soft = own.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit, soft.split_whitespace().nth(3).unwrap());
}

#[test]
fn flows_are_listed_and_forgotten_by_filter() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &["-p", "8080:80"]);
    let _server = tcp::echo(&c1.ns, "0.0.0.0:80");
    let at = host.at(8080);
    tcp::ask(&host.client, at);
    let listed = |args: &[&str]| rnet.json(&[&["conntrack", "ls"], args].concat()).len();
    assert_eq!(listed(&["-p", "tcp", "--dport", "8080"]), 1);
    assert_eq!(listed(&["-p", "tcp", "--dport", "80", "--dst", &c1.addr.to_string()]), 1);
    assert_eq!(listed(&["-p", "udp"]), 0);
    assert_eq!(rnet.ok(&["conntrack", "flush", "-p", "udp"]), "0 flow entries have been deleted\n");
    assert_eq!(rnet.ok(&["conntrack", "flush", "--dport", "8080"]), "1 flow entries have been deleted\n");
    assert_eq!(listed(&[]), 0);
    tcp::ask(&host.client, at);
    assert_eq!(listed(&["--dport", "8080"]), 1, "opened anew");
}
