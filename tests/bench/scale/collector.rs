//! What the daemon's collector and its list of flows cost with a full table.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;

use super::{
    proc,
    site::{Site, Sweep},
};
use crate::interrupt;

/// How long one round of the collector may take, the wait for it included.
const SWEEP_LIMIT: Duration = Duration::from_secs(120);
/// How long a list of all flows may take.
const LIST_LIMIT: Duration = Duration::from_secs(300);
/// How often the daemon is asked something meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(25);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What rounds of the collector cost.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// How many flows each round removed.
    pub(super) removed_flows: Vec<u32>,
    /// How long each round took.
    pub(super) took_ms: Vec<f64>,
    /// The daemon's processor time a round.
    pub(super) cpu_ms: f64,
    /// The most memory that the daemon had at once.
    pub(super) daemon_peak_bytes: u64,
    /// How long other requests to the daemon waited: the longest, and the middle one.
    pub(super) request_max_ms: f64,
    pub(super) request_median_ms: f64,
}

/// Follows the daemon's collector from one moment on.
pub(super) struct Following {
    /// Where its log ended then.
    from: usize,
    cpu_before: f64,
    asking: Asking,
}

impl Following {
    /// Begins behind so many characters of the daemon's log.
    ///
    /// # Errors
    /// When the daemon has ended.
    pub(super) fn start(site: &Site<'_>, from: usize) -> Result<Self> {
        proc::reset_peak(site.pid)?;
        let cpu_before = proc::cpu_seconds(site.pid)?;
        Ok(Self { from, cpu_before, asking: Asking::start(site.rnet()?.socket()) })
    }

    /// Goes on until its rounds are what is waited for.
    ///
    /// # Errors
    /// When that takes too long, or the daemon does not answer.
    pub(super) fn until(self, site: &Site<'_>, reached: &dyn Fn(&[Sweep]) -> bool) -> Result<Cost> {
        let sweeps = wait(site, self.from, reached);
        let waits = self.asking.stop();
        let (sweeps, mut waits) = (sweeps?, waits?);
        let cpu = proc::cpu_seconds(site.pid)? - self.cpu_before;
        waits.sort_unstable();
        let at =
            |index: usize| waits.get(index).map(|wait| wait.as_secs_f64() * 1e3).context("nothing was asked");
        Ok(Cost {
            removed_flows: sweeps.iter().map(|sweep| sweep.removed).collect(),
            took_ms: sweeps.iter().map(|sweep| sweep.took.as_secs_f64() * 1e3).collect(),
            // Exact: a few rounds.
            cpu_ms: cpu * 1e3 / sweeps.len().max(1) as f64,
            daemon_peak_bytes: proc::peak(site.pid).context("the daemon has ended")?,
            request_max_ms: at(waits.len().saturating_sub(1))?,
            request_median_ms: at(waits.len() / 2)?,
        })
    }
}

/// Waits for rounds of the collector that the daemon's log tells of from `from` on.
///
/// # Errors
/// When there are none for long.
fn wait(site: &Site<'_>, from: usize, until: &dyn Fn(&[Sweep]) -> bool) -> Result<Vec<Sweep>> {
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        interrupt::check()?;
        let sweeps = site.sweeps_since(from)?;
        if until(&sweeps) {
            return Ok(sweeps);
        }
        ensure!(Instant::now() < deadline, "the collector has not come as far within {SWEEP_LIMIT:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// What `rnet conntrack ls` costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ListCost {
    pub(super) lines: usize,
    pub(super) took_ms: f64,
    pub(super) client_peak_bytes: u64,
    pub(super) daemon_peak_bytes: u64,
    pub(super) request_max_ms: f64,
}

/// Lists every flow.
///
/// # Errors
/// When the list is not complete.
pub(super) fn list(site: &Site<'_>, format: &str) -> Result<ListCost> {
    proc::reset_peak(site.pid)?;
    let mut command = site.rnet()?.command(&["conntrack", "ls", "--format", format]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let asking = Asking::start(site.rnet()?.socket());
    let began = Instant::now();
    let mut child = command.spawn().context("start rnet conntrack ls")?;
    let reader = child.stdout.take().map(|out| thread::spawn(move || count_lines(out)));
    let (mut peak, mut status) = (0, None);
    while status.is_none() && began.elapsed() < LIST_LIMIT && !interrupt::requested() {
        peak = proc::peak(child.id()).unwrap_or(peak).max(peak);
        status = child.try_wait().context("wait for rnet conntrack ls")?;
        thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    if status.is_none() {
        // It may have ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    let waits = asking.stop();
    let lines = reader.context("rnet conntrack ls has no output")?.join();
    let lines = lines.map_err(|_| anyhow!("counting lines panicked"))?.context("read the list of flows")?;
    interrupt::check()?;
    let status = status.with_context(|| format!("rnet conntrack ls has not ended within {LIST_LIMIT:?}"))?;
    ensure!(status.success(), "rnet conntrack ls ended with {status}");
    ensure!(lines >= site.flows as usize, "{lines} of {} flows are listed", site.flows);
    Ok(ListCost {
        lines,
        took_ms: took.as_secs_f64() * 1e3,
        client_peak_bytes: peak,
        daemon_peak_bytes: proc::peak(site.pid).context("the daemon has ended")?,
        request_max_ms: waits?.iter().max().map_or(0.0, |wait| wait.as_secs_f64() * 1e3),
    })
}

fn count_lines(mut from: impl std::io::Read) -> std::io::Result<usize> {
    let (mut buffer, mut lines) = (vec![0; 1 << 16], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(lines),
            length => lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

/// Asks a daemon for something small over and over, which the controller has to answer.
struct Asking {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Vec<Duration>>>,
}

impl Asking {
    fn start(socket: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut waits = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                ask(&socket).context("ask the daemon")?;
                waits.push(began.elapsed());
                thread::sleep(ASK_EVERY);
            }
            Ok(waits)
        });
        Self { stop, thread }
    }

    /// How long each answer took.
    fn stop(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("asking the daemon panicked"))?
    }
}

fn ask(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SWEEP_LIMIT))?;
    stream.write_all(b"GET /rnet/timeouts HTTP/1.1\r\nHost: rnet\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "it answers {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_their_ends() {
        assert_eq!(count_lines(&b"a\nb\n\nc"[..]).unwrap(), 3);
        assert_eq!(count_lines(&b""[..]).unwrap(), 0);
    }
}
