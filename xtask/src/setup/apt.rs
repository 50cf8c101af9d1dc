//! Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{find, output},
    progress::note,
    root::as_root,
};

/// Whether this machine installs its software with apt.
pub(super) fn is_here() -> bool {
    find("apt-get").is_some()
}

/// The version that would be installed.
pub(super) fn candidate(package: &str) -> Option<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C")).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Fetches the package lists.
pub(super) fn update() -> Result<()> {
    output(as_root("apt-get", "to refresh the package lists")?.arg("update")).map(drop)
}

/// Installs packages. Refuses to remove others for it: two compilers of Debian's exclude each other.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| candidate(package).is_none()) {
        update()?;
    }
    if let Err(error) = try_install(packages) {
        // Lists that are some days old name versions that the mirror has replaced.
        note("apt-get failed; trying again with fresh package lists");
        update().map_err(|_| error)?;
        try_install(packages)?;
    }
    Ok(())
}

/// Fetches a package into a directory that has no other, without installing it.
pub(super) fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let fetch = || output(Command::new("apt-get").args(["download", package]).current_dir(directory));
    if let Err(error) = fetch() {
        note("apt-get failed; trying again with fresh package lists");
        update().map_err(|_| error)?;
        fetch()?;
    }
    let files = fs::read_dir(directory).with_context(|| format!("look into {}", directory.display()))?;
    let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} has left no package in {}", directory.display()))
}

fn try_install(packages: &[&str]) -> Result<()> {
    let mut apt = as_root("env", &format!("to install {}", packages.join(" ")))?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]);
    output(apt.args(["--no-remove", "-o", "DPkg::Lock::Timeout=120"]).args(packages)).map(drop)
}
