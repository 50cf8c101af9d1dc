//! Debian's package.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{
    packaging,
    payload::{Payload, Prefix},
    read,
    release::Release,
    tree::Tree,
};
use crate::command::{find, output};

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Where container engines look for network plugins, and for where Docker's are reached.
const CNI: [(&str, &str); 2] =
    [("usr/lib/cni/rnet", "../../bin/rnet"), ("opt/cni/bin/rnet", "/usr/bin/rnet")];
const DOCKER: &str = "etc/docker/plugins/rnet.spec";

/// Makes it out of an empty tree, and tells its name.
pub(super) fn make(payload: &Payload, release: &Release, tree: Tree, dir: &Path) -> Result<String> {
    if find("dpkg-deb").is_none() {
        bail!("making Debian's package takes dpkg-deb, which this machine lacks: install dpkg");
    }
    payload.place(&tree, "usr", Prefix::Distribution)?;
    for (place, to) in CNI {
        tree.link(place, to)?;
    }
    tree.file(DOCKER, read(&packaging("docker-plugin.spec"))?)?;
    tree.file("usr/share/doc/rnet/copyright", read(&packaging("debian/copyright"))?)?;
    tree.compressed("usr/share/doc/rnet/changelog.Debian", read(&packaging("debian/changelog"))?)?;
    tree.file("usr/share/lintian/overrides/rnet", read(&packaging("debian/lintian-overrides"))?)?;
    describe(&tree, release)?;
    tree.open_directories()?;

    let name = format!("rnet_{}_{}.deb", release.debian_version, release.architecture);
    // The number of threads would show in the archive; versions of dpkg without the variable use one.
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group", "-Zxz"]).arg(tree.root()).arg(dir.join(&name));
    build.env("SOURCE_DATE_EPOCH", &release.time).env("DPKG_DEB_THREADS_MAX", "1");
    output(&mut build)?;
    Ok(name)
}

/// Writes what dpkg reads of the package.
fn describe(tree: &Tree, release: &Release) -> Result<()> {
    let files = tree.list("f")?;
    let size = installed_size(tree, &files)?;
    let sums = output(Command::new("md5sum").args(&files).current_dir(tree.root()))?;
    let control = read(&packaging("debian/control"))?
        .replace("@VERSION@", &release.debian_version)
        .replace("@ARCHITECTURE@", release.architecture)
        .replace("@INSTALLED_SIZE@", &size.to_string());
    tree.file("DEBIAN/control", control)?;
    tree.file("DEBIAN/md5sums", sums)?;
    tree.file("DEBIAN/conffiles", format!("/{DOCKER}\n"))?;
    for script in SCRIPTS {
        tree.program(&format!("DEBIAN/{script}"), read(&packaging(&format!("debian/{script}")))?)?;
    }
    Ok(())
}

/// In KiB, as Debian's policy has it: each file rounded up, and one for each directory and link.
fn installed_size(tree: &Tree, files: &[String]) -> Result<u64> {
    let mut size = tree.list("d,l")?.len() as u64;
    for file in files {
        let metadata = tree.root().join(file).metadata().with_context(|| format!("look at {file}"))?;
        size += metadata.len().div_ceil(1024);
    }
    Ok(size)
}
