//! What can be asked of the controller. The API carries these as JSON.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    model::{InterfaceAddr, MacAddr, engine::Engine, port_spec::PortMapping},
    view::SubnetView,
};

/// A network to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// Subnets as typed, so that `10.0.0.1/24` can be refused with what would be right; empty for the next
    /// free pool.
    pub subnets: Vec<Subnet>,
    /// No way out.
    pub internal: bool,
    /// Docker's flag; kept and shown.
    pub attachable: bool,
    /// IPv4 wanted; absent for yes.
    pub ipv4: Option<bool>,
    /// IPv6 wanted.
    pub ipv6: bool,
    /// Driver options, as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A subnet of a network to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subnet {
    /// The subnet; absent for the next free pool.
    pub subnet: Option<IpNetwork>,
    /// Addresses are given from this part of it.
    pub ip_range: Option<IpNetwork>,
    /// The bridge's address; the first usable one when absent.
    pub gateway: Option<IpAddr>,
    /// Addresses that are somebody else's, by name: never given to a container.
    pub aux: BTreeMap<String, IpAddr>,
}

/// How a container is to be on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// The network's name or id.
    pub network: String,
    /// A fixed IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A fixed Ethernet address.
    pub mac: Option<MacAddr>,
    /// Names, beside its own, under which the network's containers find it.
    pub aliases: Vec<String>,
    /// The network with the highest number has the default route; among equals, the first by name.
    pub gw_priority: i64,
}

impl Connect {
    /// On the network called so, with nothing asked for in particular.
    pub fn to(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }
}

/// Ports to be published on a container that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// The ports, in Docker's grammar.
    pub ports: Vec<String>,
    /// Sources that may use them; empty for all.
    pub from: Vec<IpNetwork>,
}

/// A network with a bridge that an engine has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineNetwork {
    /// The engine.
    pub engine: Engine,
    /// Its id for the network: 64 hexadecimal digits.
    pub id: String,
    /// Its name for the network.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// The subnets, with the addresses of the bridge as gateways.
    pub subnets: Vec<SubnetView>,
    /// No way out.
    pub internal: bool,
    /// Driver options that rnet understands.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A subnet that an engine is to have for a network which it has yet to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreeSubnet {
    /// The one that is wanted; the next free pool when absent.
    pub subnet: Option<IpNetwork>,
    /// Of which family the next free pool is to be.
    pub ipv6: bool,
    /// What the engine has promised already.
    pub avoid: Vec<IpNetwork>,
}

/// A container of an engine's: what the datapath has to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineContainer {
    /// The engine.
    pub engine: Engine,
    /// Its id for the container: 64 hexadecimal digits.
    pub id: String,
    /// Its name for the container; where that is taken, it gets another.
    pub name: String,
    /// A file that stands for its network namespace. Absent where the engine does not say; then it takes interfaces that
    /// rnet makes out of the host's namespace.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Its interfaces.
    pub interfaces: Vec<EngineInterface>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// The engine keeps the host ports from other programs, by sockets of its own; else the datapath does.
    #[serde(default)]
    pub keeps_ports: bool,
}

/// An interface of such a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineInterface {
    /// The engine's id for it: 64 hexadecimal digits; absent for a new one.
    #[serde(default)]
    pub id: Option<String>,
    /// The network, by id or name.
    pub network: String,
    /// Its name inside the namespace. Empty where the engine takes an interface that rnet makes, which rnet names.
    #[serde(default)]
    pub interface: String,
    /// The host's end of the veth, where the engine has made it; absent where rnet is to.
    #[serde(default)]
    pub veth: Option<String>,
    /// Its Ethernet address; a random one when absent.
    #[serde(default)]
    pub mac: Option<MacAddr>,
    /// Its addresses; those that rnet chooses when empty.
    #[serde(default)]
    pub addrs: Vec<InterfaceAddr>,
    /// What rnet is to choose, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// Where its default routes lead; the network's gateways when absent.
    #[serde(default)]
    pub gateways: Option<Vec<IpAddr>>,
    /// Names, beside the container's, under which the network's containers find it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The interface with the highest number has the default route, and the published ports.
    #[serde(default)]
    pub gw_priority: i64,
}

/// A network namespace that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Namespace {
    /// A file that stands for it, as `/run/netns/NAME`.
    Path(PathBuf),
    /// A process in it, by its id in the daemon's process namespace.
    Pid(u32),
}

/// A container to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateContainer {
    /// Its name; one is made up when absent.
    pub name: Option<String>,
    /// The networks that it is on; the default one when empty. The first may be `none`, `host` or
    /// `container:NAME` instead, and is the only one then.
    pub networks: Vec<Connect>,
    /// Host name; the first 12 digits of the id when absent.
    pub hostname: Option<String>,
    /// Published ports, in Docker's grammar.
    pub publish: Vec<String>,
    /// Sources that may use its published ports; empty for all.
    pub from: Vec<IpNetwork>,
    /// Ports that it listens at, as `80`, `80-82/udp`.
    pub expose: Vec<String>,
    /// Every port of `expose` gets a host port that nobody asked for.
    pub publish_all: bool,
    /// Name servers, in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains, in place of the host's; `.` for none.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf, in place of the host's.
    pub dns_options: Vec<String>,
    /// Lines for hosts: `name:address`; `host-gateway` as address is the host itself.
    pub extra_hosts: Vec<String>,
    /// Settings of the container's own network and IPC namespaces, as `net.ipv4.ip_forward`.
    pub sysctls: BTreeMap<String, String>,
    /// A namespace that somebody else made, in place of a new one.
    pub namespace: Option<Namespace>,
    /// What it runs; absent for a namespace that stays until it is removed.
    pub command: Vec<String>,
    /// The process is started by the daemon and runs on its own; else the client starts it.
    pub detach: bool,
    /// Removed as soon as its process ends.
    pub remove: bool,
    /// A directory that becomes the process's root.
    pub rootfs: Option<PathBuf>,
    /// Its process has a terminal.
    pub terminal: bool,
}
