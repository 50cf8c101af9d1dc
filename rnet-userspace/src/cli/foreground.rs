//! Commands that run in containers with this process's terminal.

use std::{
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus},
};

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{self, SignalKind},
    task,
};

use super::{FAILED, System, print};
use crate::{
    api::client::Client,
    controller::{request::CreateContainer, view},
};

/// Runs a container's command to its end, and returns its exit status.
pub(super) async fn run(client: &Client, system: &dyn System, request: &CreateContainer) -> Result<u8> {
    let mut signals = Signals::catch()?;
    let container = client.create_container(request).await?;
    if let Some(signal) = signals.next().now_or_never() {
        remove(client, &container).await;
        return Ok(by_signal(signal));
    }
    let child = match system.spawn(&container) {
        Ok(child) => child,
        Err(e) => {
            remove(client, &container).await;
            return Err(e.context(format!("start container {}", container.name)));
        }
    };
    if let Err(e) = client.started(&container.id, child.id()).await {
        end(child);
        remove(client, &container).await;
        return Err(e.into());
    }
    let code = wait(child, &mut signals).await?;
    match client.exited(&container.id, Some(code.into())).await {
        Ok(()) => {}
        // Removed while it ran, with `rm -f` or `down`.
        Err(e) if e.is_not_found() => {}
        // The command has run all the same, and its exit status is what counts.
        Err(e) => print::error(&anyhow!(e).context(format!("note the end of container {}", container.name))),
    }
    Ok(code)
}

/// Runs another command in a running container to its end, and returns its exit status.
pub(super) async fn enter(
    system: &dyn System,
    container: &view::Container,
    command: &[String],
) -> Result<u8> {
    let mut signals = Signals::catch()?;
    let child = system
        .enter(container, command)
        .with_context(|| format!("run a command in container {}", container.name))?;
    wait(child, &mut signals).await
}

async fn wait(mut child: Child, signals: &mut Signals) -> Result<u8> {
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id out of range")?);
    let mut ended = task::spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            ended = &mut ended => return Ok(status(ended.context("wait for the command")?.context("wait for the command")?)),
            signal = signals.next() => {
                // A terminal sends these to all of its processes, the command included.
                let from_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && io::stdin().is_terminal();
                if !from_terminal {
                    // It can fail only when the command has just ended.
                    let _ = kill(pid, signal);
                }
            }
        }
    }
}

/// Ends a command that must not run.
fn end(mut child: Child) {
    // Both fail only when it has ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// Removes a container after a failure, which matters more than what goes wrong here.
async fn remove(client: &Client, container: &view::Container) {
    match client.remove_container(&container.id, true).await {
        Ok(_) => {}
        Err(e) if e.is_not_found() => {}
        Err(e) => print::error(&anyhow!(e).context(format!("remove container {}", container.name))),
    }
}

fn status(ended: ExitStatus) -> u8 {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(FAILED),
        (None, None) => FAILED,
    }
}

fn by_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(FAILED)
}

/// The signals that mean the command, not this process.
struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let signal = |kind| unix::signal(kind).context("wait for signals");
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
