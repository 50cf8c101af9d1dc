//! What a daemon and its datapath take up.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use testbed::{Rnet, bpf, patient, snapshot, wait_until};

/// A round of the collector, which ends flows that have expired, comes every 5 s.
const ROUND: Duration = Duration::from_secs(6);
/// How long everything may take to be as it was.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// What a daemon's memory may grow by. Its allocator keeps what it has had once, for each of its threads; one request
/// that leaves a kilobyte behind is beyond it within a minute.
const GROWTH: u64 = 12 << 10;

/// What is taken up at one moment.
#[derive(Debug)]
pub(super) struct Footprint {
    /// Open files by what they are.
    files: BTreeMap<String, usize>,
    /// Entries of tables.
    tables: BTreeMap<String, usize>,
    /// Files in bpffs.
    pins: Vec<String>,
    /// Resident memory, in KiB.
    memory: u64,
}

impl Footprint {
    /// When nothing changes any more, or when nothing is more than it was before.
    pub(super) fn settled(rnet: &Rnet<'_>, before: Option<&Self>) -> Self {
        let mut last = Self::take(rnet);
        if let Some(before) = before {
            let end = Instant::now() + patient(SETTLE_LIMIT);
            // Whether it has is for whoever compares to say.
            while !last.is_no_larger_than(before) && Instant::now() < end {
                thread::sleep(Duration::from_millis(200));
                last = Self::take(rnet);
            }
            return last;
        }
        wait_until("the tables settle", SETTLE_LIMIT, || {
            thread::sleep(ROUND);
            let now = Self::take(rnet);
            let same = now.tables == last.tables && now.files == last.files;
            last = now;
            same.then_some(())
        });
        last
    }

    fn take(rnet: &Rnet<'_>) -> Self {
        let id = rnet.daemon_id();
        let pins = snapshot::files_below(&Path::new(bpf::BPFFS).join(rnet.instance()));
        Self {
            files: open_files(id),
            tables: bpf::entries_of(rnet.instance()),
            pins: pins.iter().map(|pin| pin.display().to_string()).collect(),
            memory: resident(id),
        }
    }

    fn is_no_larger_than(&self, before: &Self) -> bool {
        (&self.files, &self.tables, &self.pins) == (&before.files, &before.tables, &before.pins)
    }

    /// Compares it with an earlier one.
    ///
    /// # Panics
    /// When there are more, or other, files, entries or pins, or much more memory is used.
    pub(super) fn assert_no_larger_than(&self, before: &Self) {
        assert_eq!(self.files, before.files, "open files of the daemon");
        assert_eq!(self.tables, before.tables, "entries of tables");
        assert_eq!(self.pins, before.pins, "pins");
        let grown = self.memory.saturating_sub(before.memory);
        assert!(
            grown <= GROWTH,
            "the daemon's memory has grown from {} to {} KiB",
            before.memory,
            self.memory
        );
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, tables, pins, memory } = self;
        let sum = |of: &BTreeMap<String, usize>| of.values().sum::<usize>();
        write!(f, "{memory} KiB, {} files, {} entries, {} pins", sum(files), sum(tables), pins.len())
    }
}

/// Open files of a process, with numbers that differ each time (`socket:[81]`) left out.
fn open_files(id: u32) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{id}/fd")).unwrap().flatten() {
        // It may be closed meanwhile.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = target.split(['[', '(']).next().unwrap_or_default().trim_end_matches(':').to_owned();
        let kind = if kind == "anon_inode" { target.into_owned() } else { kind };
        *files.entry(kind).or_default() += 1;
    }
    files
}

fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
