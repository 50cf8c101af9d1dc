//! What dockerd says, as far as it matters here. What is absent or `null` is its default: versions differ.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};

/// `GET /version`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Version {
    pub version: String,
}

/// Why a request is refused.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Refusal {
    pub message: String,
}

/// A network, `GET /networks/ID`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Network {
    pub id: String,
    pub name: String,
    pub driver: String,
    pub internal: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// By the container's id. Something else, as `gateway_…` of swarm, is no container.
    #[serde(deserialize_with = "nullable")]
    pub containers: BTreeMap<String, Member>,
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// Where a network's addresses come from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ipam {
    #[serde(deserialize_with = "nullable")]
    pub config: Vec<Pool>,
}

/// A subnet of a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Pool {
    pub subnet: String,
    #[serde(rename = "IPRange")]
    pub ip_range: String,
    pub gateway: String,
}

/// A container as its network knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Member {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// A container in `GET /containers/json`. Whether it is what it was is seen by comparing all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Summary {
    pub id: String,
    pub names: Vec<String>,
    /// `running`, `paused`, `exited`, …
    pub state: String,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<serde_json::Value>,
    pub network_settings: SummarySettings,
}

impl Summary {
    /// Whether it has a process.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused")
    }
}

/// Its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct SummarySettings {
    #[serde(deserialize_with = "nullable")]
    pub networks: BTreeMap<String, Endpoint>,
}

/// A container, `GET /containers/ID/json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Container {
    pub id: String,
    /// With a slash before it.
    pub name: String,
    pub state: State,
    pub host_config: HostConfig,
    pub network_settings: NetworkSettings,
}

/// What it was created with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HostConfig {
    /// As they were asked for: the host's address and port may be empty, or the port a range.
    #[serde(deserialize_with = "nullable")]
    pub port_bindings: PortBindings,
}

/// Published ports by `PORT/PROTOCOL`; without bindings one is only exposed.
pub(super) type PortBindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// What it is doing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct State {
    /// Also while it is paused, and while it waits to be started again: then it has no process.
    pub running: bool,
    pub pid: u32,
}

/// Its network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    /// A file that stands for its network namespace, where dockerd's mounts are seen.
    pub sandbox_key: String,
    #[serde(deserialize_with = "nullable")]
    pub ports: PortBindings,
    /// By the network's name.
    #[serde(deserialize_with = "nullable")]
    pub networks: BTreeMap<String, Endpoint>,
}

/// A host port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// A container's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Endpoint {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    pub mac_address: String,
    #[serde(deserialize_with = "nullable")]
    pub aliases: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub gw_priority: i64,
}

impl Endpoint {
    /// Its addresses.
    pub(super) fn addrs(&self) -> Vec<IpNetwork> {
        let v4 = self.ip_address.parse().ok();
        let v4 = v4.and_then(|addr: IpAddr| IpNetwork::new(addr, self.ip_prefix_len).ok());
        let v6 = self.global_ipv6_address.parse().ok();
        let v6 = v6.and_then(|addr: Ipv6Addr| IpNetwork::new(addr.into(), self.global_ipv6_prefix_len).ok());
        v4.into_iter().chain(v6).collect()
    }
}

/// Something that has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Event {
    #[serde(rename = "Type")]
    pub kind: String,
    pub action: String,
    pub actor: Actor,
}

/// What it has happened to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(deserialize_with = "nullable")]
    pub attributes: BTreeMap<String, String>,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
