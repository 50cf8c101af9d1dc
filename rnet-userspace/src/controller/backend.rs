//! What the controller needs of the host's network and of the datapath, as traits: `host::Kernel` and
//! `datapath::Ebpf` are the real ones, the tests' fakes record what was asked and fail where told to.
//!
//! Every removal succeeds when there is nothing left to remove: undoing and healing call it without knowing
//! how far things had come. Names of kernel objects are chosen by the controller and written to the store
//! before they are made, so that an interrupted operation can be cleaned up from the record alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use rnet_common::settings::Timeouts;

use super::model::{Binding, HostPort, InterfaceAddr, MacAddr, flow_filter::FlowFilter, link::LinkKind};

/// A link as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index in the host's namespace.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// A bridge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name.
    pub name: String,
    /// The gateway's addresses with the subnets' prefix lengths.
    pub addrs: Vec<InterfaceAddr>,
    /// MTU; the kernel's default when absent.
    pub mtu: Option<u32>,
}

/// What a bridge that somebody else made is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeState {
    /// Its addresses, IPv6's link-local ones left out.
    pub addrs: Vec<InterfaceAddr>,
    /// Its settings that rnet changes, by their paths below `/proc/sys/net`.
    pub settings: BTreeMap<String, String>,
}

/// A pair of interfaces to be made: one end on the bridge, one inside a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSpec {
    /// What it is made of.
    pub kind: LinkKind,
    /// Name of the host's end.
    pub host_name: String,
    /// The bridge that the host's end is enslaved to.
    pub bridge: String,
    /// The namespace that the container's end is moved into. Without one it stays beside the other, down and without
    /// addresses, until an engine takes it.
    pub netns: Option<PathBuf>,
    /// Name of the container's end, inside the namespace: `eth0`, `eth1`, …
    pub name: String,
    /// Ethernet address of the container's end.
    pub mac: MacAddr,
    /// Its addresses.
    pub addrs: Vec<InterfaceAddr>,
    /// Gateways of the default routes, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// The bridge passes nothing between this port and others that are isolated, broadcast and multicast included.
    pub isolated: bool,
    /// MTU of both ends; the kernel's default when absent.
    pub mtu: Option<u32>,
}

/// A default route inside a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The gateway.
    pub gateway: IpAddr,
    /// Name of the interface that leads to it.
    pub interface: String,
}

/// An interface that leads outside: not rnet's own, not loopback, not a bridge port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The bus that its device is on: `pci`, `virtio`, …; none for an interface of software.
    pub bus: Option<String>,
    /// There are VLAN interfaces on it.
    pub has_vlans: bool,
}

/// A host port that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortUnavailable {
    /// A socket of the host has it.
    #[error("failed to bind host port {}/{}: address already in use{}", sockaddr(.0), .0.protocol, holder(.1))]
    InUse(HostPort, Option<String>),
    /// The address is not the host's.
    #[error("failed to bind host port {}/{}: cannot assign requested address", sockaddr(.0), .0.protocol)]
    NotLocal(HostPort),
    /// Anything else.
    #[error("failed to bind host port {}/{}: {}", sockaddr(.0), .0.protocol, .1)]
    Other(HostPort, String),
}

fn sockaddr(port: &HostPort) -> std::net::SocketAddr {
    (port.addr, port.port).into()
}

fn holder(process: &Option<String>) -> String {
    process.as_ref().map(|p| format!(" (held by {p})")).unwrap_or_default()
}

/// Sockets that hold host ports against the host's own programs until the datapath does. Dropping it lets go.
pub trait PortHold: Send {}

/// The host's network: namespaces, links, addresses, routes, sockets.
pub trait Host: Send {
    /// Makes a bridge, with forwarding on for this interface alone, and brings it up; a failure leaves nothing.
    /// A link of that name that is there already is an error.
    fn create_bridge(&self, spec: &BridgeSpec) -> Result<Link>;
    /// What a bridge is like. A link of another kind is an error, and so is none.
    fn bridge_state(&self, name: &str) -> Result<BridgeState>;
    /// Makes a bridge that somebody else made one that containers can be on: brings it up, with forwarding on and with
    /// the addresses of `spec` beside its own. A failure may leave some of it.
    fn adopt_bridge(&self, spec: &BridgeSpec) -> Result<Link>;
    /// Gives such a bridge the settings that it had and takes from it the addresses that it had not.
    fn restore_bridge(&self, name: &str, state: &BridgeState) -> Result<()>;
    /// Has a bridge of an engine's take back what the host is to fragment, which comes under the host's own address.
    fn lend_bridge(&self, name: &str) -> Result<()>;
    /// Gives such a bridge, if it is still there, the settings back that this has changed.
    fn return_bridge(&self, name: &str, state: &BridgeState) -> Result<()>;
    /// The bridge of this name, if there is one. A link of another kind is an error.
    fn find_bridge(&self, name: &str) -> Result<Option<Link>>;
    /// The link of this name, if there is one.
    fn find_link(&self, name: &str) -> Result<Option<Link>>;
    /// Removes a link.
    fn delete_link(&self, name: &str) -> Result<()>;
    /// Removes links, those that are there, in less time than one after another takes.
    fn delete_links(&self, names: &BTreeSet<String>) -> Result<()>;
    /// Makes a network namespace that `ip netns` shows as `name`, with its loopback up; a failure leaves nothing.
    /// A namespace of that name that is there already is an error.
    fn create_netns(&self, name: &str) -> Result<PathBuf>;
    /// Where a namespace of this name is, or would be.
    fn netns_path(&self, name: &str) -> PathBuf;
    /// Whether `path` is a live network namespace.
    fn netns_exists(&self, path: &Path) -> bool;
    /// Removes a namespace made by [`Host::create_netns`]: the kernel ends it once no process is in it.
    fn delete_netns(&self, name: &str) -> Result<()>;
    /// Makes a UTS and an IPC namespace, the first with this host name, and holds them by the files `uts` and `ipc`
    /// of `dir`, a directory that is there; a failure leaves nothing.
    fn hold_namespaces(&self, dir: &Path, hostname: &str) -> Result<()>;
    /// Lets go of what [`Host::hold_namespaces`] holds: the kernel ends them once no process is in them.
    fn release_namespaces(&self, dir: &Path) -> Result<()>;
    /// Sets settings of a network namespace and of the IPC namespace that `dir` holds, by their names as
    /// `net.ipv4.ip_forward`. A failure may leave some of them set.
    fn set_sysctls(&self, netns: &Path, dir: &Path, settings: &BTreeMap<String, String>) -> Result<()>;
    /// A number that stands for the network namespace at `path` as long as it lives.
    fn netns_id(&self, path: &Path) -> Result<u64>;
    /// Makes `routes`, at most one of each family, default routes of a namespace, and takes away others that lead
    /// through one of `interfaces`.
    fn set_default_routes(&self, netns: &Path, interfaces: &[String], routes: &[DefaultRoute]) -> Result<()>;
    /// Names of the interfaces in a namespace.
    fn interfaces(&self, netns: &Path) -> Result<BTreeSet<String>>;
    /// Names of the host's links.
    fn link_names(&self) -> Result<BTreeSet<String>>;
    /// The host's name.
    fn hostname(&self) -> Result<String>;
    /// What the kernel lacks to make pairs of this kind, in words; nothing where it can.
    fn lacks(&self, kind: LinkKind) -> Result<Option<String>>;
    /// Makes the pair, complete and up on both ends; a failure leaves nothing. Returns the host's end.
    fn create_pair(&self, spec: &PairSpec) -> Result<Link>;
    /// Has a bridge pass nothing between one of its ports and others that are isolated, broadcast and multicast
    /// included, or pass it again. A port that is gone needs no release.
    fn isolate_port(&self, name: &str, isolated: bool) -> Result<()>;
    /// Destinations of the host's routes in all tables but `local`, the default routes left out.
    fn routes(&self) -> Result<Vec<IpNetwork>>;
    /// Has a veth's end inside a namespace take frames without a packet buffer, as XDP delivers them.
    fn take_frames(&self, netns: &Path, interface: &str) -> Result<()>;
    /// The host's own addresses, loopback included.
    fn addresses(&self) -> Result<Vec<IpAddr>>;
    /// The interfaces that lead outside. `own` are names of interfaces to leave out.
    fn uplinks(&self, own: &BTreeSet<String>) -> Result<Vec<Uplink>>;
    /// Takes host ports as a server would, all or none: bound, and listening where the protocol listens.
    fn hold_ports(&self, ports: &[HostPort]) -> Result<Box<dyn PortHold>, PortUnavailable>;
    /// The first and last port that the kernel gives to sockets that do not ask for one
    /// (`net.ipv4.ip_local_port_range`).
    fn ephemeral_ports(&self) -> Result<(u16, u16)>;
    /// Settings that keep the stack from forwarding what arrives at these interfaces in one address family, by their
    /// names as `net.ipv4.conf.eth0.forwarding`: each would have to be 1.
    fn forwarding_off(&self, uplinks: &[Uplink], ipv6: bool) -> Result<BTreeSet<String>>;
    /// When a process was started, in clock ticks since boot (`/proc/PID/stat`, field 22); absent when there is
    /// no such process. With its id this names one process for good, whatever ids are used again.
    fn process_start(&self, pid: u32) -> Option<u64>;
    /// The exit status that a container's process, which has ended, has left in the container's directory; absent when
    /// that is not there.
    fn exit_code(&self, dir: &Path) -> Result<Option<i32>>;
}

/// The policy of an endpoint's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Containers of the network may talk to one another.
    pub icc: bool,
    /// The network has no way out.
    pub internal: bool,
    /// What passes between its containers and the outside takes the host's stack.
    pub via_stack: bool,
    /// What its containers send to the destinations of its list ([`rnet_common::source::exempt`]) is not masqueraded.
    pub exempts: bool,
    /// How many flows each of its containers may have opened, of each address family; 0 for no limit, absent for what holds
    /// for all ([`FlowLimits::per_container`]).
    pub max_flows: Option<u32>,
}

/// Most flows that a table can be made for, and so a quota be: an entry takes more than 100 bytes of the kernel's memory,
/// which makes some GB.
pub const MOST_FLOWS: u32 = 1 << 24;

/// How much of the flow table one container, and one source outside, may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// How many flows a container may have opened, on each network and of each address family; 0 for no limit, absent for a
    /// share of the table.
    pub per_container: Option<u32>,
    /// New flows a second of one source outside while the table fills up; 0 for no limit.
    pub source_rate: u32,
}

/// What one source opens within the minute that half a connection is kept takes less than a quarter of a flow table of the
/// default size.
const SOURCE_RATE: u32 = 500;

impl Default for FlowLimits {
    fn default() -> Self {
        Self { per_container: None, source_rate: SOURCE_RATE }
    }
}

/// The flows that a container has opened from one of its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many there are.
    pub flows: u64,
    /// How many there may be; absent for no limit.
    pub quota: Option<u64>,
}

/// What may come from outside straight to a container's own address, past the host's published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Nothing (gateway mode `nat`).
    #[default]
    None,
    /// Its published ports, and pings (gateway mode `routed`).
    Published,
    /// Everything (gateway mode `nat-unprotected`).
    All,
}

/// An address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointAddr {
    /// The container's address.
    pub addr: IpAddr,
    /// The bridge's address in its subnet, if it has one.
    pub gateway: Option<IpAddr>,
    /// What leaves the host gets the uplink's address.
    pub masquerade: bool,
    /// What may come from outside straight to `addr`.
    pub direct: Direct,
}

/// An endpoint as the datapath needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Name of the host's end of the pair.
    pub host_name: String,
    /// The host's end.
    pub ifindex: u32,
    /// The bridge.
    pub bridge: Link,
    /// A number for the network, equal for endpoints on one network.
    pub network: u32,
    /// The container's interface.
    pub mac: MacAddr,
    /// The container's addresses: at most one of each family.
    pub addrs: Vec<EndpointAddr>,
    /// MTU of the container's interface, in bytes.
    pub mtu: u32,
    /// The network's policy.
    pub policy: Policy,
    /// The container's interface takes frames without a packet buffer: see [`Host::take_frames`].
    pub takes_frames: bool,
}

/// Counts of one published port since it was published, both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortCount {
    /// Flows opened.
    pub flows: u64,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried, from the IP header on.
    pub bytes: u64,
}

/// What passed one program for one reason.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReasonCount {
    /// The program's name.
    pub program: String,
    /// `carried`, `passed` or `dropped`.
    pub verdict: String,
    /// The reason's name.
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
    /// Packets; a segmentation-offloaded packet counts once.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// One direction of a tracked flow.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlowInfo {
    /// `tcp`, `udp`, `icmp`, …
    pub protocol: String,
    /// Source of the packet that opened the flow.
    pub src: std::net::SocketAddr,
    /// Its destination.
    pub dst: std::net::SocketAddr,
    /// Its source after rewriting.
    pub to_src: std::net::SocketAddr,
    /// Its destination after rewriting.
    pub to_dst: std::net::SocketAddr,
    /// What the flow is for: the name of the reason that its packets are counted under.
    pub kind: String,
    /// `opening`, `established`, `closing`, … for TCP; `unreplied` or `replied` otherwise.
    pub state: String,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions, from the IP header on.
    pub bytes: u64,
    /// Seconds since the last packet.
    pub idle: u64,
    /// Seconds until it is forgotten if it stays idle.
    pub timeout: u64,
}

/// Where a walk through the flow table goes on; its beginning by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPosition {
    /// In the table of IPv6, which comes second.
    pub v6: bool,
    /// The bucket; absent for the first.
    pub bucket: Option<u32>,
}

/// What a bounded step through the flow table gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found on the way, or how many.
    pub found: T,
    /// Where the next step begins; absent behind the last.
    pub next: Option<FlowPosition>,
}

/// What a whole round through the flow table has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries of the tables of IPv4 and IPv6, of which a flow has two.
    pub entries: [u64; 2],
    /// Flows that are alive, or not known to be over.
    pub flows: u64,
    /// Those of them by the container that opened them towards the outside, or whose port or address they are to.
    pub by_container: BTreeMap<IpAddr, u64>,
    /// Flows that containers have opened, by the addresses of all of them, with their quotas.
    pub opened: BTreeMap<IpAddr, Opened>,
}

/// The eBPF half: programs on interfaces, and the maps behind them. Whatever is added stays in force when the
/// controller dies, and adding again what is there changes nothing.
pub trait Datapath: Send {
    /// Makes an endpoint known and puts `from_container` on the host's end of its pair. Programs and entries of another
    /// interface under the same address are replaced.
    fn add_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()>;
    /// Forgets an endpoint; flows that it opened are dead from the next packet on. `ifindex` and `bridge.index`
    /// are 0 when nobody knows any more what they were: addresses and `host_name` say which endpoint it is.
    fn remove_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()>;
    /// Makes the list called `number` (1 and up) to be exactly these; an empty one is forgotten. A binding that names a
    /// list takes what comes from outside only from these sources.
    fn set_sources(&mut self, number: u32, sources: &[IpNetwork]) -> Result<()>;
    /// Publishes ports, all or none, and keeps host programs from binding them. A binding that is there
    /// already with the same container address and port stays as it is, its flows included; one with another is
    /// replaced.
    fn publish(&mut self, bindings: &[Binding]) -> Result<()>;
    /// Withdraws ports; their flows are dead from the next packet on.
    fn unpublish(&mut self, bindings: &[Binding]) -> Result<()>;
    /// Puts `from_uplink` on exactly these interfaces, `xdp_uplink` on those of them that are to run it, and `to_uplink`
    /// while an endpoint's network is delivered via the host's stack.
    fn set_uplinks(&mut self, uplinks: &[Uplink]) -> Result<()>;
    /// Puts `from_bridge` and `to_bridge` on exactly these bridges, which engines have made: names by index.
    fn set_bridges(&mut self, bridges: &BTreeMap<u32, String>) -> Result<()>;
    /// How those uplinks that run `xdp_uplink` do so, by interface index: `native`.
    fn xdp_modes(&self) -> BTreeMap<u32, &'static str>;
    /// Says which addresses are the host's own, exactly, and at which of them names are asked for: their port 53 is
    /// none that is published on every address.
    fn set_addresses(&mut self, addrs: &[IpAddr], named: &BTreeSet<IpAddr>) -> Result<()>;
    /// Removes every endpoint, port and list that is not named here: what an interrupted run left behind.
    fn retain(
        &mut self,
        endpoints: &[EndpointSpec],
        bindings: &[Binding],
        lists: &BTreeSet<u32>,
    ) -> Result<()>;
    /// Takes a step through the flow table, and forgets flows on the way that are dead or have been idle for too
    /// long.
    fn sweep(&mut self, from: FlowPosition) -> Result<Page<usize>>;
    /// What the last round of [`Datapath::sweep`] has seen; absent before the first has ended.
    fn tally(&self) -> Option<Tally>;
    /// Whether a table of flows fills up, or a container uses up its quota, by that round: the next should come soon.
    fn is_pressed(&self) -> bool;
    /// Changes how many flows one container, and one source outside, may open, from the next round on.
    fn set_flow_limits(&mut self, limits: &FlowLimits);
    /// The limits in force, with the quota that follows from the tables' sizes where none was said.
    fn flow_limits(&self) -> FlowLimits;
    /// How many entries tables have room for, by name: `FLOWS4`.
    fn capacities(&self) -> Result<BTreeMap<String, u32>>;
    /// How many flows these published ports have opened, in their order. Unlike [`Datapath::port_counts`] it does not
    /// read the flow table.
    fn opened(&self, bindings: &[Binding]) -> Result<Vec<u64>>;
    /// Every counter that is not zero.
    fn counters(&self) -> Result<Vec<ReasonCount>>;
    /// The counts of these published ports, in their order.
    fn port_counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>>;
    /// The flows on a step through the table that are alive and that `filter` matches.
    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>>;
    /// How many flows there are, but for those that are known to be over without looking at both their directions.
    fn count_flows(&self) -> Result<usize>;
    /// Takes a step through the flow table, and forgets the flows on the way that `filter` matches, alive or not.
    fn flush(&mut self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>>;
    /// Sets how long flows may be idle, those that are there already included.
    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<()>;
    /// Detaches every program and removes every map, pins and directories included.
    fn destroy(&mut self) -> Result<()>;
}
