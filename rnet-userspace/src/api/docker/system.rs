//! What the daemon says of itself and its host.

use std::fs;

use serde::Serialize;

use crate::{
    api::server::{API_VERSION, MIN_API_VERSION},
    controller::view::{self, ContainerState},
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
        let version = env!("CARGO_PKG_VERSION");
        Self {
            platform: Named { name: "rnet" },
            components: vec![Component { name: "rnet", version }],
            version,
            api_version: dotted(API_VERSION),
            min_api_version: dotted(MIN_API_VERSION),
            // Fields that Docker's client expects; there is nothing to say in them.
            git_commit: "",
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
    plugins: Plugins,
    name: String,
    kernel_version: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: &'static str,
    docker_root_dir: String,
    server_version: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    network: [&'static str; 1],
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
            plugins: Plugins { network: ["bridge"] },
            name: read_line("/proc/sys/kernel/hostname"),
            kernel_version: kernel_version(),
            os_type: "linux",
            architecture: std::env::consts::ARCH,
            docker_root_dir: status.state.display().to_string(),
            server_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn kernel_version() -> String {
    read_line("/proc/sys/kernel/osrelease")
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
