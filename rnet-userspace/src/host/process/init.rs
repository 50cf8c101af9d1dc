//! A container's init: pid 1 of its PID namespace, parent of its command.
//!
//! It takes in orphans, passes signals on, and ends with the command: the kernel then kills whatever else is in the
//! namespace. The kernel also kills all of it when init is killed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Error, Result};
use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, chdir, setsid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::ioctl_tiocsctty,
};

use super::{
    Launch, channel::Runs, shim::complain, status::StatusFile, surroundings, terminal::Size,
    terminal::Terminal,
};

/// Exit codes, as Docker and the shells have them.
pub(super) const NO_SURROUNDINGS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What went wrong, and the exit code that says so.
pub(super) type Failed = (Error, u8);

/// Where a container's command reads from and writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output<'a> {
    /// What this process has.
    Own,
    /// A terminal, whose other side is told with the process.
    Terminal(Size),
    /// Writes to a file and reads nothing.
    Log(&'a Path),
    /// A terminal that nobody types at, and what is written to it goes to a file.
    TerminalToLog(&'a Path),
}

/// Does what pid 1 does until the command ends, and returns its exit code, which it leaves in the file `status`. The
/// signals in `signals` have to be blocked; `announce` is called once the command runs.
pub(super) fn run(
    launch: &Launch,
    output: Output<'_>,
    status: Option<&Path>,
    signals: &SigSet,
    announce: impl FnOnce(Runs, Option<&File>) -> Result<()>,
) -> Result<u8, Failed> {
    let failed = |error| (error, NO_SURROUNDINGS);
    let pid = outer_pid().map_err(failed)?;
    // The host's paths, which another root would hide.
    let log = open_log(output).map_err(failed)?;
    let status = status.map(StatusFile::open).transpose().map_err(failed)?;
    surroundings::make(launch).map_err(failed)?;
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("wait for signals")
        .map_err(failed)?;
    let terminal = match output {
        Output::Own | Output::Log(_) => None,
        Output::Terminal(size) => Some(Terminal::open(Some(size)).map_err(failed)?),
        Output::TerminalToLog(_) => Some(Terminal::open(None).map_err(failed)?),
    };
    // The side that the command has stays open here, so that nobody is told of its end before that.
    let (outside, inside) = terminal.map(|t| (t.outside, t.inside)).unzip();
    let command = match (&inside, &log) {
        (Some(inside), _) => start(launch, &Io::Terminal(inside))?,
        (None, Some(log)) => start(launch, &Io::Log(log))?,
        (None, None) => start(launch, &Io::Own)?,
    };
    let (kept, told) = if log.is_some() { (outside, None) } else { (None, outside) };
    announce(Runs { pid, terminal: told }, log.as_ref()).map_err(failed)?;
    let transcript = kept.zip(log).map(|(terminal, log)| Transcript::new(terminal, log));
    let ended = transcript.transpose().and_then(|transcript| see_to(command, &signals, transcript));
    let code = ended.map_err(failed)?;
    if let Some(status) = status {
        status.write(code).map_err(failed)?;
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// What a command is started on.
pub(super) enum Io<'a> {
    Own,
    Terminal(&'a OwnedFd),
    Log(&'a File),
}

/// Starts the command in a session of its own. The standard library starts it with no signal held back, and tells of
/// a program that cannot be executed.
pub(super) fn start(launch: &Launch, io: &Io<'_>) -> Result<Pid, Failed> {
    let (program, arguments) = launch.command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let mut command = Command::new(program);
    command.args(arguments);
    let clone = |file: io::Result<OwnedFd>| {
        file.map(Stdio::from).context("pass on a file").map_err(|error| (error, NO_SURROUNDINGS))
    };
    let has_terminal = match io {
        Io::Own => false,
        Io::Terminal(terminal) => {
            command.stdin(clone(terminal.try_clone())?);
            command.stdout(clone(terminal.try_clone())?);
            command.stderr(clone(terminal.try_clone())?);
            if std::env::var_os("TERM").is_none() {
                // As with Docker.
                command.env("TERM", "xterm");
            }
            true
        }
        Io::Log(log) => {
            command.stdin(Stdio::null());
            command.stdout(clone(log.try_clone().map(OwnedFd::from))?);
            command.stderr(clone(log.try_clone().map(OwnedFd::from))?);
            false
        }
    };
    let own_session = move || {
        setsid()?;
        if has_terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure does two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(own_session) };
    let child = command.spawn().map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        (Error::new(error).context(format!("run {program}")), code)
    })?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// Takes note of the children that have ended, and tells how `command` did if it is one of them. Several ends may
/// come with one SIGCHLD.
pub(super) fn reap(command: Pid) -> Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == command => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(code),
            // Orphans.
            Ok(
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Stopped(..)
                | WaitStatus::Continued(_)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_),
            ) => {}
            Err(error) => return Err(error).context("wait for the command"),
        }
    }
}

/// This process's id for whoever started it, and not within its own namespace.
fn outer_pid() -> Result<u32> {
    // What is mounted here is still the host's.
    let own = fs::read_link("/proc/self").context("read /proc/self")?;
    let id = own.to_str().and_then(|id| id.parse().ok());
    id.with_context(|| format!("/proc/self leads to {}, which is no process id", own.display()))
}

fn open_log(output: Output<'_>) -> Result<Option<File>> {
    let (Output::Log(path) | Output::TerminalToLog(path)) = output else { return Ok(None) };
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    let log = opened.with_context(|| format!("open {}", path.display()))?;
    chdir("/").context("change to directory /")?;
    Ok(Some(log))
}

/// Passes signals on to the command until it ends, and what it writes to its terminal to its log.
fn see_to(command: Pid, signals: &SignalFd, mut transcript: Option<Transcript>) -> Result<i32> {
    loop {
        wait(signals, transcript.as_ref())?;
        if let Some(transcript) = &mut transcript {
            transcript.copy();
        }
        while let Some(signal) = signals.read_signal().context("wait for signals")? {
            let signal = i32::try_from(signal.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            match signal {
                Some(Signal::SIGCHLD) => {
                    let Some(code) = reap(command)? else { continue };
                    if let Some(transcript) = &mut transcript {
                        transcript.copy();
                    }
                    return Ok(code);
                }
                // Fails only when the command has ended, which the next SIGCHLD tells.
                Some(signal) => drop(kill(command, signal)),
                None => {}
            }
        }
    }
}

fn wait(signals: &SignalFd, transcript: Option<&Transcript>) -> Result<()> {
    let mut files = vec![PollFd::new(signals, PollFlags::IN)];
    files.extend(transcript.map(|transcript| PollFd::new(&transcript.terminal, PollFlags::IN)));
    match poll(&mut files, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("wait for signals"),
    }
}

/// A terminal that nobody looks at but its log.
struct Transcript {
    terminal: File,
    log: File,
    complained: bool,
}

impl Transcript {
    fn new(terminal: OwnedFd, log: File) -> Result<Self> {
        rustix::io::ioctl_fionbio(&terminal, true).context("read a terminal without waiting")?;
        Ok(Self { terminal: terminal.into(), log, complained: false })
    }

    /// Copies what there is.
    fn copy(&mut self) {
        let mut buffer = [0; 4096];
        // Fails when there is nothing more.
        while let Ok(length @ 1..) = self.terminal.read(&mut buffer) {
            let Some(text) = buffer.get(..length) else { return };
            // The command must not wait because the disk is full.
            if let Err(error) = self.log.write_all(text)
                && !self.complained
            {
                self.complained = true;
                complain(&Error::new(error).context("write to the log"));
            }
        }
    }
}
