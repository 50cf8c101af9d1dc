//! stub
use anyhow::Result;
use clap::Args;
use std::{path::PathBuf, process::ExitCode};
pub(crate) mod page;
#[derive(Args)]
pub(crate) struct Options {
    /// The built binary.
    #[arg(long)]
    pub(crate) rnet: PathBuf,
    /// No live view.
    #[arg(long)]
    pub(crate) once: bool,
}
pub(crate) fn run(_o: &Options) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
