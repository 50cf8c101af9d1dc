//! Doing as root the few things that need it.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

use crate::{command::find, progress::note};

/// Variables that a command keeps when it is run as root.
const KEPT: [&str; 16] = [
    "CARGO_MANIFEST_DIR",
    "NO_COLOR",
    "RNET_BIN",
    "RNET_BPF_OBJECT",
    "RNET_DEBIAN",
    "RNET_DIST",
    "RNET_INSTANCE",
    "RNET_REQUIRE_ALL",
    "RNET_SOAK_KILLS",
    "RNET_SOAK_SECONDS",
    "RNET_SOAK_SEED",
    "RNET_TEST_PATIENCE",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "RUST_TEST_THREADS",
    "TERM",
];

/// Whether this process may do everything by itself.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that will run as root: as it stands when this process is root, through sudo otherwise. `why`
/// completes "asking for root through sudo: ".
pub(crate) fn as_root(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find("sudo").with_context(|| {
        format!("{} needs root ({why}): run this as root, or install sudo", Path::new(program).display())
    })?;
    note(format_args!("asking for root through sudo: {why}"));
    let mut command = Command::new(sudo);
    command.arg(format!("--preserve-env={}", KEPT.join(","))).arg("--").arg(program);
    Ok(command)
}
