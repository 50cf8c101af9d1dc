//! Everything at once, for as long as one has patience: traffic, churn of connections, ports, containers and networks,
//! and daemons that are killed. `cargo xtask soak` has more of it.

mod footprint;
mod work;

use std::{env, fmt::Display, str::FromStr, sync::Mutex, thread, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use testbed::{Host, Rnet, Snapshot, consistency::assert_consistent, traffic::tcp};

use self::{
    footprint::Footprint,
    work::{Crew, Site},
};

/// What a variable says, or what it is in a run of all tests.
fn setting<T: FromStr<Err: Display>>(name: &str, else_: T) -> T {
    env::var(name).map_or(else_, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Flows are forgotten soon after they have ended, so that what stays in the tables is a leak.
const OPTIONS: [&str; 10] = [
    "--timeout",
    "udp=2s",
    "--timeout",
    "udp-replied=2s",
    "--timeout",
    "tcp-half-closed=10s",
    "--timeout",
    "tcp-closing=1s",
    "--timeout",
    "tcp-reset=1s",
];

fn start(host: &Host) -> Rnet<'_> {
    let rnet = Rnet::new(host);
    rnet.start_daemon_with(&OPTIONS);
    rnet
}

/// What a longer time leaves that a shorter one did not is a leak.
#[test]
fn churn_loses_no_byte_and_leaves_nothing() {
    testbed::require_root!();
    let seconds = Duration::from_secs(setting("RNET_SOAK_SECONDS", 12));
    let host = Host::new();
    let rnet = start(&host);
    let site = Site::new(&host, &rnet);
    let transfers = site.transfers();
    let before = Snapshot::take(&host.ns, rnet.instance());

    site.at_work_for(seconds / 4);
    let early = Footprint::settled(&rnet, None);
    before.assert_restored(&host.ns, rnet.instance(), "what was made is removed");
    let done = site.at_work_for(seconds - seconds / 4);
    let late = Footprint::settled(&rnet, Some(&early));
    before.assert_restored(&host.ns, rnet.instance(), "what was made later is removed");
    late.assert_no_larger_than(&early);

    for (what, transfer) in transfers {
        transfer.assert_goes_on(what);
        transfer.stop();
    }
    assert_consistent(&host, &rnet, "after the churn");
    tell(&format!("{seconds:?}: {done}; {early} before, {late} after"));
}

#[test]
fn killed_again_and_again_it_loses_no_flow_and_leaves_nothing() {
    testbed::require_root!();
    let kills: u32 = setting("RNET_SOAK_KILLS", 8);
    let seed: u64 = setting("RNET_SOAK_SEED", u64::from(std::process::id()));
    let mut random = StdRng::seed_from_u64(seed);
    let host = Host::new();
    let rnet = start(&host);
    let site = Site::new(&host, &rnet);
    let transfers = site.transfers();
    let before = Snapshot::take(&host.ns, rnet.instance());
    let first = Footprint::settled(&rnet, None);

    let crew = Crew::default();
    // Whoever changes something has it, so that nothing is under way while all is compared.
    let turn = Mutex::new(());
    thread::scope(|scope| {
        scope.spawn(|| crew.work(|round| site.change_what_it_can(&turn, round)));
        scope.spawn(|| crew.work(|_| site.speak()));
        let ended = crew.on_panic();
        for kill in 1..=kills {
            thread::sleep(Duration::from_millis(random.random_range(0..400)));
            rnet.kill9();
            tcp::ask(&host.client, host.at(8080));
            rnet.start_daemon_with(&OPTIONS);
            if kill % 8 == 0 || kill == kills {
                let _nobody_else = turn.lock().unwrap();
                assert_consistent(&host, &rnet, &format!("after kill {kill} (RNET_SOAK_SEED={seed})"));
            }
            crew.assert_at_work();
            if kill % 100 == 0 && kill != kills {
                tell(&format!("{kill} of {kills} kills"));
            }
        }
        ended.finish();
    });
    site.remove_what_was_changed();
    let last = Footprint::settled(&rnet, Some(&first));
    before.assert_restored(&host.ns, rnet.instance(), "all that was made between kills is removed");
    last.assert_no_larger_than(&first);
    for (what, transfer) in transfers {
        transfer.assert_goes_on(what);
        transfer.stop();
    }
    tell(&format!("{kills} kills (RNET_SOAK_SEED={seed}); {first} before, {last} after"));
}

fn tell(what: &str) {
    #[expect(clippy::print_stderr, reason = "whoever asks for hours of it wants figures")]
    {
        eprintln!("soak: {what}");
    }
}
