//! What this area's tests stand on: a network namespace for each test, and names that nobody else has.

use std::{
    ops::Deref,
    panic::resume_unwind,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use netlink_packet_route::link::LinkAttribute;
use nix::sched::{CloneFlags, unshare};

use super::{netlink::Netlink, netns};

/// Runs a test that needs root, or says that it cannot run. With `RNET_REQUIRE_ALL=1` it fails instead.
pub(super) fn unless_skipped(test: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        test();
    } else {
        let why = "needs root: it makes network namespaces";
        assert!(std::env::var_os("RNET_REQUIRE_ALL").is_none_or(|v| v != "1"), "{why}");
        eprintln!("skipped: {why}");
    }
}

/// Runs a test on a thread of its own that is in a new network namespace, which ends with it.
pub(super) fn in_new_netns(test: impl FnOnce() + Send) {
    in_new_namespaces(CloneFlags::CLONE_NEWNET, test);
}

/// The same with other namespaces.
pub(super) fn in_new_namespaces(which: CloneFlags, test: impl FnOnce() + Send) {
    unless_skipped(|| {
        let outcome = thread::scope(|scope| {
            let inside = || {
                unshare(which).unwrap();
                test();
            };
            scope.spawn(inside).join()
        });
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// A name for a network namespace, which is deleted on drop.
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("rnet-h{}-{number}-{role}", std::process::id()))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Best effort, as it also runs while a test fails.
        let _ = netns::delete(&self.0);
    }
}

/// Runs an `ip` command in the calling thread's namespace.
pub(super) fn ip(arguments: &str) {
    let ip = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(ip.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&ip.stderr));
}

/// The MTU of a link.
pub(super) fn mtu_of(netlink: &Netlink, name: &str) -> u32 {
    let link = netlink.existing_link(name).unwrap();
    let mtu = link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Mtu(mtu) = attribute else { return None };
        Some(*mtu)
    });
    mtu.unwrap()
}

/// Polls until `done`.
pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
