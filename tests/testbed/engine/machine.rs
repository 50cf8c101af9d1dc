//! The host that engines run on.

use std::{ops::Deref, path::PathBuf};

use super::programs;
use crate::{
    Checksums, Host,
    mounts::{self, Mounts},
};

/// A host that also has mounts of its own: `/run` is its own, and what is written to `/etc`, `/var/lib` and `/opt`
/// stays inside. Whatever is run in its namespace sees that, rnet included: a path below these directories is to be
/// opened with `machine.ns.run(|| …)`. On drop everything inside ends, containers too.
#[derive(Debug)]
pub struct Machine(Host);

impl Machine {
    /// A machine whose uplink leaves checksums to the receiver.
    pub fn new() -> Self {
        Self::with(Checksums::Offloaded)
    }

    /// A machine with this uplink.
    pub fn with(checksums: Checksums) -> Self {
        Self::of(checksums, None)
    }

    /// A machine whose `/usr` is Debian 13's, with the engines of that: Docker 26, Podman 5 with netavark, containerd
    /// 1.7. See [`require_engines!`](crate::require_engines).
    pub fn trixie() -> Self {
        Self::of(Checksums::Offloaded, Some(programs::trixie()))
    }

    fn of(checksums: Checksums, tree: Option<PathBuf>) -> Self {
        let mut host = Host::with(checksums);
        host.ns.make_mounts(tree);
        Self(host)
    }

    /// Whether `/usr` is Debian 13's.
    pub fn is_trixie(&self) -> bool {
        self.mounts().tree().is_some()
    }

    /// A new directory inside, in memory.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn directory(&self, role: &str) -> PathBuf {
        let dir = self.mounts().dir().join(format!("{role}{}", crate::next_number()));
        self.ns
            .run(|| std::fs::create_dir_all(&dir))
            .unwrap_or_else(|e| panic!("make {}: {e}", dir.display()));
        dir
    }

    /// The name of its control group, which engines are told to stay below.
    pub fn cgroup(&self) -> &str {
        self.mounts().cgroup()
    }

    /// How many processes run inside, in containers too, and how many control groups they have.
    pub fn remains(name: &str) -> (usize, usize) {
        (mounts::processes_with(name).len(), mounts::cgroups(name).len())
    }

    pub(super) fn mounts(&self) -> &Mounts {
        self.ns.mounts().unwrap_or_else(|| panic!("{} has no mounts of its own", self.ns.name()))
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Machine {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}
