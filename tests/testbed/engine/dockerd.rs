//! Docker's daemon.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    IMAGE, Machine,
    daemon::Daemon,
    image::{COMMAND, Rootfs},
    netns_of,
    programs::{environment, required},
};
use crate::{Container, Docker, Netns};

/// A running dockerd with an image to run containers from. Docker's client for it is what it dereferences to:
/// `dockerd.ok(&["ps"])`.
#[derive(Debug)]
pub struct Dockerd<'m> {
    machine: &'m Machine,
    dir: PathBuf,
    args: Vec<String>,
    client: Docker<'m>,
    daemon: Daemon<'m>,
}

impl<'m> Dockerd<'m> {
    /// Starts a daemon with these options beside those that say where its files are, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(machine: &'m Machine, args: &[&str]) -> Self {
        let dir = machine.directory("docker");
        let daemon = Daemon::new(machine, "dockerd", dir.join("docker.sock"));
        let client = Docker::at(&machine.ns, daemon.socket().to_owned());
        let client = client.unwrap_or_else(|| panic!("no docker: get it with `cargo xtask setup --tests`"));
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dockerd = Self { machine, dir, args, client, daemon };
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
        let mut command = self.machine.ns.command(required(self.machine, "dockerd"));
        command.envs(environment(self.machine));
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
        self.daemon.start(command, || self.cmd(&["version"]).status.success());
    }

    fn import(&self) {
        let outside = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let archive = Rootfs::new().archive(outside.path());
        let command = format!("CMD {}", serde_json::json!(COMMAND));
        self.ok(&["import", "--change", &command, &archive.display().to_string(), IMAGE]);
    }

    /// Where it listens; to be opened inside the machine.
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
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
        netns_of(self, name)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Ends the daemon in good order (SIGTERM). Containers end with it, unless `--live-restore` keeps them.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Ends the daemon as a crash would (SIGKILL), and with it its containerd and its proxies. Containers go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        self.daemon.kill9();
    }

    /// Ends the daemon in good order and starts it again.
    ///
    /// # Panics
    /// When it does not end or start.
    pub fn restart(&self) {
        self.stop();
        self.start_daemon();
    }

    /// What the daemon printed; a failed test shows it.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl<'m> Deref for Dockerd<'m> {
    type Target = Docker<'m>;

    fn deref(&self) -> &Docker<'m> {
        &self.client
    }
}
