//! Builds both halves: the datapath with the BPF toolchain, then the binary that embeds it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    command::{cargo, exec, workspace},
    progress::step,
    setup::{self, BpfToolchain},
};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Optimise the binary, too; the datapath always is.
    #[arg(long)]
    pub(crate) release: bool,
}

/// What was built.
pub(crate) struct Built {
    /// The binary.
    pub(crate) rnet: PathBuf,
    /// The BPF object that is in it.
    pub(crate) object: PathBuf,
}

/// `debuginfo` and `--btf` give the object its BTF. Unless it is told otherwise the linker has LLVM call `memset`, which
/// writes byte by byte, for every structure that is zeroed. Always the same flags: others would build `core` again.
const BPF_FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order";

pub(crate) fn run(options: &Options) -> Result<Built> {
    let object = object()?;
    let rnet = step("building rnet", || {
        let mut build = cargo();
        build.args(["build", "--package", "rnet-userspace"]);
        if options.release {
            build.arg("--release");
        }
        exec(&mut build)?;
        Ok(target_dir().join(if options.release { "release" } else { "debug" }).join("rnet"))
    })?;
    Ok(Built { rnet, object })
}

/// Builds the datapath, and puts it where the binary takes it from.
pub(crate) fn object() -> Result<PathBuf> {
    let toolchain = setup::bpf_toolchain()?;
    step("building the datapath (eBPF)", || {
        exec(&mut datapath(&toolchain))?;
        place_object()
    })
}

/// The command that builds the datapath.
pub(crate) fn datapath(toolchain: &BpfToolchain) -> Command {
    let mut build = toolchain.cargo();
    build
        .args(["build", "--package", "rnet-ebpf", "--release", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(bpf_dir())
        .env("RUSTFLAGS", BPF_FLAGS);
    build
}

/// Puts the object where `rnet-userspace/build.rs` looks for it. The file is left alone when it is the same, so
/// that nothing is built again for it.
fn place_object() -> Result<PathBuf> {
    let built = bpf_dir().join("bpfel-unknown-none/release/datapath");
    let object = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let place = bpf_dir().join("datapath.o");
    if fs::read(&place).ok().as_deref() != Some(object.as_slice()) {
        fs::write(&place, object).with_context(|| format!("write {}", place.display()))?;
    }
    Ok(place)
}

/// The datapath's own target directory: another compiler with other flags in the host's would have each build
/// undo the other's.
fn bpf_dir() -> PathBuf {
    workspace().join("target/bpf")
}

/// The host's target directory.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(Path::new(&dir)),
        None => workspace().join("target"),
    }
}
