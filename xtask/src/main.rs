//! rnet's chores, as `cargo xtask TASK`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking to the terminal is what a task does")]

mod audit;
mod bench;
mod build;
mod command;
mod commit;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod progress;
mod root;
mod run;
mod setup;
mod soak;
mod test;
mod unsafe_code;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// rnet's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Find the tools that building needs, and install what is missing.
    Setup(setup::Options),
    /// Build the datapath and the one binary that carries it.
    Build(build::Options),
    /// Show rnet at work on real traffic; with `-- ARGS`, run `rnet ARGS` on this host instead.
    Run(run::Options),
    /// Run the tests.
    Test(test::Options),
    /// Measure rnet against iptables, nft, routing and the bridge.
    Bench(bench::Options),
    /// Run the readers of outside input on inputs that nobody thought of.
    Fuzz(fuzz::Options),
    /// Use rnet from all sides at once, and kill its daemon, for as long as one has patience.
    Soak(soak::Options),
    /// Make the packages: a .deb, an archive, and their checksums.
    Dist,
    /// Run a selection of the tests on Debian's kernels, in an emulator.
    VmTest(vm::Options),
    /// Check format and lints of both halves.
    Lint,
    /// Check the dependencies' licences, sources and advisories.
    Audit(audit::Options),
    /// The demonstration itself: what `run` starts as root.
    #[command(hide = true)]
    Demonstrate(demo::Options),
    /// The demonstration's web server.
    #[command(hide = true)]
    ServePage(demo::page::ServeOptions),
    /// The demonstration's web client.
    #[command(hide = true)]
    FetchPage(demo::page::FetchOptions),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Build(options) => build::run(&options).map(|_| ExitCode::SUCCESS),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Dist => dist::run().map(|_| ExitCode::SUCCESS),
        Task::VmTest(options) => vm::run(&options),
        Task::Lint => lint::run().map(|()| ExitCode::SUCCESS),
        Task::Audit(options) => audit::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Demonstrate(options) => demo::run(&options),
        Task::ServePage(options) => demo::page::serve(&options).map(|()| ExitCode::SUCCESS),
        Task::FetchPage(options) => demo::page::print(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
