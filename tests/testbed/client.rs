//! Docker's own client, which knows nothing of rnet.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Netns, Rnet, engine,
    process::{self, Finished},
};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The client, told to speak to one daemon.
#[derive(Debug)]
pub struct Docker<'h> {
    ns: &'h Netns,
    socket: PathBuf,
    program: PathBuf,
    // Nothing of the user's own configuration.
    config: TempDir,
}

impl<'h> Docker<'h> {
    /// The client of an instance's daemon. Nothing, and a word about it, where there is none.
    ///
    /// # Panics
    /// Where there is none and everything must run.
    pub fn of(rnet: &Rnet<'h>) -> Option<Self> {
        let found = Self::at(&rnet.host().ns, rnet.socket());
        if found.is_none() {
            crate::skip("needs Docker's client: get it with `cargo xtask setup --tests`");
        }
        found
    }

    /// The client of whatever listens on `socket` in `ns`: `$RNET_DOCKER`, else the one on `PATH`, else the one that
    /// `cargo xtask setup --tests` has unpacked.
    pub(crate) fn at(ns: &'h Netns, socket: PathBuf) -> Option<Self> {
        let chosen = std::env::var_os("RNET_DOCKER").map(PathBuf::from).filter(|file| file.is_file());
        let program = chosen.or_else(|| engine::program("docker"))?;
        let config = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        Some(Self { ns, socket, program, config })
    }

    /// `docker ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.quiet(self.ns.command(&self.program));
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(args);
        command
    }

    /// Runs `docker ARGS` in a namespace to its end: the arguments say which daemon is meant.
    pub fn elsewhere(&self, ns: &Netns, args: &[&str]) -> Finished {
        let mut command = self.quiet(ns.command(&self.program));
        command.args(args);
        process::run(command, COMMAND_LIMIT)
    }

    /// Without what the user's surroundings say.
    fn quiet(&self, mut command: Command) -> Command {
        for variable in
            ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"]
        {
            command.env_remove(variable);
        }
        command.arg("--config").arg(self.config.path());
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
        self.cmd(args).assert_ok(&format!("docker {}", args.join(" "))).stdout
    }

    /// The same, without the last line break.
    pub fn line(&self, args: &[&str]) -> String {
        self.ok(args).trim_end_matches('\n').to_owned()
    }

    /// The lines that a command prints, each as `{{json .}}` makes it.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.ok(&[args, &["--format", "{{json .}}"]].concat());
        let value = |line| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}): {line}"))
        };
        output.lines().map(value).collect()
    }

    /// Runs a command that must be refused with status 1, and returns what it says.
    ///
    /// # Panics
    /// When it is not.
    pub fn fails(&self, args: &[&str]) -> String {
        let Finished { status, stdout, stderr } = self.cmd(args);
        assert_eq!(status.code(), Some(1), "docker {} is to be refused: {stdout}{stderr}", args.join(" "));
        stderr.trim_end().to_owned()
    }
}
