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
    /// IPv6 wanted.
    pub ipv6: bool,
    /// Driver options, as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A subnet of a network to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The subnet; absent for the next free pool.
    pub subnet: Option<IpNetwork>,
    /// Addresses are given from this part of it.
    pub ip_range: Option<IpNetwork>,
    /// The bridge's address; the first usable one when absent.
    pub gateway: Option<IpAddr>,
}

/// A container to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateContainer {
    /// Its name; one is made up when absent.
    pub name: Option<String>,
    /// `bridge`, `none` or the name or id of a network; `bridge` when absent.
    pub network: Option<String>,
    /// Host name; the first 12 digits of the id when absent.
    pub hostname: Option<String>,
    /// A fixed IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A fixed Ethernet address.
    pub mac: Option<MacAddr>,
    /// Published ports, in Docker's grammar.
    pub publish: Vec<String>,
    /// Name servers for resolv.conf, in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Lines for hosts: `name:address`.
    pub extra_hosts: Vec<String>,
    /// What it runs; absent for a namespace that stays until it is removed.
    pub command: Vec<String>,
    /// The process is started by the daemon and runs on its own; else the client starts it.
    pub detach: bool,
    /// Removed as soon as its process ends.
    pub remove: bool,
    /// A directory that becomes the process's root.
    pub rootfs: Option<PathBuf>,
}
