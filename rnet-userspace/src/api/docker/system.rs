//! What the daemon says of itself and its host.

use std::fs;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api::server::{API_VERSION, MIN_API_VERSION},
    controller::view::{self, ContainerState},
    version,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    platform: Named,
    components: Vec<Component>,
    version: &'static str,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    git_commit: &'static str,
    go_version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: &'static str,
    version: &'static str,
}

impl Version {
    pub(super) fn of_this_host() -> Self {
        let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        let version = version::RELEASE;
        Self {
            platform: Named { name: "rnet" },
            components: vec![Component { name: "rnet", version }],
            version,
            api_version: dotted(API_VERSION),
            min_api_version: dotted(MIN_API_VERSION),
            git_commit: version::commit(),
            // Docker's client expects the field; there is nothing to say in it.
            go_version: "",
            os: "linux",
            arch: arch(),
            kernel_version: kernel_version(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    #[serde(rename = "ID")]
    id: String,
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    driver: &'static str,
    driver_status: [(); 0],
    plugins: Plugins,
    #[serde(rename = "IPv4Forwarding")]
    ipv4_forwarding: bool,
    system_time: String,
    name: String,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: &'static str,
    #[serde(rename = "NCPU")]
    ncpu: usize,
    mem_total: u64,
    docker_root_dir: String,
    labels: [(); 0],
    server_version: &'static str,
    swarm: Swarm,
    live_restore_enabled: bool,
    security_options: [(); 0],
    warnings: [(); 0],
}

/// There is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    node_addr: &'static str,
    local_node_state: &'static str,
    control_available: bool,
    error: &'static str,
    remote_managers: Option<()>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    volume: [(); 0],
    network: [&'static str; 3],
    authorization: Option<()>,
    log: [(); 0],
}

impl Info {
    pub(super) fn new(status: &view::Status, containers: &[view::Container]) -> Self {
        let running = containers.iter().filter(|c| c.state == ContainerState::Running).count();
        Self {
            id: status.instance.clone(),
            containers: containers.len(),
            containers_running: running,
            containers_paused: 0,
            containers_stopped: containers.len() - running,
            images: 0,
            driver: "",
            driver_status: [],
            plugins: Plugins {
                volume: [],
                network: ["bridge", "host", "null"],
                authorization: None,
                log: [],
            },
            ipv4_forwarding: read_line("/proc/sys/net/ipv4/ip_forward") == "1",
            // Only a year beyond 9999 cannot be written so.
            system_time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            name: read_line("/proc/sys/kernel/hostname"),
            kernel_version: kernel_version(),
            operating_system: operating_system(),
            os_type: "linux",
            architecture: std::env::consts::ARCH,
            ncpu: std::thread::available_parallelism().map_or(1, Into::into),
            mem_total: memory(),
            docker_root_dir: status.state.display().to_string(),
            labels: [],
            server_version: version::RELEASE,
            swarm: Swarm {
                node_id: "",
                node_addr: "",
                local_node_state: "inactive",
                control_available: false,
                error: "",
                remote_managers: None,
            },
            // Containers do not depend on the daemon.
            live_restore_enabled: true,
            security_options: [],
            warnings: [],
        }
    }
}

fn kernel_version() -> String {
    read_line("/proc/sys/kernel/osrelease")
}

/// What os-release(5) calls the system.
fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// The machine's memory, in bytes; 0 when the kernel does not tell.
fn memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Empty when there is no such file: Docker's fields may be.
fn read_line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// The architecture in Go's words, which Docker uses.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
