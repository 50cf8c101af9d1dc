//! What the controller tells of itself. The API carries these as JSON.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    backend::PortCount,
    model::{Binding, InterfaceAddr, MacAddr, Protocol, engine::Engine},
};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// The engine that it is for; absent for rnet's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// When it was created, as RFC 3339 with nanoseconds.
    pub created: String,
    /// The interface, for driver `bridge`.
    pub bridge: Option<String>,
    /// Its subnets.
    pub subnets: Vec<SubnetView>,
    /// No way out.
    pub internal: bool,
    /// Docker's flag.
    pub attachable: bool,
    /// Has an IPv4 subnet, or is no bridge.
    pub ipv4: bool,
    /// Has an IPv6 subnet.
    pub ipv6: bool,
    /// Made by rnet itself; cannot be removed.
    pub predefined: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
}

/// A network's subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetView {
    /// The subnet.
    pub subnet: IpNetwork,
    /// Addresses are given from this part of it.
    pub ip_range: Option<IpNetwork>,
    /// The bridge's address; absent in gateway mode `isolated`.
    pub gateway: Option<IpAddr>,
    /// Addresses that are somebody else's, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux: BTreeMap<String, IpAddr>,
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMember {
    /// The container's name.
    pub name: String,
    /// The endpoint's id.
    pub endpoint: String,
    /// The interface's Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addrs: Vec<InterfaceAddr>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Its network is there; its process, if it has one, has not been started.
    Created,
    /// Its process runs, or it is a namespace without one.
    Running,
    /// Its process has ended.
    Exited,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// The engine whose container it is; absent for rnet's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// What it is doing.
    pub state: ContainerState,
    /// Its process.
    pub pid: Option<u32>,
    /// The process's exit status, once it has ended.
    pub exit_code: Option<i32>,
    /// When it was created, as RFC 3339 with nanoseconds.
    pub created: String,
    /// When its process was started.
    pub started: Option<String>,
    /// When its process ended.
    pub finished: Option<String>,
    /// What it runs.
    pub command: Vec<String>,
    /// Removed as soon as its process ends.
    pub remove: bool,
    /// A directory that is the process's root.
    pub rootfs: Option<PathBuf>,
    /// What was asked for with `--network`: `none`, `host`, `container:ID`, or the first network's name.
    pub network_mode: String,
    /// The network namespace; absent for the host's own.
    pub netns: Option<PathBuf>,
    /// The namespace is somebody else's, given to rnet.
    pub attached: bool,
    /// Namespaces that it enters besides the network's.
    pub namespaces: Namespaces,
    /// Settings of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Name servers that were asked for.
    pub dns: Vec<IpAddr>,
    /// Search domains that were asked for.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf that were asked for.
    pub dns_options: Vec<String>,
    /// Lines for hosts that were asked for, as `name:address`.
    pub extra_hosts: Vec<String>,
    /// Its process has a terminal.
    pub terminal: bool,
    /// Directory with its `resolv.conf`, `hosts`, `hostname` and `log`.
    pub dir: PathBuf,
    /// Its interfaces.
    pub endpoints: Vec<Endpoint>,
    /// Ports that it listens at, published or not.
    pub exposed: Vec<ExposedPort>,
    /// Published ports.
    pub ports: Vec<Binding>,
}

/// Where a container's UTS and IPC namespaces come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespaces {
    /// The host's.
    Host,
    /// Files `uts` and `ipc` of this directory, which hold them: the container's own, or those of the one whose
    /// network it shares.
    Held(PathBuf),
}

/// A port that a container listens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// In host byte order.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name of the network.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Name inside the namespace.
    pub interface: String,
    /// Name of the host's end of the pair.
    pub host_interface: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// Addresses.
    pub addrs: Vec<InterfaceAddr>,
    /// The network's gateways, in use or not.
    pub gateways: Vec<IpAddr>,
    /// Names under which the network's containers find it, its own included.
    pub names: Vec<String>,
    /// Those of `names` that were asked for.
    pub aliases: Vec<String>,
    /// The network with the highest number has the default route.
    pub gw_priority: i64,
    /// Addresses that were asked for.
    pub fixed: Vec<IpAddr>,
}

/// A published port with its counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Name of the container.
    pub container: String,
    /// The port.
    pub binding: Binding,
    /// What passed it.
    pub count: PortCount,
}

/// The instance at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The instance's name.
    pub instance: String,
    /// Version of the daemon.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// Directory of the pinned maps and links.
    pub pins: PathBuf,
    /// Directory of the state.
    pub state: PathBuf,
    /// Interfaces that lead outside.
    pub uplinks: Vec<String>,
    /// Those of them that run an XDP program, and how: `native`.
    #[serde(default)]
    pub xdp: BTreeMap<String, String>,
    /// Networks, predefined ones included.
    pub networks: usize,
    /// Containers.
    pub containers: usize,
    /// Containers that run.
    pub running: usize,
    /// Published ports.
    pub ports: usize,
    /// Tracked flows.
    pub flows: usize,
    /// Source ports given to masqueraded flows.
    pub snat_ports: (u16, u16),
    /// How many flows a container may have opened, on each network and of each address family, unless the network says
    /// otherwise; 0 for no limit, absent when an older daemon answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_quota: Option<u32>,
    /// New flows a second of one source outside while the flow table fills up; 0 for no limit.
    #[serde(default)]
    pub source_rate: u32,
    /// Engines that are followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineStatus>,
}

/// An engine that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// The engine.
    pub engine: Engine,
    /// Where it listens.
    pub address: String,
    /// Its version; absent while it does not answer.
    pub version: Option<String>,
    /// What of it is not served, and why.
    pub problems: Vec<String>,
}

/// How much of what there is, is in use: what can be told without reading the flow table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Flows, by the last round of the collector; absent before its first has ended.
    pub flows: Option<u64>,
    /// The datapath's tables.
    pub tables: Vec<TableUsage>,
    /// Networks, predefined ones included.
    pub networks: usize,
    /// Published ports.
    pub ports: usize,
    /// Containers, by name.
    pub containers: Vec<ContainerUsage>,
}

/// A table of the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableUsage {
    /// Its name: `FLOWS4`.
    pub name: String,
    /// Entries that are in use; absent when nobody has counted them yet.
    pub entries: Option<u64>,
    /// Entries that it has room for.
    pub capacity: u64,
}

/// What a container has to do with the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ContainerState,
    /// Its network namespace; absent for the host's own.
    pub netns: Option<PathBuf>,
    /// Published ports.
    pub ports: usize,
    /// Flows that its published ports have opened since they were published.
    pub opened: u64,
    /// Flows that it has, by the last round of the collector.
    pub flows: u64,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceUsage>,
}

/// What has passed an interface of a container since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceUsage {
    /// Its name inside the container.
    pub name: String,
    /// Name of its network.
    pub network: String,
    /// What the kernel has counted; absent when the namespace cannot be looked into.
    pub traffic: Option<Traffic>,
    /// Flows that the container has opened by it, of each address family that it has, by the collector's last round.
    #[serde(default)]
    pub opened: Vec<OpenedFlows>,
}

/// Flows that a container has opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedFlows {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// How many there are.
    pub flows: u64,
    /// How many there may be; absent for no limit.
    pub quota: Option<u64>,
}

/// What the kernel counts for an interface, seen from its own side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that were received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that were to be sent and dropped.
    pub tx_dropped: u64,
}
