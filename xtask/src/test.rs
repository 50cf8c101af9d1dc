//! The tests, level by level. A level that fails does not keep the next from running.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    build::{self, Built},
    command::{cargo, exec, line, workspace},
    dist::{self, Packages},
    progress::{heading, note},
    root, setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Which tests.
    #[arg(value_enum, default_value_t = Level::All)]
    level: Level,
    /// Arguments for the tests' own runner, such as a part of a test's name.
    #[arg(last = true)]
    args: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// What needs neither root nor a kernel's favour.
    Host,
    /// Each eBPF program by itself, through BPF_PROG_TEST_RUN.
    Datapath,
    /// The built binary, in network namespaces with real traffic.
    E2e,
    /// Container engines as the tests run them, by themselves.
    Engines,
    /// The packages: made twice, installed, used and removed on a fresh Debian.
    Dist,
    /// All of them.
    All,
}

impl Level {
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::All
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut failed = false;
    let mut level = |name: &str, work: &mut dyn FnMut() -> Result<()>| {
        heading(name);
        if let Err(error) = work() {
            note(format_args!("{name}: {error:#}"));
            failed = true;
        }
    };
    if options.level != Level::Host {
        setup::test_tools()?;
    }
    if options.level != Level::Dist {
        let built = build::run(&build::Options::default())?;
        if options.level.includes(Level::Host) {
            level("host tests", &mut || host(&options.args));
        }
        for (test, included) in [
            ("datapath", options.level.includes(Level::Datapath)),
            ("testbed", options.level.includes(Level::E2e)),
            ("e2e", options.level.includes(Level::E2e)),
            ("engines", options.level.includes(Level::Engines)),
        ] {
            if included {
                level(&format!("{test} tests"), &mut || in_kernel(test, &built, &options.args, &[]));
            }
        }
    }
    if options.level.includes(Level::Dist) {
        level("packages", &mut || packages(&options.args));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Makes the packages, sees that they come out the same once more, and tests them.
fn packages(args: &[OsString]) -> Result<()> {
    setup::package_tools()?;
    let sums = |packages: &Packages| {
        let sums = packages.dir.join("SHA256SUMS");
        fs::read_to_string(&sums).with_context(|| format!("read {}", sums.display()))
    };
    let first = sums(&dist::run()?)?;
    let packages = dist::run()?;
    let second = sums(&packages)?;
    if first != second {
        bail!("one tree has made different packages:\n{first}{second}");
    }
    let built = Built { rnet: packages.rnet, object: packages.object };
    in_kernel(
        "dist",
        &built,
        args,
        &[("RNET_DIST", packages.dir.as_os_str()), ("RNET_DEBIAN", setup::debian::archive().as_os_str())],
    )
}

fn host(args: &[OsString]) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--no-fail-fast"]);
    for package in ["rnet-common", "rnet-userspace", "xtask"] {
        test.args(["--package", package]);
    }
    exec(test.arg("--").args(args))
}

/// Runs one of the tests that need root: built as the user, run as root.
pub(crate) fn in_kernel(
    test: &str,
    built: &Built,
    args: &[OsString],
    variables: &[(&str, &OsStr)],
) -> Result<()> {
    let executable = executable(test)?;
    let package = workspace().join("tests");
    let mut command = root::as_root(executable, "these tests make network namespaces and load BPF programs")?;
    command
        .args(args)
        .current_dir(&package)
        .env("CARGO_MANIFEST_DIR", &package)
        .env("RNET_BIN", &built.rnet)
        .env("RNET_BPF_OBJECT", &built.object)
        .envs(variables.iter().copied());
    exec(&mut command)
}

/// Builds a test and tells where its executable is.
pub(crate) fn executable(test: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["test", "--package", "rnet-tests", "--lib", "--tests", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    let output = run_piped(&mut build)?;
    executable_in(&output, test).with_context(|| format!("`{}` built no test {test}", line(&build)))
}

/// Runs a command and returns what it prints.
pub(crate) fn run_piped(command: &mut Command) -> Result<String> {
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = output.with_context(|| format!("run `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The executable of this name among what cargo says that it has built.
pub(crate) fn executable_in(messages: &str, test: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == test)
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_one_of_the_test_asked_for() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"testbed"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"testbed"},"executable":"/t/testbed-1"}
{"reason":"compiler-artifact","target":{"name":"datapath"},"executable":"/t/datapath-1"}
{"reason":"compiler-artifact","target":{"name":"e2e"},"executable":"/t/e2e-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable_in(messages, "e2e"), Some("/t/e2e-1".into()));
        assert_eq!(executable_in(messages, "testbed"), Some("/t/testbed-1".into()));
        assert_eq!(executable_in(messages, "compat"), None);
    }
}
