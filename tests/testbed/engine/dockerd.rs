//! Docker's daemon.

use std::{
    cell::RefCell,
    fs::{self, File},
    ops::Deref,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    IMAGE, Machine, equip,
    image::{COMMAND, Rootfs},
    required,
};
use crate::{
    Container, Docker, Netns,
    process::{self, Process},
    wait_until,
};

/// How long the daemon may take to be ready on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to end: it stops its containers first.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A running dockerd with an image to run containers from. Docker's client for it is what it dereferences to:
/// `dockerd.ok(&["ps"])`.
#[derive(Debug)]
pub struct Dockerd<'m> {
    machine: &'m Machine,
    dir: PathBuf,
    args: Vec<String>,
    client: Docker<'m>,
    // Its log and the image's archive, on the machine that the tests run on.
    outside: TempDir,
    daemon: RefCell<Option<Process>>,
}

impl<'m> Dockerd<'m> {
    /// Starts a daemon with these options beside those that say where its files are, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(machine: &'m Machine, args: &[&str]) -> Self {
        let dir = machine.directory("docker");
        let client = Docker::at(&machine.ns, dir.join("docker.sock"));
        let client = client.unwrap_or_else(|| panic!("no docker: get it with `cargo xtask setup --tests`"));
        let outside = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dockerd = Self { machine, dir, args, client, outside, daemon: RefCell::new(None) };
        // Not the machine's own.
        let config = dockerd.config_file();
        let written = machine.ns.run(|| fs::write(&config, "{}"));
        written.unwrap_or_else(|e| panic!("write {}: {e}", config.display()));
        dockerd.start_daemon();
        dockerd.import();
        dockerd
    }

    /// Starts the daemon again, after [`Dockerd::stop`] or [`Dockerd::kill9`].
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon(&self) {
        assert!(self.daemon.borrow().is_none(), "dockerd runs");
        let mut command = self.machine.ns.command(required("dockerd"));
        equip(&mut command);
        let log = File::options().create(true).append(true).open(self.log_file());
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log_file().display()));
        let second = log.try_clone().unwrap_or_else(|e| panic!("share the log file: {e}"));
        command.stdout(log).stderr(second);
        command
            .arg("--config-file")
            .arg(self.config_file())
            .arg("--data-root")
            .arg(self.dir.join("data"))
            .arg("--exec-root")
            .arg(self.dir.join("exec"))
            .arg("--pidfile")
            .arg(self.dir.join("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--log-level", "warn", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"])
            .arg(format!("/{}", self.machine.cgroup()))
            .args(&self.args);
        let mut daemon = Process::start(command);
        let socket = self.socket();
        wait_until("dockerd answers", START_LIMIT, || {
            if let Some(status) = daemon.ended() {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            // Nobody is asked who does not listen yet: that would be a process each time.
            self.machine.ns.run(|| UnixStream::connect(&socket)).ok()?;
            self.cmd(&["version"]).status.success().then_some(())
        });
        *self.daemon.borrow_mut() = Some(daemon);
    }

    fn import(&self) {
        let archive = Rootfs::new().archive(self.outside.path());
        let command = format!("CMD {}", serde_json::json!(COMMAND));
        self.ok(&["import", "--change", &command, &archive.display().to_string(), IMAGE]);
    }

    /// Where it listens; to be opened inside the machine.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Where its options can be given as a file, which the daemon reads when it starts or is sent SIGHUP.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("daemon.json")
    }

    /// Puts a file under `/etc/docker/plugins`: a `.spec` or `.json` that says where a plugin listens.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn add_plugin_spec(&self, file: &str, content: &str) {
        let dir = Path::new("/etc/docker/plugins");
        let written =
            self.machine.ns.run(|| fs::create_dir_all(dir).and_then(|()| fs::write(dir.join(file), content)));
        written.unwrap_or_else(|e| panic!("write {file} to {}: {e}", dir.display()));
    }

    /// `/run/docker/plugins`, where plugins may put their sockets. It is made if need be.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn plugin_sockets(&self) -> &'static Path {
        let dir = Path::new("/run/docker/plugins");
        let made = self.machine.ns.run(|| fs::create_dir_all(dir));
        made.unwrap_or_else(|e| panic!("make {}: {e}", dir.display()));
        dir
    }

    /// Runs a container: `run -d --name NAME ARGS IMAGE`.
    ///
    /// # Panics
    /// When it fails, or has no IPv4 address on `eth0`.
    pub fn run(&self, name: &str, args: &[&str]) -> Container {
        self.ok(&[&["run", "--detach", "--name", name], args, &[IMAGE]].concat());
        self.container(name)
    }

    /// A container that runs.
    ///
    /// # Panics
    /// When it does not, or has no IPv4 address on `eth0`.
    pub fn container(&self, name: &str) -> Container {
        Container::of(name, self.container_netns(name))
    }

    /// The network namespace of a container that runs.
    ///
    /// # Panics
    /// When it does not.
    pub fn container_netns(&self, name: &str) -> Netns {
        let pid = self.line(&["inspect", "--type", "container", "--format", "{{.State.Pid}}", name]);
        assert_ne!(pid, "0", "{name} does not run");
        Netns::open(format!("/proc/{pid}/ns/net"))
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.daemon.borrow().as_ref().unwrap_or_else(|| panic!("dockerd does not run")).id()
    }

    /// Ends the daemon in good order (SIGTERM). Containers end with it, unless `--live-restore` keeps them.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&self) {
        let mut daemon = self.take();
        daemon.terminate();
        let status = daemon.wait(END_LIMIT).unwrap_or_else(|| panic!("dockerd still runs:\n{}", self.log()));
        assert!(status.success(), "dockerd ended with {status} on SIGTERM:\n{}", self.log());
    }

    /// Ends the daemon as a crash would (SIGKILL), and with it its containerd and its proxies. Containers go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        let mut daemon = self.take();
        let children = process::children_of(daemon.id());
        daemon.kill();
        // The next dockerd takes a containerd for running that is dead and that nobody has waited for.
        wait_until("dockerd's processes end with it", END_LIMIT, || {
            children.iter().all(|id| !Path::new("/proc").join(id.to_string()).exists()).then_some(())
        });
    }

    /// Ends the daemon in good order and starts it again.
    ///
    /// # Panics
    /// When it does not end or start.
    pub fn restart(&self) {
        self.stop();
        self.start_daemon();
    }

    fn take(&self) -> Process {
        self.daemon.borrow_mut().take().unwrap_or_else(|| panic!("dockerd does not run"))
    }

    /// What the daemon printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_else(|e| format!("(no log: {e})"))
    }

    fn log_file(&self) -> PathBuf {
        self.outside.path().join("log")
    }
}

impl<'m> Deref for Dockerd<'m> {
    type Target = Docker<'m>;

    fn deref(&self) -> &Docker<'m> {
        &self.client
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        super::show_log("dockerd", || self.log());
    }
}
