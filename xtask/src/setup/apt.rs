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

/// Fetches packages into a directory, with what they depend on and this machine lacks, without installing any of it.
pub(super) fn download(packages: &[&str], directory: &Path) -> Result<Vec<PathBuf>> {
    let partial = directory.join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    let fetch = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--download-only", "--yes", "--no-install-recommends", "--no-remove"]);
        // Nothing is installed, so that neither root nor the package manager's lock is needed.
        apt.args(["-o", "Debug::NoLocking=1", "-o"])
            .arg(format!("Dir::Cache::archives={}", directory.display()));
        output(apt.args(packages))
    };
    if let Err(error) = fetch() {
        note("apt-get failed; trying again with fresh package lists");
        update().map_err(|_| error)?;
        fetch()?;
    }
    let files = fs::read_dir(directory).with_context(|| format!("look into {}", directory.display()))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

fn try_install(packages: &[&str]) -> Result<()> {
    let mut apt = as_root("env", &format!("to install {}", packages.join(" ")))?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]);
    output(apt.args(["--no-remove", "-o", "DPkg::Lock::Timeout=120"]).args(packages)).map(drop)
}
