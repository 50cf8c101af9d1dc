//! The one binary: reads the arguments, does what they say, and tells how it went.

use std::{process::ExitCode, sync::Arc};

use rnet::{
    cli::{Cli, print},
    system::Local,
};

fn main() -> ExitCode {
    match Cli::from_arguments().run(Arc::new(Local)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}
