//! Compilers that can build `core` for BPF: rustup's nightlies and Debian's own.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::{self, find, is_executable, output};

/// The nightly that rustup is asked for. A fixed day: the linker's LLVM must be at least as new as the
/// compiler's, and a nightly that moves outruns it.
pub(super) const NIGHTLY: &str = "nightly-2026-05-20";

/// The oldest release, as (major, minor), that compiles the workspace: its `rust-version`.
pub(super) const OLDEST: (u32, u32) = (1, 88);

/// A compiler with the source of its standard library, and its cargo.
pub(crate) struct Compiler {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    pub(super) nightly: bool,
    /// Major version of its LLVM.
    pub(super) llvm: u32,
    release: String,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} with LLVM {} ({})", self.release, self.llvm, self.rustc.display())
    }
}

/// Every usable compiler, the preferred first.
pub(super) fn all() -> impl Iterator<Item = Compiler> {
    [NIGHTLY, "nightly"].into_iter().filter_map(rustup).chain(debian())
}

/// The compiler of a toolchain that rustup has installed.
fn rustup(toolchain: &str) -> Option<Compiler> {
    find("rustup")?;
    let mut rustc = Command::new("rustup");
    rustc.args(["run", toolchain, "rustc", "--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0");
    let sysroot = PathBuf::from(output(&mut rustc).ok()?.trim());
    check(sysroot.join("bin/rustc"), sysroot.join("bin/cargo"), &sysroot)
}

/// Debian's compiler. Named by its path: rustup's proxies usually come first on `PATH`.
fn debian() -> Option<Compiler> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
    check(rustc, "/usr/bin/cargo".into(), Path::new(sysroot.trim()))
}

fn check(rustc: PathBuf, cargo: PathBuf, sysroot: &Path) -> Option<Compiler> {
    let core = sysroot.join("lib/rustlib/src/rust/library/core");
    if !is_executable(&cargo) || !core.is_dir() {
        return None;
    }
    let version = output(Command::new(&rustc).arg("-vV")).ok()?;
    let field = |name| version.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?;
    if major_minor(release)? < OLDEST {
        return None;
    }
    let (llvm, _) = major_minor(field("LLVM version: ")?)?;
    Some(Compiler { cargo, rustc, nightly: release.ends_with("-nightly"), llvm, release: release.into() })
}

/// The first two numbers of a version.
pub(super) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+', '~']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The cargo that builds tools for the host: the one that runs this task.
pub(super) fn host_cargo() -> Command {
    let mut cargo = command::cargo();
    // A tool is built with the settings that it ships with, not with this workspace's.
    cargo.current_dir(env::temp_dir());
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("1.101.0-nightly"), Some((1, 101)));
        assert_eq!(major_minor("22.1.8"), Some((22, 1)));
        assert!(major_minor("1.101.0") > major_minor("1.88.0"));
        assert_eq!(major_minor("unknown"), None);
    }
}
