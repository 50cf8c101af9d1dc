//! The container engines of Debian 13, for tests of what newer engines do otherwise. Their packages are unpacked into a
//! tree that a test machine takes for its `/usr`: they need newer libraries than a host may have. Maintainers' scripts
//! are not run, so that neither root nor a chroot is needed; the links that they would make are made here.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};

use super::{apt, unpack};
use crate::command::is_executable;

const SUITE: &str = "trixie";

/// The engines, and what tests run on the machine that has them.
const PACKAGES: [&str; 24] = [
    "aardvark-dns",
    "bpftool",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "coreutils",
    "dash",
    "docker-cli",
    "docker.io",
    "ethtool",
    "grep",
    "iproute2",
    "iptables",
    "iputils-ping",
    "mount",
    "netavark",
    "nftables",
    "podman",
    "procps",
    "runc",
    "sed",
    "tar",
    "tcpdump",
    "util-linux",
];

/// By which a tree is known to have everything.
const FILES: [&str; 7] = [
    "usr/bin/docker",
    "usr/bin/podman",
    "usr/bin/sh",
    "usr/lib/cni/bridge",
    "usr/lib/podman/netavark",
    "usr/sbin/dockerd",
    "usr/sbin/iptables",
];

/// What dpkg would make links for by way of its alternatives.
const ALTERNATIVES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Whether the tree is there.
pub(super) fn is_here() -> bool {
    let root = unpack::root(SUITE);
    FILES.iter().all(|file| is_executable(&root.join(file)))
}

/// A mirror of Debian among apt's sources.
pub(super) fn mirror() -> Option<String> {
    apt::is_here().then(apt::debian_mirror)?
}

/// Unpacks the tree.
pub(super) fn make(mirror: &str) -> Result<()> {
    unpack::make(SUITE, |tree| {
        let private = tree.join("apt");
        let files = apt::download_of_suite(mirror, SUITE, &PACKAGES, &private)?;
        for dir in ["bin", "sbin", "lib", "lib64"] {
            unpack::create(&tree.join("usr").join(dir))?;
            link(&Path::new("usr").join(dir), &tree.join(dir))?;
        }
        unpack::extract(&files, tree)?;
        unpack::remove(&private)?;
        for name in ALTERNATIVES {
            let (family, rest) =
                name.split_once('-').map_or((name, String::new()), |(f, r)| (f, format!("-{r}")));
            link(Path::new(&format!("{family}-nft{rest}")), &tree.join("usr/sbin").join(name))?;
        }
        let lacking: Vec<_> = FILES.iter().filter(|file| !is_executable(&tree.join(file))).copied().collect();
        anyhow::ensure!(
            lacking.is_empty(),
            "the packages of {SUITE} have not brought {}",
            lacking.join(", ")
        );
        Ok(())
    })
}

fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::symlink_metadata(at).is_ok() {
        return Ok(());
    }
    symlink(to, at).with_context(|| format!("link {}", at.display()))
}
