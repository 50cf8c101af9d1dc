//! The one binary: reads the arguments, does what they say, and tells how it went.

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use rnet::{
    cli::{Cli, print},
    system::Local,
};

fn main() -> ExitCode {
    // Wrong usage ends the program in here, with exit status 2.
    match Cli::parse().run(Arc::new(Local)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}
