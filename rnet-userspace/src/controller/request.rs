//! What can be asked of the controller. The API carries these as JSON.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::model::MacAddr;

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
