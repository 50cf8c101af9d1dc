//! The controller's own speed and memory: containers started and removed, thousands of ports published at once, the
//! daemon started again with all that, and what is in memory at each point.
//!
//! Everything is timed from outside: a command from the start of its process to its end, the daemon from the start of
//! its process to the first answer from its socket. A round measures every cell once, in random order, each on a host of
//! its own.

mod calls;
mod charts;
mod containers;
mod daemon;
mod estimate;
mod memory;
mod ports;
mod summary;

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use rand::seq::SliceRandom as _;
use serde::{Serialize, Serializer};

use self::memory::Memory;
use crate::{Bench, busy, interrupt, report::Part};

/// Its name on the command line.
pub(crate) const NAME: &str = "control";

/// How long the machine may take to become quiet before a cell is measured nevertheless.
const QUIET_LIMIT: Duration = Duration::from_secs(5);
/// The same where the figures are nothing to decide by.
const QUICK_QUIET_LIMIT: Duration = Duration::from_millis(500);

/// Clients that start containers at the same time.
const AT_ONCE: usize = 8;

/// How much is made.
struct Amounts {
    /// Numbers of containers.
    containers: &'static [u32],
    /// Ports of one container.
    ports: u32,
    /// Ports that are published by single calls of iptables at each level.
    sample: u32,
}

const FULL: Amounts = Amounts { containers: &[1, 100, 1000], ports: 10_000, sample: 20 };
const QUICK: Amounts = Amounts { containers: &[1, 5], ports: 500, sample: 2 };

/// What a daemon has to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Nothing,
    /// So many containers, each with a published port.
    Containers(u32),
    /// One container with so many published ports.
    Ports(u32),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Containers(1) => write!(f, "1 container"),
            Self::Containers(count) => write!(f, "{count} containers"),
            Self::Ports(count) => write!(f, "{count} ports"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// `rnet run`, one call after the other.
    Run,
    /// The same by [`AT_ONCE`] clients.
    RunAtOnce,
    /// `rnet rm`, one call after the other.
    Remove,
    /// `rnet down`.
    Down,
    /// From the start of the daemon to its first answer.
    Start,
    Publish,
    Unpublish,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum By {
    Rnet,
    /// A call of iptables for each rule; the time for all is an estimate.
    IptablesCalls,
    /// iptables-restore, all in one call.
    IptablesRestore,
    /// nft, all in one call.
    Nft,
}

#[derive(Clone, Debug, Serialize)]
struct Timing {
    round: u32,
    by: By,
    what: What,
    load: Load,
    seconds: f64,
    /// The machine was busy with something else when the cell began.
    disturbed: bool,
}

/// Single calls of iptables while so many ports are published.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    round: u32,
    filled_ports: u32,
    /// Each takes three calls.
    ports: u32,
    publish_seconds: f64,
    unpublish_seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Kept {
    round: u32,
    load: Load,
    #[serde(flatten)]
    memory: Memory,
}

/// All that was found.
#[derive(Debug, Default)]
struct Findings {
    timings: Vec<Timing>,
    samples: Vec<Sample>,
    memory: Vec<Kept>,
    cells: u32,
    /// How many cells began while the machine was busy otherwise.
    disturbed: u32,
}

/// Where a cell's findings go.
struct Notes<'a> {
    round: u32,
    disturbed: bool,
    findings: &'a mut Findings,
}

impl Notes<'_> {
    fn time(&mut self, by: By, what: What, load: Load, seconds: f64) {
        let (round, disturbed) = (self.round, self.disturbed);
        self.findings.timings.push(Timing { round, by, what, load, seconds, disturbed });
    }

    fn keep(&mut self, load: Load, memory: Memory) {
        self.findings.memory.push(Kept { round: self.round, load, memory });
    }
}

/// What is measured in one go.
#[derive(Clone, Copy)]
enum Cell {
    OneAtATime(u32),
    ManyAtOnce(u32),
    Ports(By),
}

impl Cell {
    fn all(amounts: &Amounts) -> Vec<Self> {
        let containers = amounts.containers.iter().flat_map(|n| [Self::OneAtATime(*n), Self::ManyAtOnce(*n)]);
        let tools = [By::Rnet, By::IptablesCalls, By::IptablesRestore, By::Nft];
        containers.chain(tools.map(Self::Ports)).collect()
    }

    fn measure(self, amounts: &Amounts, notes: &mut Notes<'_>) -> Result<()> {
        match self {
            Self::OneAtATime(count) => containers::one_at_a_time(notes, count),
            Self::ManyAtOnce(count) => containers::many_at_once(notes, count),
            Self::Ports(By::Rnet) => ports::rnet(notes, amounts.ports),
            Self::Ports(By::IptablesCalls) => ports::iptables_calls(notes, amounts.ports, amounts.sample),
            Self::Ports(By::IptablesRestore) => ports::iptables_restore(notes, amounts.ports),
            Self::Ports(By::Nft) => ports::nft(notes, amounts.ports),
        }
    }

    /// About how long it takes, for the progress bar.
    fn expected(self, amounts: &Amounts) -> Duration {
        let millis = match self {
            Self::OneAtATime(count) => 3000 + count * 60,
            Self::ManyAtOnce(count) => 5000 + count * 60,
            Self::Ports(By::Rnet) => 6000,
            Self::Ports(By::IptablesCalls) => 1000 + amounts.sample * 750,
            Self::Ports(By::IptablesRestore | By::Nft) => 2000,
        };
        Duration::from_millis(millis.into())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneAtATime(count) => write!(f, "{}, one at a time", Load::Containers(*count)),
            Self::ManyAtOnce(count) => write!(f, "{}, {AT_ONCE} at once", Load::Containers(*count)),
            Self::Ports(by) => write!(f, "ports by {}", summary::name_of(*by)),
        }
    }
}

/// Measures all of it.
///
/// # Errors
/// When a command fails, or the kernel refuses an answer.
pub(crate) fn run(bench: &Bench) -> Result<Part> {
    let (amounts, limit) = if bench.quick { (QUICK, QUICK_QUIET_LIMIT) } else { (FULL, QUIET_LIMIT) };
    let mut cells = Cell::all(&amounts);
    let each: Duration = cells.iter().map(|cell| cell.expected(&amounts)).sum();
    bench.progress.expect(each * bench.rounds);
    let mut findings = Findings::default();
    for round in 1..=bench.rounds {
        cells.shuffle(&mut *bench.random.borrow_mut());
        for cell in &cells {
            bench.progress.doing(format!("round {round}: {cell}"));
            interrupt::check()?;
            let disturbed = !busy::wait_quiet(limit);
            bench.disturbed.update(|count| count + u32::from(disturbed));
            findings.disturbed += u32::from(disturbed);
            findings.cells += 1;
            let mut notes = Notes { round, disturbed, findings: &mut findings };
            cell.measure(&amounts, &mut notes).with_context(|| format!("measure {cell}"))?;
            bench.progress.done(cell.expected(&amounts));
        }
    }
    summary::of(&amounts, &findings)
}
