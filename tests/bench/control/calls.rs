//! Commands, timed from their start to their end, as whoever types them sees it.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::interrupt;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How soon an interrupt is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// A command that has ended well.
pub(super) struct Ended {
    pub(super) seconds: f64,
    /// What it printed.
    pub(super) output: String,
}

/// Runs a command.
///
/// # Errors
/// When it fails, with what it said; when it takes too long, or the benchmark is interrupted.
pub(super) fn run(command: Command) -> Result<Ended> {
    run_with(command, Stdio::null())
}

/// Runs a command that reads this from its standard input.
///
/// # Errors
/// As [`run`].
pub(super) fn feed(command: Command, input: &str) -> Result<Ended> {
    // A file, which is there whole before the clock starts.
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).context("write a temporary file")?;
    run_with(command, file.into())
}

/// Runs commands on so many threads, each taking the next as soon as it is done with one, and returns the seconds that
/// all took together.
///
/// # Errors
/// That of the first that fails; no more are started then.
pub(super) fn run_all(commands: impl Iterator<Item = Command>, at_once: usize) -> Result<f64> {
    let since = Instant::now();
    if at_once <= 1 {
        for command in commands {
            run(command)?;
        }
        return Ok(since.elapsed().as_secs_f64());
    }
    let failed = Mutex::new(None);
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    // Each has files open: no more are made than are about to be run.
    let (give, take) = mpsc::sync_channel::<Command>(at_once);
    let take = Mutex::new(take);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let next = || take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(command) = next() {
                    if has_failed() {
                        continue;
                    }
                    if let Err(error) = run(command) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
        // The receiver outlives the scope, so that it takes every command.
        for command in commands.take_while(|_| !has_failed()) {
            let _ = give.send(command);
        }
        drop(give);
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(since.elapsed().as_secs_f64()),
    }
}

fn run_with(mut command: Command, input: Stdio) -> Result<Ended> {
    interrupt::check()?;
    let (mut output, mut complaint) = (scratch()?, scratch()?);
    command.stdin(input).stdout(shared(&output)?).stderr(shared(&complaint)?);
    // An interrupt from the terminal is the benchmark's, which ends what it has started.
    command.process_group(0);
    let what = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args()).take(12);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let what = what();
    let since = Instant::now();
    let mut running = Running(command.spawn().with_context(|| format!("start {what}"))?);
    let status = wait(&mut running.0).with_context(|| format!("wait for {what}"))?;
    let seconds = since.elapsed().as_secs_f64();
    ensure!(status.success(), "{what}: {status}: {}", text(&mut complaint)?.trim());
    Ok(Ended { seconds, output: text(&mut output)? })
}

/// A process that is ended when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the end of a process, which the kernel tells of at once.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watch the process")?;
    let deadline = Instant::now() + LIMIT;
    let timeout = Timespec::try_from(LOOK).context("understand a duration")?;
    loop {
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut ended, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(child.wait()?),
            Err(error) => return Err(anyhow!(error)),
        }
        interrupt::check()?;
        ensure!(Instant::now() < deadline, "still running after {LIMIT:?}");
    }
}

fn scratch() -> Result<File> {
    tempfile::tempfile().context("make a temporary file")
}

fn shared(file: &File) -> Result<File> {
    file.try_clone().context("share a temporary file")
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("read a temporary file")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_command_reads_and_prints_is_passed_on() {
        let long = "a line\n".repeat(50_000);
        let ended = feed(Command::new("cat"), &long).unwrap();
        assert_eq!(ended.output, long);
        assert!(ended.seconds > 0.0);
        assert_eq!(run(shell("cat; echo done")).unwrap().output, "done\n");
    }

    #[test]
    fn a_failure_says_which_command_and_why() {
        let error = run(shell("echo no such thing >&2; exit 3")).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.starts_with("sh -c") && error.ends_with("exit status: 3: no such thing"), "{error}");
        let error = run(Command::new("no-such-program")).err().unwrap();
        assert!(format!("{error:#}").starts_with("start no-such-program: "), "{error:#}");
    }

    #[test]
    fn all_are_run_however_many_at_once_and_the_first_failure_ends_it() {
        for at_once in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let touch = |n: u32| shell(&format!("touch {}", dir.path().join(n.to_string()).display()));
            run_all((0..10).map(touch), at_once).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 10);
            let endless = std::iter::repeat_with(|| shell("exit 1"));
            assert!(run_all(endless, at_once).is_err());
        }
    }
}
