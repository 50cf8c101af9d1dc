//! rnet's benchmark: its datapath and its controller side by side with what they stand in for, on hosts made of network
//! namespaces. `cargo xtask bench` builds and starts it.
//!
//! Every figure is a ratio within one run, or says what machine it is of. Nothing of the machine's own network is
//! touched.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking to the terminal is what a benchmark does")]

mod busy;
mod load;
mod machine;
mod only;
mod progress;
mod report;
mod traffic;

use std::{cell::RefCell, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum as _};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    load::Workload,
    only::{Names, Only},
    progress::Progress,
    report::Part,
    traffic::GROUPS,
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
    /// Where the report is written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
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
    progress: Progress,
}

impl Bench {
    /// How long one workload is measured on one path.
    fn cell(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 2000 })
    }
}

/// A part of the benchmark.
struct Job {
    name: &'static str,
    run: fn(&Bench) -> Result<Part>,
}

const JOBS: [Job; 0] = [];

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
    ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes network namespaces and loads eBPF programs");
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let names = Names {
        parts: GROUPS.iter().map(|g| g.name.to_owned()).chain(JOBS.iter().map(|j| j.name.to_owned())).collect(),
        traffic: GROUPS.iter().map(|g| g.name.to_owned()).collect(),
        workloads: Workload::value_variants().iter().map(|w| w.name()).collect(),
        paths: GROUPS.iter().flat_map(traffic::Group::path_names).map(str::to_owned).collect(),
    };
    let only = Only::parse(&options.only, &names)?;
    let random = RefCell::new(StdRng::seed_from_u64(1));
    let bench = Bench { quick: options.quick, rounds, only, random, progress: Progress::new() };
    for group in GROUPS.iter().filter(|g| bench.only.wants_part(g.name)) {
        bench.progress.begin(group.name);
        let part = traffic::run(&bench, group)?;
        for table in &part.tables {
            println!("{}\n{}", table.title, table.columns.join("\t"));
            for row in &table.rows { println!("{}", row.join("\t")); }
        }
        println!("{}", part.about);
        std::fs::write(format!("/tmp/w/bench-{}.json", group.name), serde_json::to_string_pretty(&part)?)?;
    }
    Ok(())
}
