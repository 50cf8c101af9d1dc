//! The commands of the program under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Container, Netns,
    process::{self, Finished},
};

/// How long a command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The built `rnet`: `$RNET_BIN`, else the one beside this test's own executable, else in the workspace's target
/// directory.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RNET_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "RNET_BIN={}: no such file", path.display());
        return path;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    // target/debug/deps/e2e-0123456789abcdef
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("rnet")));
    let candidates = beside.into_iter().chain(["debug/rnet", "release/rnet"].map(|p| target.join(p)));
    candidates.into_iter().find(|p| p.is_file()).unwrap_or_else(|| {
        panic!("no rnet binary: build it with `cargo xtask build`, or name it in RNET_BIN")
    })
}

/// Commands for one instance on one host.
#[derive(Clone, Copy, Debug)]
pub struct Commands<'r> {
    ns: &'r Netns,
    instance: &'r str,
}

impl<'r> Commands<'r> {
    /// For the instance of this name, in this namespace.
    pub(crate) fn new(ns: &'r Netns, instance: &'r str) -> Self {
        Self { ns, instance }
    }

    /// `rnet ARGS`, to be run in the host's namespace.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ns.command(binary());
        // Nothing of the caller's own configuration.
        command.env_remove("RNET_FAIL_AT").env_remove("RNET_KILL_AT").env_remove("RNET_INSTANCE");
        command.arg("--instance").arg(self.instance).args(args);
        command
    }

    /// Runs a command to its end.
    pub fn cmd(&self, args: &[&str]) -> Finished {
        process::run(self.command(args), COMMAND_LIMIT)
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        self.cmd(args).assert_ok(&format!("rnet {}", args.join(" "))).stdout
    }

    /// Runs a container without a process: `run -d --name NAME ARGS`.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, name: &str, args: &[&str]) -> Container {
        self.ok(&[&["run", "-d", "--name", name], args].concat());
        self.container(name)
    }

    /// A container that runs.
    ///
    /// # Panics
    /// When it has no namespace, or no IPv4 address on `eth0`.
    pub fn container(&self, name: &str) -> Container {
        let path = Path::new("/run/netns").join(format!("{}-{name}", self.instance));
        Container::of(name, self.ns.run(|| Netns::open(path)))
    }
}

/// Checks that a command was refused as rnet refuses, and returns its one line.
///
/// # Panics
/// When it was not.
pub fn assert_refused(what: &str, finished: &Finished) -> String {
    let Finished { status, stdout, stderr } = finished;
    assert_eq!(status.code(), Some(1), "{what} is to be refused: {stdout}{stderr}");
    assert_eq!(stdout, "", "{what} is refused and prints nothing but why");
    let line = stderr.trim_end();
    assert!(!line.is_empty() && !line.contains('\n'), "{what} is refused with one line, not:\n{stderr}");
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(script: &str) -> Finished {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        process::run(command, Duration::from_secs(10))
    }

    #[test]
    fn a_refusal_is_one_line_and_status_1() {
        assert_eq!(assert_refused("x", &finished("echo no such network >&2; exit 1")), "no such network");
    }

    #[test]
    #[should_panic(expected = "with one line")]
    fn a_refusal_of_two_lines_is_none() {
        assert_refused("x", &finished("echo a >&2; echo b >&2; exit 1"));
    }

    #[test]
    #[should_panic(expected = "is to be refused")]
    fn wrong_usage_is_no_refusal() {
        assert_refused("x", &finished("echo usage >&2; exit 2"));
    }
}
