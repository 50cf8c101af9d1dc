//! Trees of files that are unpacked beside the other tools: nothing outside the workspace is touched.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command::{output, workspace};

/// Where a tree of this name is.
pub(super) fn root(name: &str) -> PathBuf {
    workspace().join("target/tools").join(name)
}

/// Makes a tree anew: `fill` is given an empty directory, which becomes the tree when all is there. What an
/// interrupted run has left is not to be taken for it.
pub(super) fn make(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let root = root(name);
    let unfinished = root.with_extension("unfinished");
    for left in [&root, &unfinished] {
        match fs::remove_dir_all(left) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", left.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    create(&unfinished)?;
    fill(&unfinished)?;
    fs::rename(&unfinished, &root).with_context(|| format!("create {}", root.display()))
}

/// Unpacks Debian packages into a directory.
pub(super) fn extract(packages: &[PathBuf], directory: &Path) -> Result<()> {
    for package in packages {
        output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory))?;
    }
    Ok(())
}

/// Makes a directory.
pub(super) fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))
}

/// Removes a directory that is there.
pub(super) fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
}
