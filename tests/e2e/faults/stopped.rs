//! The daemon is stopped and goes on, as when its machine is frozen for a moment: no signal is handled, but what waits in
//! the kernel may be told that one was.

use std::{
    cell::OnceCell,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    Host, Rnet, Snapshot,
    consistency::assert_consistent,
    process::is_stopped,
    traffic::tcp::{self, Transfer},
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
const LIVES: usize = 4;

/// Lets a process go on when it is dropped, so that a test that fails can end it in order.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u32) -> Self {
        let stopped = Self(Pid::from_raw(pid.try_into().unwrap()));
        kill(stopped.0, Signal::SIGSTOP).unwrap();
        wait_until("the daemon stops", LIMIT, || is_stopped(pid).then_some(()));
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_start_takes_longer() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let stopping = OnceCell::new();
    let started = rnet.try_start_daemon("", &[], |daemon| {
        let stop_it = move || {
            // The kernel looks at the programs for a second, which a stop cuts short.
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(150));
                drop(Stopped::new(daemon));
            }
        };
        stopping.set(thread::spawn(stop_it)).unwrap();
    });
    started.unwrap();
    stopping.into_inner().unwrap().join().unwrap();
    assert_consistent(&host, &rnet, "after a start with stops");
}

#[test]
fn traffic_does_not_notice_and_commands_wait() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let transfer = Transfer::start(&host.client, tcp::connect(&host.client, host.at(8080)).unwrap());
    let commands = rnet.commands();
    thread::scope(|scope| {
        let stopped = Stopped::new(rnet.daemon_id());
        let command = scope.spawn(|| commands.ok(&["publish", "web", "8081:80"]));
        transfer.assert_goes_on("without the daemon");
        tcp::ask(&host.client, host.at(8080));
        assert!(!command.is_finished(), "nobody is there to carry it out");
        drop(stopped);
        command.join().unwrap();
    });
    tcp::ask(&host.client, host.at(8081));
    transfer.stop();
}

#[test]
fn no_command_fails_however_often() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let (daemon, commands) = (rnet.daemon_id(), rnet.commands());
    let over = AtomicBool::new(false);
    let stops = thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            let mut stops = 0;
            while !over.load(Ordering::Relaxed) {
                let stopped = Stopped::new(daemon);
                thread::sleep(Duration::from_millis(2));
                drop(stopped);
                stops += 1;
                // Shorter than any command takes.
                thread::sleep(Duration::from_millis(3));
            }
            stops
        });
        let lives = scope.spawn(|| {
            for _ in 0..LIVES {
                commands.ok(&["network", "create", "--ipv6", "net"]);
                let container = commands.run("web", &["--network", "net", "-p", "8080:80"]);
                let server = tcp::echo(&container.ns, "0.0.0.0:80");
                tcp::ask(&host.client, host.at(8080));
                commands.ok(&["network", "connect", "bridge", "web"]);
                commands.ok(&["exec", "web", "true"]);
                drop(server);
                commands.ok(&["rm", "-f", "web"]);
                commands.ok(&["network", "rm", "net"]);
            }
        });
        let ended = lives.join();
        over.store(true, Ordering::Relaxed);
        ended.unwrap();
        stopping.join().unwrap()
    });
    assert!(stops > LIVES, "the daemon was stopped {stops} times");
    assert_consistent(&host, &rnet, "after all stops");
    before.assert_restored(&host.ns, rnet.instance(), "what was made is removed");
}
