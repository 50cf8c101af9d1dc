//! What touches BPF: load, attach, pin, typed maps, expiry, counters.
//!
//! Under the instance's directory of bpffs, by the layout of the maps:
//!
//! ```text
//! v4/FLOWS4 …                 maps
//! v4/links/from_container-12  the link of a program, with the interface that it is on
//! v4/links/sock_bind4 …       the links of programs on the root cgroup
//! ```

mod batch;
mod collector;
mod early;
mod endpoints;
mod flows;
mod layout;
mod links;
mod load;
mod mappings;
mod ports;
mod private;
mod query;
mod quotas;
mod relay;
mod sources;
mod stack;
pub mod survey;
mod tables;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    net::IpAddr,
    ops::RangeInclusive,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result};
use ipnetwork::IpNetwork;
use rnet_common::{Settings, settings::Timeouts};

use self::{
    early::Early, flows::Excerpt, links::Links, ports::HeldPorts, quotas::Quotas, stack::TO_UPLINK,
    tables::Tables,
};
pub use self::{relay::Relay, trace::Tracing};
use crate::controller::{
    backend::{
        Datapath, EndpointSpec, FlowInfo, FlowLimits, FlowPosition, Page, PortCount, ReasonCount, Tally,
        Uplink,
    },
    model::{Binding, flow_filter::FlowFilter, xdp::Xdp},
};

/// What a datapath is made with.
#[derive(Debug)]
pub struct Options {
    /// Directory on bpffs for this instance and this layout of maps
    /// (`/sys/fs/bpf/INSTANCE/v`[`rnet_common::LAYOUT_VERSION`]): made if it is not there.
    pub pin_dir: PathBuf,
    /// Source ports given to masqueraded flows.
    pub snat_ports: RangeInclusive<u16>,
    /// How many entries tables have. One that an earlier daemon left with another size is refused.
    pub sizes: Sizes,
    /// Tables of another layout that are there are given up, with the flows in them.
    pub replace_layout: bool,
    /// How long flows may be idle.
    pub timeouts: Timeouts,
    /// How many flows one container, and one source outside, may open.
    pub limits: FlowLimits,
    /// Cookie of the network namespace that is served.
    pub netns_cookie: u64,
    /// Which uplinks run an XDP program.
    pub xdp: Xdp,
    /// The uplinks are named: one that cannot run the program as asked is an error when they are first told.
    pub named_uplinks: bool,
    /// The root of the cgroup2 hierarchy, whose processes are kept from taking published ports and led to them.
    pub cgroup: OwnedFd,
}

/// How many entries tables have, for each address family. What is absent is as an earlier daemon left it, or
/// the default of [`rnet_common::limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Flows, each of which takes two entries.
    pub flows: Option<u32>,
    /// Published ports, at most [`rnet_common::limits::PORTS`].
    pub ports: Option<u32>,
}

/// The eBPF programs, with their maps.
pub struct Ebpf {
    pin_dir: PathBuf,
    programs: aya::Ebpf,
    links: Links,
    tables: Tables,
    held: HeldPorts,
    early: Early,
    /// The veths of endpoints whose networks are delivered via the host's stack.
    via_stack: BTreeSet<u32>,
    relay: Option<Relay>,
    tracing: Tracing,
    /// Rounds of the collector.
    sweeps: u16,
    /// What the round that is under way has seen so far, and what the last one has.
    tallies: (Tally, Option<Tally>),
    quotas: Quotas,
    /// The tables' room when the round that is under way began ([`rnet_common::Pressure::room`]).
    room_before: [i32; 2],
    /// The last round has found a table filling up.
    is_filling: bool,
}

const FROM_UPLINK: &str = "from_uplink";

impl Ebpf {
    /// Loads the programs on the maps that an earlier daemon left, or on new ones. Programs on interfaces are
    /// replaced one by one as endpoints and uplinks are added; until then the earlier daemon's go on.
    ///
    /// # Errors
    /// There are tables of another layout, which nobody has said to give up; the object is missing from the build,
    /// the kernel refuses a map or program, or bpffs cannot be written.
    pub fn open(options: Options) -> Result<Self> {
        let Options { pin_dir, snat_ports, sizes, replace_layout, timeouts, limits, netns_cookie, .. } =
            options;
        if !replace_layout {
            layout::refuse_others(&pin_dir)?;
        }
        let was_there = pin_dir.exists();
        private::claim(&pin_dir)?;
        // All of it at once: flows go by what is there already.
        let mut settings = Settings::new(netns_cookie, snat_ports);
        settings.timeouts = timeouts;
        let early = Early::new(options.xdp, options.named_uplinks);
        let opened = Self::make(pin_dir.clone(), &settings, limits, sizes, early, &options.cgroup);
        if opened.is_err()
            && !was_there
            && let Err(error) = remove_pins(&pin_dir)
        {
            tracing::warn!("remove what a failed start left: {error:#}");
        }
        opened
    }

    /// The relay for sockets that are bound to a loopback address, to be run beside all else. Only once.
    pub fn take_relay(&mut self) -> Option<Relay> {
        self.relay.take()
    }

    /// Where packets can be looked at. It has to be run beside all else.
    pub fn tracing(&self) -> Tracing {
        self.tracing.clone()
    }

    fn make(
        pin_dir: PathBuf,
        settings: &Settings,
        limits: FlowLimits,
        sizes: Sizes,
        early: Early,
        cgroup: &OwnedFd,
    ) -> Result<Self> {
        let links = Links::open(pin_dir.join("links"))?;
        let mut programs = load::load(&pin_dir, sizes, early.is_wanted())?;
        let mut tables = Tables::take(&mut programs)?;
        tables.set_settings(settings)?;
        let held = HeldPorts::adopt(&mut tables)?;
        let mut used: HashSet<_> = tables.port_mappings()?.into_iter().collect();
        used.extend(tables.endpoint_mappings()?.into_iter().map(|(_, mapping)| mapping));
        tables.mappings.retain(&used);
        // Before the programs that lead to it.
        let relay = Relay::open(&mut programs)?;
        let tracing = Tracing::open(&mut programs)?;
        for program in load::SOCKETS {
            links.attach_socket(&mut programs, program, cgroup)?;
        }
        let via_stack = stack::adopt(&tables)?;
        let ports = u32::from(settings.snat_max.saturating_sub(settings.snat_min)) + 1;
        let quotas = Quotas::new(limits, tables.v4.flows.capacity()?.1 / 2, ports);
        Ok(Self {
            pin_dir,
            programs,
            links,
            tables,
            held,
            early,
            via_stack,
            relay: Some(relay),
            tracing,
            sweeps: 0,
            tallies: Default::default(),
            quotas,
            room_before: [0; 2],
            is_filling: false,
        })
    }
}

impl Datapath for Ebpf {
    fn add_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()> {
        self.add(endpoint)
    }

    fn remove_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()> {
        self.forget(endpoint)
    }

    fn set_sources(&mut self, number: u32, sources: &[IpNetwork]) -> Result<()> {
        self.tables.v4.sources.set(number, sources)?;
        self.tables.v6.sources.set(number, sources)
    }

    fn publish(&mut self, bindings: &[Binding]) -> Result<()> {
        self.publish_all(bindings)
    }

    fn unpublish(&mut self, bindings: &[Binding]) -> Result<()> {
        self.unpublish_all(bindings)
    }

    fn set_uplinks(&mut self, uplinks: &[Uplink]) -> Result<()> {
        let wanted: BTreeSet<u32> = uplinks.iter().map(|uplink| uplink.index).collect();
        for uplink in uplinks {
            self.links.attach(&mut self.programs, FROM_UPLINK, &uplink.name, uplink.index)?;
            if !self.via_stack.is_empty() {
                self.links.attach(&mut self.programs, TO_UPLINK, &uplink.name, uplink.index)?;
            }
            // Only now may flows leave through it: their answers are translated.
            self.tables.uplinks.insert(&uplink.index, &early::entry(uplink))?;
        }
        for (index, _) in self.tables.uplinks.entries()? {
            if !wanted.contains(&index) {
                self.tables.uplinks.remove(&index)?;
            }
        }
        self.links.retain(FROM_UPLINK, &wanted)?;
        match self.via_stack.is_empty() {
            true => self.leave_uplinks()?,
            false => self.links.retain(TO_UPLINK, &wanted)?,
        }
        self.set_early(uplinks)
    }

    fn set_bridges(&mut self, bridges: &BTreeMap<u32, String>) -> Result<()> {
        let wanted = bridges.keys().copied().collect();
        for program in [load::FROM_BRIDGE, load::TO_BRIDGE] {
            for (index, name) in bridges {
                self.links.attach(&mut self.programs, program, name, *index)?;
            }
            self.links.retain(program, &wanted)?;
        }
        Ok(())
    }

    fn xdp_modes(&self) -> BTreeMap<u32, &'static str> {
        self.early.modes()
    }

    fn set_addresses(&mut self, addrs: &[IpAddr], named: &BTreeSet<IpAddr>) -> Result<()> {
        self.tables.v4.set_locals(addrs, named)?;
        self.tables.v6.set_locals(addrs, named)
    }

    fn retain(
        &mut self,
        endpoints: &[EndpointSpec],
        bindings: &[Binding],
        lists: &BTreeSet<u32>,
    ) -> Result<()> {
        self.retain_ports(bindings)?;
        self.tables.v4.sources.retain(lists)?;
        self.tables.v6.sources.retain(lists)?;
        self.retain_endpoints(endpoints)?;
        layout::remove_others(&self.pin_dir)
    }

    fn sweep(&mut self, from: FlowPosition) -> Result<Page<usize>> {
        self.collect(from)
    }

    fn tally(&self) -> Option<Tally> {
        self.tallies.1.clone()
    }

    fn capacities(&self) -> Result<BTreeMap<String, u32>> {
        let Tables { v4, v6, .. } = &self.tables;
        let sizes = [
            v4.flows.capacity()?,
            v6.flows.capacity()?,
            v4.ports.capacity()?,
            v6.ports.capacity()?,
            v4.endpoints.capacity()?,
            v6.endpoints.capacity()?,
        ];
        Ok(sizes.into_iter().collect())
    }

    fn opened(&self, bindings: &[Binding]) -> Result<Vec<u64>> {
        self.opened_by(bindings)
    }

    fn counters(&self) -> Result<Vec<ReasonCount>> {
        self.tables.counters()
    }

    fn port_counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>> {
        self.counts(bindings)
    }

    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>> {
        let timeouts = self.tables.settings()?.timeouts;
        let Tables { v4, v6, mappings, .. } = &self.tables;
        if from.v6 {
            let some = Excerpt::take(&v6.flows, from)?;
            return Ok(some.page(some.describe(&v6.flows, mappings, &timeouts, filter)?));
        }
        let some = Excerpt::take(&v4.flows, from)?;
        Ok(some.page(some.describe(&v4.flows, mappings, &timeouts, filter)?))
    }

    fn count_flows(&self) -> Result<usize> {
        let timeouts = self.tables.settings()?.timeouts;
        let Tables { v4, v6, mappings, .. } = &self.tables;
        let mut count = 0;
        flows::walk(&v4.flows, |some| count += some.count(mappings, &timeouts))?;
        flows::walk(&v6.flows, |some| count += some.count(mappings, &timeouts))?;
        Ok(count)
    }

    fn flush(&mut self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>> {
        let Tables { v4, v6, mappings, .. } = &mut self.tables;
        if from.v6 {
            let some = Excerpt::take(&v6.flows, from)?;
            return Ok(some.page(some.flush(&mut v6.flows, mappings, filter)?));
        }
        let some = Excerpt::take(&v4.flows, from)?;
        Ok(some.page(some.flush(&mut v4.flows, mappings, filter)?))
    }

    fn is_pressed(&self) -> bool {
        self.is_filling || self.quotas.is_hurried()
    }

    fn set_flow_limits(&mut self, limits: &FlowLimits) {
        self.quotas.set_limits(*limits);
    }

    fn flow_limits(&self) -> FlowLimits {
        self.quotas.limits()
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<()> {
        let mut settings = self.tables.settings()?;
        settings.timeouts = *timeouts;
        self.tables.set_settings(&settings)
    }

    fn destroy(&mut self) -> Result<()> {
        remove_pins(&self.pin_dir)
    }
}

/// Removes this layout's pins, and the instance's directory if that leaves it empty. A program is detached with
/// the pin of its link.
fn remove_pins(pin_dir: &Path) -> Result<()> {
    remove_dir(pin_dir)?;
    let Some(instance) = pin_dir.parent() else { return Ok(()) };
    match fs::remove_dir(instance) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error).with_context(|| format!("remove directory {}", instance.display()))
        }
        _ => Ok(()),
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::from(error).context(format!("remove directory {}", dir.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
