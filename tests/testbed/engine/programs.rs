//! Where the engines' programs are: on the machine, or unpacked by `cargo xtask setup --tests`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Machine;
use crate::Netns;

const NEEDED: [&str; 7] = ["docker", "dockerd", "containerd", "runc", "podman", "conmon", "busybox"];
const NEEDED_OF_TRIXIE: [&str; 6] = ["docker", "dockerd", "containerd", "runc", "podman", "conmon"];
/// Where programs are on a system that is whole.
const SYSTEM: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin"];

/// What is neither on the machine nor unpacked.
pub(super) fn missing() -> Vec<&'static str> {
    NEEDED.into_iter().filter(|name| of_machine(name).is_none()).collect()
}

/// What Debian 13's tree lacks, and the machine, whose busybox containers are made of.
pub(super) fn missing_of_trixie() -> Vec<&'static str> {
    let tree = trixie();
    let lacking = NEEDED_OF_TRIXIE.into_iter().filter(|name| of_tree(&tree, name).is_none());
    lacking.chain(["busybox"].into_iter().filter(|name| of_machine(name).is_none())).collect()
}

/// Debian 13's tree.
pub(super) fn trixie() -> PathBuf {
    tools().join("trixie")
}

fn unpacked() -> PathBuf {
    tools().join("engines")
}

fn tools() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    tools.canonicalize().unwrap_or(tools)
}

/// A program as it is called in a namespace, whose `/usr` may be another.
pub(crate) fn find(ns: &Netns, name: &str) -> Option<PathBuf> {
    match ns.mounts().and_then(crate::mounts::Mounts::tree) {
        Some(tree) => of_tree(tree, name),
        None => of_machine(name),
    }
}

fn of_tree(tree: &Path, name: &str) -> Option<PathBuf> {
    let places = ["usr/sbin", "usr/bin"].map(|dir| Path::new(dir).join(name));
    places.into_iter().find(|file| tree.join(file).is_file()).map(|file| Path::new("/").join(file))
}

/// A program of the machine that the tests run on.
///
/// # Panics
/// When there is none.
pub(super) fn outside(name: &str) -> PathBuf {
    of_machine(name).unwrap_or_else(|| lacking(name))
}

fn of_machine(name: &str) -> Option<PathBuf> {
    dirs().into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A program that must be there.
///
/// # Panics
/// When it is not.
pub(super) fn required(machine: &Machine, name: &str) -> PathBuf {
    find(&machine.ns, name).unwrap_or_else(|| lacking(name))
}

fn lacking(name: &str) -> ! {
    panic!("no {name}: get it with `cargo xtask setup --tests`")
}

/// The directories that programs are looked for in: the machine's own first.
fn dirs() -> Vec<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    let unpacked = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| unpacked().join(dir));
    env::split_paths(&own).chain(SYSTEM.map(PathBuf::from)).chain(unpacked).collect()
}

/// The directories of CNI's own plugins.
pub(super) fn plugin_dirs(machine: &Machine) -> Vec<PathBuf> {
    if machine.is_trixie() {
        return vec!["/usr/lib/cni".into()];
    }
    let own = ["/usr/lib/cni", "/opt/cni/bin"].map(PathBuf::from);
    own.into_iter()
        .chain([unpacked().join("usr/lib/cni")])
        .filter(|dir| dir.join("bridge").is_file())
        .collect()
}

/// With which an engine finds the programs that it starts, and their libraries.
pub(super) fn environment(machine: &Machine) -> Vec<(&'static str, OsString)> {
    let join = |dirs: Vec<PathBuf>| {
        env::join_paths(dirs).unwrap_or_else(|e| panic!("join the directories of PATH: {e}"))
    };
    if machine.is_trixie() {
        return vec![("PATH", join(SYSTEM.map(PathBuf::from).to_vec()))];
    }
    let mut variables = vec![("PATH", join(dirs()))];
    let below =
        ["usr/lib", "lib"].map(|lib| unpacked().join(lib).join(format!("{}-linux-gnu", env::consts::ARCH)));
    let libraries: Vec<_> = below.into_iter().filter(|dir| dir.is_dir()).collect();
    if !libraries.is_empty() {
        variables.push(("LD_LIBRARY_PATH", join(libraries)));
    }
    variables
}
