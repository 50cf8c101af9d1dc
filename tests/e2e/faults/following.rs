//! Changes of the host, which the kernel tells of once: where one can't be followed, it is tried again.

use std::time::Duration;

use serde_json::Value;
use testbed::{Host, Rnet, consistency::assert_consistent, inject::KINDS, wait_until};

use super::sweep::{Place, describe, sweep_step};

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
    let prepare = |rnet: &Rnet<'_>| {
        rnet.start_daemon();
        rnet.run("web", &["-p", "8080:80"]);
    };
    sweep_step(WHAT, &KINDS, prepare, |place, one| {
        let Place { host, rnet, .. } = place;
        let injection = place.inject(one, "resources");
        come(host);
        wait_for_uplink(rnet, true, &format!("an uplink that comes while {one:?} fails"));
        let seen = injection.end();
        let what = describe(WHAT, one, &seen);
        assert_consistent(host, rnet, &what);
        host.ns.ip("link del eth1");
        wait_for_uplink(rnet, false, &format!("{what}, and goes again"));
        place.assert_restored(&what);
        seen
    });
}
