//! Docker's containers: what of them is about names, processes and networks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::duration;
use crate::controller::{
    model::{Binding, HostPort},
    view::{self, ContainerState},
};

/// Docker's exit status for a process whose end nobody saw.
const UNKNOWN_EXIT: i32 = 255;
/// Docker's time for what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, behind a slash.
    pub names: Vec<String>,
    /// Always empty: there are no images.
    pub image: String,
    /// Always empty.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// What it runs, in one line.
    pub command: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Always empty.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running` or `exited`.
    pub state: String,
    /// The same in words.
    pub status: String,
    /// Its first network.
    pub host_config: SummaryHostConfig,
    /// Its networks.
    pub network_settings: SummaryNetworks,
    /// Always empty.
    pub mounts: Vec<()>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    /// The host's address.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// The container's port.
    pub private_port: u16,
    /// The host's port.
    pub public_port: u16,
    /// The protocol.
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// Part of [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// The network that it was created on.
    pub network_mode: String,
}

/// Part of [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryNetworks {
    /// Its interfaces, by network.
    pub networks: BTreeMap<String, Endpoint>,
}

/// A container, as `docker inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was created, as RFC 3339.
    pub created: String,
    /// The program that it runs.
    pub path: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// What it is doing.
    pub state: State,
    /// Always empty: there are no images.
    pub image: String,
    /// Its `resolv.conf` on the host.
    pub resolv_conf_path: String,
    /// Its `hostname` on the host.
    pub hostname_path: String,
    /// Its `hosts` on the host.
    pub hosts_path: String,
    /// What its process has written, if it runs on its own.
    pub log_path: String,
    /// Its name, behind a slash.
    pub name: String,
    /// Always 0.
    pub restart_count: u32,
    /// Always `linux`.
    pub platform: String,
    /// How it is run.
    pub host_config: HostConfig,
    /// Always empty.
    pub mounts: Vec<()>,
    /// What it runs.
    pub config: Config,
    /// Its networks and ports.
    pub network_settings: NetworkSettings,
}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// `created`, `running` or `exited`.
    pub status: String,
    /// Its process, or its namespace, is there.
    pub running: bool,
    /// Always false.
    pub paused: bool,
    /// Always false.
    pub restarting: bool,
    /// Always false: memory is not watched.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Always false.
    pub dead: bool,
    /// Its process; 0 for none.
    pub pid: u32,
    /// The process's exit status; 255 when nobody saw it end.
    pub exit_code: i32,
    /// Always empty.
    pub error: String,
    /// When its process was started.
    pub started_at: String,
    /// When its process ended.
    pub finished_at: String,
}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// The network that it was created on.
    pub network_mode: String,
    /// Published ports, by container port.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// Removed as soon as its process ends.
    pub auto_remove: bool,
}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Host name.
    pub hostname: String,
    /// What it runs.
    pub cmd: Vec<String>,
    /// Always empty: there are no images.
    pub image: String,
    /// Always empty.
    pub labels: BTreeMap<String, String>,
}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// The container's id: it has one network namespace.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// The network namespace.
    pub sandbox_key: String,
    /// Published ports, by container port.
    pub ports: BTreeMap<String, Vec<PortBinding>>,
    /// Its interfaces, by network.
    pub networks: BTreeMap<String, Endpoint>,
}

/// The host's side of a published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// The host's address.
    pub host_ip: String,
    /// The host's port; empty where the container's own is reached.
    pub host_port: String,
}

/// A container's interface. Empty strings stand for what it does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// Ethernet address.
    pub mac_address: String,
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Prefix length of the IPv4 subnet.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Prefix length of the IPv6 subnet.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
}

impl Summary {
    /// As it is at `now`.
    pub(super) fn new(container: &view::Container, now: OffsetDateTime) -> Self {
        let created = OffsetDateTime::parse(&container.created, &Rfc3339);
        Self {
            id: container.id.clone(),
            names: vec![format!("/{}", container.name)],
            image: String::new(),
            image_id: String::new(),
            command: container.command.join(" "),
            created: created.map(OffsetDateTime::unix_timestamp).unwrap_or_default(),
            ports: container.ports.iter().map(Port::from).collect(),
            labels: BTreeMap::new(),
            state: state(container.state).to_owned(),
            status: status(container, now),
            host_config: SummaryHostConfig { network_mode: network_mode(container) },
            network_settings: SummaryNetworks { networks: networks(container) },
            mounts: Vec::new(),
        }
    }
}

impl From<&Binding> for Port {
    fn from(binding: &Binding) -> Self {
        Self {
            ip: binding.host.addr,
            private_port: binding.port,
            public_port: binding.host.port,
            protocol: binding.host.protocol.to_string(),
        }
    }
}

impl From<&Binding> for PortBinding {
    fn from(binding: &Binding) -> Self {
        let HostPort { addr, port, .. } = binding.host;
        if !binding.is_routed() {
            return Self { host_ip: addr.to_string(), host_port: port.to_string() };
        }
        let any: IpAddr =
            if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self { host_ip: any.to_string(), host_port: String::new() }
    }
}

impl From<&view::Container> for Container {
    fn from(container: &view::Container) -> Self {
        let file = |name: &str| container.dir.join(name).display().to_string();
        let mut command = container.command.iter().cloned();
        Self {
            id: container.id.clone(),
            created: container.created.clone(),
            path: command.next().unwrap_or_default(),
            args: command.collect(),
            state: State {
                status: state(container.state).to_owned(),
                running: container.state == ContainerState::Running,
                paused: false,
                restarting: false,
                oom_killed: false,
                dead: false,
                pid: container.pid.filter(|_| container.state == ContainerState::Running).unwrap_or_default(),
                exit_code: exit_code(container),
                error: String::new(),
                started_at: container.started.clone().unwrap_or_else(|| NEVER.to_owned()),
                finished_at: container.finished.clone().unwrap_or_else(|| NEVER.to_owned()),
            },
            image: String::new(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: file("log"),
            name: format!("/{}", container.name),
            restart_count: 0,
            platform: "linux".to_owned(),
            host_config: HostConfig {
                network_mode: network_mode(container),
                port_bindings: ports(container),
                auto_remove: container.remove,
            },
            mounts: Vec::new(),
            config: Config {
                hostname: container.hostname.clone(),
                cmd: container.command.clone(),
                image: String::new(),
                labels: BTreeMap::new(),
            },
            network_settings: NetworkSettings {
                sandbox_id: container.id.clone(),
                sandbox_key: container
                    .netns
                    .as_ref()
                    .map(|netns| netns.display().to_string())
                    .unwrap_or_default(),
                ports: ports(container),
                networks: networks(container),
            },
        }
    }
}

impl From<&view::Endpoint> for Endpoint {
    fn from(endpoint: &view::Endpoint) -> Self {
        let addr = |v6: bool| endpoint.addrs.iter().find(|a| a.is_ipv6() == v6);
        let ip = |v6: bool| addr(v6).map(|a| a.ip().to_string()).unwrap_or_default();
        let prefix = |v6: bool| addr(v6).map(|a| a.prefix()).unwrap_or_default();
        let gateway = |v6: bool| {
            endpoint.gateways.iter().find(|g| g.is_ipv6() == v6).map(|g| g.to_string()).unwrap_or_default()
        };
        Self {
            mac_address: endpoint.mac.to_string(),
            network_id: endpoint.network_id.clone(),
            endpoint_id: endpoint.id.clone(),
            gateway: gateway(false),
            ip_address: ip(false),
            ip_prefix_len: prefix(false),
            ipv6_gateway: gateway(true),
            global_ipv6_address: ip(true),
            global_ipv6_prefix_len: prefix(true),
        }
    }
}

fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
    }
}

fn status(container: &view::Container, now: OffsetDateTime) -> String {
    let since = |time: &Option<String>| duration::since(time.as_ref().unwrap_or(&container.created), now);
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => format!("Up {}", since(&container.started)),
        ContainerState::Exited => {
            format!("Exited ({}) {} ago", exit_code(container), since(&container.finished))
        }
    }
}

fn exit_code(container: &view::Container) -> i32 {
    match container.state {
        ContainerState::Exited => container.exit_code.unwrap_or(UNKNOWN_EXIT),
        ContainerState::Created | ContainerState::Running => 0,
    }
}

fn network_mode(container: &view::Container) -> String {
    container.endpoints.first().map_or_else(|| "none".to_owned(), |endpoint| endpoint.network.clone())
}

fn networks(container: &view::Container) -> BTreeMap<String, Endpoint> {
    container.endpoints.iter().map(|endpoint| (endpoint.network.clone(), endpoint.into())).collect()
}

fn ports(container: &view::Container) -> BTreeMap<String, Vec<PortBinding>> {
    let mut ports = BTreeMap::<_, Vec<_>>::new();
    for binding in &container.ports {
        let bindings = ports.entry(format!("{}/{}", binding.port, binding.host.protocol)).or_default();
        bindings.push(binding.into());
    }
    // As with Docker, what is reached through the host comes first.
    ports
        .values_mut()
        .for_each(|bindings| bindings.sort_by_key(|binding: &PortBinding| binding.host_port.is_empty()));
    ports
}
