//! What the daemon may do, and what it leaves to containers' commands.

use std::fs;

use testbed::{Host, Rnet, wait_until};

/// Capabilities by their numbers in linux/capability.h: dac_override, net_bind_service, net_admin, sys_ptrace, sys_admin.
const KEPT: u64 = 1 << 1 | 1 << 10 | 1 << 12 | 1 << 19 | 1 << 21;

fn bits(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn the_daemon_keeps_what_it_needs_and_commands_have_all_that_they_had() {
    testbed::require_root!();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let (permitted, bounding) = (bits(&own, "CapPrm"), bits(&own, "CapBnd"));
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let threads = fs::read_dir(format!("/proc/{}/task", rnet.daemon_id())).unwrap();
    let statuses: Vec<_> =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok()).collect();
    assert!(statuses.len() > 1, "it has threads");
    for status in &statuses {
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(bits(status, set), permitted & KEPT, "{set} of {status}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(bits(status, set), 0, "{set} of {status}");
        }
        assert_eq!(bits(status, "CapBnd"), bounding);
    }

    rnet.ok(&["run", "-d", "--name", "app", "sh", "-c", "cat /proc/self/status; exec sleep 600"]);
    let detached = wait_until("the command has written", testbed::commands::COMMAND_LIMIT, || {
        let log = rnet.ok(&["logs", "app"]);
        log.contains("CapAmb").then_some(log)
    });
    let foreground = rnet.ok(&["run", "--rm", "cat", "/proc/self/status"]);
    let beside = rnet.ok(&["exec", "app", "cat", "/proc/self/status"]);
    for (how, status) in [("run -d", &detached), ("run", &foreground), ("exec", &beside)] {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(bits(status, set), bounding, "{set} of {how}");
        }
        assert_eq!(bits(status, "NoNewPrivs"), 0, "{how}");
    }

    // One that has more privileges than the daemon is connected and stopped all the same.
    rnet.ok(&["network", "create", "back"]);
    rnet.ok(&["network", "connect", "back", "app"]);
    rnet.ok(&["stop", "app"]);
    rnet.down();
}
