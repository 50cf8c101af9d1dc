//! What is kept of networks and containers. Every name of a kernel object is here before the object is, so
//! that what an interrupted run left behind can be removed from the record alone.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::controller::{
    backend::BridgeState,
    model::{Binding, HostPort, InterfaceAddr, MacAddr, engine::Engine, port_spec::PortMapping},
    view::{ContainerState, ExposedPort, SubnetView},
};

/// Version of this schema. A state of another version is refused.
pub const VERSION: u32 = 2;

/// Everything that an instance keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Networks by id.
    pub networks: BTreeMap<String, Network>,
    /// Containers by id.
    pub containers: BTreeMap<String, Container>,
}

impl Container {
    /// Whether the default routes in its namespace are rnet's to set.
    pub fn has_own_routes(&self) -> bool {
        self.netns.is_some() && !self.endpoints.iter().any(|endpoint| endpoint.borrowed)
    }
}

/// What is kept in a file of its own.
pub trait Record: Serialize + for<'de> Deserialize<'de> {
    /// The directory of its kind.
    const DIRECTORY: &'static str;

    /// 64 hexadecimal digits: the file's name.
    fn id(&self) -> &str;

    /// Whether it means anything once the host has been started again.
    fn is_lasting(&self) -> bool;
}

impl Record for Network {
    const DIRECTORY: &'static str = "networks";

    fn id(&self) -> &str {
        &self.id
    }

    /// A driver's networks are told to it once.
    fn is_lasting(&self) -> bool {
        true
    }
}

impl Record for Container {
    const DIRECTORY: &'static str = "containers";

    fn id(&self) -> &str {
        &self.id
    }

    /// An engine tells again of those that it starts again.
    fn is_lasting(&self) -> bool {
        self.engine.is_none()
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
    /// What the interface was like, where somebody else made it: it is not removed with the network.
    pub adopted: Option<BridgeState>,
    /// The engine that the network is for; absent for rnet's own.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// The interface is the engine's own: it is never made, changed or removed.
    #[serde(default)]
    pub borrowed: bool,
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
    /// The engine whose container it is, with files and namespaces of the engine's; absent for rnet's own.
    #[serde(default)]
    pub engine: Option<Engine>,
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
    /// Its process has a terminal.
    pub terminal: bool,
    /// What was asked for with `--network`, as Docker shows it.
    pub network_mode: String,
    /// Its network namespace, as long as it has one that is known.
    pub netns: Option<Namespace>,
    /// Its interfaces.
    pub endpoints: Vec<Endpoint>,
    /// Published ports.
    pub ports: Vec<Publication>,
    /// Ports that it listens at, whether published or not.
    pub exposed: Vec<ExposedPort>,
    /// Where it finds the addresses of names.
    pub resolver: Resolver,
    /// Lines for hosts: `name:address`, as they were given.
    pub extra_hosts: Vec<String>,
    /// Settings of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// A container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// rnet's, which `ip netns` shows under this name.
    Own(String),
    /// That of the container with this id.
    Shared(String),
    /// Somebody else's.
    Given {
        /// A file that stands for it.
        path: PathBuf,
        /// Its number: whether `path` still stands for the same.
        number: u64,
    },
    /// The host's.
    Host,
}

/// What resolv.conf is made of, where it was asked for; empty for the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The network's id.
    pub network: String,
    /// How far it has come. Once the container is there, an endpoint that is not ready is one that was being
    /// connected or disconnected.
    pub phase: Phase,
    /// Name inside the namespace.
    pub interface: String,
    /// Name of the host's end of the pair.
    pub host_interface: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// Addresses.
    pub addrs: Vec<InterfaceAddr>,
    /// Addresses that were asked for.
    pub fixed: Vec<IpAddr>,
    /// The network's gateways, at most one of each family; none on an internal network.
    pub gateways: Vec<IpAddr>,
    /// The endpoint with the highest number has the default route; among equals, the first by network name.
    pub gw_priority: i64,
    /// Names, beside its container's, under which it is found.
    pub aliases: Vec<String>,
    /// The pair is an engine's own: it is never made, changed or removed.
    #[serde(default)]
    pub borrowed: bool,
}

/// A container port that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// What was asked for.
    pub mapping: PortMapping,
    /// Sources that may use it; empty for all.
    pub from: Vec<IpNetwork>,
    /// Host ports that it has, used or not: they stay its own while no network of the container leads outside.
    pub held: Vec<HostPort>,
    /// What the datapath is told.
    pub bindings: Vec<Binding>,
    /// The engine keeps its host ports from other programs, by sockets of its own; else the datapath does.
    #[serde(default)]
    pub unheld: bool,
}
