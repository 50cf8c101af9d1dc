//! The processes of containers on this machine.

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use nix::sys::signal;

use crate::{
    api::{Process, Processes, Signal},
    controller::view,
    host::process::{self, Foreground, Input, Launch, STATUS_FILE},
};

/// The file of a container's directory that has what its command wrote.
const LOG: &str = "log";

/// Starts and finds processes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalProcesses;

/// What a container's command is started with.
fn launch(container: &view::Container) -> Launch {
    Launch {
        netns: container.netns.clone(),
        namespaces: container.namespaces.clone(),
        hostname: container.hostname.clone(),
        dir: container.dir.clone(),
        rootfs: container.rootfs.clone(),
        command: container.command.clone(),
        terminal: container.terminal,
    }
}

/// Starts a container's command, whose exit code is left for the daemon, too.
///
/// # Errors
/// As those of [`Launch::spawn`].
pub fn run(container: &view::Container, input: Input) -> Result<Foreground> {
    launch(container).spawn(input, Some(&container.dir.join(STATUS_FILE)))
}

/// Starts another command in a running container: beside its command, or under an init of its own where there is
/// none.
///
/// # Errors
/// As those of [`Launch::spawn`].
pub fn enter(container: &view::Container, command: &[String], input: Input) -> Result<Foreground> {
    let launch = Launch { command: command.to_vec(), ..launch(container) };
    match container.pid {
        Some(pid) => launch.spawn_beside(pid, input),
        None => launch.spawn(input, None),
    }
}

impl Processes for LocalProcesses {
    fn start_detached(&self, container: &view::Container) -> Result<u32> {
        launch(container).spawn_detached(&container.dir.join(LOG), &container.dir.join(STATUS_FILE))
    }

    fn open(&self, pid: u32) -> Result<Option<Box<dyn Process>>> {
        let start = process::start_time(pid).with_context(|| format!("look at process {pid}"))?;
        Ok(start.map(|start| Box::new(LocalProcess { pid, start }) as Box<dyn Process>))
    }
}

/// A container's init.
struct LocalProcess {
    pid: u32,
    start: u64,
}

impl Process for LocalProcess {
    fn signal(&self, signal: Signal) -> Result<()> {
        let signal = match signal {
            Signal::Terminate => signal::Signal::SIGTERM,
            // With it the kernel kills all that is in its PID namespace.
            Signal::Kill => signal::Signal::SIGKILL,
        };
        process::signal(self.pid, self.start, signal).map(drop)
    }

    fn exited(&self) -> BoxFuture<'static, Option<i32>> {
        let (pid, start) = (self.pid, self.start);
        // Asked while init can tell.
        let status = process::status_file(pid);
        Box::pin(async move {
            process::wait_exit(pid, start).await;
            process::status_of_ended(&status?).unwrap_or_else(|error| {
                tracing::warn!(pid, "learn how a process ended: {error:#}");
                None
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn how_a_process_of_others_ended_is_not_known() {
        let mut sleep = Command::new("sleep").arg("600").spawn().unwrap();
        let held = LocalProcesses.open(sleep.id()).unwrap().unwrap();
        held.signal(Signal::Kill).unwrap();
        // How it ended is known to its parent alone.
        assert_eq!(tokio::time::timeout(DEADLINE, held.exited()).await.unwrap(), None);
        assert_eq!(process::exit_code(&sleep.wait().unwrap()), 128 + 9);
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
