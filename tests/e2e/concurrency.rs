//! Many clients at once, at cross purposes: whatever they are answered, all agrees in the end, and nothing is left.

use std::thread;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use testbed::{Host, Rnet, Snapshot, commands::assert_refused, consistency::assert_consistent, process};

const CLIENTS: u64 = 64;
/// Requests of each client.
const REQUESTS: usize = 10;

/// Fewer names, networks and ports than clients, so that they get into one another's way.
const CONTAINERS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const NETWORKS: [&str; 4] = ["n1", "n2", "n3", "n4"];
const PORTS: [&str; 8] =
    ["80", "81/udp", "8080:80", "8081:81", "9000-9007:9000-9007", "9004:1", "9100-9103:5", "53:53/udp"];

#[test]
fn sixty_four_clients_at_cross_purposes_leave_everything_consistent() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let request = |args: &[&str]| rnet.command(args);
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            // The commands are made here: only what runs them is shared between threads.
            let mut random = StdRng::seed_from_u64(seed);
            let requests: Vec<_> = (0..REQUESTS).map(|_| made_up(&mut random)).collect();
            let commands: Vec<_> =
                requests.into_iter().map(|args| (args.join(" "), request(&args))).collect();
            scope.spawn(move || {
                for (what, command) in commands {
                    let finished = process::run(command, testbed::commands::COMMAND_LIMIT);
                    if !finished.status.success() {
                        let line = assert_refused(&what, &finished);
                        assert!(!line.contains("undoing it failed"), "{what}: {line}");
                    }
                }
            });
        }
    });
    assert_consistent(&host, &rnet, "after all clients");
    // The next daemon finds nothing to put right.
    rnet.kill9();
    rnet.start_daemon();
    assert_consistent(&host, &rnet, "after a restart");
    for name in CONTAINERS {
        rnet.cmd(&["rm", "-f", name]);
    }
    for name in NETWORKS {
        rnet.cmd(&["network", "rm", name]);
    }
    before.assert_restored(&host.ns, rnet.instance(), "when all of it is removed");
}

fn made_up(random: &mut StdRng) -> Vec<&'static str> {
    let mut one = |of: &[&'static str]| *of.choose(random).expect("there are some");
    let (container, network, other) = (one(&CONTAINERS), one(&NETWORKS), one(&NETWORKS));
    let (port, another) = (one(&PORTS), one(&PORTS));
    match random.random_range(0..10) {
        0 | 1 => vec!["network", "create", network],
        2 => vec!["network", "rm", network],
        3 => vec!["run", "-d", "--name", container, "--network", network, "-p", port, "-p", another],
        4 | 5 => vec!["run", "-d", "--name", container, "-p", port],
        6 => vec!["rm", "-f", container],
        7 => vec!["network", "connect", other, container],
        8 => vec!["network", "disconnect", network, container],
        _ if random.random_bool(0.6) => vec!["publish", container, port, another],
        _ => vec!["unpublish", container, port],
    }
}
