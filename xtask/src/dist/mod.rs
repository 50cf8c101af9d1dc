//! The packages, in `target/dist`: `rnet_VERSION_ARCH.deb`, `rnet-VERSION-ARCH.tar.gz` and `SHA256SUMS`.
//!
//! Both hold the same files below another prefix: the archive's is unpacked into /usr/local. The same tree, toolchain
//! and commit make the same bytes: every time in them is the commit's.

mod binary;
mod deb;
mod licenses;
mod payload;
mod release;
mod tarball;
mod tree;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use self::{payload::Payload, release::Release, tree::Tree};
use crate::{
    build,
    command::{output, workspace},
    progress::{note, step},
};

/// What was made.
pub(crate) struct Packages {
    /// The directory with all of it.
    pub(crate) dir: PathBuf,
    /// The binary that is in it.
    pub(crate) rnet: PathBuf,
    /// The BPF object that is in that.
    pub(crate) object: PathBuf,
}

pub(crate) fn run() -> Result<Packages> {
    let object = build::object()?;
    let built = step("building rnet, statically linked", binary::build)?;
    step("making the packages", || {
        let release = Release::here()?;
        let dir = build::target_dir().join("dist");
        empty(&dir)?;
        let rnet = dir.join("rnet");
        fs::copy(&built, &rnet).with_context(|| format!("copy {} to {}", built.display(), rnet.display()))?;
        let scratch = dir.join("scratch");
        let payload = Payload::collect(&rnet, &Tree::new(scratch.join("generated"))?)?;
        let made = [
            deb::make(&payload, &release, Tree::new(scratch.join("deb"))?, &dir)?,
            tarball::make(&payload, &release, Tree::new(scratch.join("archive"))?, &dir)?,
        ];
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        let sums = output(Command::new("sha256sum").args(&made).current_dir(&dir))?;
        write(&dir.join("SHA256SUMS"), sums)?;
        for name in made {
            note(dir.join(name).display());
        }
        Ok(Packages { dir, rnet, object })
    })
}

/// Makes an empty directory, in place of what is there.
fn empty(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {}", dir.display()));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

/// A file of the folder that holds what only packages need.
fn packaging(name: &str) -> PathBuf {
    workspace().join("packaging").join(name)
}
