//! What `/proc` says of a process, a map and the machine's memory.

use std::{fs, os::fd::RawFd};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture that rnet is built for.
const JIFFIES_PER_SECOND: f64 = 100.0;

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// What could be given out without swapping.
    pub(super) available: u64,
    /// What the kernel's small objects take.
    pub(super) slab: u64,
}

impl Memory {
    /// As it is.
    pub(super) fn now() -> Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let bytes = |key| kibibytes(&meminfo, key).with_context(|| format!("no {key} in /proc/meminfo"));
        Ok(Self { available: bytes("MemAvailable")?, slab: bytes("Slab")? })
    }
}

/// The memory that the kernel says a map takes, in bytes.
pub(super) fn memlock(map: RawFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{map}");
    let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    number(&info, "memlock").with_context(|| format!("no memlock in {path}"))
}

/// Processor time of a process and of its threads that have ended, in seconds.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    jiffies(&stat).map(|jiffies| jiffies / JIFFIES_PER_SECOND).with_context(|| format!("read {path}"))
}

/// The most memory that a process has had at once since [`reset_peak`], in bytes. None once it has ended.
pub(super) fn peak(pid: u32) -> Option<u64> {
    kibibytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM")
}

/// Begins to look for the most memory anew.
pub(super) fn reset_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write to {path}"))
}

/// A process that is stopped for as long as this is kept. Only one that this run has started.
pub(super) struct Paused(Pid);

impl Paused {
    /// Stops it.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn new(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).context("process ids are below 2^22")?);
        kill(pid, Signal::SIGSTOP).with_context(|| format!("stop process {pid}"))?;
        Ok(Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It is a child that nobody has waited for: its id is not another's.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// The number behind a name of a file with a line for each.
fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    number(text, name)?.checked_mul(1024)
}

/// User and system time. The name before them is in parentheses, and may have any character in it.
fn jiffies(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    // The first is `state`, the third of the line; `utime` and `stime` are the 14th and 15th.
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    Some(f64::from(times.next()?.ok()?) + f64::from(times.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let status = "VmPeak:\t  99 kB\nVmHWM:\t  12 kB\nmemlock:\t4096\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(12 << 10));
        assert_eq!(number(status, "memlock"), Some(4096));
        assert_eq!(number(status, "mem"), None);
    }

    #[test]
    fn times_are_read_past_any_name() {
        let stat = "7 (a ) 1 2 b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(jiffies(stat), Some(200.0));
        assert_eq!(jiffies("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_and_machine_have_memory_and_time() {
        let memory = Memory::now().unwrap();
        assert!(memory.available > 0 && memory.slab > 0);
        assert!(peak(std::process::id()).unwrap() > 0);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
