//! A daemon that is killed at any step of any change: the next one makes everything agree again, and goes on from
//! there.

use testbed::{Host, Rnet, Snapshot, consistency::assert_consistent, traffic::tcp};

/// More steps than any change has.
const MANY: usize = 100;

/// Applies `change` with the daemon killed before its first step, then its second, until it has no more, and returns
/// how many it has. After each kill the next daemon heals what is left, `change` can be done after `again`, and `undo`
/// leaves everything as it was.
fn kill_at_every_step(prepare: &[&[&str]], change: &[&str], again: &[&str], undo: &[&[&str]]) -> usize {
    let host = Host::new();
    let mut rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    for step in 1..=MANY {
        for command in prepare {
            rnet.ok(command);
        }
        rnet.kill9();
        // The steps are counted from the daemon's start.
        rnet.set_env("RNET_KILL_AT", &step.to_string());
        rnet.start_daemon();
        let what = format!("rnet {} killed at step {step}", change.join(" "));
        let done = rnet.cmd(change).status.success();
        if done {
            // The kill is still to come for whatever is done next.
            rnet.kill9();
        } else {
            rnet.wait_ended();
        }
        rnet.unset_env("RNET_KILL_AT");
        rnet.start_daemon();
        assert_consistent(&host, &rnet, &what);
        // Whether it was done or not when the daemon ended, it can be done now.
        rnet.cmd(again);
        rnet.ok(change);
        assert_consistent(&host, &rnet, &format!("{what}, and done again"));
        for command in undo {
            rnet.ok(command);
        }
        before.assert_restored(&host.ns, rnet.instance(), &format!("{what}, healed, done again and undone"));
        if done {
            return step - 1;
        }
    }
    panic!("{change:?} is still killed at step {MANY}");
}

const WEB: &[&str] = &["run", "-d", "--name", "web", "-p", "8080:80", "-p", "10.200.0.9:5300:53/udp"];
const RM_WEB: &[&str] = &["rm", "-f", "web"];
const NETWORK: &[&str] = &["network", "create", "--subnet", "10.88.0.0/24", "a"];
const RM_NETWORK: &[&str] = &["network", "rm", "a"];
const CONNECT: &[&str] = &["network", "connect", "a", "web"];
const DISCONNECT: &[&str] = &["network", "disconnect", "a", "web"];
const PUBLISH: &[&str] = &["publish", "web", "--from", "10.0.0.0/8", "9000-9009:9000-9009"];
const UNPUBLISH: &[&str] = &["unpublish", "web", "9000-9009:9000-9009"];

#[test]
fn killed_while_a_container_is_made_or_removed() {
    testbed::require_root!();
    let steps = kill_at_every_step(&[], WEB, RM_WEB, &[RM_WEB]);
    assert!(steps >= 6, "namespaces, a veth, an endpoint, ports and records are more than {steps} steps");
    let steps = kill_at_every_step(&[WEB], RM_WEB, WEB, &[]);
    assert!(steps >= 6, "all of these are removed in more than {steps} steps");
}

#[test]
fn killed_while_a_network_is_made_or_removed() {
    testbed::require_root!();
    assert!(kill_at_every_step(&[], NETWORK, RM_NETWORK, &[RM_NETWORK]) >= 3);
    assert!(kill_at_every_step(&[NETWORK], RM_NETWORK, NETWORK, &[]) >= 3);
}

#[test]
fn killed_while_a_container_is_connected_or_disconnected() {
    testbed::require_root!();
    // The network's name comes first, so that default route and ports go over to it and back.
    let steps = kill_at_every_step(&[WEB, NETWORK], CONNECT, DISCONNECT, &[RM_WEB, RM_NETWORK]);
    assert!(steps >= 6, "a veth, an endpoint, routes, ports, files and records are more than {steps} steps");
    let steps = kill_at_every_step(&[WEB, NETWORK, CONNECT], DISCONNECT, CONNECT, &[RM_WEB, RM_NETWORK]);
    assert!(steps >= 6, "all of these are changed in more than {steps} steps");
}

#[test]
fn killed_while_ports_are_published_or_withdrawn() {
    testbed::require_root!();
    assert!(kill_at_every_step(&[WEB], PUBLISH, UNPUBLISH, &[RM_WEB]) >= 3);
    assert!(kill_at_every_step(&[WEB, PUBLISH], UNPUBLISH, PUBLISH, &[RM_WEB]) >= 3);
}

#[test]
fn traffic_finds_its_way_after_a_kill_in_the_midst_of_a_connection() {
    testbed::require_root!();
    let host = Host::new();
    let mut rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    rnet.ok(NETWORK);
    for step in 1..=4 {
        rnet.kill9();
        rnet.set_env("RNET_KILL_AT", &step.to_string());
        rnet.start_daemon();
        assert!(!rnet.cmd(CONNECT).status.success());
        rnet.wait_ended();
        rnet.unset_env("RNET_KILL_AT");
        rnet.start_daemon();
        tcp::ask(&host.client, host.at(8080));
        tcp::ask(&web.ns, rnet_peer(&rnet));
    }
    rnet.ok(CONNECT);
    tcp::ask(&host.client, host.at(8080));
}

/// A server on the default network, made on the first call.
fn rnet_peer(rnet: &Rnet<'_>) -> std::net::SocketAddr {
    if rnet.cmd(&["inspect", "peer"]).status.success() {
        return rnet.container("peer").at(80);
    }
    let peer = rnet.run("peer", &[]);
    let server = tcp::echo(&peer.ns, "0.0.0.0:80");
    // It serves until the test's process ends, as its namespace is removed with the instance.
    std::mem::forget(server);
    peer.at(80)
}
