//! The image that containers are run from: busybox alone.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::required;
use crate::process;

/// The image's name in every engine.
pub const IMAGE: &str = "docker.io/library/testbed:latest";

/// What containers run when they are told nothing else: nothing, until they are asked to end. A first process is not
/// ended by a signal that it does nothing about.
pub(super) const COMMAND: [&str; 3] =
    ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"];

/// The root of a container's files.
#[derive(Debug)]
pub(super) struct Rootfs {
    dir: TempDir,
}

impl Rootfs {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let rootfs = Self { dir };
        fill(rootfs.path()).unwrap_or_else(|e| panic!("make a container's files: {e}"));
        rootfs
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The files as one archive, beside which nothing is needed.
    pub(super) fn archive(&self, to: &Path) -> PathBuf {
        let file = to.join("rootfs.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(&file).arg("--directory").arg(self.path()).arg(".");
        process::run(tar, Duration::from_secs(20)).assert_ok("make an image");
        file
    }
}

fn fill(root: &Path) -> std::io::Result<()> {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "run", "var"] {
        fs::create_dir(root.join(dir))?;
    }
    let busybox = required("busybox");
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let list = process::run(list, Duration::from_secs(20)).assert_ok("list busybox's commands");
    for applet in list.stdout.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")
}
