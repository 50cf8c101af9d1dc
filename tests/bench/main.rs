//! rnet's benchmark: its datapath and its controller side by side with what they stand in for, on hosts made of network
//! namespaces. `cargo xtask bench` builds and starts it.
//!
//! Every figure is a ratio within one run, or says what machine it is of. Nothing of the machine's own network is
//! touched.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking to the terminal is what a benchmark does"
)]

mod busy;
mod control;
mod cost;
mod flood;
mod interrupt;
mod load;
mod machine;
mod only;
mod progress;
mod report;
mod scale;
mod traffic;

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum as _};
use rand::{SeedableRng as _, rngs::StdRng};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    load::Workload,
    machine::Machine,
    only::{Names, Only},
    progress::Progress,
    report::{FORMAT, Failure, Folder, Measured, Part, Report, Settings},
    traffic::{GROUPS, Group},
};

/// Measures rnet against iptables, nft, routing and the bridge.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Few rounds, short cells and small counts: to see that everything works, not to decide by.
    #[arg(long)]
    quick: bool,
    /// Only these parts, workloads or paths.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each cell is measured.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// What the random order of paths comes from.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Where the report is written.
    #[arg(long, value_name = "DIR", default_value = "target/bench/report")]
    out: PathBuf,
}

/// What the parts of the benchmark are run with.
struct Bench {
    /// Few rounds, short cells, small counts.
    quick: bool,
    /// How often each cell is measured.
    rounds: u32,
    only: Only,
    /// Decides the order within a round.
    random: RefCell<StdRng>,
    /// How many cells began while the machine was busy with something else.
    disturbed: Cell<u32>,
    progress: Progress,
}

impl Bench {
    /// How long one workload is measured on one path.
    fn cell(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 2000 })
    }

    /// Waits until the machine is quiet, in a quick run not for long, and notes where it does not become so.
    fn settle(&self) {
        let limit = if self.quick { Duration::from_millis(300) } else { traffic::QUIET_LIMIT };
        let disturbed = !busy::wait_quiet(limit);
        self.disturbed.update(|count| count + u32::from(disturbed));
    }
}

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        // One end of the load, started by the benchmark itself.
        Some("load") => load::main(std::env::args().skip(1)),
        _ => run(&Options::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root: it makes network namespaces and loads eBPF programs"
    );
    let owned = |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect::<Vec<_>>();
    let parts = parts();
    let names = Names {
        parts: owned(&mut parts.iter().map(|(name, _)| *name)),
        traffic: owned(&mut GROUPS.iter().map(|group| group.name)),
        workloads: Workload::value_variants().iter().map(|workload| workload.name()).collect(),
        paths: owned(&mut GROUPS.iter().flat_map(Group::path_names)),
    };
    let only = Only::parse(&options.only, &names)?;
    interrupt::catch()?;
    let folder = Folder::create(&options.out)?;
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let seed = options.seed.unwrap_or_else(rand::random);
    let began = Instant::now();
    let mut report = Report {
        format: FORMAT,
        rnet: version()?,
        revision: revision(),
        started: OffsetDateTime::now_utc().format(&Rfc3339)?,
        seconds: 0.0,
        complete: false,
        settings: Settings { quick: options.quick, rounds, seed, only: options.only.clone() },
        noisy_cells: 0,
        machine: Machine::look(),
        parts: Vec::new(),
        failures: Vec::new(),
    };
    let bench = Bench {
        quick: options.quick,
        rounds,
        only,
        random: RefCell::new(StdRng::seed_from_u64(seed.into())),
        disturbed: Cell::new(0),
        progress: Progress::new(),
    };
    for (name, measure) in parts.into_iter().filter(|(name, _)| bench.only.wants_part(name)) {
        bench.progress.begin(name);
        let since = Instant::now();
        match measure(&bench) {
            Ok(part) => {
                bench.progress.print(&report::terminal::part(&part));
                report.parts.push(Measured { part, seconds: since.elapsed().as_secs_f64() });
            }
            Err(error) if interrupt::requested() => return Err(error),
            Err(error) => {
                bench.progress.print(&format!("{name}: {error:#}"));
                report.failures.push(Failure { part: name, error: format!("{error:#}") });
            }
        }
        report.seconds = began.elapsed().as_secs_f64();
        report.noisy_cells = bench.disturbed.get();
        folder.write(&report)?;
    }
    report.complete = true;
    folder.write(&report)?;
    folder.link("latest")?;
    println!("the report is {}", folder.path().join("report.md").display());
    ensure!(report.failures.is_empty(), "{} parts could not be measured", report.failures.len());
    Ok(())
}

/// Measures one part.
type Measure = Box<dyn Fn(&Bench) -> Result<Part>>;

/// Every part by its name on the command line, in the order in which they are measured.
fn parts() -> Vec<(&'static str, Measure)> {
    let groups = GROUPS
        .iter()
        .map(|group| (group.name, Box::new(|bench: &Bench| traffic::run(bench, group)) as Measure));
    let others: [(&'static str, Measure); 4] = [
        (cost::NAME, Box::new(cost::run)),
        (control::NAME, Box::new(control::run)),
        (scale::NAME, Box::new(scale::run)),
        (flood::NAME, Box::new(flood::run)),
    ];
    groups.chain(others).collect()
}

/// What the measured program says of its version.
fn version() -> Result<String> {
    let mut command = Command::new(testbed::commands::binary());
    command.arg("--version");
    let finished = testbed::process::run(command, Duration::from_secs(10));
    ensure!(finished.status.success(), "rnet --version: {}", finished.stderr.trim());
    Ok(finished.stdout.trim().to_owned())
}

/// The revision of the sources that this program is built of, if they are a repository's.
fn revision() -> Option<String> {
    let mut command = Command::new("git");
    command.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    let finished = testbed::process::try_run(command, Duration::from_secs(10))?;
    finished.status.success().then(|| finished.stdout.trim().to_owned())
}
