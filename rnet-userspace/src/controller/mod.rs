//! Networks, endpoints, published ports and address management: the model and its rules. Knows no netlink and
//! no BPF.
//!
//! ```text
//! request ─▶ networks, containers ─▶ record ─▶ plan ─▶ steps ─▶ apply ─▶ host, datapath, store
//!                 │ ipam, ports (pure)                              └─ failed: inverses, last first
//! start, netlink event ─▶ reconcile: store, kernel and datapath made to agree, nothing cleared first
//! ```
//!
//! A change is written to the store before the first kernel object is made, and marked complete after the last:
//! whatever an interrupted run leaves behind can be found by name and removed.

mod apply;
pub mod backend;
mod connect;
mod containers;
mod default_network;
pub mod directory;
mod endpoints;
mod engine_networks;
mod engines;
pub mod error;
pub mod events;
mod exits;
mod exposed;
#[cfg(test)]
mod fake;
pub mod faults;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod index;
pub mod ipam;
mod lookup;
pub mod model;
mod networks;
pub mod packets;
mod plan;
pub mod ports;
mod published;
mod publishing;
mod reconcile;
mod reload;
pub mod request;
mod sandbox;
mod show;
mod sizes;
mod step;
mod subnets;
#[cfg(test)]
mod tests;
mod usage;
mod via_stack;
pub mod view;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use ipnetwork::IpNetwork;
use rnet_common::settings::Timeouts;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use default_network::DefaultNetwork;
pub use directory::Directory;
pub use error::{Error, Result};
pub use events::Events;

use self::{
    apply::Machine,
    backend::{Datapath, FlowInfo, FlowLimits, FlowPosition, Host, Page, ReasonCount, Uplink},
    faults::Fault,
    model::{
        engine::Engine,
        flow_filter::FlowFilter,
        name::check_name,
        subnet::bits,
        timeouts::{self, Seconds},
        xdp::Xdp,
    },
    ports::Cursors,
};
use crate::store::schema::Phase;

/// What an instance is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The instance's name: the beginning of its namespaces' names.
    pub instance: String,
    /// Directory of the state; `/var/lib/NAME`.
    pub state_dir: PathBuf,
    /// Directory of the socket and of the containers' files; `/run/NAME`.
    pub run_dir: PathBuf,
    /// Directory of the pinned maps and links; shown only.
    pub pin_dir: PathBuf,
    /// The interfaces that lead outside; absent for all that do.
    pub uplinks: Option<Vec<String>>,
    /// Which uplinks run an XDP program.
    pub xdp: Xdp,
    /// Where ports are published that name no host address.
    pub bind: IpAddr,
    /// Where subnets come from that nobody asked for, each pool with the prefix length of its subnets.
    pub pools: Vec<(IpNetwork, u8)>,
    /// What the default network is like.
    pub default_network: DefaultNetwork,
    /// Name servers of containers that name none; the host's when empty.
    pub dns: Vec<IpAddr>,
    /// Search domains of containers that name none; the host's when empty.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf of containers that name none; the host's when empty.
    pub dns_options: Vec<String>,
    /// First and last source port given to masqueraded flows.
    pub snat_ports: (u16, u16),
    /// How long flows may be idle.
    pub timeouts: Timeouts,
    /// How many flows one container, and one source outside, may open.
    pub flow_limits: FlowLimits,
    /// What is to go wrong, for tests: see [`faults`].
    pub fault: Option<Fault>,
}

/// Source ports of masqueraded flows unless others are asked for: up to where `net.ipv4.ip_local_port_range` begins
/// unless somebody has changed it.
pub const SNAT_PORTS: (u16, u16) = (1024, 32767);

/// Directory of an instance's state.
pub fn state_dir(instance: &str) -> PathBuf {
    Path::new("/var/lib").join(instance)
}

/// Directory of an instance's pinned maps and links, with one for each layout that there is.
pub fn pins(instance: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(instance)
}

/// The directory of this program's layout in [`pins`].
pub fn layout() -> String {
    format!("v{}", rnet_common::LAYOUT_VERSION)
}

impl Config {
    /// The defaults of an instance.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name, or what the environment says about [`faults`], cannot be.
    pub fn new(instance: &str) -> Result<Self> {
        check_name("instance", instance)?;
        let mut pools = ipam::DEFAULT_POOLS
            .iter()
            .map(|(pool, prefix)| {
                Ok((pool.parse().with_context(|| format!("understand pool {pool}"))?, *prefix))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        pools.push(ipam::local_pool(&machine_id(), instance).context("choose a pool of IPv6 subnets")?);
        Ok(Self {
            instance: instance.to_owned(),
            state_dir: state_dir(instance),
            run_dir: PathBuf::from("/run").join(instance),
            pin_dir: pins(instance).join(layout()),
            uplinks: None,
            xdp: Xdp::Off,
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            pools,
            default_network: DefaultNetwork::default(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            timeouts: Timeouts::default(),
            flow_limits: FlowLimits::default(),
            snat_ports: SNAT_PORTS,
            fault: faults::from_env().map_err(|e| Error::Invalid(format!("{e:#}")))?,
        })
    }

    fn check(&self) -> Result<()> {
        check_name("instance", &self.instance)?;
        for (pool, prefix) in &self.pools {
            if *prefix < pool.prefix() || *prefix >= bits(*pool) {
                return Err(Error::Invalid(format!(
                    "invalid address pool {pool}: subnets of /{prefix} cannot be cut from it"
                )));
            }
        }
        Ok(())
    }
}

/// One instance: what was asked of it, and what carries it out.
pub struct Controller<H, D> {
    config: Config,
    machine: Machine<H, D>,
    cursors: Cursors,
    /// Interfaces that lead outside, as the datapath knows them; absent before it was told.
    uplinks: Option<Vec<Uplink>>,
    /// The engines' bridges, as the datapath knows them; absent before it was told.
    guarded: Option<BTreeMap<u32, String>>,
    /// How those engines are that are followed.
    engines: BTreeMap<Engine, view::EngineStatus>,
    /// What happens is told here.
    events: Events,
    /// The instance is being taken down: nothing more is made.
    down: bool,
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// What happens to networks and containers.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Who is called what, kept in step with every change.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.machine.directory)
    }

    /// Published ports with their counts, by container.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read.
    pub fn published(&self) -> Result<Vec<view::PublishedPort>> {
        let mut ports: Vec<_> = self
            .machine
            .state
            .containers
            .values()
            .filter(|c| c.phase == Phase::Ready)
            .flat_map(|c| plan::bindings(c).into_iter().map(|binding| (c.name.clone(), binding)))
            .collect();
        ports.sort_unstable();
        let bindings: Vec<_> = ports.iter().map(|(_, binding)| *binding).collect();
        let counts = self.machine.datapath.port_counts(&bindings)?;
        let views = ports.into_iter().zip(counts);
        Ok(views
            .map(|((container, binding), count)| view::PublishedPort { container, binding, count })
            .collect())
    }

    /// Every counter that is not zero.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read.
    pub fn counters(&self) -> Result<Vec<ReasonCount>> {
        Ok(self.machine.datapath.counters()?)
    }

    /// The flows on a step through the flow table that are alive and that `filter` matches.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read.
    pub fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>> {
        Ok(self.machine.datapath.flows(filter, from)?)
    }

    /// Forgets the flows on a step through the flow table that `filter` matches.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read or written.
    pub fn flush(&mut self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>> {
        Ok(self.machine.datapath.flush(filter, from)?)
    }

    /// How long flows may be idle.
    pub fn timeouts(&self) -> Seconds {
        timeouts::by_name(&self.config.timeouts)
    }

    /// Changes some of the times that flows may be idle, until the instance is started again. Returns all of them.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Failed`] when the datapath refuses. Nothing is changed then.
    pub fn set_timeouts(&mut self, changes: &Seconds) -> Result<Seconds> {
        let timeouts = timeouts::changed(self.config.timeouts, changes)?;
        self.machine.datapath.set_timeouts(&timeouts)?;
        self.config.timeouts = timeouts;
        Ok(self.timeouts())
    }

    /// The instance at a glance.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read.
    pub fn status(&self) -> Result<view::Status> {
        let containers = self.containers();
        let modes = self.machine.datapath.xdp_modes();
        let limits = self.machine.datapath.flow_limits();
        let mode = |uplink: &Uplink| Some((uplink.name.clone(), (*modes.get(&uplink.index)?).to_owned()));
        let running = containers.iter().filter(|c| c.state == view::ContainerState::Running).count();
        Ok(view::Status {
            instance: self.config.instance.clone(),
            version: crate::version::full().to_owned(),
            pid: std::process::id(),
            pins: self.config.pin_dir.clone(),
            state: self.config.state_dir.clone(),
            uplinks: self.uplinks.iter().flatten().map(|uplink| uplink.name.clone()).collect(),
            xdp: self.uplinks.iter().flatten().filter_map(mode).collect(),
            networks: self.machine.state.networks.len(),
            containers: containers.len(),
            running,
            ports: containers.iter().map(|c| c.ports.len()).sum(),
            flows: self.machine.datapath.count_flows()?,
            snat_ports: self.config.snat_ports,
            flow_quota: limits.per_container,
            source_rate: limits.source_rate,
            engines: self.engines.values().cloned().collect(),
        })
    }

    /// Forgets the flows on a step through the flow table that are dead or have been idle for too long.
    ///
    /// # Errors
    /// When the datapath's tables cannot be read or written.
    pub fn sweep(&mut self, from: FlowPosition) -> Result<Page<usize>> {
        Ok(self.machine.datapath.sweep(from)?)
    }

    /// Whether flows are opened so fast that the next round should come soon.
    pub fn is_pressed(&self) -> bool {
        self.machine.datapath.is_pressed()
    }

    fn ensure_up(&self) -> Result<()> {
        if self.down {
            return Err(Error::Conflict(format!("instance {} is being taken down", self.config.instance)));
        }
        Ok(())
    }
}

/// What is different on every machine (machine-id(5)). Where there is none, subnets still avoid what is in use.
fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default()
}

/// The time, as RFC 3339.
fn now() -> String {
    // Only a year beyond 9999 cannot be written so.
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
