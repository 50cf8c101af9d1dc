//! An instance of rnet, started on the stage's host.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    counters::Counters,
    interrupt,
    netns::{self, Namespace},
    screen,
};
use crate::command::{line, output};

/// The daemon's last lines, for when it fails.
type Log = Arc<Mutex<VecDeque<String>>>;

/// A running daemon, and its commands. What it made goes with this value.
pub(super) struct Instance {
    name: String,
    rnet: PathBuf,
    host: Namespace,
    daemon: Option<Child>,
    log: Log,
}

impl Instance {
    /// Starts a daemon on `host` and waits until it answers.
    pub(super) fn start(name: &str, rnet: &Path, host: &Namespace) -> Result<Self> {
        let mut command = Command::new(rnet);
        command
            .arg("daemon")
            .env("RNET_INSTANCE", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // Ctrl-C goes to a process group: the daemon is told by the demonstration, when its work is done.
        command.process_group(0);
        let mut daemon =
            host.enter(|| command.spawn().with_context(|| format!("run `{}`", line(&command))))?;
        let log = Log::default();
        if let Some(stderr) = daemon.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || keep_last_lines(BufReader::new(stderr), &log));
        }
        let mut instance =
            Self { name: name.into(), rnet: rnet.into(), host: host.clone(), daemon: Some(daemon), log };
        instance.wait_until_it_answers()?;
        Ok(instance)
    }

    /// The namespace of a container, as iproute2 names it.
    pub(super) fn container(&self, name: &str) -> Namespace {
        Namespace::named(format!("{}-{name}", self.name))
    }

    /// Runs `rnet ARGS` on the host after showing it, and shows what it prints, if `show` says so.
    pub(super) fn show(&self, args: &[&str], show: bool) -> Result<String> {
        let mut shown = Command::new("rnet");
        let xtask = xtask()?;
        shown.args(args.iter().map(|arg| if **arg == *xtask { "xtask" } else { arg }));
        screen::command("host", line(&shown));
        let text = self.run(args)?;
        if show {
            screen::printed(&text);
        }
        Ok(text)
    }

    /// Runs `rnet ARGS` on the host and returns what it prints.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.rnet);
        command.args(args).env("RNET_INSTANCE", &self.name);
        self.host.enter(|| output(&mut command))
    }

    /// The datapath's counters at this moment.
    pub(super) fn counters(&self) -> Result<Counters> {
        Counters::parse(&self.run(&["stats", "--format", "json"])?)
    }

    /// Removes everything that the instance made, ends its daemon and proves that nothing stays behind.
    pub(super) fn remove(mut self) -> Result<()> {
        let down = self.show(&["down"], true).map(drop);
        self.stop();
        let left = self.leftovers();
        down?;
        if !left.is_empty() {
            let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
            bail!("`rnet down` left behind {}", left.join(", "));
        }
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            if let Some(status) = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().transpose()) {
                bail!("`rnet daemon` ended: {}{}", status.context("wait for the daemon")?, self.last_lines());
            }
            match self.run(&["status"]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| {
                        format!(
                            "`rnet daemon` does not answer after {} s{}",
                            PATIENCE.as_secs(),
                            self.last_lines()
                        )
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Ends the daemon.
    fn stop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let Some(mut daemon) = self.daemon.take() else { return };
        let deadline = Instant::now() + PATIENCE;
        if let Ok(pid) = i32::try_from(daemon.id()) {
            // It may have ended by itself, which is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        while Instant::now() < deadline {
            if !matches!(daemon.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        screen::failed("the daemon did not end when told to");
        let _ = daemon.kill();
        let _ = daemon.wait();
    }

    /// Whatever is still there of the instance's files and namespaces.
    fn leftovers(&self) -> Vec<PathBuf> {
        let dirs = ["/run", "/var/lib", "/sys/fs/bpf"].map(|dir| Path::new(dir).join(&self.name));
        let prefix = format!("{}-", self.name);
        let ours = |name: &str| name.starts_with(&prefix);
        let names = fs::read_dir(netns::DIR).into_iter().flatten().flatten();
        let namespaces = names.filter(|entry| entry.file_name().to_str().is_some_and(ours));
        dirs.into_iter().filter(|dir| dir.exists()).chain(namespaces.map(|entry| entry.path())).collect()
    }

    fn last_lines(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Instance {
    /// The way out of a failure: what `rnet down` does not remove goes all the same.
    fn drop(&mut self) {
        let answers = self.daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)));
        if let Some(Err(error)) = answers.then(|| self.run(&["down"])) {
            eprintln!("error: {error:#}{}", self.last_lines());
        }
        self.stop();
        for path in self.leftovers() {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))
            } else {
                netns::delete(&path.file_name().unwrap_or_default().to_string_lossy())
            };
            if let Err(error) = removed {
                eprintln!("error: {error:#}");
            }
        }
    }
}

/// This program, which is also the demonstration's web server and client.
pub(super) fn xtask() -> Result<String> {
    let path = env::current_exe().context("find the program that runs this")?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{path:?} is not UTF-8"))
}

fn keep_last_lines(stderr: impl BufRead, log: &Log) {
    const LINES: usize = 20;
    for line in stderr.lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}
