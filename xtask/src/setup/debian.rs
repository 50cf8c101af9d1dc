//! A freshly installed Debian 12, as an archive of its files: what the package is installed on by its tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    command::{output, workspace},
    root::as_root,
};

/// Without what Debian installs only by default.
const VARIANT: &str = "--variant=minbase";
const SUITE: &str = "bookworm";

/// Where it is.
pub(crate) fn archive() -> PathBuf {
    workspace().join("target/tools/debian-12.tar")
}

/// Makes it.
pub(super) fn make() -> Result<()> {
    let (archive, unfinished) = (archive(), workspace().join("target/tools/unfinished.tar"));
    fs::create_dir_all(archive.parent().unwrap_or(Path::new("/"))).context("create target/tools")?;
    let mut mmdebstrap = as_root("mmdebstrap", "to install Debian into an archive")?;
    output(mmdebstrap.args(["--quiet", VARIANT, "--format=tar", SUITE]).arg(&unfinished))?;
    fs::rename(&unfinished, &archive).with_context(|| format!("create {}", archive.display()))
}
