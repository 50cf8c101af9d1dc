//! Puts the datapath's object where the crate embeds it from: `$OUT_DIR/datapath.o`.
//!
//! It is the file that `RNET_BPF_OBJECT` names or, without that, the one that `cargo xtask build` leaves in
//! `target/bpf`. Without either the crate gets an empty object, so that everything but loading it works without
//! the BPF toolchain.
//!
//! Also names the commit that an optimised binary is built from: `RNET_COMMIT`, and `RNET_VERSION` with it.

#![allow(clippy::print_stdout, reason = "cargo reads a build script's wishes from its output")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

const VARIABLE: &str = "RNET_BPF_OBJECT";
/// What of the workspace becomes part of the binary.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "rnet-common", "rnet-ebpf", "rnet-userspace"];

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
    name_commit();
}

/// Tells the crate which commit it is built from: nothing outside git, and nothing in builds that are not optimised,
/// which would all be built again for each commit.
fn name_commit() {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_optimised = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_optimised { Commit::of(&directory("CARGO_MANIFEST_DIR").join("..")) } else { None };
    let (name, version) = match commit {
        Some(Commit { name, date }) => (name.clone(), format!("{version} ({name}, {date})")),
        None => (String::new(), version),
    };
    println!("cargo::rustc-env=RNET_COMMIT={name}");
    println!("cargo::rustc-env=RNET_VERSION={version}");
}

/// What is checked out.
struct Commit {
    /// Its abbreviated id, with `-dirty` where the sources differ from it.
    name: String,
    /// When it was made, in UTC: the same for whoever builds it, and whenever.
    date: String,
}

impl Commit {
    fn of(workspace: &Path) -> Option<Self> {
        // An unpacked archive may lie within a repository of somebody else's.
        let top = PathBuf::from(git(workspace, &["rev-parse", "--show-toplevel"])?);
        if top.canonicalize().ok()? != workspace.canonicalize().ok()? {
            return None;
        }
        let id = git(workspace, &["rev-parse", "--short=10", "HEAD"])?;
        let date = git(workspace, &["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d"])?;
        let changes = [&["status", "--porcelain", "--"], &SOURCES[..]].concat();
        let mark = if git(workspace, &changes)?.is_empty() { "" } else { "-dirty" };
        // The log of HEAD grows with each commit, whichever file the branch is kept in.
        for file in ["HEAD", "logs/HEAD"] {
            let file = workspace.join(git(workspace, &["rev-parse", "--git-path", file])?);
            if file.exists() {
                println!("cargo::rerun-if-changed={}", file.display());
            }
        }
        for source in SOURCES {
            println!("cargo::rerun-if-changed={}", workspace.join(source).display());
        }
        Some(Self { name: format!("{id}{mark}"), date })
    }
}

/// What git prints; nothing where there is no git, or it refuses.
fn git(workspace: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(workspace).env("TZ", "UTC").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
