//! A daemon of an engine: its process, its socket and its log.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tempfile::NamedTempFile;

use super::Machine;
use crate::{
    process::{self, Process},
    wait_until,
};

/// How long a daemon may take to be ready on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to end: it may stop its containers first.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A daemon that may be ended and started again.
#[derive(Debug)]
pub(super) struct Daemon<'m> {
    machine: &'m Machine,
    name: &'static str,
    socket: PathBuf,
    log: NamedTempFile,
    // Ending it takes `&self`, as every other command does.
    process: Mutex<Option<Process>>,
}

impl<'m> Daemon<'m> {
    /// A daemon that does not run yet and will listen on `socket`.
    pub(super) fn new(machine: &'m Machine, name: &'static str, socket: PathBuf) -> Self {
        let log = NamedTempFile::new().unwrap_or_else(|e| panic!("make a log file: {e}"));
        Self { machine, name, socket, log, process: Mutex::new(None) }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts it and waits until it listens and is `ready`.
    pub(super) fn start(&self, mut command: Command, ready: impl Fn() -> bool) {
        assert!(self.process().is_none(), "{} runs", self.name);
        let log = File::options().append(true).open(self.log.path());
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log.path().display()));
        let second = log.try_clone().unwrap_or_else(|e| panic!("share the log file: {e}"));
        command.stdout(log).stderr(second);
        let mut process = Process::start(command);
        wait_until(&format!("{} answers", self.name), START_LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            // Nobody is asked who does not listen yet: that would be a process each time.
            self.machine.ns.run(|| UnixStream::connect(&self.socket)).ok()?;
            ready().then_some(())
        });
        *self.process() = Some(process);
    }

    pub(super) fn id(&self) -> u32 {
        self.process().as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Ends it in good order (SIGTERM).
    pub(super) fn stop(&self) {
        let mut process = self.take();
        process.terminate();
        let status = process.wait(END_LIMIT);
        let status = status.unwrap_or_else(|| panic!("{} still runs:\n{}", self.name, self.log()));
        assert!(status.success(), "{} ended with {status} on SIGTERM:\n{}", self.name, self.log());
    }

    /// Ends it as a crash would (SIGKILL), and waits until the processes that end with it are gone.
    pub(super) fn kill9(&self) {
        let mut process = self.take();
        let children = process::children_of(process.id());
        process.kill();
        // The next dockerd takes a containerd for running that is dead and that nobody has waited for.
        wait_until("the daemon's own processes end", END_LIMIT, || {
            children.iter().all(|id| !Path::new("/proc").join(id.to_string()).exists()).then_some(())
        });
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Process {
        self.process().take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// What it printed.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_else(|e| format!("(no log: {e})"))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what the engine had to say")]
            {
                eprintln!("--- log of {}\n{}---", self.name, self.log());
            }
        }
    }
}
