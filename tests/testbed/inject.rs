//! A system call of a program that fails: the tracer is `rnet-inject`, a program of its own (`tests/inject`).

use std::{fs, path::Path, process::Command, time::Duration};

use serde::Deserialize;

use crate::{process::Process, wait_until};

/// How long the tracer may take to take hold of all threads, or to let go of them.
const LIMIT: Duration = Duration::from_secs(60);

/// Which calls are counted, as `rnet-inject --calls` calls them.
pub const KINDS: [&str; 4] = ["sockets", "bpf", "files", "processes"];

/// What the tracer has seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Seen {
    /// Calls that were counted.
    pub calls: u64,
    /// The one that was made to fail; absent when it was not reached.
    pub injected: Option<Injected>,
}

/// A call that was made to fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Injected {
    /// Its name.
    pub call: String,
    /// A path, what a descriptor stands for, or a number.
    pub about: String,
    /// What it said.
    pub error: String,
    /// The name of the thread.
    pub thread: String,
}

/// A program of which one call is to fail, as long as this is kept.
#[derive(Debug)]
pub struct Injection {
    tracer: Process,
    output: tempfile::NamedTempFile,
}

impl Injection {
    /// Counts calls of a process from here on, and has the call `at`, counted from 1, fail; none when that is 0.
    /// `failure` is `resources` or `interruption`.
    ///
    /// # Panics
    /// When the process cannot be traced.
    pub fn start(tracer: &Path, pid: u32, kind: &str, failure: &str, at: u64) -> Self {
        let output = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("make a temporary file: {e}"));
        let file = output.reopen().unwrap_or_else(|e| panic!("open a temporary file again: {e}"));
        let mut command = Command::new(tracer);
        command.args(["--pid", &pid.to_string(), "--calls", kind, "--failure", failure]);
        command.args(["--at", &at.to_string()]).stdout(file);
        let mut injection = Self { tracer: Process::start(command), output };
        wait_until("rnet-inject counts", LIMIT, || {
            let printed = injection.printed();
            let ended = injection.tracer.ended();
            assert!(ended.is_none(), "rnet-inject ended: {printed}");
            printed.starts_with("counting\n").then_some(())
        });
        injection
    }

    /// Lets go of the process.
    ///
    /// # Panics
    /// When the tracer failed.
    pub fn end(mut self) -> Seen {
        self.tracer.terminate();
        let status = self.tracer.wait(LIMIT);
        let printed = self.printed();
        assert!(status.is_some_and(|status| status.success()), "rnet-inject: {status:?}\n{printed}");
        let seen = printed.lines().last().unwrap_or_default();
        serde_json::from_str(seen).unwrap_or_else(|e| panic!("rnet-inject printed no JSON ({e}): {printed}"))
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.output.path()).unwrap_or_else(|e| format!("(nothing can be read: {e})"))
    }
}
