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
///
/// # Errors
/// The kernel does not say, for want of memory or of file descriptors.
pub fn start_time(pid: u32) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(start_time_in(&stat)),
        // The second where it has ended since the file was opened.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The same by the text of the process's `stat`.
pub(in crate::host) fn start_time_in(stat: &str) -> Option<u64> {
    // Field 2 is the command's name, which may hold spaces and parentheses; field 3 follows the last of them.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
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
    // Where the kernel does not say, it is taken to live.
    while !ended && start_time(pid).map_or(true, |time| time == Some(start)) {
        tokio::time::sleep(POLL).await;
    }
}

/// A process's exit code as shells give it: 128 plus the number of the signal that ended it.
pub fn exit_code(status: &ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
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
    let time = start_time(pid).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok((time == Some(start)).then_some(pidfd))
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
        let own = start_time(std::process::id()).unwrap().unwrap();
        let start = start_time(sleep.0.id()).unwrap().unwrap();
        assert!(own > 0 && start >= own);
        assert_eq!(start_time(sleep.0.id()).unwrap(), Some(start));
    }

    #[test]
    fn signal_ends_the_process_and_no_other() {
        let mut sleep = Sleep::new();
        let pid = sleep.0.id();
        let start = start_time(pid).unwrap().unwrap();
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
        let start = start_time(pid).unwrap().unwrap();
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
