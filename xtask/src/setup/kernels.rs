//! Debian's kernels for clouds, of one release of Debian each: small, and built as those that most hosts run. Their
//! packages are unpacked, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{apt, emulator::Emulator, unpack};
use crate::command::output;

/// Which always depends on the release's newest.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Packages with something of a kernel in them: Linux 7 is spread over several.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// What `uname -r` will say.
    pub(crate) release: String,
    /// What is booted.
    pub(crate) image: PathBuf,
    /// The directory of its modules, with what modprobe(8) reads there.
    pub(crate) modules: PathBuf,
}

/// Whether the kernel of this release of Debian is there.
pub(super) fn find(suite: &str) -> Option<Kernel> {
    let tree = unpack::root(&name(suite));
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| tree.join(dir));
    let (modules, release) = modules.iter().find_map(|dir| {
        let release = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Some((dir, release.max()?))
    })?;
    let modules = modules.join(&release);
    let images = [tree.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    Some(Kernel { image: images.into_iter().find(|file| file.is_file())?, release, modules })
}

/// Unpacks the kernel of a release of Debian.
pub(super) fn make(mirror: &str, suite: &str, emulator: &Emulator) -> Result<Kernel> {
    unpack::make(&name(suite), |tree| {
        let private = tree.join("apt");
        let packages = apt::Suite::open(mirror, suite, &private)?;
        let parts: Vec<_> = packages.closure(PACKAGE)?.into_iter().filter(|name| is_part(name)).collect();
        unpack::extract(&packages.download(&parts)?, tree)?;
        unpack::remove(&private)?;
        let Some(base) =
            ["", "usr"].map(|dir| tree.join(dir)).into_iter().find(|dir| dir.join("lib/modules").is_dir())
        else {
            anyhow::bail!("{} of {suite} have brought no modules", parts.join(", "));
        };
        index(&base, emulator)
    })?;
    find(suite).with_context(|| format!("the packages of {suite} have brought no kernel"))
}

/// Writes down what modules depend on and are known as, as the packages' scripts would.
fn index(base: &Path, emulator: &Emulator) -> Result<()> {
    let modules = base.join("lib/modules");
    let releases = fs::read_dir(&modules).with_context(|| format!("look into {}", modules.display()))?;
    for release in releases.filter_map(|entry| Some(entry.ok()?.file_name())) {
        let mut depmod = Command::new(emulator.busybox());
        output(depmod.arg("depmod").arg("-b").arg(base).arg(release))?;
    }
    Ok(())
}

/// The meta package's name has no number.
fn is_part(package: &str) -> bool {
    PARTS.iter().any(|part| {
        package.strip_prefix(part).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn name(suite: &str) -> String {
    format!("linux-{suite}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_something_of_a_kernel_is_told_by_its_name() {
        for part in ["linux-image-6.1.0-50-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"] {
            assert!(is_part(part), "{part}");
        }
        for other in [PACKAGE, "linux-base", "linux-base-7.2.13+deb14-cloud-amd64", "kmod"] {
            assert!(!is_part(other), "{other}");
        }
    }
}
