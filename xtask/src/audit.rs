//! What the program is made of: licences, sources and banned crates of all dependencies, and security advisories about them,
//! by `cargo deny` and `deny.toml`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    command::{cargo, exec, workspace},
    progress::step,
};

/// What reads this version's `deny.toml`.
const VERSION: &str = "0.20.2";
/// Where cargo-deny looks for the database of `deny.toml`'s `db-urls`, below its `db-path`: the digits are a digest of the URL.
const DATABASE: &str = "target/tools/advisory-dbs/advisory-db-3157b0e258782691";

#[derive(Args)]
pub(crate) struct Options {
    /// A repository to take the advisories from, such as a copy of https://github.com/rustsec/advisory-db; without one they
    /// are left out.
    #[arg(long, value_name = "REPOSITORY")]
    advisories: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tool = workspace().join("target/tools/cargo-deny");
    let deny = tool.join("bin/cargo-deny");
    if !deny.is_file() {
        step("installing cargo-deny", || {
            let mut install = cargo();
            install.args(["install", "--locked", "--quiet", "cargo-deny", "--version", VERSION]);
            exec(install.arg("--root").arg(&tool))
        })?;
    }
    let check = |what: &[&str]| {
        let mut check = std::process::Command::new(&deny);
        check.current_dir(workspace()).args(["--offline", "--log-level", "error", "check"]).args(what);
        exec(&mut check)
    };
    step("licences, banned crates and sources", || check(&["licenses", "bans", "sources"]))?;
    let Some(repository) = &options.advisories else { return Ok(()) };
    step("advisories", || {
        let database = workspace().join(DATABASE);
        if database.exists() {
            std::fs::remove_dir_all(&database).with_context(|| format!("remove {}", database.display()))?;
        }
        let mut clone = std::process::Command::new("git");
        exec(clone.args(["clone", "--quiet"]).arg(repository).arg(&database))?;
        // Its age is what FETCH_HEAD says, which a clone has none of.
        let mut fetch = std::process::Command::new("git");
        exec(fetch.arg("-C").arg(&database).args(["fetch", "--quiet", "origin", "HEAD"]))?;
        check(&["advisories"])
    })
}
