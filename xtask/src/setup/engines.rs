//! The container engines that the tests run, and Docker's client. What is missing is unpacked beside the other tools
//! rather than installed: Debian's packages enable and start the daemons that they bring.

use std::path::Path;

use anyhow::{Result, bail};

use super::{apt, unpack};
use crate::command::{find, is_executable};

const NAME: &str = "engines";

/// What the tests start, or what is started by that.
const PROGRAMS: [&str; 11] = [
    "docker",
    "dockerd",
    "docker-proxy",
    "docker-init",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "podman",
    "conmon",
    "busybox",
];

/// CNI's own plugins that the tests configure.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Where distributions and CNI's own releases put the plugins.
const PLUGIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

const PACKAGES: [&str; 8] = [
    "docker.io",
    "containerd",
    "runc",
    "tini",
    "podman",
    "conmon",
    "containernetworking-plugins",
    "busybox-static",
];

/// Docker's client, where it is a package of its own.
const CLIENT: &str = "docker-cli";

/// What is neither installed nor unpacked.
pub(super) fn missing() -> Vec<&'static str> {
    let root = unpack::root(NAME);
    let unpacked = |name: &str| {
        ["usr/bin", "usr/sbin", "bin", "sbin"].iter().any(|dir| is_executable(&root.join(dir).join(name)))
    };
    let program = |name: &&str| find(name).is_none() && !unpacked(name);
    let plugin = |name: &&str| {
        let own = root.join("usr/lib/cni");
        !PLUGIN_DIRS.iter().map(Path::new).chain([own.as_path()]).any(|dir| is_executable(&dir.join(name)))
    };
    PROGRAMS.into_iter().filter(program).chain(PLUGINS.into_iter().filter(plugin)).collect()
}

/// Unpacks the packages, and those they depend on that this machine lacks.
pub(super) fn make() -> Result<()> {
    if !apt::is_here() {
        bail!(
            "the tests run container engines, and this machine lacks {}: install them",
            missing().join(", ")
        );
    }
    let mut wanted = PACKAGES.to_vec();
    if apt::candidate(CLIENT).is_some() {
        wanted.push(CLIENT);
    }
    unpack::make(NAME, |tree| {
        let packages = tree.join("packages");
        unpack::create(&packages)?;
        unpack::extract(&apt::download(&wanted, &packages)?, tree)?;
        unpack::remove(&packages)
    })?;
    let missing = missing();
    if !missing.is_empty() {
        bail!("the packages {} have not brought {}", wanted.join(", "), missing.join(", "));
    }
    Ok(())
}
