//! Installing the datapath's toolchain: first the compiler, then the linker.
//!
//! Debian's packages bring the compiler and the LLVM that the linker needs in one go; where they can't be had,
//! rustup brings the compiler, and the linker must be there or LLVM be at hand to build it.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{
    BpfToolchain, apt,
    compiler::{self, NIGHTLY, OLDEST, major_minor},
    found, linker,
};
use crate::{
    command::{find, output},
    progress::{note, step},
};

const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

pub(super) fn bpf_toolchain() -> Result<BpfToolchain> {
    // A compiler whose bitcode the linker that can be built here does not read is as good as none.
    if !compiler::all().any(|compiler| compiler.llvm <= linker::LLVM) {
        install_compiler().context(
            "compiling the datapath takes a Rust compiler that comes with its library's source, and none could be had",
        )?;
    }
    if found().is_none() {
        install_linker().context("linking the datapath takes bpf-linker, and it could not be had")?;
    }
    found().with_context(|| {
        let have: Vec<_> = compiler::all()
            .map(|compiler| compiler.to_string())
            .chain(linker::all().map(|linker| linker.to_string()))
            .collect();
        format!(
            "no compiler and bpf-linker fit together: the linker's LLVM must not be older than the compiler's; \
             there are: {}",
            have.join("; ")
        )
    })
}

fn install_compiler() -> Result<()> {
    let rustup = find("rustup").is_some();
    // With a linker at hand, rustup needs neither root nor a package.
    let linked = linker::all().any(|linker| linker.llvm >= linker::LLVM);
    if !(rustup && linked) && debian_offers_compiler()? {
        match install_debian_compiler() {
            Err(error) if rustup => note(format_args!("{error:#}; turning to rustup")),
            outcome => return outcome,
        }
    }
    if !rustup {
        bail!(
            "neither does apt offer {} {}.{} or later, nor is rustup here; install rustup (https://rustup.rs) and \
             run this again",
            DEBIAN_COMPILER[0],
            OLDEST.0,
            OLDEST.1
        );
    }
    step(format_args!("installing {NIGHTLY} with rust-src through rustup"), || {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
        output(rustup.arg("--no-self-update")).map(drop)
    })
}

fn debian_offers_compiler() -> Result<bool> {
    let offers = || {
        DEBIAN_COMPILER.iter().all(|package| {
            apt::candidate(package).and_then(|version| major_minor(&version)).is_some_and(|it| it >= OLDEST)
        })
    };
    if !apt::is_here() {
        return Ok(false);
    }
    if !offers() {
        step("refreshing apt's package lists", apt::update)?;
    }
    Ok(offers())
}

fn install_debian_compiler() -> Result<()> {
    let mut packages = DEBIAN_COMPILER.to_vec();
    let llvm = llvm_package();
    // One call to apt for everything is one question for a password.
    if !linker::llvm_is_here() && apt::candidate(&llvm).is_some() {
        packages.push(&llvm);
    }
    step(format_args!("installing Debian packages: {}", packages.join(" ")), || apt::install(&packages))
}

fn install_linker() -> Result<()> {
    let llvm = llvm_package();
    let mut packages = Vec::new();
    if !linker::llvm_is_here() {
        packages.push(llvm.as_str());
    }
    if find("c++").is_none() {
        packages.push("g++");
    }
    if !packages.is_empty() {
        let by_hand = format!(
            "install bpf-linker with LLVM {} or later (https://github.com/aya-rs/bpf-linker#installation) and run \
             this again",
            linker::LLVM
        );
        if !apt::is_here() {
            bail!("building it takes {}, and apt is not here; {by_hand}", packages.join(" and "));
        }
        step(format_args!("installing Debian packages: {}", packages.join(" ")), || apt::install(&packages))
            .context(by_hand)?;
    }
    step(
        format_args!("building bpf-linker {} into target/tools (a minute or two)", linker::VERSION),
        linker::build,
    )
}

fn llvm_package() -> String {
    format!("llvm-{}-dev", linker::LLVM)
}
