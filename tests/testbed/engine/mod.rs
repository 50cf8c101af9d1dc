//! Real container engines, each on a [`Machine`] of its own.
//!
//! What the surroundings force:
//! - An engine gets a mount namespace beside the network namespace: its paths below `/run`, `/etc` and `/var/lib` are
//!   fixed in too many places, and some of its mounts would outlive it. rnet runs in it as well, as on one machine.
//! - Data is in memory: engines write through to the disk at every step, and overlayfs can't be stacked on the
//!   overlayfs that a test may itself run on.
//! - Control groups are below one that carries the machine's name, without systemd, which `/run` does not show.
//! - Processes are found by the machine's name among their mounts: shims and containers leave their parents.

mod containerd;
pub mod cri;
mod daemon;
mod dockerd;
mod image;
mod machine;
mod podman;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

pub use self::{
    containerd::{Containerd, Pod},
    dockerd::Dockerd,
    image::IMAGE,
    machine::Machine,
    podman::Podman,
};

/// Returns from a test that cannot run here, for want of root or of the engines, saying why. With
/// `RNET_REQUIRE_ALL=1` it fails instead.
#[macro_export]
macro_rules! require_engines {
    () => {
        if !$crate::engine::can_run() {
            return;
        }
    };
}

/// Whether engines can be run here.
pub fn can_run() -> bool {
    if !crate::can_run() {
        return false;
    }
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| program(name).is_none()).collect();
    if !missing.is_empty() {
        crate::skip(&format!("needs {}: get them with `cargo xtask setup --tests`", missing.join(", ")));
    }
    missing.is_empty()
}

const NEEDED: [&str; 7] = ["docker", "dockerd", "containerd", "runc", "podman", "conmon", "busybox"];

/// Where `cargo xtask setup --tests` unpacks what the machine lacks.
fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/engines")
}

/// The directories that programs are looked for in: the machine's own first.
fn path() -> Vec<PathBuf> {
    let machine = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let unpacked = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| unpacked().join(dir));
    env::split_paths(&machine).chain(system).chain(unpacked).collect()
}

/// A program of an engine.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    path().into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A program of an engine that must be there.
///
/// # Panics
/// When it is not.
fn required(name: &str) -> PathBuf {
    program(name).unwrap_or_else(|| panic!("no {name}: get it with `cargo xtask setup --tests`"))
}

/// The directories of CNI's own plugins.
fn plugin_dirs() -> Vec<PathBuf> {
    let dirs = ["/usr/lib/cni", "/opt/cni/bin"].into_iter().map(PathBuf::from);
    dirs.chain([unpacked().join("usr/lib/cni")]).filter(|dir| dir.join("bridge").is_file()).collect()
}

/// The value of `PATH` with which an engine finds the programs that it starts.
fn joined_path() -> OsString {
    env::join_paths(path()).unwrap_or_else(|e| panic!("join the directories of PATH: {e}"))
}

/// Where the libraries of unpacked programs are.
fn libraries() -> Option<PathBuf> {
    let dir = unpacked().join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    dir.is_dir().then_some(dir)
}

/// Lets a command find the programs that it starts, and their libraries.
fn equip(command: &mut Command) {
    command.env("PATH", joined_path());
    if let Some(libraries) = libraries() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
}
