//! A program that tests give commands to: how it is called each time, and what is expected of it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Netns,
    process::{self, Finished},
};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A program with what is the same each time that it is called.
#[derive(Debug)]
pub struct Tool<'h> {
    ns: &'h Netns,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
}

impl<'h> Tool<'h> {
    /// A program that is run in `ns`.
    pub(crate) fn new(ns: &'h Netns, program: PathBuf) -> Self {
        Self { ns, program, args: Vec::new(), env: Vec::new() }
    }

    /// Puts an argument before those of each call.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable, or takes it away.
    pub(crate) fn env<V: Into<OsString>>(mut self, name: &str, value: Option<V>) -> Self {
        self.env.push((name.into(), value.map(Into::into)));
        self
    }

    /// `PROGRAM ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(self.ns);
        command.args(&self.args).args(args);
        command
    }

    /// The program in a namespace without the arguments that it always has.
    pub(crate) fn bare(&self, ns: &Netns) -> Command {
        let mut command = ns.command(&self.program);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
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
        self.cmd(args).assert_ok(&self.line_of(args)).stdout
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

    /// Runs a command that must be refused, and returns what it says.
    ///
    /// # Panics
    /// When it is not.
    pub fn refused(&self, args: &[&str]) -> String {
        let Finished { status, stdout, stderr } = self.cmd(args);
        assert!(!status.success(), "{} is to be refused: {stdout}{stderr}", self.line_of(args));
        stderr.trim_end().to_owned()
    }

    /// Runs a command that must be refused with status 1, and returns what it says.
    ///
    /// # Panics
    /// When it is not.
    pub fn fails(&self, args: &[&str]) -> String {
        let Finished { status, stdout, stderr } = self.cmd(args);
        assert_eq!(status.code(), Some(1), "{} is to be refused: {stdout}{stderr}", self.line_of(args));
        stderr.trim_end().to_owned()
    }

    fn line_of(&self, args: &[&str]) -> String {
        let name = self.program.file_name().unwrap_or_default();
        format!("{} {}", Path::new(name).display(), args.join(" "))
    }
}
