//! Stops the threads of a program at every system call, and lets one of them fail.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::Serialize;

use crate::calls::{Call, Failure, Kind};

/// What is in the place of the number of a call that is not to be made: the kernel knows none of that number.
const NO_CALL: u64 = u64::MAX;

/// What was seen of a program.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    /// Calls that were counted.
    calls: u64,
    /// The one that was made to fail.
    injected: Option<Injected>,
}

/// A call that was made to fail.
#[derive(Clone, Debug, Serialize)]
struct Injected {
    /// Its name.
    call: &'static str,
    /// A path, what a descriptor stands for, or a number.
    about: String,
    /// What it said.
    error: String,
    /// The name of the thread.
    thread: String,
}

/// A program that is traced.
pub(crate) struct Tracer {
    process: Pid,
    program: PathBuf,
    kind: Kind,
    failure: Failure,
    at: u64,
    calls: u64,
    injected: Option<Injected>,
    /// What the call that each thread is in is to say.
    pending: HashMap<Pid, i32>,
}

impl Tracer {
    /// Begins to count the calls of all threads of a process, and of those and the processes that they start.
    pub(crate) fn attach(process: Pid, kind: Kind, failure: Failure, at: u64) -> Result<Self> {
        let mut tracer = Self {
            process,
            program: fs::read_link(format!("/proc/{process}/exe")).context("find its program")?,
            kind,
            failure,
            at,
            calls: 0,
            injected: None,
            pending: HashMap::new(),
        };
        let mut seized = Vec::new();
        // A thread that is traced hands that on to those that it starts. Those that are there have been seen once nothing
        // new is found.
        loop {
            let found = threads(process)?;
            let new: Vec<_> = found.into_iter().filter(|thread| !seized.contains(thread)).collect();
            if new.is_empty() {
                break;
            }
            for thread in new {
                match ptrace::seize(thread, options()) {
                    // It has ended meanwhile, or is traced already, having been started by one that is.
                    Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => seized.push(thread),
                    Err(e) => return Err(e).with_context(|| format!("seize thread {thread}")),
                }
            }
        }
        ensure!(!seized.is_empty(), "it has ended");
        for thread in seized {
            // From that stop on it also stops at its calls.
            let _ = ptrace::interrupt(thread);
        }
        // Each has to have stopped once before calls can be said to be counted.
        tracer.wait_for_first_stops()?;
        Ok(tracer)
    }

    /// A call that is to fail has begun, and has not come back.
    pub(crate) fn is_injecting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What was seen up to here.
    pub(crate) fn seen(&self) -> Seen {
        Seen { calls: self.calls, injected: self.injected.clone() }
    }

    /// Handles the stops that there are, without waiting for one.
    pub(crate) fn handle_stops(&mut self) -> Result<()> {
        while let Some(stop) = next_stop(WaitPidFlag::WNOHANG)? {
            self.handle(stop)?;
        }
        Ok(())
    }

    fn wait_for_first_stops(&mut self) -> Result<()> {
        let mut waiting = threads(self.process)?;
        while !waiting.is_empty() {
            let Some(stop) = next_stop(WaitPidFlag::empty())? else { break };
            waiting.retain(|thread| Some(*thread) != stop.pid());
            self.handle(stop)?;
        }
        Ok(())
    }

    fn handle(&mut self, stop: WaitStatus) -> Result<()> {
        match stop {
            WaitStatus::PtraceSyscall(thread) => {
                gone_is_fine(self.at_call(thread)).context("look at a call")?;
            }
            WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_EXEC) => self.at_program(thread)?,
            WaitStatus::PtraceEvent(thread, ..) => resume(thread, None)?,
            WaitStatus::Stopped(thread, signal) => resume(thread, Some(signal))?,
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                self.pending.remove(&thread);
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Ok(())
    }

    /// A thread is about to make a call, or comes back from one.
    fn at_call(&mut self, thread: Pid) -> nix::Result<()> {
        let begins = ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        if begins {
            self.begin(thread)?;
        } else if let Some(errno) = self.pending.remove(&thread) {
            let mut regs = ptrace::getregs(thread)?;
            regs.rax = i64::from(-errno).cast_unsigned();
            ptrace::setregs(thread, regs)?;
        }
        ptrace::syscall(thread, None)
    }

    fn begin(&mut self, thread: Pid) -> nix::Result<()> {
        let mut regs = ptrace::getregs(thread)?;
        let Some(call) = Call::of(thread, &regs, self.kind, self.failure) else { return Ok(()) };
        self.calls += 1;
        if self.calls == self.at {
            self.injected = Some(Injected {
                call: call.name,
                about: call.about(),
                error: Errno::from_raw(call.errno).to_string(),
                thread: fs::read_to_string(format!("/proc/{thread}/comm"))
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            });
            self.pending.insert(thread, call.errno);
            regs.orig_rax = NO_CALL;
            ptrace::setregs(thread, regs)?;
        }
        Ok(())
    }

    /// A process has begun another program. What is neither the one that was asked for nor that one once more is a
    /// container's own command.
    fn at_program(&mut self, process: Pid) -> Result<()> {
        let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        if process == self.process {
            self.program = program;
        } else if program != self.program {
            return gone_is_fine(ptrace::detach(process, None)).context("let go of a command");
        }
        resume(process, None)
    }
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
}

fn threads(process: Pid) -> Result<Vec<Pid>> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).context("list its threads")?;
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(ids.map(Pid::from_raw).collect())
}

fn next_stop(flags: WaitPidFlag) -> Result<Option<WaitStatus>> {
    match waitpid(None, Some(flags | WaitPidFlag::__WALL)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        stop => stop.map(Some).context("wait for a stop"),
    }
}

fn resume(thread: Pid, signal: Option<Signal>) -> Result<()> {
    gone_is_fine(ptrace::syscall(thread, signal)).context("let a thread go on")
}

/// A thread that is killed leaves its stop by itself.
fn gone_is_fine(done: nix::Result<()>) -> nix::Result<()> {
    match done {
        Err(Errno::ESRCH) => Ok(()),
        done => done,
    }
}
