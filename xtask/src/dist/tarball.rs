//! The archive for every other distribution: unpacked into /usr/local, it is installed.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    packaging,
    payload::{Payload, Prefix},
    read,
    release::Release,
    tree::Tree,
};
use crate::command::output;

/// Makes it out of an empty tree, and tells its name.
pub(super) fn make(payload: &Payload, release: &Release, tree: Tree, dir: &Path) -> Result<String> {
    let top = format!("rnet-{}-{}", release.version, release.machine);
    payload.place(&tree, &top, Prefix::Local)?;
    tree.file(&format!("{top}/share/doc/rnet/copyright"), read(&packaging("debian/copyright"))?)?;
    tree.file(&format!("{top}/share/doc/rnet/docker-plugin.spec"), read(&packaging("docker-plugin.spec"))?)?;
    tree.open_directories()?;

    let name = format!("{top}.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(dir.join(&name)).arg("--directory").arg(tree.root());
    tar.args(["--use-compress-program", "gzip -9n", "--sort=name", "--format=gnu", "--numeric-owner"]);
    tar.args(["--owner=0", "--group=0", &format!("--mtime=@{}", release.time)]).arg(&top);
    output(&mut tar)?;
    Ok(name)
}
