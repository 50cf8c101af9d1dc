//! The limit of open files: the daemon takes all that it may, as publishing a range of ports opens a socket for each
//! of them; containers get what the daemon was given, because programs that use select(2) fail beyond 1024.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit that this process was started with; no number for none.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Raises this process's soft limit to the hard one.
///
/// # Errors
/// The kernel refuses.
pub fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    BEFORE.get_or_init(|| limit.current);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("raise the soft limit")
}

/// What [`raise_open_files`] has raised; absent if it has raised nothing.
pub(super) fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// Sets this process's soft limit.
pub(super) fn restore(soft: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), ..limit })
        .with_context(|| format!("set the limit of open files to {soft}"))
}
