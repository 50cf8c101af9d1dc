//! Docker's containers: what of them is about names, processes and networks.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    endpoint::{Endpoint, PortBinding},
    null_is_default,
};
use crate::controller::view::{self, ContainerState, ExposedPort};

/// Docker's exit status for a process whose end nobody saw.
const UNKNOWN_EXIT: i32 = 255;
/// Docker's time for what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The network that containers are on which ask for none.
const DEFAULT_NETWORK: &str = "bridge";

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
    /// `none`, `host`, `container:ID`, or the first network's name.
    pub network_mode: String,
    /// Published ports, by container port.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// Never started again.
    pub restart_policy: RestartPolicy,
    /// Removed as soon as its process ends.
    pub auto_remove: bool,
    /// Name servers that were asked for.
    pub dns: Vec<IpAddr>,
    /// Options of resolv.conf that were asked for.
    pub dns_options: Vec<String>,
    /// Search domains that were asked for.
    pub dns_search: Vec<String>,
    /// Lines of hosts that were asked for, as `name:address`.
    pub extra_hosts: Option<Vec<String>>,
    /// `private`, `host`, or `container:ID`.
    pub ipc_mode: String,
    /// Always absent: names take their place.
    pub links: Option<Vec<String>>,
    /// `host`, or empty for one of its own or of the container whose network it shares.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Settings of its own namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
}

/// Part of [`HostConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Always `no`.
    pub name: String,
    /// Always 0.
    pub maximum_retry_count: u32,
}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Host name.
    pub hostname: String,
    /// Ports that it listens at, each with an empty object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Its process has a terminal.
    pub tty: bool,
    /// What it runs.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Always empty: there are no images.
    pub image: String,
    /// Always empty.
    pub labels: BTreeMap<String, String>,
}

/// An object without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Part of [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// The container's id, if it has a network namespace of its own.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// The network namespace.
    pub sandbox_key: String,
    /// Ports that it listens at, by container port; `null` for one that is not published.
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Its interface on the default network.
    #[serde(flatten)]
    pub default: DefaultEndpoint,
    /// Its interfaces, by network.
    pub networks: BTreeMap<String, Endpoint>,
}

/// What of a container's interface on the default network stands where Docker had it when there was no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DefaultEndpoint {
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Prefix length of the IPv6 subnet.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Prefix length of the IPv4 subnet.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Ethernet address.
    pub mac_address: String,
}

/// The ids of the networks whose containers have no interface, by name.
pub(super) type Interfaceless = BTreeMap<String, String>;

impl Container {
    pub(super) fn new(container: &view::Container, interfaceless: &Interfaceless) -> Self {
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
            host_config: HostConfig::from(container),
            mounts: Vec::new(),
            config: Config {
                hostname: container.hostname.clone(),
                exposed_ports: container.exposed.iter().map(|port| (port_key(port), Empty {})).collect(),
                tty: container.terminal,
                cmd: container.command.clone(),
                image: String::new(),
                labels: BTreeMap::new(),
            },
            network_settings: NetworkSettings::new(container, interfaceless),
        }
    }
}

impl From<&view::Container> for HostConfig {
    fn from(container: &view::Container) -> Self {
        let mode = container.network_mode.clone();
        let (ipc_mode, uts_mode) = match container.namespaces {
            view::Namespaces::Host => ("host".to_owned(), "host".to_owned()),
            view::Namespaces::Held(_) if mode.starts_with("container:") => (mode.clone(), String::new()),
            view::Namespaces::Held(_) => ("private".to_owned(), String::new()),
        };
        let hosts = &container.extra_hosts;
        Self {
            network_mode: mode,
            port_bindings: published(container),
            restart_policy: RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 },
            auto_remove: container.remove,
            dns: container.dns.clone(),
            dns_options: container.dns_options.clone(),
            dns_search: container.dns_search.clone(),
            extra_hosts: (!hosts.is_empty()).then(|| hosts.clone()),
            ipc_mode,
            links: None,
            uts_mode,
            sysctls: container.sysctls.clone(),
        }
    }
}

impl NetworkSettings {
    fn new(container: &view::Container, interfaceless: &Interfaceless) -> Self {
        let networks = networks(container, interfaceless);
        let netns = container.netns.as_ref();
        let mut ports: BTreeMap<_, _> = container.exposed.iter().map(|port| (port_key(port), None)).collect();
        ports.extend(published(container).into_iter().map(|(port, bindings)| (port, Some(bindings))));
        Self {
            sandbox_id: netns.map(|_| container.id.clone()).unwrap_or_default(),
            sandbox_key: netns.map(|netns| netns.display().to_string()).unwrap_or_default(),
            ports,
            default: networks.get(DEFAULT_NETWORK).map(DefaultEndpoint::from).unwrap_or_default(),
            networks,
        }
    }
}

impl From<&Endpoint> for DefaultEndpoint {
    fn from(endpoint: &Endpoint) -> Self {
        let endpoint = endpoint.clone();
        Self {
            endpoint_id: endpoint.endpoint_id,
            gateway: endpoint.gateway,
            global_ipv6_address: endpoint.global_ipv6_address,
            global_ipv6_prefix_len: endpoint.global_ipv6_prefix_len,
            ip_address: endpoint.ip_address,
            ip_prefix_len: endpoint.ip_prefix_len,
            ipv6_gateway: endpoint.ipv6_gateway,
            mac_address: endpoint.mac_address,
        }
    }
}

pub(super) fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
    }
}

pub(super) fn exit_code(container: &view::Container) -> i32 {
    match container.state {
        ContainerState::Exited => container.exit_code.unwrap_or(UNKNOWN_EXIT),
        ContainerState::Created | ContainerState::Running => 0,
    }
}

/// A container's interfaces. As with Docker, one without any is on the network that stands for that.
pub(super) fn networks(
    container: &view::Container,
    interfaceless: &Interfaceless,
) -> BTreeMap<String, Endpoint> {
    let without = interfaceless.get_key_value(&container.network_mode);
    let without =
        without.map(|(name, id)| (name.clone(), Endpoint { network_id: id.clone(), ..Endpoint::default() }));
    let with = container.endpoints.iter().map(|endpoint| (endpoint.network.clone(), endpoint.into()));
    without.into_iter().chain(with).collect()
}

fn port_key(port: &ExposedPort) -> String {
    format!("{}/{}", port.port, port.protocol)
}

fn published(container: &view::Container) -> BTreeMap<String, Vec<PortBinding>> {
    let mut ports = BTreeMap::<_, Vec<_>>::new();
    for binding in &container.ports {
        let port = ExposedPort { port: binding.port, protocol: binding.host.protocol };
        ports.entry(port_key(&port)).or_default().push(binding.into());
    }
    // As with Docker, what is reached through the host comes first.
    ports
        .values_mut()
        .for_each(|bindings| bindings.sort_by_key(|binding: &PortBinding| binding.host_port.is_empty()));
    ports
}
