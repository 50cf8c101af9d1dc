//! The emulator that kernels are booted in, and the busybox that is their first process. Both are Debian 13's, with
//! libraries of their own, so that nothing is installed and the machine's release does not matter.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{apt, unpack};
use crate::command::is_executable;

const NAME: &str = "emulator";
const SUITE: &str = "trixie";
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];

const QEMU: &str = "usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "usr/bin/busybox";
/// Starts a program with other libraries than the system's.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where firmware is.
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// An unpacked emulator.
pub(crate) struct Emulator {
    tree: PathBuf,
}

impl Emulator {
    /// `qemu-system-x86_64`.
    pub(crate) fn command(&self) -> Command {
        let at = |path: &str| self.tree.join(path);
        let mut command = Command::new(at(LOADER));
        command.arg("--library-path").arg(at(LIBRARIES)).arg(at(QEMU));
        command.env("QEMU_MODULE_DIR", at(LIBRARIES).join("qemu"));
        for data in DATA {
            command.arg("-L").arg(at(data));
        }
        command
    }

    /// A busybox without libraries.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.tree.join(BUSYBOX)
    }
}

/// Whether it is there.
pub(super) fn find() -> Option<Emulator> {
    let tree = unpack::root(NAME);
    is_whole(&tree).then_some(Emulator { tree })
}

/// Unpacks it.
pub(super) fn make(mirror: &str) -> Result<Emulator> {
    unpack::make(NAME, |tree| {
        let private = tree.join("apt");
        unpack::extract(&apt::download_of_suite(mirror, SUITE, &PACKAGES, &private)?, tree)?;
        unpack::remove(&private)?;
        anyhow::ensure!(is_whole(tree), "the packages {} have not brought {QEMU}", PACKAGES.join(", "));
        Ok(())
    })?;
    Ok(Emulator { tree: unpack::root(NAME) })
}

fn is_whole(tree: &Path) -> bool {
    [QEMU, BUSYBOX, LOADER].iter().all(|file| is_executable(&tree.join(file)))
}
