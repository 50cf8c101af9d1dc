//! Several instances on one machine, and callers that may not have one.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use testbed::{
    Host, Rnet, Snapshot,
    commands::{assert_refused, binary},
    process,
    traffic::tcp,
};

/// `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn instances_side_by_side_do_not_touch_one_another() {
    testbed::require_root!();
    let hosts = [Host::new(), Host::new()];
    let rnets = hosts.each_ref().map(Rnet::start);
    let containers = rnets.each_ref().map(|rnet| rnet.run("web", &["-p", "8080:80"]));
    assert_eq!(containers[0].addr, containers[1].addr, "each has address space of its own");
    let servers = containers.each_ref().map(|c| tcp::echo(&c.ns, "0.0.0.0:80"));
    for (host, server) in hosts.iter().zip(&servers) {
        let client = tcp::ask(&host.client, host.at(8080));
        assert_eq!(server.peers(), [client]);
    }
    let other = Snapshot::take(&hosts[1].ns, rnets[1].instance());
    rnets[0].down();
    other.assert_restored(&hosts[1].ns, rnets[1].instance(), "down of another instance");
    tcp::ask(&hosts[1].client, hosts[1].at(8080));
    assert_eq!(servers[1].peers().len(), 2);
}

#[test]
fn a_second_daemon_of_one_instance_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let line = rnet.fails(&["daemon"]);
    assert!(line.contains(rnet.instance()), "it names the instance: {line}");
    rnet.ok(&["status"]);
    tcp::ask(&host.client, host.at(8080));
}

#[test]
fn without_a_daemon_commands_say_how_to_start_one() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    for args in [&["ps"][..], &["network", "ls"], &["run", "-d", "--name", "c1"], &["status"]] {
        let line = rnet.fails(args);
        assert!(line.contains("daemon") && line.contains(rnet.instance()), "{args:?}: {line}");
    }
}

#[test]
fn who_is_not_root_is_told_so() {
    testbed::require_root!();
    let host = Host::new();
    let running = Rnet::start(&host);
    let stopped = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, stopped.instance());
    // Where the workspace is may be closed to others.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("rnet");
    fs::copy(binary(), &copy).unwrap();
    for path in [dir.path(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (rnet, subcommand) in [(&stopped, "daemon"), (&running, "ps")] {
        let mut command = host.ns.command_as(&copy, NOBODY);
        command.args(["--instance", rnet.instance(), subcommand]);
        let finished = process::run(command, Duration::from_secs(20));
        let line = assert_refused(&format!("rnet {subcommand} as nobody"), &finished);
        assert!(line.contains("root") || line.contains("permission denied"), "{subcommand}: {line}");
    }
    before.assert_restored(&host.ns, stopped.instance(), "a daemon that could not start");
}
