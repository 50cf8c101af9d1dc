//! The shim: a process of one thread that puts on a container's surroundings, then becomes the container's init or
//! looks after a command.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Error, Result};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    process::{PidfdFlags, getpid, pidfd_open},
    time::Timespec,
};

use super::{
    Input, Launch, Spec,
    channel::{Channel, Runs},
    init::{self, Failed, Io, NO_SURROUNDINGS, Output, reap, start},
    limit, surroundings,
    terminal::Terminal,
};

/// What the shim's messages begin with.
pub(super) const PREFIX: &str = "rnet: ";

/// Signals that mean the command: all but those that cannot be caught, those that the kernel sends for what a process
/// does itself, and SIGCHLD.
const PASSED_ON: [Signal; 18] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGSTKFLT,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGURG,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// Does what `spec` says, and returns the exit status: the command's, for whoever waits for it.
///
/// The process must have one thread. What goes wrong is said on stderr, in one line.
pub fn shim_main(spec: &str) -> u8 {
    let done = match serde_json::from_str(spec).context("read what the shim is to run") {
        Err(error) => Err((error, NO_SURROUNDINGS)),
        Ok(Spec::Foreground { launch, input, status }) => foreground(&launch, input, status.as_deref()),
        Ok(Spec::Detached { launch, log, status, open_files }) => {
            detached(&launch, &log, &status, open_files)
        }
        Ok(Spec::Join { launch, pid, input }) => join(&launch, pid, input),
    };
    match done {
        Ok(code) => code,
        Err((error, code)) => {
            complain(&error);
            code
        }
    }
}

pub(super) fn complain(error: &Error) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "{PREFIX}{error:#}");
}

/// Starts an init and waits for it.
fn foreground(launch: &Launch, input: Input, status: Option<&Path>) -> Result<u8, Failed> {
    let (channel, signals, parent, side) = (|| {
        let channel = prepare(input)?;
        let signals = hold_signals()?;
        let parent = pidfd_open(getpid(), PidfdFlags::empty()).context("take hold of the shim")?;
        Ok((channel, signals, parent, fork_init()?))
    })()
    .map_err(|error| (error, NO_SURROUNDINGS))?;
    match side {
        Side::Outside(init) => {
            // Whoever waits at the other end is to know when init has gone.
            drop(channel);
            see_to(init, &signals)
        }
        Side::Init => {
            die_with(&parent).map_err(|error| (error, NO_SURROUNDINGS))?;
            let output = input.terminal.map_or(Output::Own, Output::Terminal);
            init::run(launch, output, status, &signals, |runs, _| channel.announce(&runs))
        }
    }
}

/// Starts an init that outlives whoever asked for it. Only init returns when it has ended.
fn detached(launch: &Launch, log: &Path, status: &Path, open_files: Option<u64>) -> Result<u8, Failed> {
    let (signals, side) = (|| {
        setsid().context("make a session")?;
        open_files.map_or(Ok(()), limit::restore)?;
        Ok((hold_signals()?, fork_init()?))
    })()
    .map_err(|error| (error, NO_SURROUNDINGS))?;
    match side {
        Side::Outside(_) => Ok(0),
        Side::Init => {
            let output = if launch.terminal { Output::TerminalToLog(log) } else { Output::Log(log) };
            init::run(launch, output, Some(status), &signals, let_go)
        }
    }
}

/// Starts another command beside one that runs, and waits for it.
fn join(launch: &Launch, pid: u32, input: Input) -> Result<u8, Failed> {
    let failed = |error| (error, NO_SURROUNDINGS);
    let channel = prepare(input).map_err(failed)?;
    let signals = hold_signals().map_err(failed)?;
    surroundings::join(launch.netns.as_deref(), pid).map_err(failed)?;
    let terminal = input.terminal.map(|size| Terminal::open(Some(size))).transpose().map_err(failed)?;
    let (outside, inside) = terminal.map(|t| (t.outside, t.inside)).unzip();
    let command = start(launch, &inside.as_ref().map_or(Io::Own, Io::Terminal))?;
    channel.announce(&Runs { pid, terminal: outside }).map_err(failed)?;
    drop(channel);
    see_to(command, &signals)
}

/// Takes the command's stdin in place of the channel, and leaves whoever started this process alone with their
/// terminal: what is typed there reaches the command once, through them.
fn prepare(input: Input) -> Result<Channel> {
    let channel = Channel::of_shim()?;
    let stdin = if input.is_passed() { channel.receive_stdin()? } else { null()?.into() };
    dup2_stdin(&stdin).context("take stdin")?;
    setsid().context("make a session")?;
    Ok(channel)
}

fn null() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null").context("open /dev/null")
}

fn hold_signals() -> Result<SigSet> {
    let signals: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("hold signals back")?;
    Ok(signals)
}

/// Which of the two processes this is.
enum Side {
    /// The one that was started, whose child this is.
    Outside(Pid),
    /// Pid 1 of a new namespace.
    Init,
}

fn fork_init() -> Result<Side> {
    unshare(CloneFlags::CLONE_NEWPID).context("make a PID namespace")?;
    // SAFETY: this process has one thread, as `shim_main` demands, so that no lock can be held by another one at
    // the moment of the fork: the child may do whatever this process may.
    match unsafe { fork() }.context("start an init")? {
        ForkResult::Parent { child } => Ok(Side::Outside(child)),
        ForkResult::Child => Ok(Side::Init),
    }
}

/// Has the kernel kill this process when its parent ends.
fn die_with(parent: &OwnedFd) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("end with the shim")?;
    // It may have ended before the kernel was asked to watch it.
    let mut ended = [PollFd::new(parent, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) => Ok(()),
        ended => ended.context("look at the shim").and(Err(Error::msg("the shim has been killed"))),
    }
}

/// Tells who started the shim init's id, and lets go of the pipes that they wait at. From here on, what goes wrong is
/// said in the log.
fn let_go(runs: Runs, log: Option<&File>) -> Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", runs.pid).and_then(|()| stdout.flush()).context("tell the process's id")?;
    let null = null()?;
    dup2_stdin(&null).context("let go of stdin")?;
    dup2_stdout(&null).context("let go of stdout")?;
    log.map_or_else(|| dup2_stderr(&null), dup2_stderr).context("let go of stderr")
}

/// Passes signals on to a child until it ends, and returns its exit code.
fn see_to(child: Pid, signals: &SigSet) -> Result<u8, Failed> {
    let failed = |error| (error, NO_SURROUNDINGS);
    loop {
        let signal = signals.wait().context("wait for signals").map_err(failed)?;
        if signal != Signal::SIGCHLD {
            // Fails only when it has ended, which the next SIGCHLD tells.
            let _ = kill(child, signal);
        } else if let Some(code) = reap(child).map_err(failed)? {
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }
}
