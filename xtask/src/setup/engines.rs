//! The container engines that the tests run, and Docker's client. What is missing is unpacked beside the other tools
//! rather than installed: Debian's packages enable and start the daemons that they bring.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::command::{find, is_executable, output, workspace};

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
    let root = root();
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
pub(super) fn unpack() -> Result<()> {
    if !apt::is_here() {
        bail!(
            "the tests run container engines, and this machine lacks {}: install them",
            missing().join(", ")
        );
    }
    let root = root();
    let unfinished = root.with_extension("unfinished");
    // What an interrupted run has left is not to be taken for the engines.
    for left in [&root, &unfinished] {
        match fs::remove_dir_all(left) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", left.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let packages = unfinished.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("create {}", packages.display()))?;
    let mut wanted = PACKAGES.to_vec();
    if apt::candidate(CLIENT).is_some() {
        wanted.push(CLIENT);
    }
    for file in apt::download(&wanted, &packages)? {
        output(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&unfinished))?;
    }
    fs::remove_dir_all(&packages).with_context(|| format!("remove {}", packages.display()))?;
    fs::rename(&unfinished, &root).with_context(|| format!("create {}", root.display()))?;
    let missing = missing();
    if !missing.is_empty() {
        bail!("the packages {} have not brought {}", wanted.join(", "), missing.join(", "));
    }
    Ok(())
}

/// Where they are unpacked: nothing outside the workspace is touched.
fn root() -> PathBuf {
    workspace().join("target/tools/engines")
}
