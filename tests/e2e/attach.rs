//! Namespaces that somebody else made.

use std::process::Command;

use testbed::{
    Host, Netns, Rnet, Snapshot,
    process::Process,
    traffic::{Failure, tcp},
    wait_until,
};

const SOON: std::time::Duration = std::time::Duration::from_secs(10);

fn attached_addr(ns: &Netns) -> std::net::Ipv4Addr {
    let shown = ns.output_of("ip", &["-4", "-o", "addr", "show", "dev", "eth0"]).unwrap();
    let addr = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap();
    addr.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn a_namespace_is_attached_by_its_path_and_given_back() {
    testbed::require_root!();
    let host = Host::new();
    let theirs = Netns::new("theirs");
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let inside = theirs.output_of("ip", &["-o", "addr", "show"]);
    let path = theirs.path().to_str().unwrap();
    rnet.ok(&["network", "create", "n1"]);
    rnet.ok(&["attach", "--name", "x", "--netns", path, "--network", "n1", "-p", "8080:80"]);
    let addr = attached_addr(&theirs);
    let peer = rnet.run("peer", &["--network", "n1"]);
    let servers = (tcp::echo(&theirs, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&peer.ns, (addr, 80).into());
    tcp::ask(&theirs, (testbed::topology::CLIENT, 9000).into());
    rnet.kill9();
    rnet.start_daemon();
    tcp::ask(&host.client, host.at(8080));

    let told = rnet.fails(&["attach", "--name", "y", "--netns", path]);
    assert!(told.contains("it is container x's"), "{told}");
    rnet.ok(&["rm", "-f", "x", "peer"]);
    rnet.ok(&["network", "rm", "n1"]);
    assert_eq!(theirs.output_of("ip", &["-o", "addr", "show"]), inside);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    before.assert_restored(&host.ns, rnet.instance(), "rnet rm of what was attached");
    drop(servers);
}

#[test]
fn what_was_attached_goes_with_its_namespace() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let is_gone = |name: &str| {
        let gone = || (!rnet.cmd(&["inspect", name]).status.success()).then_some(());
        wait_until(&format!("{name} is gone"), SOON, gone);
        before.assert_restored(&host.ns, rnet.instance(), &format!("the end of {name}"));
    };
    let theirs = Netns::new("theirs");
    rnet.ok(&["attach", "--name", "x", "--netns", theirs.path().to_str().unwrap(), "-p", "8080:80"]);
    drop(theirs);
    is_gone("x");

    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "600"]);
    let mut process = Process::start(command);
    let pid = process.id().to_string();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let theirs = format!("/proc/{pid}/ns/net");
    wait_until("unshare has made a namespace", SOON, || {
        std::fs::read_link(&theirs).is_ok_and(|ns| ns != own).then_some(())
    });
    rnet.ok(&["attach", "--name", "y", "--pid", &pid, "-p", "8080:80"]);
    process.kill();
    is_gone("y");
}

#[test]
fn what_is_no_namespace_of_somebody_elses_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &[]);
    let before = Snapshot::take(&host.ns, rnet.instance());
    for (args, expected) in [
        (["--netns", "/etc/passwd"], "/etc/passwd is not a network namespace"),
        (["--netns", "/nowhere"], "/nowhere"),
        (["--pid", "4194304"], "attach namespace of process 4194304"),
        (["--netns", host.ns.path().to_str().unwrap()], "it is the host's own"),
        (["--netns", web.ns.path().to_str().unwrap()], "it is container web's"),
    ] {
        let told = rnet.fails(&[&["attach", "--name", "x"][..], &args].concat());
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    before.assert_restored(&host.ns, rnet.instance(), "refused attachments");
}
