//! The host's clock is set while rnet runs: nothing that it waits for goes by it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use testbed::{
    Host, Rnet, Snapshot,
    consistency::assert_consistent,
    traffic::{
        tcp::{self, Transfer},
        udp,
    },
    wait_until,
};

use crate::watching::Watch;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const LIMIT: Duration = Duration::from_secs(60);
const TIMEOUT: [&str; 2] = ["--timeout", "udp-replied=5s"];

/// The clock of a machine that is the tests' own. It is as if nobody had set it once this is dropped.
struct Clock {
    then: Duration,
    since: Instant,
}

impl Clock {
    /// # Panics
    /// On a machine that is somebody's.
    fn of_this_machine() -> Self {
        let is_own = std::env::var("RNET_OWN_MACHINE").is_ok_and(|own| own == "1");
        assert!(is_own, "this sets the machine's clock: `cargo xtask vm-test` has a machine for it");
        Self { then: SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), since: Instant::now() }
    }

    /// What it would be by now.
    fn unset(&self) -> Duration {
        self.then + self.since.elapsed()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        set(self.unset());
    }
}

fn set(time: Duration) {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(time)).unwrap();
}

#[test]
#[ignore = "sets the machine's clock: `cargo xtask vm-test`"]
fn a_clock_that_is_set_changes_nothing_but_the_times_that_are_shown() {
    testbed::require_root!();
    let clock = Clock::of_this_machine();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&TIMEOUT);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let _servers = [tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53")];
    let transfer = Transfer::start(&host.client, tcp::connect(&host.client, host.at(8080)).unwrap());
    // Idle for less than the five days that such a flow is kept.
    let idle = tcp::connect(&host.client, host.at(8080)).unwrap();
    let before = Snapshot::take(&host.ns, rnet.instance());
    let watch = Watch::start(
        &rnet,
        &[
            "events",
            "--since",
            "0",
            "-f",
            "event=create",
            "-f",
            "type=container",
            "--format",
            "{{.Actor.Attributes.name}}",
        ],
    );
    let datagrams = || rnet.ok(&["conntrack", "ls"]).lines().filter(|line| line.contains("udp")).count();

    let times = [
        ("forward", clock.unset() + YEAR, "Up 12 months"),
        ("back", clock.unset() - YEAR, "Up Less than a second"),
    ];
    for (name, time, up) in times {
        assert_eq!(udp::ask(&udp::connect(&host.client, host.at(5300)), b"a datagram"), Ok(()));
        set(time);
        assert_eq!(rnet.ok(&["ps", "--format", "{{.Status}}"]).trim_end(), up);
        transfer.assert_goes_on(name);
        rnet.run(name, &["-p", "7000:80"]);
        tcp::ask(&host.client, host.at(8080));
        wait_until("datagrams are forgotten", LIMIT, || (datagrams() == 0).then_some(()));

        rnet.ok(&["rm", "-f", name]);
        tcp::exchange(&idle, 1000, 1);
        before.assert_restored(&host.ns, rnet.instance(), name);
        assert_consistent(&host, &rnet, name);
    }
    wait_until("both are told of", LIMIT, || (watch.lines() == ["web", "forward", "back"]).then_some(()));

    rnet.kill9();
    set(clock.unset() + YEAR);
    rnet.start_daemon_with(&TIMEOUT);
    assert_eq!(
        rnet.ok(&["ps", "--format", "{{.Status}}"]).trim_end(),
        "Up 12 months",
        "it is not taken for another"
    );
    tcp::exchange(&idle, 1000, 2);
    transfer.assert_goes_on("with another daemon");
    transfer.stop();
    before.assert_restored(&host.ns, rnet.instance(), "a start with another time");
}
