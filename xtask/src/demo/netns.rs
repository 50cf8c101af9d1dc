//! Network namespaces, under names that `ip netns` knows.

use std::{fs::File, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::command::output;

/// Where iproute2 keeps the names.
pub(super) const DIR: &str = "/run/netns";

/// A network namespace that somebody made.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    name: String,
}

/// A network namespace that goes with this value.
pub(super) struct OwnNamespace(Namespace);

impl Namespace {
    /// The namespace of that name.
    pub(super) fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Does something inside it. Sockets opened and programs started there stay there; the file system is the
    /// caller's, `/sys/fs/bpf` included, which `ip netns exec` would hide.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = PathBuf::from(DIR).join(&self.name);
        thread::scope(|scope| {
            // A thread of its own: the namespace is the thread's, and it ends with it.
            let inside = scope.spawn(|| {
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))?;
                work()
            });
            inside.join().unwrap_or_else(|_| Err(anyhow!("what was done in {} panicked", self.name)))
        })
    }

    /// Runs `ip` inside it.
    pub(super) fn ip(&self, args: &str) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace()))
    }
}

impl OwnNamespace {
    /// Makes a namespace, with loopback up.
    pub(super) fn create(name: &str) -> Result<Self> {
        output(Command::new("ip").args(["netns", "add", name]))?;
        let own = Self(Namespace::named(name));
        own.ip("link set lo up")?;
        Ok(own)
    }
}

impl std::ops::Deref for OwnNamespace {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0
    }
}

impl Drop for OwnNamespace {
    fn drop(&mut self) {
        if let Err(error) = delete(self.name()) {
            eprintln!("error: {error:#}");
        }
    }
}

/// Removes a namespace, and ends what still runs inside it: a name that is gone would leave both unreachable.
pub(super) fn delete(name: &str) -> Result<()> {
    for pid in output(Command::new("ip").args(["netns", "pids", name]))?.split_whitespace() {
        if let Ok(pid) = pid.parse() {
            // One that has ended since is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    output(Command::new("ip").args(["netns", "delete", name])).map(drop)
}
