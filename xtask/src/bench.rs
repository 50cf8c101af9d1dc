//! The benchmark: built optimised as the user, run as root.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build,
    command::{cargo, workspace},
    progress::step,
    root,
    run::exit_code,
    setup,
    test::{executable_in, run_piped},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Few rounds and short cells: to see that everything works, not to decide by.
    #[arg(long)]
    quick: bool,
    /// Only these parts, workloads or paths; a name that does not exist shows those that do.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<OsString>,
    /// How often each cell is measured.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// What the random order of paths comes from.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Where the report is written.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::test_tools()?;
    let built = build::run(&build::Options { release: true })?;
    let program = step("building the benchmark", program)?;
    let mut bench = root::as_root(program, "the benchmark makes network namespaces and loads BPF programs")?;
    bench.env("RNET_BIN", &built.rnet).arg("--out").arg(out(options)?);
    if options.quick {
        bench.arg("--quick");
    }
    for name in &options.only {
        bench.arg("--only").arg(name);
    }
    for (flag, number) in [("--rounds", options.rounds), ("--seed", options.seed)] {
        if let Some(number) = number {
            bench.args([flag, &number.to_string()]);
        }
    }
    let status = bench.status().context("start the benchmark")?;
    Ok(exit_code(status))
}

/// Where the report is written: as seen from where the user is, not from the workspace.
fn out(options: &Options) -> Result<PathBuf> {
    match &options.out {
        Some(out) => Ok(env::current_dir().context("find the current directory")?.join(out)),
        None => Ok(workspace().join("target/bench/report")),
    }
}

/// Builds the benchmark and tells where it is.
fn program() -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["build", "--release", "--package", "rnet-tests", "--bin", "rnet-bench"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    executable_in(&run_piped(&mut build)?, "rnet-bench").context("cargo built no benchmark")
}
