//! The program under test: its daemon, its commands, and the containers that it makes.

use std::{
    cell::RefCell,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Container, Host, bpf,
    commands::{COMMAND_LIMIT, Commands, assert_refused},
    netns::remove_named,
    process::{self, Finished, Process},
    snapshot, wait_until,
};

/// How long the daemon may take to be ready: loading its programs on two busy cores included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the daemon may take to end when told to.
const END_LIMIT: Duration = Duration::from_secs(20);

/// One instance of rnet on a host. Whatever it has made is removed on drop.
#[derive(Debug)]
pub struct Rnet<'h> {
    host: &'h Host,
    instance: String,
    log: tempfile::NamedTempFile,
    env: Vec<(String, String)>,
    // Commands that end the daemon take `&self`, as every other command does.
    daemon: RefCell<Option<Process>>,
}

impl<'h> Rnet<'h> {
    /// Starts an instance with a name of its own, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(host: &'h Host) -> Self {
        let rnet = Self::new(host);
        rnet.start_daemon();
        rnet
    }

    /// An instance whose daemon does not run yet.
    pub fn new(host: &'h Host) -> Self {
        bpf::ensure_bpffs();
        let instance = format!("t{}-{}", std::process::id(), crate::next_number());
        let log = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("make a log file: {e}"));
        Self { host, instance, log, env: Vec::new(), daemon: RefCell::new(None) }
    }

    /// Where it runs.
    pub(crate) fn host(&self) -> &'h Host {
        self.host
    }

    /// Its name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where its daemon listens.
    pub fn socket(&self) -> PathBuf {
        Path::new("/run").join(&self.instance).join("rnet.sock")
    }

    /// Sets an environment variable for daemons started from here on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.unset_env(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Takes back [`Rnet::set_env`].
    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon(&self) {
        self.start_daemon_with(&[]);
    }

    /// The same with options of `rnet daemon`.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon_with(&self, args: &[&str]) {
        let command = self.command(&[&["daemon"], args].concat());
        self.start_daemon_by(command, None);
    }

    /// The same with a socket that is there already, as a service manager passes one on.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon_on(&self, listener: &UnixListener) {
        self.start_daemon_by(self.activated(), Some(listener));
    }

    /// `rnet daemon` as sd_listen_fds(3) has it, which takes its standard output for the socket.
    fn activated(&self) -> Command {
        let daemon = self.command(&["daemon"]);
        let mut command = self.host.ns.command("sh");
        let script = "exec 3>&1 1>&2; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(daemon.get_program()).args(daemon.get_args());
        command
    }

    /// The same without one of root's capabilities, by its name as `net_admin`.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon_without(&self, capability: &str) {
        self.start_daemon_by(self.command_without(capability, &["daemon"]), None);
    }

    /// A command as of [`Rnet::command`], without one of root's capabilities.
    pub fn command_without(&self, capability: &str, args: &[&str]) -> Command {
        let inner = self.command(args);
        let mut command = self.host.ns.command("setpriv");
        command.arg(format!("--bounding-set=-{capability}"));
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    fn start_daemon_by(&self, mut command: Command, listener: Option<&UnixListener>) {
        assert!(self.daemon.borrow().is_none(), "the daemon of {} runs", self.instance);
        let log = File::options().append(true).open(self.log.path());
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log.path().display()));
        let second = log.try_clone().unwrap_or_else(|e| panic!("share the log file: {e}"));
        command.envs(self.env.iter().cloned()).stderr(second);
        match listener.map(UnixListener::try_clone) {
            None => command.stdout(log),
            Some(Ok(listener)) => command.stdout(OwnedFd::from(listener)),
            Some(Err(e)) => panic!("share a socket: {e}"),
        };
        // An interrupt from the terminal is for whoever runs this, and needs the daemon to remove everything.
        command.process_group(0);
        let mut daemon = Process::start(command);
        let socket = self.socket();
        wait_until("rnet daemon answers", START_LIMIT, || {
            if let Some(status) = daemon.ended() {
                panic!("rnet daemon ended with {status}:\n{}", self.log());
            }
            // Nobody is asked who does not listen yet: that would be a process each time.
            self.host.ns.run(|| UnixStream::connect(&socket)).ok()?;
            self.cmd(&["status"]).status.success().then_some(())
        });
        *self.daemon.borrow_mut() = Some(daemon);
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn daemon_id(&self) -> u32 {
        let daemon = self.daemon.borrow();
        daemon.as_ref().unwrap_or_else(|| panic!("the daemon of {} does not run", self.instance)).id()
    }

    /// Ends the daemon as a crash would (SIGKILL).
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        self.take_daemon().kill();
    }

    /// Waits until the daemon has ended by itself.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn wait_ended(&self) {
        let ended = self.take_daemon().wait(END_LIMIT);
        assert!(ended.is_some(), "rnet daemon still runs:\n{}", self.log());
    }

    /// Ends the daemon in good order (SIGTERM), as a service manager would.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn terminate(&self) {
        let mut daemon = self.take_daemon();
        daemon.terminate();
        let status = daemon.wait(END_LIMIT).unwrap_or_else(|| panic!("rnet daemon does not end on SIGTERM"));
        assert!(status.success(), "rnet daemon ended with {status} on SIGTERM:\n{}", self.log());
    }

    /// Has the daemon read its configuration again (SIGHUP), waits until it has, and returns what it said meanwhile.
    ///
    /// # Panics
    /// When it does not run, or says nothing of it.
    pub fn reload(&self) -> String {
        let before = self.log().len();
        self.daemon
            .borrow()
            .as_ref()
            .unwrap_or_else(|| panic!("the daemon of {} does not run", self.instance))
            .hang_up();
        wait_until("the daemon reloads", COMMAND_LIMIT, || {
            let said = self.log().split_off(before);
            let is_done =
                ["configuration reloaded", "reload the configuration"].iter().any(|end| said.contains(end));
            is_done.then_some(said)
        })
    }

    /// Removes everything, and expects the daemon to end with it.
    ///
    /// # Panics
    /// When either fails.
    pub fn down(&self) {
        self.ok(&["down"]);
        let mut daemon = self.take_daemon();
        let status =
            daemon.wait(END_LIMIT).unwrap_or_else(|| panic!("rnet daemon still runs after `rnet down`"));
        assert!(status.success(), "rnet daemon ended with {status} after `rnet down`:\n{}", self.log());
    }

    fn take_daemon(&self) -> Process {
        self.daemon
            .borrow_mut()
            .take()
            .unwrap_or_else(|| panic!("the daemon of {} does not run", self.instance))
    }

    /// What the daemon printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_else(|e| format!("(no log: {e})"))
    }

    /// Commands for this instance, which other threads than the daemon's may give too.
    pub fn commands(&self) -> Commands<'_> {
        Commands::new(&self.host.ns, &self.instance)
    }

    /// `rnet ARGS` for this instance, to be run in the host's namespace.
    pub fn command(&self, args: &[&str]) -> Command {
        self.commands().command(args)
    }

    /// Runs a command to its end.
    pub fn cmd(&self, args: &[&str]) -> Finished {
        self.commands().cmd(args)
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        self.commands().ok(args)
    }

    /// Runs a command that must be refused: status 1, and one line on standard error, which is returned.
    ///
    /// # Panics
    /// When it succeeds, or says it otherwise.
    pub fn fails(&self, args: &[&str]) -> String {
        assert_refused(&format!("rnet {}", args.join(" ")), &self.cmd(args))
    }

    /// What a command lists with `--format json`: an array, or one value a line.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.ok(&[args, &["--format", "json"]].concat());
        let values = serde_json::Deserializer::from_str(&output).into_iter::<Value>();
        let values =
            values.map(|v| v.unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}):\n{output}")));
        values.flat_map(|v| if let Value::Array(items) = v { items } else { vec![v] }).collect()
    }

    /// Runs a container without a process: `run -d --name NAME ARGS`.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, name: &str, args: &[&str]) -> Container {
        self.commands().run(name, args)
    }

    /// A container that runs.
    ///
    /// # Panics
    /// When it has no namespace, or no IPv4 address on `eth0`.
    pub fn container(&self, name: &str) -> Container {
        self.commands().container(name)
    }

    /// Packets that the datapath counted under `verdict` (`carried`, `passed`, `dropped`).
    pub fn packets(&self, verdict: &str) -> u64 {
        self.json(&["stats"]).iter().map(|value| packets_of(value, "verdict", verdict)).sum()
    }

    /// Packets that the datapath counted for `reason` (`no-flow-out`).
    pub fn packets_for(&self, reason: &str) -> u64 {
        self.json(&["stats"]).iter().map(|value| packets_of(value, "reason", reason)).sum()
    }
}

/// The packets of every counter whose `key` says `wanted` within a JSON value, however they are grouped.
fn packets_of(value: &Value, key: &str, wanted: &str) -> u64 {
    match value {
        Value::Object(map) if map.get(key).is_some_and(|v| v == wanted) => {
            map.get("packets").and_then(Value::as_u64).unwrap_or_default()
        }
        Value::Object(map) => map.values().map(|v| packets_of(v, key, wanted)).sum(),
        Value::Array(items) => items.iter().map(|v| packets_of(v, key, wanted)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

impl Drop for Rnet<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what the daemon had to say")]
            {
                eprintln!("--- log of instance {}\n{}---", self.instance, self.log());
            }
        }
        // Failures are ignored from here on: the test has its verdict, and may be failing already.
        let mut daemon = self.daemon.borrow_mut().take();
        if let Some(daemon) = &mut daemon {
            let mut down = Process::start(self.quiet(&["down"]));
            if down.wait(COMMAND_LIMIT).is_some() {
                daemon.terminate();
                daemon.wait(Duration::from_secs(5));
            }
        }
        drop(daemon);
        self.host.ns.run(|| {
            for name in snapshot::namespaces(&self.instance) {
                kill_processes_in(&name);
                remove_named(&Path::new("/run/netns").join(name));
            }
            for dir in snapshot::places(&self.instance) {
                unmount_namespaces(&dir);
                let _ = fs::remove_dir_all(dir);
            }
        });
    }
}

impl Rnet<'_> {
    fn quiet(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }
}

/// Lets go of the UTS and IPC namespaces that containers' directories hold, which nobody has taken down.
fn unmount_namespaces(dir: &Path) {
    let files = snapshot::files_below(dir);
    files
        .iter()
        .filter(|file| file.ends_with("uts") || file.ends_with("ipc"))
        .for_each(|file| remove_named(file));
}

/// Ends the container processes that a killed daemon left in a namespace of a test's own instance.
fn kill_processes_in(name: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "pids", name]);
    let Some(pids) = process::try_run(command, COMMAND_LIMIT) else { return };
    for pid in pids.stdout.lines().filter_map(|l| l.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_by_verdict() {
        let stats = serde_json::json!({"counters": [
            {"verdict": "carried", "packets": 2},
            {"verdict": "dropped", "packets": 5},
            {"verdict": "carried", "packets": 1},
        ]});
        assert_eq!(packets_of(&stats, "verdict", "carried"), 3);
    }
}
