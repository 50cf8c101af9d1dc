//! Processes by id and start time: an id alone may have passed to another process.

use std::{fs, io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};
use tokio::io::{Interest, unix::AsyncFd};

/// How often a process is looked at when the kernel cannot be asked to tell of its end.
const POLL: Duration = Duration::from_millis(200);

/// When a process was started, in clock ticks since boot. `None` when there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    parent_and_start(pid).map(|(_, start)| start)
}

/// The processes that descend from `pid`, with their start times, parents before their children. One that is
/// started meanwhile may be missing.
pub fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&(parent, _)) = found.get(next) {
        found.extend(children(parent));
        next += 1;
    }
    found
}

/// Sends a signal to the process `pid` that was started at `start`. False when it is gone.
///
/// # Errors
/// The kernel refuses, for want of privilege or of file descriptors.
pub fn signal(pid: u32, start: u64, signal: Signal) -> Result<bool> {
    let sent = open(pid, start).and_then(|pidfd| match pidfd {
        Some(pidfd) => {
            let signal = rustix::process::Signal::from_named_raw(signal as i32).ok_or(Errno::INVAL)?;
            pidfd_send_signal(pidfd, signal)?;
            Ok(true)
        }
        None => Ok(false),
    });
    match sent {
        Err(Errno::SRCH) => Ok(false),
        sent => sent.with_context(|| format!("send {signal} to process {pid}")),
    }
}

/// Completes when the process `pid` that was started at `start` has ended, at once when it is gone. Must be
/// called within a Tokio runtime.
pub async fn wait_exit(pid: u32, start: u64) {
    let watched = match open(pid, start) {
        Ok(None) => return,
        Ok(Some(pidfd)) => {
            // SAFETY: an OwnedFd is open and stays the same one until it is dropped, and the AsyncFd owns it.
            unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
        }
        Err(error) => Err(io::Error::from(error)),
    };
    // A pidfd becomes readable when its process ends.
    let ended = match &watched {
        Ok(pidfd) => pidfd.readable().await.is_ok(),
        Err(error) => {
            tracing::warn!(pid, "watch a process: {error}; looking at it every {POLL:?} instead");
            false
        }
    };
    while !ended && start_time(pid) == Some(start) {
        tokio::time::sleep(POLL).await;
    }
}

/// A process's exit code as shells give it: 128 plus the number of the signal that ended it.
pub fn exit_code(status: &ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn children(pid: u32) -> Vec<(u32, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let ids: Vec<u32> = lists
        .flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|id| id.parse().ok())
        .collect();
    // One that has ended meanwhile may have passed its id on.
    ids.into_iter()
        .filter_map(|id| {
            parent_and_start(id).filter(|(parent, _)| *parent == pid).map(|(_, start)| (id, start))
        })
        .collect()
}

fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2 is the command's name, which may hold spaces and parentheses; field 3 follows the last of them.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let parent = fields.nth(4 - 3)?.parse().ok()?;
    Some((parent, fields.nth(22 - 5)?.parse().ok()?))
}

fn open(pid: u32, start: u64) -> rustix::io::Result<Option<OwnedFd>> {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(id, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Asked after the open: whatever has the id at this point, the descriptor is of it or of one that is gone.
    Ok((start_time(pid) == Some(start)).then_some(pidfd))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Sleep(Child);

    impl Sleep {
        fn new() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }
    }

    impl Drop for Sleep {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn start_times_grow_and_stay() {
        let sleep = Sleep::new();
        let own = start_time(std::process::id()).unwrap();
        let start = start_time(sleep.0.id()).unwrap();
        assert!(own > 0 && start >= own);
        assert_eq!(start_time(sleep.0.id()), Some(start));
    }

    #[test]
    fn descendants_are_found_with_their_own() {
        let script = "sh -c 'sleep 600 & wait' & echo started; wait";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let found = loop {
            let found = descendants(shell.id());
            if found.len() == 2 || std::time::Instant::now() > deadline {
                break found;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for (pid, start) in &found {
            assert!(signal(*pid, *start, Signal::SIGKILL).unwrap());
        }
        let _ = shell.kill();
        shell.wait().unwrap();
        assert_eq!(found.len(), 2);
        assert!(descendants(shell.id()).is_empty());
    }

    #[test]
    fn signal_ends_the_process_and_no_other() {
        let mut sleep = Sleep::new();
        let pid = sleep.0.id();
        let start = start_time(pid).unwrap();
        assert!(!signal(pid, start + 1, Signal::SIGKILL).unwrap());
        assert!(sleep.0.try_wait().unwrap().is_none());
        assert!(signal(pid, start, Signal::SIGTERM).unwrap());
        assert_eq!(exit_code(&sleep.0.wait().unwrap()), 128 + 15);
        assert!(!signal(pid, start, Signal::SIGTERM).unwrap());
    }

    #[test]
    fn no_process_has_id_0_or_a_negative_one() {
        assert!(!signal(0, 0, Signal::SIGTERM).unwrap());
        assert!(!signal(u32::MAX, 0, Signal::SIGTERM).unwrap());
    }

    #[tokio::test]
    async fn wait_exit_completes_at_the_end_and_not_before() {
        let mut sleep = Sleep::new();
        let pid = sleep.0.id();
        let start = start_time(pid).unwrap();
        tokio::time::timeout(Duration::from_millis(50), wait_exit(pid, start)).await.unwrap_err();
        let deadline = Duration::from_secs(30);
        tokio::time::timeout(deadline, wait_exit(pid, start + 1)).await.unwrap();
        let waiting = tokio::spawn(wait_exit(pid, start));
        assert!(signal(pid, start, Signal::SIGKILL).unwrap());
        tokio::time::timeout(deadline, waiting).await.unwrap().unwrap();
        assert_eq!(exit_code(&sleep.0.wait().unwrap()), 128 + 9);
        tokio::time::timeout(deadline, wait_exit(pid, start)).await.unwrap();
    }

    #[test]
    fn exit_code_is_the_shells() {
        let status = Command::new("sh").args(["-c", "exit 3"]).status().unwrap();
        assert_eq!(exit_code(&status), 3);
    }
}
