//! The one binary: reads the arguments, does what they say, and tells how it went.

use std::{process::ExitCode, sync::Arc};

use rnet::{
    cli::{Cli, print},
    system::Local,
    version,
};

fn main() -> ExitCode {
    version::built_from(option_env!("RNET_COMMIT"), option_env!("RNET_COMMIT_DATE"));
    // Wrong usage ends the program in here, with exit status 2.
    match Cli::from_arguments().run(Arc::new(Local)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}
