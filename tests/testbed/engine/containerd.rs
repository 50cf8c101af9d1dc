//! containerd as a kubelet uses it: pods by way of CRI, their network by way of CNI.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    IMAGE, Machine,
    cri::{self, Cri, PodSandboxConfig, PodSandboxMetadata, PortMapping},
    daemon::Daemon,
    image::Rootfs,
    programs::{environment, plugin_dirs, required},
};
use crate::{Netns, tool::Tool, wait_until};

/// A running containerd with an image for sandboxes and containers.
#[derive(Debug)]
pub struct Containerd<'m> {
    machine: &'m Machine,
    dir: PathBuf,
    daemon: Daemon<'m>,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// Its sandbox's id.
    pub id: String,
    /// What it was asked to be.
    pub config: PodSandboxConfig,
    /// Its network namespace.
    pub ns: Netns,
    /// Its addresses as CRI tells them.
    pub addrs: Vec<IpAddr>,
}

impl<'m> Containerd<'m> {
    /// Starts containerd with this network for its pods: a CNI configuration list, under this file name.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(machine: &'m Machine, network: &str, content: &str) -> Self {
        let dir = machine.directory("containerd");
        let daemon = Daemon::new(machine, "containerd", dir.join("containerd.sock"));
        let containerd = Self { machine, dir, daemon };
        let written = machine.ns.run(|| containerd.write_files(network, content));
        written.unwrap_or_else(|e| panic!("write containerd's files: {e}"));
        containerd.start_daemon();
        containerd.import();
        containerd
    }

    fn write_files(&self, network: &str, content: &str) -> std::io::Result<()> {
        fs::create_dir(self.dir.join("networks"))?;
        fs::write(self.dir.join("networks").join(network), content)?;
        // There can be only one such directory: the plugins are brought together.
        fs::create_dir(self.plugin_dir())?;
        for dir in plugin_dirs(self.machine) {
            for plugin in fs::read_dir(dir)? {
                let plugin = plugin?;
                let _ = symlink(plugin.path(), self.plugin_dir().join(plugin.file_name()));
            }
        }
        fs::write(self.dir.join("config.toml"), self.config())
    }

    fn config(&self) -> String {
        // Without CAP_SYS_RESOURCE a sandbox may not be spared by the kernel when memory runs out.
        format!(
            "version = 2
[plugins.\"io.containerd.internal.v1.opt\"]
path = {opt}
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = {image}
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.\"io.containerd.grpc.v1.cri\".cni]
bin_dir = {plugins}
conf_dir = {networks}
",
            opt = json!(self.dir.join("opt")),
            image = json!(IMAGE),
            plugins = json!(self.plugin_dir()),
            networks = json!(self.dir.join("networks")),
        )
    }

    /// Starts the daemon again, after [`Containerd::stop`] or [`Containerd::kill9`].
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_daemon(&self) {
        let mut command = self.machine.ns.command(required(self.machine, "containerd"));
        command.envs(environment(self.machine));
        command
            .args(["--log-level", "warn", "--config"])
            .arg(self.dir.join("config.toml"))
            .arg("--root")
            .arg(self.dir.join("data"))
            .arg("--state")
            .arg(self.dir.join("state"))
            .arg("--address")
            .arg(self.socket());
        self.daemon.start(command, || self.cri().version().is_ok());
    }

    fn import(&self) {
        let outside = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let image = Rootfs::new().image(outside.path());
        self.ctr().ok(&["images", "import", &image.display().to_string()]);
        // CRI hears of new images by and by.
        wait_until("the image is known", Duration::from_secs(20), || {
            self.cri().has_image(IMAGE).unwrap_or_default().then_some(())
        });
    }

    /// `ctr` for what CRI sees. It is run inside the machine, without which `--cni` would change the tests' own network.
    pub fn ctr(&self) -> Tool<'m> {
        let mut tool = Tool::new(&self.machine.ns, required(self.machine, "ctr"));
        for (name, value) in environment(self.machine) {
            tool = tool.env(name, Some(value));
        }
        tool.arg("--address").arg(self.socket()).arg("--namespace").arg("k8s.io")
    }

    /// Where it listens; to be opened inside the machine.
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
    }

    /// Where CNI plugins are found, and a test may put some of its own; to be opened inside the machine.
    pub fn plugin_dir(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    /// What a kubelet speaks to.
    pub fn cri(&self) -> Cri<'m> {
        Cri::new(&self.machine.ns, self.socket().to_owned())
    }

    /// What a pod of this name and these published ports is to be.
    pub fn pod(&self, name: &str, ports: &[PortMapping]) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        };
        let cgroup_parent = format!("/{}", self.machine.cgroup());
        PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.into(),
            port_mappings: ports.to_vec(),
            linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent, ..Default::default() }),
            ..Default::default()
        }
    }

    /// Runs a pod with one container.
    ///
    /// # Panics
    /// When it can't be run, or has no address.
    pub fn run(&self, name: &str, ports: &[PortMapping]) -> Pod {
        self.run_pod(self.pod(name, ports))
    }

    /// The same with everything that a pod can be.
    ///
    /// # Panics
    /// When it can't be run, or has no address.
    pub fn run_pod(&self, config: PodSandboxConfig) -> Pod {
        let cri = self.cri();
        let id = cri.run_pod_sandbox(config.clone()).unwrap_or_else(|e| panic!("run a sandbox: {e}"));
        let container = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: IMAGE.into() }),
            ..Default::default()
        };
        let started = cri
            .create_container(&id, container, config.clone())
            .and_then(|container| cri.start_container(&container));
        started.unwrap_or_else(|e| panic!("start a container: {e}"));
        let addrs = self.addrs(&id);
        assert!(!addrs.is_empty(), "the pod has no address");
        Pod { ns: self.sandbox_netns(&id), id, config, addrs }
    }

    /// The addresses of a sandbox, as CRI tells them.
    ///
    /// # Panics
    /// When there is no such sandbox.
    pub fn addrs(&self, sandbox: &str) -> Vec<IpAddr> {
        let status = self.cri().pod_sandbox_status(sandbox).unwrap_or_else(|e| panic!("{sandbox}: {e}"));
        let network = status.status.and_then(|status| status.network).unwrap_or_default();
        let others = network.additional_ips.iter().map(|other| &other.ip);
        [&network.ip].into_iter().chain(others).filter_map(|addr| addr.parse().ok()).collect()
    }

    /// The network namespace of a sandbox.
    ///
    /// # Panics
    /// When there is none.
    pub fn sandbox_netns(&self, sandbox: &str) -> Netns {
        let status = self.cri().pod_sandbox_status(sandbox).unwrap_or_else(|e| panic!("{sandbox}: {e}"));
        let info = status.info.get("info").and_then(|info| serde_json::from_str::<Value>(info).ok());
        let pid = info.and_then(|info| info["pid"].as_u64());
        let pid = pid.unwrap_or_else(|| panic!("{sandbox} has no process: {:?}", status.info));
        Netns::open(format!("/proc/{pid}/ns/net"))
    }

    /// Stops and removes a pod.
    ///
    /// # Panics
    /// When it can't be.
    pub fn remove(&self, pod: &Pod) {
        let cri = self.cri();
        let removed = cri.stop_pod_sandbox(&pod.id).and_then(|()| cri.remove_pod_sandbox(&pod.id));
        removed.unwrap_or_else(|e| panic!("remove a sandbox: {e}"));
    }

    /// Ends the daemon in good order (SIGTERM). Pods go on.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Ends the daemon as a crash would (SIGKILL). Pods go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        self.daemon.kill9();
    }

    /// What the daemon printed; a failed test shows it.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
