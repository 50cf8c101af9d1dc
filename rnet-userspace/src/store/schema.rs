//! What is kept of networks and containers. Every name of a kernel object is here before the object is, so
//! that what an interrupted run left behind can be removed from the record alone.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::controller::{
    model::{Binding, InterfaceAddr, MacAddr},
    view::{ContainerState, SubnetView},
};

/// Version of this schema. Another version in the file is refused.
pub const VERSION: u32 = 1;

/// Everything that an instance keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Networks by id.
    pub networks: BTreeMap<String, Network>,
    /// Containers by id.
    pub containers: BTreeMap<String, Container>,
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, networks: BTreeMap::new(), containers: BTreeMap::new() }
    }
}

/// How far an object has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Some of it may be there. Found at start, it is removed.
    Creating,
    /// All of it is there.
    Ready,
    /// Some of it may be gone. Found at start, the rest is removed.
    Removing,
}

/// Who carries a network's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge and rnet's datapath.
    Bridge,
    /// The host's own network.
    Host,
    /// Nobody.
    Null,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub phase: Phase,
    /// Who carries its packets.
    pub driver: Driver,
    /// Its number in the datapath; 0 for other drivers than `bridge`.
    pub number: u32,
    /// When it was created, as RFC 3339.
    pub created: String,
    /// Made by rnet itself; cannot be removed.
    pub predefined: bool,
    /// The interface, for driver `bridge`.
    pub bridge: Option<String>,
    /// Its subnets.
    pub subnets: Vec<SubnetView>,
    /// No way out.
    pub internal: bool,
    /// Docker's flag.
    pub attachable: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
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
    /// How far it has come.
    pub phase: Phase,
    /// What it is doing.
    pub state: ContainerState,
    /// Its process.
    pub pid: Option<u32>,
    /// When the process was started, as the kernel counts: with the pid it names one process for good.
    pub process_start: Option<u64>,
    /// The process's exit status.
    pub exit_code: Option<i32>,
    /// When it was created, as RFC 3339.
    pub created: String,
    /// When its process was started.
    pub started: Option<String>,
    /// When its process ended.
    pub finished: Option<String>,
    /// What it runs; empty for a namespace that stays until it is removed.
    pub command: Vec<String>,
    /// Removed as soon as its process ends.
    pub remove: bool,
    /// A directory that is the process's root.
    pub rootfs: Option<PathBuf>,
    /// Name of its network namespace, as long as there is one.
    pub netns: Option<String>,
    /// Its interfaces.
    pub endpoints: Vec<Endpoint>,
    /// Published ports.
    pub ports: Vec<Binding>,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The network's id.
    pub network: String,
    /// Name inside the namespace.
    pub interface: String,
    /// Name of the host's end of the veth.
    pub host_interface: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// Addresses.
    pub addrs: Vec<InterfaceAddr>,
    /// The default routes' gateways.
    pub gateways: Vec<IpAddr>,
}
