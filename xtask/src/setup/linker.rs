//! bpf-linker: links the datapath's bitcode into one BPF object, with an LLVM of its own.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::compiler::host_cargo;
use crate::command::{find_all, is_executable, output, workspace};

/// The release that is built when there is none.
pub(super) const VERSION: &str = "0.13.0";
/// Major version of the LLVM that it is built with.
pub(super) const LLVM: u32 = 22;

/// A bpf-linker.
pub(super) struct Linker {
    pub(super) file: PathBuf,
    /// Major version of its LLVM.
    pub(super) llvm: u32,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker with LLVM {} ({})", self.llvm, self.file.display())
    }
}

/// Every bpf-linker that starts, the workspace's own first.
pub(super) fn all() -> impl Iterator<Item = Linker> {
    let own = root().join("bin/bpf-linker");
    let own = is_executable(&own).then_some(own);
    own.into_iter().chain(find_all("bpf-linker")).filter_map(|file| {
        output(Command::new(&file).arg("--version")).ok()?;
        let llvm = llvm_of(&fs::read(&file).ok()?)?;
        Some(Linker { file, llvm })
    })
}

/// Builds the linker with the LLVM whose `llvm-config` lies in [`llvm_dir`].
pub(super) fn build() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    // The linker takes the LLVM of the first llvm-config on PATH.
    let path = env::join_paths([llvm_dir()].into_iter().chain(env::split_paths(&path)))
        .context("put LLVM's directory on PATH")?;
    let mut cargo = host_cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(root())
        .env("PATH", path);
    output(&mut cargo).map(drop)
}

/// Where Debian's packages put the LLVM that the linker is built with.
pub(super) fn llvm_dir() -> PathBuf {
    format!("/usr/lib/llvm-{LLVM}/bin").into()
}

/// Whether that LLVM is there, with what building against it needs.
pub(super) fn llvm_is_here() -> bool {
    let headers = Path::new("/usr/lib").join(format!("llvm-{LLVM}/include/llvm-c/Core.h"));
    is_executable(&llvm_dir().join("llvm-config")) && headers.exists()
}

/// Where it is installed: nothing outside the workspace is touched.
fn root() -> PathBuf {
    workspace().join("target/tools")
}

/// Major version of the LLVM inside a linker, which does not tell it: the name of the shared library that it
/// loads or, with LLVM linked in, the text that LLVM prints about bitcode it can't read.
fn llvm_of(binary: &[u8]) -> Option<u32> {
    [&b"libLLVM.so."[..], b"libLLVM-", b"Reader: 'LLVM "].into_iter().find_map(|before| {
        binary.windows(before.len()).enumerate().filter(|(_, text)| *text == before).find_map(|(at, _)| {
            let digits: Vec<_> =
                binary[at + before.len()..].iter().copied().take_while(u8::is_ascii_digit).collect();
            String::from_utf8(digits).ok()?.parse().ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_binary() {
        assert_eq!(llvm_of(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(llvm_of(b"\0libLLVM-21.so.1\0"), Some(21));
        assert_eq!(llvm_of(b"libLLVM.so.\0' Reader: 'LLVM 23.1.4')"), Some(23));
        assert_eq!(llvm_of(b"\0libc.so.6\0"), None);
    }
}
