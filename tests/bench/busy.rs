//! What the machine's CPUs do, from `/proc/stat`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// `USER_HZ`: what `/proc/stat` counts in, whatever the kernel's own tick is. Part of the kernel's interface on
/// every architecture that rnet is built for.
const JIFFIES_PER_SECOND: f64 = 100.0;

/// How long the machine is looked at before it counts as quiet.
const SAMPLE: Duration = Duration::from_millis(200);

/// What share of all CPUs' time others may use on a quiet machine.
const QUIET: f64 = 0.10;

/// CPU time that all CPUs together have spent since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// In user and nice, system, hard and soft interrupts, and stolen by other virtual machines; in jiffies.
    busy: u64,
    /// Idle, or waiting for a disk; in jiffies.
    idle: u64,
}

impl CpuTime {
    /// What has been spent so far.
    ///
    /// # Panics
    /// When `/proc/stat` is not there or not as Linux writes it, and so nothing can be measured.
    pub(crate) fn now() -> Self {
        let read = || Self::parse(&fs::read_to_string("/proc/stat").context("read /proc/stat")?);
        read().unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Seconds of busy CPU since an earlier time: 2.0 for two CPUs busy throughout one second.
    pub(crate) fn since(&self, earlier: Self) -> f64 {
        jiffies_between(earlier.busy, self.busy) / JIFFIES_PER_SECOND
    }

    /// Which share of the time since then all CPUs were busy, 0.0 to 1.0.
    fn share_since(&self, earlier: Self) -> f64 {
        let busy = jiffies_between(earlier.busy, self.busy);
        let idle = jiffies_between(earlier.idle, self.idle);
        if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 }
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("no line of all CPUs")?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(|number| number.parse().with_context(|| format!("{number}: no number of jiffies")))
            .collect::<Result<_>>()?;
        // What guests use is in user and nice already.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = numbers[..] else {
            anyhow::bail!("`cpu {}`: too few numbers", line.trim());
        };
        Ok(Self { busy: user + nice + system + irq + softirq + steal, idle: idle + iowait })
    }
}

/// Waits until the machine's CPUs are less than a tenth busy. False when they still are not after `limit`.
pub(crate) fn wait_quiet(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let before = CpuTime::now();
        thread::sleep(SAMPLE);
        if CpuTime::now().share_since(before) < QUIET {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// A counter's growth. The kernel lets iowait go backwards now and then.
fn jiffies_between(earlier: u64, later: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 jiffies, millions of years")]
    let jiffies = later.saturating_sub(earlier) as f64;
    jiffies
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 20 30 4000 500 6 7 8 90 9\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";

    #[test]
    fn busy_is_all_but_idle_and_waiting_with_guests_counted_once() {
        assert_eq!(CpuTime::parse(STAT).unwrap(), CpuTime { busy: 171, idle: 4500 });
    }

    #[test]
    fn differences_are_seconds_and_shares() {
        let earlier = CpuTime { busy: 1000, idle: 5000 };
        let later = CpuTime { busy: 1150, idle: 5050 };
        assert!((later.since(earlier) - 1.5).abs() < 1e-9);
        assert!((later.share_since(earlier) - 0.75).abs() < 1e-9);
        assert!(earlier.share_since(earlier).abs() < 1e-9, "no time has passed");
    }

    #[test]
    fn a_line_that_is_not_linux_s_is_refused() {
        assert_eq!(CpuTime::parse("cpu  1 2 x\n").unwrap_err().to_string(), "x: no number of jiffies");
        assert_eq!(CpuTime::parse("cpu  1 2 3\n").unwrap_err().to_string(), "`cpu 1 2 3`: too few numbers");
        assert!(CpuTime::parse("intr 5\n").is_err());
    }

    #[test]
    fn this_machine_s_time_goes_on() {
        let start = CpuTime::now();
        let passed = testbed::wait_until("CPU time to pass", Duration::from_secs(10), || {
            let now = CpuTime::now();
            (now != start).then_some(now)
        });
        assert!(passed.since(start) >= 0.0);
    }
}
