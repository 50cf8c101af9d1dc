//! The one binary: reads the arguments, does what they say, and tells how it went.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Result, anyhow};
use clap::Parser as _;
use rnet::{
    cli::{Cli, print},
    system::Local,
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

fn main() -> ExitCode {
    // Wrong usage ends the program in here, with exit status 2.
    match run(Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    if cli.is_daemon() {
        log()?;
    }
    cli.run(Arc::new(Local))
}

/// The daemon logs to standard error, from `info` on unless `RUST_LOG` says otherwise.
fn log() -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env();
    // Its causes say the same as itself.
    let filter = filter.map_err(|e| anyhow!("understand RUST_LOG: {e}: set it as info or rnet=debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
