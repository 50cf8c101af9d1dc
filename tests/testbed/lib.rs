//! What rnet's tests stand on: hosts built of network namespaces, the daemon under test, traffic, captured and
//! hand-made packets, and snapshots of everything that can be observed of a host.
//!
//! Everything that is made carries the test process's id and a counter in its name, so that tests run side by
//! side, and is removed when its owner is dropped, on failure too. Nothing outside these namespaces is touched.
//! Waiting is polling with a deadline; whatever goes wrong panics with what was being done.

pub mod bpf;
pub mod capture;
pub mod client;
pub mod commands;
pub mod consistency;
pub mod container;
pub mod daemon;
pub mod docker;
pub mod engine;
mod ethtool;
pub mod inject;
pub mod lab;
mod mounts;
pub mod netns;
pub mod packet;
pub mod process;
pub mod pty;
pub mod snapshot;
pub mod tool;
pub mod topology;
pub mod traffic;

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub use crate::{
    client::Docker,
    container::Container,
    daemon::Rnet,
    netns::{Netns, Stop, Task},
    snapshot::Snapshot,
    topology::{Checksums, Host},
};

/// The amount that integrity is tested with, in bytes: enough for windows to open and segments to be merged.
pub const TEN_MIB: usize = 10 << 20;

/// Returns from a test that cannot run here, saying why. With `RNET_REQUIRE_ALL=1` it fails instead.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::can_run() {
            return;
        }
    };
}

/// Whether namespaces can be made here; see [`skip`] where not.
pub fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root: it makes network namespaces and loads eBPF programs");
    }
    root
}

/// Says why a test, or the rest of it, does not run here.
///
/// # Panics
/// Where `RNET_REQUIRE_ALL=1` says that everything must run.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("RNET_REQUIRE_ALL").is_none_or(|v| v != "1"), "{reason}");
    #[expect(clippy::print_stderr, reason = "a skipped test says so to whoever runs it")]
    {
        eprintln!("skipped: {reason}");
    }
}

/// A time limit as it is on this machine: `RNET_TEST_PATIENCE` says how many times as long things may take, where
/// the kernel is emulated.
pub fn patient(limit: Duration) -> Duration {
    limit * factor(std::env::var("RNET_TEST_PATIENCE").ok().as_deref())
}

/// What limits are multiplied by.
///
/// # Panics
/// When it is no number: limits that are not those asked for would fail tests, and nobody would know why.
fn factor(patience: Option<&str>) -> u32 {
    patience.map_or(1, |text| {
        let factor = text.parse().ok().filter(|factor| *factor > 0);
        factor.unwrap_or_else(|| panic!("RNET_TEST_PATIENCE={text}: not a number above 0"))
    })
}

/// Polls until `done` yields something.
///
/// # Panics
/// When it has not after `limit`, which is a [`patient`] one.
pub fn wait_until<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let limit = patient(limit);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits as often as it takes until the wait ends by itself, for 20 s at the most, as each time may begin anew. The kernel
/// does not take up again a wait with a time limit of the socket's where the process was stopped or frozen meanwhile, as a
/// whole machine may be, though no signal has been handled (signal(7), `sock_intr_errno`).
///
/// # Errors
/// Those of the wait, and [`io::ErrorKind::TimedOut`] where it was interrupted to the last.
pub fn uninterrupted<T>(mut wait: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + patient(Duration::from_secs(20));
    loop {
        match wait() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            ended => return ended,
        }
    }
}

/// A number that is unique in this process.
pub(crate) fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_multiplied_where_that_is_asked_for() {
        assert_eq!((factor(None), factor(Some("5"))), (1, 5));
    }

    #[test]
    #[should_panic(expected = "RNET_TEST_PATIENCE=0: not a number above 0")]
    fn no_patience_at_all_is_refused() {
        factor(Some("0"));
    }

    #[test]
    fn a_wait_ends_by_itself_alone() {
        let mut waits = [Err(libc::EINTR), Err(libc::EINTR), Ok(7), Err(libc::EAGAIN)].into_iter();
        let mut wait = || uninterrupted(|| waits.next().unwrap().map_err(io::Error::from_raw_os_error));
        assert_eq!(wait().unwrap(), 7);
        assert_eq!(wait().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    }
}
