//! Podman, which has no daemon: each command does its work itself, and a conmon stays with each container.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::TempDir;

use super::{
    IMAGE, Machine,
    image::{COMMAND, Rootfs},
    netns_of,
    programs::{environment, plugin_dirs, required},
};
use crate::{Container, Netns, tool::Tool};

/// Podman with files of its own, and an image to run containers from. Its commands are those of [`Tool`], which it
/// dereferences to: `podman.ok(&["ps"])`.
#[derive(Debug)]
pub struct Podman<'m> {
    machine: &'m Machine,
    dir: PathBuf,
    tool: Tool<'m>,
}

impl<'m> Podman<'m> {
    /// Podman with its configuration. What makes its networks is CNI's plugins before version 5, and netavark from there
    /// on.
    ///
    /// # Panics
    /// When its files can't be made.
    pub fn start(machine: &'m Machine) -> Self {
        let dir = machine.directory("podman");
        let own = dir.join("plugins");
        let network = if machine.is_trixie() {
            format!("network_backend = \"netavark\"\nnetavark_plugin_dirs = {}", json!([own]))
        } else {
            let dirs: Vec<_> = [own].into_iter().chain(plugin_dirs(machine)).collect();
            format!("network_backend = \"cni\"\ncni_plugin_dirs = {}", json!(dirs))
        };
        let config = config(machine, &dir, &network);
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = {}\ngraphroot = {}\n",
            json!(dir.join("run")),
            json!(dir.join("data"))
        );
        let files = [
            (dir.join("containers.conf"), config.as_str()),
            (dir.join("storage.conf"), storage.as_str()),
            ("/etc/containers/policy.json".into(), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#),
        ];
        let written = machine.ns.run(|| {
            for below in ["plugins", "networks"] {
                fs::create_dir(dir.join(below))?;
            }
            fs::create_dir_all("/etc/containers")?;
            files.iter().try_for_each(|(file, content)| fs::write(file, content))
        });
        written.unwrap_or_else(|e| panic!("write podman's configuration: {e}"));
        let mut tool = Tool::new(&machine.ns, required(machine, "podman"))
            .env("CONTAINERS_CONF", Some(dir.join("containers.conf")))
            .env("CONTAINERS_STORAGE_CONF", Some(dir.join("storage.conf")))
            // Version 5 else warns of it each time.
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", Some("1"))
            // What the user's surroundings say.
            .env("XDG_RUNTIME_DIR", None::<String>)
            .env("CONTAINER_HOST", None::<String>);
        for (name, value) in environment(machine) {
            tool = tool.env(name, Some(value));
        }
        let podman = Self { machine, dir, tool };
        podman.import();
        podman
    }

    fn import(&self) {
        let outside = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let archive = Rootfs::new().archive(outside.path());
        let command = format!("CMD {}", json!(COMMAND));
        self.ok(&["import", "--quiet", "--change", &command, &archive.display().to_string(), IMAGE]);
    }

    /// Where a test may put plugins of its own, CNI's or netavark's, which are found before all others; to be opened
    /// inside the machine.
    pub fn plugin_dir(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    /// Adds a network by its file: a CNI configuration list, or what netavark is configured by.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn add_network(&self, file: &str, content: &str) {
        let file = self.dir.join("networks").join(file);
        let written = self.machine.ns.run(|| fs::write(&file, content));
        written.unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
    }

    /// Runs a container: `run -d --name NAME ARGS IMAGE`.
    ///
    /// # Panics
    /// When it fails, or has no IPv4 address on `eth0`.
    pub fn run(&self, name: &str, args: &[&str]) -> Container {
        self.ok(&[&self.run_args(name)[..], args, &[IMAGE]].concat());
        self.container(name)
    }

    fn run_args<'a>(&'a self, name: &'a str) -> [&'a str; 6] {
        ["run", "--detach", "--cgroup-parent", self.machine.cgroup(), "--name", name]
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
}

fn config(machine: &Machine, dir: &Path, network: &str) -> String {
    format!(
        "[containers]
default_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]
cgroupns = \"host\"
apparmor_profile = \"\"
[network]
network_config_dir = {networks}
{network}
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
conmon_path = [{conmon}]
static_dir = {fixed}
tmp_dir = {tmp}
volume_path = {volumes}
[engine.runtimes]
runc = [{runc}]
",
        networks = json!(dir.join("networks")),
        conmon = json!(required(machine, "conmon")),
        runc = json!(required(machine, "runc")),
        fixed = json!(dir.join("static")),
        tmp = json!(dir.join("tmp")),
        volumes = json!(dir.join("volumes")),
    )
}

impl<'m> Deref for Podman<'m> {
    type Target = Tool<'m>;

    fn deref(&self) -> &Tool<'m> {
        &self.tool
    }
}
