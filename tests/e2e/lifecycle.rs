//! The daemon comes and goes; traffic does not notice, and `down` leaves nothing.

use std::{path::Path, time::Duration};

use testbed::{
    Host, Netns, Rnet, Snapshot, bpf,
    topology::CLIENT,
    traffic::{
        Failure,
        tcp::{self, Transfer},
        udp,
    },
    wait_until,
};

#[test]
fn down_leaves_nothing() {
    testbed::require_root!();
    let host = Host::new();
    // What a host may have already, and rnet has to leave as it is. Nothing of it is in the datapath's way.
    host.ns.output_of("iptables", &["-P", "FORWARD", "DROP"]).expect("iptables is there");
    host.ns.output_of("iptables", &["-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]).unwrap();
    host.ns.output_of("nft", &["add", "table", "inet", "own"]).expect("nft is there");
    host.ns.ip("link add br-own type bridge
                addr add 10.66.0.1/24 dev br-own");
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let rules = |ns: &Netns| {
        [("nft", &["-s", "list", "ruleset"][..]), ("iptables-save", &["-t", "filter"])]
            .map(|(tool, args)| ns.output_of(tool, args).map(|o| without_counters(&o)))
    };
    let rules_before = rules(&host.ns);

    rnet.start_daemon();
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let other = rnet.run("other", &["--network", "n1", "-p", "81"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&other.ns, (CLIENT, 9000).into());
    assert_eq!(rules(&host.ns), rules_before, "no rule is made while rnet runs");
    let pinned = bpf::pinned_by(rnet.instance());
    for kind in ["map", "link"] {
        assert!(pinned.iter().any(|o| o.kind == kind), "a {kind} is pinned, so bpftool says: {pinned:?}");
    }

    rnet.down();
    before.assert_restored(&host.ns, rnet.instance(), "rnet down");
    for object in pinned {
        wait_until(&format!("{object:?} is freed"), Duration::from_secs(10), || {
            (!object.is_alive()).then_some(())
        });
    }
}

/// A ruleset without comments, which hold the date, and chain counters.
fn without_counters(rules: &str) -> String {
    let lines = rules.lines().filter(|l| !l.starts_with('#'));
    lines.map(|l| l.split(" [").next().unwrap_or(l)).collect::<Vec<_>>().join("\n")
}

#[test]
fn rm_leaves_nothing_of_the_container() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    rnet.ok(&["rm", "-f", "web"]);
    before.assert_restored(&host.ns, rnet.instance(), "rnet rm");
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
}

#[test]
fn removing_a_container_ends_its_flows_and_frees_its_port_for_the_next() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &["-p", "5300:53/udp"]);
    let first = udp::echo(&c1.ns, "0.0.0.0:53");
    let socket = udp::connect(&host.client, host.at(5300));
    udp::exchange(&socket, 10_000, 1);
    rnet.ok(&["rm", "-f", "c1"]);
    drop(first);
    let c2 = rnet.run("c2", &["-p", "5300:53/udp"]);
    let second = udp::echo(&c2.ns, "0.0.0.0:53");
    // The same client port: the flow to the old container is still in the table.
    udp::exchange(&socket, 10_000, 2);
    assert_eq!(second.peers()[0], socket.local_addr().unwrap());
}

#[test]
fn a_killed_daemon_is_not_missed_and_a_restarted_one_takes_over() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    be_killed_and_restarted(&host, &rnet, "bridge");
}

/// With two containers on this network.
pub(super) fn be_killed_and_restarted(host: &Host, rnet: &Rnet<'_>, network: &str) {
    let web = rnet.run("web", &["--network", network, "-p", "8080:80", "-p", "53/udp"]);
    let other = rnet.run("other", &["--network", network]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    let outside = (CLIENT, 9000).into();
    let listed = [rnet.ok(&["port", "web"]), rnet.ok(&["network", "inspect", network])];
    let inward = Transfer::start(&host.client, tcp::connect(&host.client, host.at(8080)).unwrap());
    let outward = Transfer::start(&other.ns, tcp::connect(&other.ns, outside).unwrap());
    let goes_on = |when| {
        inward.assert_goes_on(when);
        outward.assert_goes_on(when);
        tcp::ask(&host.client, host.at(8080));
        tcp::ask(&other.ns, outside);
        tcp::ask(&other.ns, web.at(80));
    };
    goes_on("while the daemon runs");
    rnet.kill9();
    goes_on("without a daemon");
    assert!(host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8080")).is_err(), "the port stays held");
    rnet.start_daemon();
    goes_on("under the next daemon");
    assert_eq!([rnet.ok(&["port", "web"]), rnet.ok(&["network", "inspect", network])], listed);
    assert_eq!(rnet.container("web").addr, web.addr);

    inward.stop();
    outward.stop();
    rnet.ok(&["rm", "-f", "web"]);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    let web = rnet.run("web", &["--network", network, "-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
}

#[test]
fn a_daemon_that_ends_in_good_order_leaves_everything_running() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let transfer = Transfer::start(&host.client, tcp::connect(&host.client, host.at(8080)).unwrap());
    rnet.terminate();
    transfer.assert_goes_on("after SIGTERM");
    let line = rnet.fails(&["ps"]);
    assert!(line.contains("daemon"), "it says what to start: {line}");
    rnet.start_daemon();
    transfer.assert_goes_on("under the next daemon");
    assert_eq!(rnet.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n");
}

#[test]
fn what_disappeared_while_no_daemon_ran_is_cleaned_up() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let web = rnet.run("web", &["-p", "8080:80"]);
    rnet.kill9();
    // Ends the veth with it.
    web.ns.ip("link del eth0");
    rnet.start_daemon();
    rnet.ok(&["rm", "-f", "web"]);
    before.assert_restored(&host.ns, rnet.instance(), "rm of a container whose interface was gone");
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
}

/// Namespaces are mounted in its directories, which nobody else would ever take away.
#[test]
fn what_a_killed_daemon_had_goes_with_its_test() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let places = ["/run", "/var/lib", bpf::BPFFS].map(|dir| Path::new(dir).join(rnet.instance()));
    rnet.run("web", &[]);
    rnet.kill9();
    assert!(places.iter().all(|place| place.exists()), "{places:?}");
    drop(rnet);
    assert!(!places.iter().any(|place| place.exists()), "{places:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*places[0].to_string_lossy()), "{mounts}");
}
