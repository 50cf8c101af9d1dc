//! Lets one system call of a running program fail, so that tests can see what the program makes of it: a tracer
//! (ptrace(2)) that counts the calls of one kind over all threads and child processes of the program, and has the Nth fail
//! before the kernel has done anything of it. The program under test needs no code for that.
//!
//! `rnet-inject --pid PID --calls KIND --at N` prints a line once it counts, and goes on until it is sent SIGTERM. Then it
//! prints what it has seen as JSON, and lets go of the program. strace(1) can inject too, but counts the calls of each
//! thread by themselves, and a daemon starts a thread for whatever may block.
//!
//! It knows the registers of x86_64 only.
#![allow(clippy::print_stdout, reason = "its answers are read from there")]

mod calls;
mod tracer;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::{
    sys::signal::{SigSet, Signal},
    unistd::Pid,
};

use calls::{Failure, Kind};
use tracer::Tracer;

/// Lets one system call of a program fail.
#[derive(Parser)]
struct Options {
    /// The program's process.
    #[arg(long)]
    pid: i32,
    /// Which calls are counted.
    #[arg(long, value_enum)]
    calls: Kind,
    /// The call that fails, counted from 1 over all threads; 0 for none.
    #[arg(long)]
    at: u64,
    /// How it fails.
    #[arg(long, value_enum, default_value_t = Failure::Resources)]
    failure: Failure,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("rnet-inject: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    // Both are waited for; the first comes with every stop of what is traced.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block signals")?;

    let pid = Pid::from_raw(options.pid);
    let mut tracer = Tracer::attach(pid, options.calls, options.failure, options.at)
        .with_context(|| format!("trace process {pid}"))?;
    println!("counting");
    let mut is_to_end = false;
    loop {
        tracer.handle_stops()?;
        if is_to_end && !tracer.is_injecting() {
            break;
        }
        is_to_end |= signals.wait().context("wait for signals")? == Signal::SIGTERM;
    }
    println!("{}", serde_json::to_string(&tracer.seen()).context("write down what was seen")?);
    // The kernel lets what is traced go on where it is.
    Ok(())
}
