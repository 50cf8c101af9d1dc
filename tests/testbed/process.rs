//! Processes that end: with their own time limit, or with the test that started them.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::patient;

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, when it ended with status 0.
    ///
    /// # Panics
    /// When it did not.
    pub fn assert_ok(self, what: &str) -> Self {
        assert!(self.status.success(), "{what}: {}\n{}{}", self.status, self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`; it is killed then.
pub fn run(command: Command, limit: Duration) -> Finished {
    let what = format!("{command:?}");
    try_run(command, limit).unwrap_or_else(|| panic!("{what}: no such program"))
}

/// Starts a program. One that a test has just written may be open for writing in a process that another test is
/// starting, until that runs its own program.
fn spawn(command: &mut Command) -> io::Result<Child> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(20));
            }
            spawned => return spawned,
        }
    }
    command.spawn()
}

/// The same with something on standard input.
///
/// # Panics
/// Likewise.
pub fn run_with_input(mut command: Command, input: &str, limit: Duration) -> Finished {
    let what = format!("{command:?}");
    let mut stdin = scratch_file();
    let written = stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind());
    written.unwrap_or_else(|e| panic!("write a temporary file: {e}"));
    command.stdin(stdin);
    finish(command, limit).unwrap_or_else(|| panic!("{what}: no such program"))
}

/// The same, but nothing when there is no such program.
pub fn try_run(mut command: Command, limit: Duration) -> Option<Finished> {
    command.stdin(Stdio::null());
    finish(command, limit)
}

fn finish(mut command: Command, limit: Duration) -> Option<Finished> {
    let what = format!("{command:?}");
    // Files, not pipes: a pipe stays open as long as any process that inherited it, and can fill up.
    let (mut stdout, mut stderr) = (scratch_file(), scratch_file());
    command.stdout(shared(&stdout)).stderr(shared(&stderr));
    let child = match spawn(&mut command) {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => panic!("start {what}: {e}"),
    };
    let mut process = Process { child, what };
    let status = process.wait(limit).unwrap_or_else(|| {
        panic!("{}: still running after {:?}\n{}", process.what, patient(limit), text_of(&mut stderr));
    });
    Some(Finished { status, stdout: text_of(&mut stdout), stderr: text_of(&mut stderr) })
}

fn scratch_file() -> File {
    tempfile::tempfile().unwrap_or_else(|e| panic!("make a temporary file: {e}"))
}

fn shared(file: &File) -> File {
    file.try_clone().unwrap_or_else(|e| panic!("share a temporary file: {e}"))
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    read.unwrap_or_else(|e| panic!("read a temporary file: {e}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process that runs; killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts a command with an empty standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null());
        let child = spawn(&mut command).unwrap_or_else(|e| panic!("start {what}: {e}"));
        Self { child, what }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|e| panic!("wait for {}: {e}", self.what))
    }

    /// Waits for its end; nothing when it still runs after `limit`, which is a [`patient`] one.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patient(limit);
        loop {
            let status = self.ended();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("process ids are below 2^22");
        // It may have ended: then there is nothing to ask. Its id is not free before it is waited for.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// Ends it at once (SIGKILL) and waits.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether all threads of a process are stopped, by a signal or by whoever traces it.
pub fn is_stopped(id: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// The processes that a process has started itself and not given away.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap_or_else(|e| panic!("list processes: {e}"));
    let child = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which may hold anything: state and parent.
        let of: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (of == parent).then_some(id)
    };
    processes.filter_map(|entry| child(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
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
    fn status_and_both_outputs_are_kept_apart() {
        let finished = run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(10));
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    }

    #[test]
    #[should_panic(expected = "still running after")]
    fn a_process_that_does_not_end_is_given_up() {
        run(shell("sleep 60"), Duration::from_millis(50));
    }

    #[test]
    fn a_process_ends_with_its_owner() {
        let process = Process::start(shell("exec sleep 60"));
        let proc = format!("/proc/{}", process.id());
        assert!(fs::exists(&proc).unwrap());
        drop(process);
        assert!(!fs::exists(&proc).unwrap());
    }

    #[test]
    fn children_are_found() {
        let process = Process::start(shell("exec sleep 60"));
        assert!(children_of(std::process::id()).contains(&process.id()));
        assert!(children_of(process.id()).is_empty());
    }
}
