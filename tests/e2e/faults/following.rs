//! Changes of the host, which the kernel tells of once: where one can't be followed, it is tried again.

use std::time::Duration;

use serde_json::Value;
use testbed::{
    Host, Rnet, Snapshot,
    consistency::assert_consistent,
    inject::{Injection, KINDS},
    wait_until,
};

use super::sweep::{Which, describe, each, report, tracer};

const SOON: Duration = Duration::from_secs(60);
const WHAT: &[&str] = &["(an uplink comes)"];

fn come(host: &Host) {
    host.ns.ip("link add eth1 type veth peer name eth1p
                link set eth1p up
                link set eth1 up");
}

fn wait_for_uplink(rnet: &Rnet<'_>, is_there: bool, what: &str) {
    wait_until(what, SOON, || {
        // The call that fails may be one of those that are made for this question.
        let status = rnet.cmd(&["status", "--format", "json"]);
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let is_used = status["uplinks"].as_array()?.iter().any(|uplink| uplink == "eth1");
        (is_used == is_there).then_some(())
    });
}

#[test]
fn any_call_may_fail_while_an_uplink_comes() {
    testbed::require_root!();
    let which = Which::of_this_run();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let calls = KINDS.map(|kind| {
        let counting = Injection::start(tracer(), rnet.daemon_id(), kind, "resources", 0);
        come(&host);
        wait_for_uplink(&rnet, true, "the uplink is used");
        let calls = counting.end().calls;
        host.ns.ip("link del eth1");
        wait_for_uplink(&rnet, false, "the uplink is gone");
        (kind, calls)
    });
    let failures = each(&which.of(&calls), |tries, current| {
        let host = Host::new();
        let rnet = Rnet::start(&host);
        rnet.run("web", &["-p", "8080:80"]);
        let before = Snapshot::take(&host.ns, rnet.instance());
        for one in tries {
            current.set(Some(*one));
            let injection = Injection::start(tracer(), rnet.daemon_id(), one.kind, "resources", one.at);
            come(&host);
            wait_for_uplink(&rnet, true, &format!("an uplink that comes while {one:?} fails"));
            let what = describe(WHAT, one, injection.end().injected.as_ref());
            assert_consistent(&host, &rnet, &what);
            host.ns.ip("link del eth1");
            wait_for_uplink(&rnet, false, &format!("{what}, and goes again"));
            before.assert_restored(&host.ns, rnet.instance(), &what);
        }
    });
    report(&failures, WHAT, &which);
}
