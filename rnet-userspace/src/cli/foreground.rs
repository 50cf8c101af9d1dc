//! Commands that run in containers while this process waits for them.

use std::{
    future,
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

use super::{FAILED, System, print, terminal::Session};
use crate::{
    api::client::Client,
    controller::{request::CreateContainer, view},
    host::process::{Foreground, Input},
};

/// Runs a container's command to its end, and returns its exit status.
pub(super) async fn run(
    client: &Client,
    system: &dyn System,
    request: &CreateContainer,
    input: Input,
) -> Result<u8> {
    let mut signals = Signals::catch()?;
    let container = client.create_container(request).await?;
    if let Some(signal) = signals.next().now_or_never() {
        remove(client, &container).await;
        return Ok(by_signal(signal));
    }
    let started = match system.spawn(&container, input) {
        Ok(started) => started,
        Err(e) => {
            remove(client, &container).await;
            return Err(e.context(format!("start container {}", container.name)));
        }
    };
    if let Some(running) = &started.running
        && let Err(e) = client.started(&container.id, running.pid).await
    {
        end(started.shim);
        remove(client, &container).await;
        return Err(e.into());
    }
    let code = attend(started, input, &mut signals).await?;
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
    input: Input,
) -> Result<u8> {
    let mut signals = Signals::catch()?;
    let started = system
        .enter(container, command, input)
        .with_context(|| format!("run a command in container {}", container.name))?;
    attend(started, input, &mut signals).await
}

/// Passes signals on, and what is typed and written where the command has a terminal, until it ends.
async fn attend(started: Foreground, input: Input, signals: &mut Signals) -> Result<u8> {
    let Foreground { mut shim, running } = started;
    let pid = Pid::from_raw(i32::try_from(shim.id()).context("a process id out of range")?);
    let terminal = running.and_then(|running| running.terminal);
    let mut session = terminal.map(|terminal| Session::open(terminal, input.interactive)).transpose()?;
    let mut ended = task::spawn_blocking(move || shim.wait());
    loop {
        tokio::select! {
            ended = &mut ended => {
                if let Some(session) = &mut session {
                    session.print()?;
                }
                return Ok(status(ended.context("wait for the command")?.context("wait for the command")?));
            }
            signal = signals.next() => {
                // It can fail only when the command has just ended.
                let _ = kill(pid, signal);
            }
            stepped = step(&mut session) => stepped?,
        }
    }
}

async fn step(session: &mut Option<Session>) -> Result<()> {
    match session {
        Some(session) => session.step().await,
        None => future::pending().await,
    }
}

/// Ends a command that must not run.
fn end(mut shim: Child) {
    // Both fail only when it has ended.
    let _ = shim.kill();
    let _ = shim.wait();
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
