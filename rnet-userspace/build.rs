//! Puts the datapath's object where the crate embeds it from: `$OUT_DIR/datapath.o`.
//!
//! It is the file that `RNET_BPF_OBJECT` names or, without that, the one that `cargo xtask build` leaves in
//! `target/bpf`. Without either the crate gets an empty object, so that everything but loading it works without
//! the BPF toolchain.

#![allow(clippy::print_stdout, reason = "cargo reads a build script's wishes from its output")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

const VARIABLE: &str = "RNET_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // An empty variable is as good as none.
    let object = match env::var_os(VARIABLE).filter(|file| !file.is_empty()) {
        Some(file) => read_named(Path::new(&file)),
        None => read_built(&directory("CARGO_MANIFEST_DIR").join("../target/bpf/datapath.o")),
    };
    let place = directory("OUT_DIR").join("datapath.o");
    if let Err(error) = fs::write(&place, object) {
        fail(&format!("write {}: {error}", place.display()));
    }
}

/// The object that somebody names must be there.
fn read_named(file: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", file.display());
    match fs::read(file) {
        Ok(object) => object,
        Err(error) => fail(&format!("read {}, which {VARIABLE} names: {error}", file.display())),
    }
}

/// The object of `cargo xtask build`, empty when it has not been built.
fn read_built(file: &Path) -> Vec<u8> {
    // Cargo takes a watched file that is missing for changed on every run: an empty one stands in. Where it
    // can't be made, nothing is watched.
    if !file.exists() {
        let made = file.parent().is_some_and(|dir| fs::create_dir_all(dir).is_ok());
        if !made || stand_in(file).is_err() {
            return Vec::new();
        }
    }
    println!("cargo::rerun-if-changed={}", file.display());
    fs::read(file).unwrap_or_default()
}

/// Makes an empty file that is as old as can be: cargo runs a build script again for what is newer than its last
/// run began.
fn stand_in(file: &Path) -> std::io::Result<()> {
    fs::File::create(file)?.set_modified(SystemTime::UNIX_EPOCH)
}

/// A directory that cargo names to every build script.
fn directory(variable: &str) -> PathBuf {
    env::var_os(variable)
        .map_or_else(|| fail(&format!("{variable} is not set: run this through cargo")), PathBuf::from)
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
