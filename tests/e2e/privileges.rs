//! What the daemon may do, and what it leaves to containers' commands.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::PathBuf,
    process::Command,
};

use nix::mount::{MsFlags, mount, umount};
use testbed::{Host, Netns, Rnet, commands::COMMAND_LIMIT, process, wait_until};

/// Capabilities by their numbers in linux/capability.h: dac_read_search, net_bind_service, net_admin, sys_ptrace, sys_admin.
const KEPT: u64 = 1 << 2 | 1 << 10 | 1 << 12 | 1 << 19 | 1 << 21;

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
    let detached = wait_until("the command has written", COMMAND_LIMIT, || {
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

#[test]
fn without_the_right_to_change_the_network_or_namespaces_it_does_not_start() {
    testbed::require_root!();
    for (capability, name, why) in [
        ("net_admin", "CAP_NET_ADMIN", "error: create bridge rnet0: "),
        ("sys_admin", "CAP_SYS_ADMIN", "error: make the datapath's maps: "),
    ] {
        let host = Host::new();
        let rnet = Rnet::new(&host);
        let ended = process::run(rnet.command_without(capability, &["daemon"]), COMMAND_LIMIT);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let [warning, error] = &ended.stderr.lines().collect::<Vec<_>>()[..] else {
            panic!("{}", ended.stderr)
        };
        assert!(
            warning.starts_with(&format!("warning: the daemon is run without {name}, which is needed for "))
        );
        assert!(error.starts_with(why) && error.contains("Operation not permitted"), "{error}");
        // Its state has what would be gone on with.
        rnet.start_daemon();
        rnet.run("web", &[]);
    }
}

#[test]
fn without_the_right_to_low_ports_none_is_published_and_names_are_not_answered() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_without("net_bind_service");
    let refused = rnet.fails(&["run", "-d", "--name", "low", "-p", "80:80"]);
    assert!(refused.contains("failed to bind host port 0.0.0.0:80/tcp: Permission denied"), "{refused}");
    rnet.run("high", &["-p", "8080:80"]);
    rnet.ok(&["network", "create", "names"]);
    wait_until("it says that names are not answered", COMMAND_LIMIT, || {
        rnet.log().contains("names are not answered while port 53 cannot be had there").then_some(())
    });
    rnet.terminate();
    rnet.start_daemon();
    rnet.run("low", &["-p", "80:80"]);
}

#[test]
fn without_the_right_to_look_into_processes_none_is_attached_or_named() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let foreign = Netns::new("foreign");
    let mut sleeper = process::Process::start(sleep_in(&foreign));
    let pid = sleeper.id().to_string();
    let _taken = host.ns.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let attach = ["attach", "--name", "foreign", "--pid", &pid];
    let publish = ["run", "-d", "--name", "web", "-p", "8080:80"];
    rnet.start_daemon_without("sys_ptrace");
    let refused = rnet.fails(&attach);
    assert!(refused.contains(&format!("/proc/{pid}/ns/net: Permission denied")), "{refused}");
    let owner = format!("(pid {})", std::process::id());
    assert!(!rnet.fails(&publish).contains(&owner));
    rnet.terminate();
    rnet.start_daemon();
    rnet.ok(&attach);
    let refused = rnet.fails(&publish);
    assert!(refused.contains(&owner), "{refused}");
    rnet.down();
    sleeper.kill();
}

fn sleep_in(ns: &Netns) -> Command {
    let mut command = ns.command("sleep");
    command.arg("600");
    command
}

/// A namespace's file where only its owner gets at it, as below `/run/user/UID`; gone with this.
struct Hidden(tempfile::TempDir);

impl Hidden {
    fn new(ns: &Netns) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(dir.path().join("user")).unwrap();
        let hidden = Self(dir);
        fs::write(hidden.path(), "").unwrap();
        mount(Some(ns.path()), &hidden.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        chown(hidden.path().parent().unwrap(), Some(65534), None).unwrap();
        hidden
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("user/ns")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = umount(&self.path());
    }
}

#[test]
fn without_the_right_to_others_directories_nothing_in_them_is_attached() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let foreign = Netns::new("foreign");
    let hidden = Hidden::new(&foreign);
    let path = hidden.path().display().to_string();
    let attach = ["attach", "--name", "foreign", "--netns", &path];
    rnet.start_daemon_without("dac_read_search");
    let refused = rnet.fails(&attach);
    assert!(refused.contains(&format!("{path}: Permission denied")), "{refused}");
    rnet.terminate();
    rnet.start_daemon();
    rnet.ok(&attach);
    rnet.down();
}

#[test]
fn a_container_that_makes_its_files_read_only_keeps_them_and_joins_networks() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["run", "-d", "--name", "app", "sh", "-c", "chmod 444 /etc/hosts; exec sleep 600"]);
    let inspected: serde_json::Value = serde_json::from_str(&rnet.ok(&["inspect", "app"])).unwrap();
    let hosts = PathBuf::from(inspected[0]["HostsPath"].as_str().unwrap());
    wait_until("it is read-only", COMMAND_LIMIT, || {
        fs::metadata(&hosts).unwrap().permissions().readonly().then_some(())
    });
    let before = fs::read_to_string(&hosts).unwrap();
    rnet.ok(&["network", "create", "back"]);
    rnet.ok(&["network", "connect", "back", "app"]);
    assert_eq!(fs::read_to_string(&hosts).unwrap(), before);
    assert!(rnet.log().contains("hosts as it is: Permission denied"), "{}", rnet.log());
}
