//! Docker's client, which the tests drive the daemon with. It is unpacked beside the other tools rather than
//! installed: the package that brings it on Debian 12 brings Docker's daemon as well, and starts that.

use std::{fs, io::ErrorKind, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::command::{find, is_executable, output, workspace};

/// Packages with the client: the first is the one that has nothing else, where there is one.
const PACKAGES: [&str; 2] = ["docker-cli", "docker.io"];

/// The client, if there is one.
pub(super) fn client() -> Option<PathBuf> {
    let unpacked = root().join("usr/bin/docker");
    find("docker").or_else(|| is_executable(&unpacked).then_some(unpacked))
}

/// Fetches the package and takes the client out of it.
pub(super) fn unpack() -> Result<()> {
    if !apt::is_here() {
        bail!("the tests drive the daemon with Docker's client, which this machine lacks: install it");
    }
    let offered = || PACKAGES.into_iter().find(|package| apt::candidate(package).is_some());
    let package = match offered() {
        Some(package) => package,
        None => {
            apt::update()?;
            offered().with_context(|| format!("apt offers none of {}", PACKAGES.join(", ")))?
        }
    };
    let root = root();
    let unfinished = root.with_extension("unfinished");
    // What an interrupted run has left is not to be taken for the client.
    for left in [&root, &unfinished] {
        match fs::remove_dir_all(left) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", left.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let file = apt::download(package, &unfinished)?;
    output(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&unfinished))?;
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    fs::rename(&unfinished, &root).with_context(|| format!("create {}", root.display()))
}

/// Where it is unpacked: nothing outside the workspace is touched.
fn root() -> PathBuf {
    workspace().join("target/tools/docker")
}
