//! The tools that building and testing need: found, or installed after saying what will be.

mod apt;
mod compiler;
pub(crate) mod debian;
mod emulator;
mod engines;
mod install;
mod kernels;
mod linker;
mod trixie;
mod unpack;

use std::{env, ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use clap::Args;

pub(crate) use self::{compiler::Compiler, emulator::Emulator, kernels::Kernel};
use crate::{
    command::{find, workspace},
    progress::{heading, note, step},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Also the tools that the tests use.
    #[arg(long)]
    tests: bool,
}

/// A program of a Debian package.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the demonstration builds its namespaces with.
const DEMONSTRATION: [Tool; 1] = [Tool { program: "ip", package: "iproute2" }];

/// What the tests build, disturb and look at hosts with.
const TESTS: [Tool; 8] = [
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "iptables", package: "iptables" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "bpftool", package: "bpftool" },
    Tool { program: "ping", package: "iputils-ping" },
    Tool { program: "pgrep", package: "procps" },
];

/// What compiles libFuzzer.
const FUZZING: [Tool; 1] = [Tool { program: "c++", package: "g++" }];

/// What the packages are installed and looked at with.
const PACKAGES: [Tool; 2] = [
    Tool { program: "mmdebstrap", package: "mmdebstrap" },
    Tool { program: "systemd-analyze", package: "systemd" },
];

/// What compiles and links the datapath.
pub(crate) struct BpfToolchain {
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its compiler.
    pub(crate) rustc: PathBuf,
    /// It is a stable one, which takes the unstable flags that building `core` needs only when told to.
    pub(crate) bootstrap: bool,
    /// `PATH` with the linker first.
    pub(crate) path: OsString,
    summary: String,
}

impl BpfToolchain {
    /// Its cargo, in the workspace's directory, free of what the cargo that runs this task has set.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(workspace()).env("RUSTC", &self.rustc).env("PATH", &self.path);
        for inherited in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(inherited);
        }
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// Makes everything ready and says what was found.
pub(crate) fn run(options: &Options) -> Result<()> {
    let bpf = bpf_toolchain()?;
    heading("everything needed is here");
    note(&bpf.summary);
    if options.tests {
        test_tools()?;
        package_tools()?;
        fuzz_tools()?;
        let tools: Vec<_> = TESTS.iter().chain(&PACKAGES).chain(&FUZZING).map(|tool| tool.program).collect();
        note(format_args!("tests: {}; Docker, Podman and containerd", tools.join(", ")));
    }
    Ok(())
}

/// The toolchain of the datapath, installed first when it is missing.
pub(crate) fn bpf_toolchain() -> Result<BpfToolchain> {
    match found() {
        Some(toolchain) => Ok(toolchain),
        None => install::bpf_toolchain(),
    }
}

/// Makes sure of the tests' tools.
pub(crate) fn test_tools() -> Result<()> {
    called_tools()?;
    if !engines::missing().is_empty() {
        step("unpacking container engines into target/tools", engines::make)?;
    }
    if trixie::is_here() {
        return Ok(());
    }
    match trixie::mirror() {
        Some(mirror) => {
            step("unpacking Debian 13's container engines into target/tools", || trixie::make(&mirror))
        }
        None => {
            note("apt names no mirror of Debian: tests of Debian 13's container engines can't run");
            Ok(())
        }
    }
}

/// Makes sure of what the tests of the packages use.
pub(crate) fn package_tools() -> Result<()> {
    tools(&PACKAGES, "the tests of the packages use")?;
    if debian::archive().is_file() {
        return Ok(());
    }
    step("installing Debian 12 into target/tools/debian-12.tar", debian::make)
}

/// Makes sure of the tools that the tests call by name.
pub(crate) fn called_tools() -> Result<()> {
    tools(&TESTS, "the tests use")
}

/// Makes sure of what fuzzing guided by coverage is built with.
pub(crate) fn fuzz_tools() -> Result<()> {
    tools(&FUZZING, "fuzzing uses")
}

/// Makes sure of the emulator.
pub(crate) fn emulator() -> Result<Emulator> {
    match emulator::find() {
        Some(emulator) => Ok(emulator),
        None => step("unpacking Debian 13's qemu into target/tools", || emulator::make(&mirror()?)),
    }
}

/// Makes sure of a kernel: that of a release of Debian.
pub(crate) fn kernel(suite: &str, emulator: &Emulator) -> Result<Kernel> {
    match kernels::find(suite) {
        Some(kernel) => Ok(kernel),
        None => step(format_args!("unpacking the kernel of Debian's {suite} into target/tools"), || {
            kernels::make(&mirror()?, suite, emulator)
        }),
    }
}

fn mirror() -> Result<String> {
    trixie::mirror().context("apt names no mirror of Debian, from which qemu and kernels are taken")
}

/// Makes sure of the demonstration's tools.
pub(crate) fn demonstration_tools() -> Result<()> {
    tools(&DEMONSTRATION, "the demonstration builds its namespaces with")
}

/// The first compiler for which there is a linker that reads what it writes.
fn found() -> Option<BpfToolchain> {
    let linkers: Vec<_> = linker::all().collect();
    compiler::all().find_map(|compiler| {
        let linker = linkers.iter().find(|linker| linker.llvm >= compiler.llvm)?;
        Some(toolchain(&compiler, linker))
    })
}

fn toolchain(compiler: &Compiler, linker: &linker::Linker) -> BpfToolchain {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let dirs = linker.file.parent().map(PathBuf::from).into_iter().chain(env::split_paths(&inherited));
    BpfToolchain {
        cargo: compiler.cargo.clone(),
        rustc: compiler.rustc.clone(),
        bootstrap: !compiler.nightly,
        // No directory on PATH holds a colon, and the linker's was either on it or is cargo's to choose.
        path: env::join_paths(dirs).unwrap_or(inherited),
        summary: format!("datapath: {compiler}; {linker}"),
    }
}

fn tools(needed: &[Tool], why: &str) -> Result<()> {
    let missing: Vec<_> = needed.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ");
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    if !apt::is_here() {
        anyhow::bail!("{why} {names}, which this machine lacks: install them with its package manager");
    }
    step(format_args!("installing what {why}: {}", packages.join(" ")), || apt::install(&packages))
}
