//! The readers of outside input under libFuzzer, guided by coverage. What it finds is left in `target/fuzz`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    command::{cargo, exec, output, workspace},
    progress::{heading, note, step},
    setup,
};

/// What makes the compiler count which edges are taken and what is compared, for libFuzzer to see.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

#[derive(Args)]
pub(crate) struct Options {
    /// Which readers, by the names of their directories in tests/fuzz/corpus; all of them when none is named.
    targets: Vec<String>,
    /// How long each is run.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// How many are run side by side.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
}

/// What came of one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    /// Edges that were taken.
    edges: u64,
    seconds: u64,
    failed: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let known = known()?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}; there are {}", known.join(", "));
    }
    let targets = if options.targets.is_empty() { known } else { options.targets.clone() };
    setup::fuzz_tools()?;
    let fuzzer = step("building the readers with coverage", build)?;
    heading("target, executions, edges, seconds");
    let waiting = Mutex::new(targets.into_iter());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(target) = next() {
            let told = match fuzz(&fuzzer, &target, options.seconds) {
                Ok(Outcome { failed: false, executions, edges, seconds }) => {
                    format!("{target}: {executions}, {edges}, {seconds}")
                }
                outcome => {
                    failed.lock().map(|mut failed| failed.push(target.clone())).ok();
                    format!("{target}: FAILED: see {}: {outcome:?}", log(&target).display())
                }
            };
            note(told);
        }
    };
    thread::scope(|scope| {
        (0..options.jobs).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    note(format_args!("failed: {}; what they fail on is target/fuzz/found-TARGET-*", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn seeds() -> PathBuf {
    workspace().join("tests/fuzz/corpus")
}

fn place() -> PathBuf {
    workspace().join("target/fuzz")
}

fn log(target: &str) -> PathBuf {
    place().join(format!("{target}.log"))
}

/// The readers' names: a test sees to it that each has its seeds.
fn known() -> Result<Vec<String>> {
    let dirs = fs::read_dir(seeds()).with_context(|| format!("list {}", seeds().display()))?;
    let mut names = dirs
        .map(|dir| Ok(dir?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()
        .context("list the targets")?;
    names.sort_unstable();
    Ok(names)
}

/// Builds it for a target that is named, so that build scripts and macros are compiled without coverage. It has the
/// workspace's versions of everything, to which cargo adds libFuzzer's: a lock file of its own would fall behind.
fn build() -> Result<PathBuf> {
    let guided = workspace().join("tests/fuzz/guided");
    let (lock, copy) = (workspace().join("Cargo.lock"), guided.join("Cargo.lock"));
    fs::copy(&lock, &copy).with_context(|| format!("copy {} to {}", lock.display(), copy.display()))?;
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let dir = place().join("build");
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", host, "--target-dir"])
        .arg(&dir)
        .arg("--manifest-path")
        .arg(guided.join("Cargo.toml"))
        .env("RUSTFLAGS", COVERAGE);
    exec(&mut build)?;
    Ok(dir.join(host).join("release/rnet-fuzz"))
}

/// What is new goes into a corpus that stays in `target`; the seeds are only read.
fn fuzz(fuzzer: &Path, target: &str, seconds: u32) -> Result<Outcome> {
    let corpus = place().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let log = log(target);
    let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
    let status = Command::new(fuzzer)
        .arg(&corpus)
        .arg(seeds().join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/found-{target}-", place().display()))
        .args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .current_dir(place())
        .env("RNET_FUZZ_TARGET", target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .with_context(|| format!("run {}", fuzzer.display()))?;
    let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    Ok(Outcome { failed: !status.success(), ..understand(&String::from_utf8_lossy(&said)) })
}

/// What libFuzzer says of a run.
fn understand(log: &str) -> Outcome {
    let number =
        |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let last = |what: &str| log.lines().rev().find_map(|line| Some(number(line.split_once(what)?.1)));
    let seconds = log.lines().rev().find_map(|line| Some(number(line.split_once(" runs in ")?.1)));
    Outcome {
        executions: last("stat::number_of_executed_units:").unwrap_or_default(),
        edges: last(" cov: ").unwrap_or_default(),
        seconds: seconds.unwrap_or_default(),
        failed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let log = "#2\tINITED cov: 99 ft: 100 corp: 1/1b exec/s: 0 rss: 40Mb\n\
            #77\tNEW    cov: 123 ft: 150 corp: 3/9b\nDone 777 runs in 11 second(s)\n\
            stat::number_of_executed_units: 777\n";
        assert_eq!(understand(log), Outcome { executions: 777, edges: 123, seconds: 11, failed: false });
        assert_eq!(understand("it broke"), Outcome::default());
    }
}
