//! A change that fails half-way leaves nothing behind: each step of it is made to fail in turn.

use testbed::{
    Host, Rnet, Snapshot,
    traffic::{tcp, udp},
};

/// More steps than any change has.
const MANY: usize = 100;

/// Applies `change` with its first step failing, then its second, until it has no more, and returns how many it
/// has. After each failure everything is as before, and the same change succeeds and can be undone.
fn fail_at_every_step(host: &Host, rnet: &mut Rnet<'_>, change: &[&str], undo: &[&str]) -> usize {
    let before = Snapshot::take(&host.ns, rnet.instance());
    let listed = |rnet: &Rnet<'_>| [rnet.ok(&["ps", "-a"]), rnet.ok(&["network", "ls"])];
    let listed_before = listed(rnet);
    for step in 1..=MANY {
        // The steps are counted from the daemon's start.
        rnet.kill9();
        rnet.set_env("RNET_FAIL_AT", &step.to_string());
        rnet.start_daemon();
        before.assert_restored(&host.ns, rnet.instance(), "a restarted daemon");

        let what = format!("rnet {} failing at step {step}", change.join(" "));
        let finished = rnet.cmd(change);
        if finished.status.success() {
            // The fault is still to come for whatever is done next.
            rnet.kill9();
            rnet.unset_env("RNET_FAIL_AT");
            rnet.start_daemon();
            return step - 1;
        }
        let line = testbed::commands::assert_refused(&what, &finished);
        assert!(line.contains("fault injected"), "{what}: {line}");
        before.assert_restored(&host.ns, rnet.instance(), &what);
        assert_eq!(listed(rnet), listed_before, "{what}");

        rnet.ok(change);
        rnet.ok(undo);
        before.assert_restored(&host.ns, rnet.instance(), &format!("{what}, once more without, and undone"));
    }
    panic!("{change:?} still fails at step {MANY}");
}

#[test]
fn a_container_that_fails_at_any_step_leaves_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let mut rnet = Rnet::start(&host);
    let run = ["run", "-d", "--name", "web", "-p", "8080:80", "-p", "10.200.0.9:5300:53/udp"];
    let steps = fail_at_every_step(&host, &mut rnet, &run, &["rm", "-f", "web"]);
    assert!(steps >= 3, "a namespace, a veth, an endpoint and ports are more than {steps} steps");
    // Nothing of the failed ones is in the way of the one that stands.
    let web = rnet.container("web");
    assert_eq!(web.addr.octets(), [172, 17, 0, 2]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    tcp::ask(&host.client, host.at(8080));
    let dns = (testbed::topology::HOST_SECOND, 5300).into();
    assert_eq!(udp::ask_unconnected(&host.client, dns), Ok(dns));
}

#[test]
fn a_network_that_fails_at_any_step_leaves_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let mut rnet = Rnet::start(&host);
    let create = ["network", "create", "--subnet", "10.88.0.0/24", "n1"];
    let steps = fail_at_every_step(&host, &mut rnet, &create, &["network", "rm", "n1"]);
    assert!(steps >= 1, "a bridge is made");
    let c1 = rnet.run("c1", &["--network", "n1"]);
    assert_eq!(c1.addr.octets(), [10, 88, 0, 2]);
}
