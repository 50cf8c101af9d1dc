//! The shim: a process of one thread that puts on a container's surroundings, then becomes the container's
//! command or its parent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context, Error, Result};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, getppid, setsid},
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use super::{Launch, Spec, limit, surroundings};

/// What the shim's messages begin with.
pub(super) const PREFIX: &str = "rnet: ";

/// Exit codes, as Docker and the shells have them.
const NO_SURROUNDINGS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Signals that mean the command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Does what `spec` says, and returns the exit status. In the foreground it does not return: the process becomes
/// the command.
///
/// The process must have one thread. What goes wrong is said on stderr, in one line.
pub fn shim_main(spec: &str) -> u8 {
    let (error, code) = match serde_json::from_str(spec).context("read what the shim is to run") {
        Err(error) => (error, NO_SURROUNDINGS),
        Ok(Spec::Foreground { launch }) => match surroundings::make(&launch) {
            Ok(()) => cannot_run(&launch, command(&launch).exec()),
            Err(error) => (error, NO_SURROUNDINGS),
        },
        Ok(Spec::Join { launch, pid }) => match surroundings::join(&launch.netns, pid) {
            Ok(()) => cannot_run(&launch, command(&launch).exec()),
            Err(error) => (error, NO_SURROUNDINGS),
        },
        Ok(Spec::Detached { launch, log, status, open_files }) => match detach() {
            Ok(Side::Starter) => return 0,
            Ok(Side::Detached) => match run_detached(&launch, &log, &status, open_files) {
                Ok(code) => return code,
                Err(failed) => failed,
            },
            Err(error) => (error, NO_SURROUNDINGS),
        },
    };
    complain(&error);
    code
}

fn complain(error: &Error) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "{PREFIX}{error:#}");
}

type Failed = (Error, u8);

fn command(launch: &Launch) -> Command {
    let (program, arguments) = launch.command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn cannot_run(launch: &Launch, error: io::Error) -> Failed {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    (Error::new(error).context(format!("run {}", launch.program())), code)
}

/// Which of the two processes this is.
enum Side {
    /// The one that was started, which is to end.
    Starter,
    /// Its child, in a session of its own. Its parent is whoever takes in orphans.
    Detached,
}

fn detach() -> Result<Side> {
    // SAFETY: this process has one thread, as `shim_main` demands, so that no lock can be held by another one at
    // the moment of the fork: the child may do whatever this process may.
    match unsafe { fork() }.context("detach the shim")? {
        ForkResult::Parent { .. } => Ok(Side::Starter),
        ForkResult::Child => {
            setsid().context("make a session")?;
            Ok(Side::Detached)
        }
    }
}

/// Starts the command, says on stdout that it runs, sees to it until its end and leaves its exit code behind.
fn run_detached(launch: &Launch, log: &Path, status: &Path, open_files: Option<u64>) -> Result<u8, Failed> {
    let (log, status, signals) = prepare(launch, log, status).map_err(|error| (error, NO_SURROUNDINGS))?;
    open_files.map_or(Ok(()), limit::restore).map_err(|error| (error, NO_SURROUNDINGS))?;
    let command = start(launch, &log)?;
    let code = announce(&log)
        .and_then(|()| see_to(command, &signals))
        .and_then(|code| status.write(code).map(|()| code))
        .map_err(|error| (error, NO_SURROUNDINGS))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn prepare(launch: &Launch, log: &Path, status: &Path) -> Result<(File, StatusFile, SigSet)> {
    // The host's paths, which another root would hide.
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(log);
    let log = opened.with_context(|| format!("open {}", log.display()))?;
    let status = StatusFile::open(status)?;
    surroundings::make(launch)?;
    chdir("/").context("change to directory /")?;

    // Orphans of the command come to this process, so that none is left when it has ended.
    prctl::set_child_subreaper(true).context("take in the command's orphans")?;
    let signals: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("hold signals back")?;
    Ok((log, status, signals))
}

/// Starts the command, which is killed when this process ends. The standard library starts it with no signal held
/// back, and tells of a program that cannot be executed.
fn start(launch: &Launch, log: &File) -> Result<Pid, Failed> {
    let output =
        || log.try_clone().map(Stdio::from).context("open the log").map_err(|e| (e, NO_SURROUNDINGS));
    let mut command = command(launch);
    command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
    let shim = Pid::this();
    let die_with_shim = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have ended before the kernel was asked to watch it.
        if getppid() == shim { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: between fork and exec the closure does two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(die_with_shim) };
    let child = command.spawn().map_err(|error| cannot_run(launch, error))?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// Tells who started this process its id, and lets go of the pipes that it waits at. From here on, what goes wrong
/// is said in the log.
fn announce(log: &File) -> Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", process::id()).and_then(|()| stdout.flush()).context("tell the process's id")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    dup2_stdin(&null).context("let go of stdin")?;
    dup2_stdout(&null).context("let go of stdout")?;
    dup2_stderr(log).context("let go of stderr")
}

/// Passes signals on to the command until it ends, then ends what it leaves behind. Returns its exit code.
fn see_to(command: Pid, signals: &SigSet) -> Result<i32> {
    loop {
        let signal = signals.wait().context("wait for signals")?;
        if signal != Signal::SIGCHLD {
            // Fails only when the command has ended, which the next SIGCHLD tells.
            let _ = kill(command, signal);
        } else if let Some(code) = reap(command)? {
            if let Err(error) = end_orphans() {
                complain(&error.context("end what the command has left running"));
            }
            return Ok(code);
        }
    }
}

/// Takes note of the children that have ended. Several ends may come with one SIGCHLD.
fn reap(command: Pid) -> Result<Option<i32>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)).context("wait for the command")? {
            WaitStatus::StillAlive => return Ok(None),
            WaitStatus::Exited(pid, code) if pid == command => return Ok(Some(code)),
            WaitStatus::Signaled(pid, signal, _) if pid == command => return Ok(Some(128 + signal as i32)),
            // Orphans.
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Stopped(..)
            | WaitStatus::Continued(_)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_) => {}
        }
    }
}

/// Kills what the command has left running, however deep: whose parent is killed becomes a child of this process.
fn end_orphans() -> Result<()> {
    let children = "/proc/thread-self/children";
    loop {
        let ids = fs::read_to_string(children).with_context(|| format!("read {children}"))?;
        for id in ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()) {
            // A child keeps its id until it is waited for, so that this can hit nobody else.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) => {}
            Err(nix::Error::ECHILD) => return Ok(()),
            Err(error) => return Err(error).context("wait for what the command left"),
        }
    }
}

/// Where the exit code goes, held by its directory.
struct StatusFile {
    directory: OwnedFd,
    name: PathBuf,
}

impl StatusFile {
    fn open(path: &Path) -> Result<Self> {
        let of = || format!("open the directory of {}", path.display());
        let (directory, name) = path.parent().zip(path.file_name()).with_context(of)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(rustix::fs::CWD, directory, flags, Mode::empty()).with_context(of)?;
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
        Ok(Self { directory, name: name.into() })
    }

    /// Whoever finds the file finds all of it.
    fn write(&self, code: i32) -> Result<()> {
        let of = || format!("write exit code {code} to {}", self.name.display());
        let unfinished = format!("{}.tmp", self.name.display());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file =
            openat(&self.directory, &unfinished, flags, Mode::from_raw_mode(0o640)).with_context(of)?;
        writeln!(File::from(file), "{code}").with_context(of)?;
        renameat(&self.directory, &unfinished, &self.directory, &self.name).with_context(of)
    }
}
