//! The processes of containers on this machine.

use std::process::Child;

use anyhow::Result;
use futures::future::BoxFuture;
use nix::sys::signal;

use crate::{
    api::{Process, Processes, Signal},
    controller::view,
    host::process::{self, Launch},
};

/// The file of a container's directory that has what its command wrote.
const LOG: &str = "log";
/// The file of a container's directory that has its command's exit code once that has ended.
const STATUS: &str = "status";

/// Starts and finds processes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalProcesses;

/// What a container's command is started with.
pub fn launch(container: &view::Container) -> Launch {
    Launch {
        netns: container.netns.clone().unwrap_or_default(),
        hostname: container.hostname.clone(),
        dir: container.dir.clone(),
        rootfs: container.rootfs.clone(),
        command: container.command.clone(),
    }
}

/// Starts another command in a running container, with this process's input, output and process group.
///
/// # Errors
/// There is no command, or it cannot be started. What goes wrong inside the container is in its exit status, as
/// [`Launch::spawn`] defines it.
pub fn enter(container: &view::Container, command: &[String]) -> Result<Child> {
    let launch = Launch { command: command.to_vec(), ..launch(container) };
    match container.pid {
        Some(pid) => launch.spawn_beside(pid),
        None => launch.spawn(),
    }
}

impl Processes for LocalProcesses {
    fn start_detached(&self, container: &view::Container) -> Result<u32> {
        launch(container).spawn_detached(&container.dir.join(LOG), &container.dir.join(STATUS))
    }

    fn open(&self, pid: u32) -> Result<Option<Box<dyn Process>>> {
        Ok(process::start_time(pid).map(|start| Box::new(LocalProcess { pid, start }) as Box<dyn Process>))
    }
}

/// A container's process: its command, or the shim that is its command's parent.
struct LocalProcess {
    pid: u32,
    start: u64,
}

impl Process for LocalProcess {
    fn signal(&self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Terminate => process::signal(self.pid, self.start, signal::Signal::SIGTERM).map(drop),
            Signal::Kill => self.kill(),
        }
    }

    fn exited(&self) -> BoxFuture<'static, Option<i32>> {
        let (pid, start) = (self.pid, self.start);
        // Asked while the shim can tell.
        let status = process::status_file(pid);
        Box::pin(async move {
            process::wait_exit(pid, start).await;
            process::read_status(&status?).unwrap_or_else(|error| {
                tracing::warn!(pid, "learn how a process ended: {error:#}");
                None
            })
        })
    }
}

impl LocalProcess {
    /// Kills the command and all that it has started. A shim is spared: it ends by itself once it has ended
    /// what was started meanwhile and has noted the exit code.
    fn kill(&self) -> Result<()> {
        if process::start_time(self.pid) != Some(self.start) {
            return Ok(());
        }
        let started = process::descendants(self.pid);
        if process::status_file(self.pid).is_some() {
            // In case that it has been stopped.
            process::signal(self.pid, self.start, signal::Signal::SIGCONT)?;
        } else {
            process::signal(self.pid, self.start, signal::Signal::SIGKILL)?;
        }
        for (pid, start) in started {
            process::signal(pid, start, signal::Signal::SIGKILL)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn killing_a_process_kills_what_it_started() {
        let mut shell = Command::new("sh").args(["-c", "sleep 600 & wait"]).spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while process::descendants(shell.id()).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (sleep, start) = process::descendants(shell.id())[0];
        let held = LocalProcesses.open(shell.id()).unwrap().unwrap();
        held.signal(Signal::Kill).unwrap();
        // How it ended is known to its parent alone.
        assert_eq!(tokio::time::timeout(DEADLINE, held.exited()).await.unwrap(), None);
        tokio::time::timeout(DEADLINE, process::wait_exit(sleep, start)).await.unwrap();
        assert_eq!(process::exit_code(&shell.wait().unwrap()), 128 + 9);
        held.signal(Signal::Terminate).unwrap();
        held.signal(Signal::Kill).unwrap();
    }

    #[test]
    fn a_process_that_is_gone_cannot_be_opened() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(LocalProcesses.open(child.id()).unwrap().is_none());
    }
}
