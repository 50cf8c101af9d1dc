//! A host and a datapath that exist only in memory, for tests. They keep tables as the kernel would, refuse
//! what it would refuse, and fail, or end the program, at a call of one's choice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail, ensure};
use ipnetwork::IpNetwork;
use rnet_common::settings::Timeouts;

use super::{
    backend::{
        BridgeSpec, BridgeState, Datapath, DefaultRoute, EndpointSpec, FlowInfo, FlowLimits, FlowPosition,
        Host, Link, Page, PairSpec, PortCount, PortHold, PortUnavailable, ReasonCount, Tally, Uplink,
    },
    model::{Binding, HostPort, MacAddr, flow_filter::FlowFilter, link::LinkKind},
};

/// What a call is to do, counted from the moment it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Well,
    /// The nth call fails.
    FailAt(usize),
    /// The nth call ends the program, as SIGKILL would.
    DieAt(usize),
    /// All calls from the nth on fail.
    FailFrom(usize),
}

/// All that the two fakes have, so that a test can compare it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) bridges: BTreeMap<String, (Link, BridgeSpec)>,
    pub(super) veths: BTreeMap<String, (Link, PairSpec)>,
    pub(super) netns: BTreeSet<PathBuf>,
    pub(super) held_namespaces: BTreeMap<PathBuf, String>,
    pub(super) default_routes: BTreeMap<PathBuf, Vec<DefaultRoute>>,
    pub(super) held: BTreeSet<HostPort>,
    pub(super) endpoints: BTreeMap<String, EndpointSpec>,
    pub(super) ports: BTreeMap<HostPort, Binding>,
    pub(super) sources: BTreeMap<u32, Vec<IpNetwork>>,
    pub(super) known_uplinks: Vec<Uplink>,
    /// Bridges of engines with settings of ours.
    pub(super) lent: BTreeSet<String>,
    /// Ports of others that are isolated.
    pub(super) isolated: BTreeSet<String>,
    /// Bridges of engines.
    pub(super) guarded: Vec<String>,
    pub(super) known_addresses: Vec<IpAddr>,
    pub(super) name_servers: BTreeSet<IpAddr>,
}

/// The host's own, which rnet did not make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) links: BTreeSet<String>,
    /// Those of `links` that are bridges.
    pub(super) bridges: BTreeMap<String, BridgeState>,
    /// Network namespaces with their numbers.
    pub(super) namespaces: BTreeMap<PathBuf, u64>,
    pub(super) routes: Vec<IpNetwork>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) sockets: BTreeMap<HostPort, String>,
    pub(super) processes: BTreeMap<u32, u64>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) foreign: Foreign,
    /// Names of calls that changed something, or could have.
    pub(super) log: Vec<String>,
    pub(super) ephemeral: (u16, u16),
    /// Settings that keep the stack from forwarding, of IPv4 and of IPv6.
    pub(super) forwarding_off: [BTreeSet<String>; 2],
    /// What the kernel lacks, by the kind of link.
    pub(super) lacking: BTreeMap<&'static str, String>,
    pub(super) destroyed: bool,
    pub(super) flows: Vec<FlowInfo>,
    pub(super) timeouts: Timeouts,
    pub(super) flow_limits: FlowLimits,
    fate: Fate,
    calls: usize,
    last_index: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// A host with one uplink, 192.0.2.1.
    pub(super) fn new() -> Self {
        let foreign = Foreign {
            routes: vec!["192.0.2.0/24".parse().unwrap()],
            addresses: vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
            uplinks: vec![Uplink { index: 2, name: "uplink0".into(), ..Uplink::default() }],
            ..Foreign::default()
        };
        let world = World { foreign, ephemeral: (32768, 60999), last_index: 2, ..World::default() };
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tables(&self) -> Tables {
        self.world().tables.clone()
    }

    /// Decides what the calls from here on do. Returns how many there were before.
    pub(super) fn set(&self, fate: Fate) -> usize {
        let mut world = self.world();
        world.fate = fate;
        std::mem::take(&mut world.calls)
    }

    fn call(&self, name: &str) -> Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        world.calls += 1;
        let call = world.calls;
        match world.fate {
            Fate::FailAt(n) if n == call => bail!("call {call}, {name}, fails"),
            Fate::FailFrom(n) if n <= call => bail!("call {call}, {name}, fails"),
            Fate::DieAt(n) if n == call => {
                drop(world);
                panic!("the program ends at call {call}, {name}");
            }
            Fate::Well | Fate::FailAt(_) | Fate::DieAt(_) | Fate::FailFrom(_) => {}
        }
        world.log.push(name.to_owned());
        Ok(world)
    }
}

impl Tables {
    fn set_routes(&mut self, netns: &Path, mut routes: Vec<DefaultRoute>) {
        routes.sort_by_key(|route| route.gateway);
        if routes.is_empty() {
            self.default_routes.remove(netns);
        } else {
            self.default_routes.insert(netns.to_owned(), routes);
        }
    }
}

impl World {
    fn link(&mut self) -> Link {
        self.last_index += 1;
        let [.., a, b] = self.last_index.to_be_bytes();
        Link { index: self.last_index, mac: MacAddr([2, 0, 0, 0, a, b]) }
    }

    fn delete_link(&mut self, name: &str) {
        assert!(!self.foreign.links.contains(name), "{name} is not rnet's");
        self.tables.bridges.remove(name);
        if let Some((_, veth)) = self.tables.veths.remove(name) {
            let Some(netns) = &veth.netns else { return };
            let mut routes = self.tables.default_routes.remove(netns).unwrap_or_default();
            routes.retain(|route| route.interface != veth.name);
            self.tables.set_routes(netns, routes);
        }
    }

    fn exists(&self, name: &str) -> bool {
        let Tables { bridges, veths, .. } = &self.tables;
        bridges.contains_key(name) || veths.contains_key(name) || self.foreign.links.contains(name)
    }
}

impl Host for Fake {
    fn create_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        let mut world = self.call("create_bridge")?;
        ensure!(!world.exists(&spec.name), "{} exists", spec.name);
        let link = world.link();
        world.tables.bridges.insert(spec.name.clone(), (link.clone(), spec.clone()));
        Ok(link)
    }

    fn bridge_state(&self, name: &str) -> Result<BridgeState> {
        let world = self.call("bridge_state")?;
        let state = world.foreign.bridges.get(name).cloned();
        state.ok_or_else(|| anyhow::anyhow!("{name} is not a bridge"))
    }

    fn adopt_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        let mut world = self.call("adopt_bridge")?;
        ensure!(world.foreign.bridges.contains_key(&spec.name), "no bridge {}", spec.name);
        let link = world.link();
        world.tables.bridges.insert(spec.name.clone(), (link.clone(), spec.clone()));
        Ok(link)
    }

    fn restore_bridge(&self, name: &str, state: &BridgeState) -> Result<()> {
        let mut world = self.call("restore_bridge")?;
        assert_eq!(world.foreign.bridges.get(name), Some(state));
        world.tables.bridges.remove(name);
        Ok(())
    }

    fn find_bridge(&self, name: &str) -> Result<Option<Link>> {
        let world = self.call("find_bridge")?;
        let foreign =
            || world.foreign.bridges.contains_key(name).then_some(Link { index: 1, mac: MacAddr([2; 6]) });
        Ok(world.tables.bridges.get(name).map(|(link, _)| link.clone()).or_else(foreign))
    }

    fn find_link(&self, name: &str) -> Result<Option<Link>> {
        let world = self.call("find_link")?;
        let Tables { bridges, veths, .. } = &world.tables;
        let own =
            veths.get(name).map(|(l, _)| l.clone()).or_else(|| bridges.get(name).map(|(l, _)| l.clone()));
        let foreign = world.foreign.links.contains(name).then_some(Link { index: 1, mac: MacAddr([2; 6]) });
        Ok(own.or(foreign))
    }

    fn delete_link(&self, name: &str) -> Result<()> {
        self.call("delete_link")?.delete_link(name);
        Ok(())
    }

    fn delete_links(&self, names: &BTreeSet<String>) -> Result<()> {
        let mut world = self.call("delete_links")?;
        names.iter().for_each(|name| world.delete_link(name));
        Ok(())
    }

    fn create_netns(&self, name: &str) -> Result<PathBuf> {
        let mut world = self.call("create_netns")?;
        let path = self.netns_path(name);
        ensure!(world.tables.netns.insert(path.clone()), "{name} exists");
        Ok(path)
    }

    fn netns_path(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(name)
    }

    fn netns_exists(&self, path: &Path) -> bool {
        self.world().tables.netns.contains(path)
    }

    fn delete_netns(&self, name: &str) -> Result<()> {
        let mut world = self.call("delete_netns")?;
        let path = self.netns_path(name);
        world.tables.netns.remove(&path);
        world.tables.default_routes.remove(&path);
        world.tables.veths.retain(|_, (_, veth)| veth.netns.as_ref() != Some(&path));
        Ok(())
    }

    fn hold_namespaces(&self, dir: &Path, hostname: &str) -> Result<()> {
        let mut world = self.call("hold_namespaces")?;
        ensure!(
            world.tables.held_namespaces.insert(dir.to_owned(), hostname.to_owned()).is_none(),
            "{} holds namespaces",
            dir.display()
        );
        Ok(())
    }

    fn release_namespaces(&self, dir: &Path) -> Result<()> {
        self.call("release_namespaces")?.tables.held_namespaces.remove(dir);
        Ok(())
    }

    fn set_sysctls(&self, netns: &Path, dir: &Path, settings: &BTreeMap<String, String>) -> Result<()> {
        let mut world = self.call("set_sysctls")?;
        ensure!(world.tables.netns.contains(netns) && world.tables.held_namespaces.contains_key(dir));
        world.log.extend(settings.iter().map(|(key, value)| format!("sysctl {key}={value}")));
        Ok(())
    }

    fn netns_id(&self, path: &Path) -> Result<u64> {
        let world = self.world();
        let id = world.foreign.namespaces.get(path).copied();
        id.or_else(|| world.tables.netns.contains(path).then_some(1))
            .ok_or_else(|| anyhow::anyhow!("{} is not a network namespace", path.display()))
    }

    fn interfaces(&self, netns: &Path) -> Result<BTreeSet<String>> {
        let world = self.call("interfaces")?;
        let inside = world.tables.veths.values().filter(|(_, veth)| veth.netns.as_deref() == Some(netns));
        Ok(inside.map(|(_, veth)| veth.name.clone()).chain(["lo".to_owned()]).collect())
    }

    fn link_names(&self) -> Result<BTreeSet<String>> {
        let world = self.call("link_names")?;
        let Tables { bridges, veths, .. } = &world.tables;
        Ok(bridges.keys().chain(veths.keys()).chain(&world.foreign.links).cloned().collect())
    }

    fn hostname(&self) -> Result<String> {
        Ok("host".to_owned())
    }

    fn set_default_routes(&self, netns: &Path, _: &[String], routes: &[DefaultRoute]) -> Result<()> {
        let mut world = self.call("set_default_routes")?;
        for route in routes {
            let leads = |(_, veth): &(Link, PairSpec)| {
                veth.netns.as_deref() == Some(netns) && veth.name == route.interface
            };
            ensure!(world.tables.veths.values().any(leads), "no interface {}", route.interface);
        }
        world.tables.set_routes(netns, routes.to_vec());
        Ok(())
    }

    fn lacks(&self, kind: LinkKind) -> Result<Option<String>> {
        Ok(self.world().lacking.get(kind.name()).cloned())
    }

    fn create_pair(&self, spec: &PairSpec) -> Result<Link> {
        let mut world = self.call("create_pair")?;
        ensure!(!world.exists(&spec.host_name), "{} exists", spec.host_name);
        ensure!(world.tables.bridges.contains_key(&spec.bridge), "no bridge {}", spec.bridge);
        if let Some(netns) = &spec.netns {
            let is_there = world.tables.netns.contains(netns) || world.foreign.namespaces.contains_key(netns);
            ensure!(is_there, "no namespace {}", netns.display());
        }
        let inside = |(_, veth): &(Link, PairSpec)| veth.netns == spec.netns && veth.name == spec.name;
        ensure!(!world.tables.veths.values().any(inside), "{} exists in the namespace", spec.name);
        if let Some(netns) = &spec.netns {
            let mut routes = world.tables.default_routes.remove(netns).unwrap_or_default();
            let route = |gateway: &IpAddr| DefaultRoute { gateway: *gateway, interface: spec.name.clone() };
            routes.extend(spec.gateways.iter().map(route));
            world.tables.set_routes(netns, routes);
        }
        let link = world.link();
        world.tables.veths.insert(spec.host_name.clone(), (link.clone(), spec.clone()));
        Ok(link)
    }

    fn routes(&self) -> Result<Vec<IpNetwork>> {
        let world = self.call("routes")?;
        let bridges = world.tables.bridges.values().flat_map(|(_, spec)| &spec.addrs);
        let own = bridges.map(|a| IpNetwork::new(a.network(), a.prefix()).unwrap());
        Ok(world.foreign.routes.iter().copied().chain(own).collect())
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let world = self.call("addresses")?;
        let own = world.tables.bridges.values().flat_map(|(_, spec)| &spec.addrs).map(|a| a.ip());
        Ok(world.foreign.addresses.iter().copied().chain(own).collect())
    }

    fn lend_bridge(&self, name: &str) -> Result<()> {
        self.call("lend_bridge")?.tables.lent.insert(name.to_owned());
        Ok(())
    }

    fn return_bridge(&self, name: &str, _state: &BridgeState) -> Result<()> {
        self.call("return_bridge")?.tables.lent.remove(name);
        Ok(())
    }

    fn isolate_port(&self, name: &str, isolated: bool) -> Result<()> {
        let mut world = self.call("isolate_port")?;
        ensure!(!isolated || world.foreign.links.contains(name), "there is no link {name}");
        match isolated {
            true => world.tables.isolated.insert(name.to_owned()),
            false => world.tables.isolated.remove(name),
        };
        Ok(())
    }

    fn take_frames(&self, netns: &Path, interface: &str) -> Result<()> {
        let world = self.call("take_frames")?;
        let is_it =
            |(_, veth): &(Link, PairSpec)| veth.netns.as_deref() == Some(netns) && veth.name == interface;
        ensure!(world.tables.veths.values().any(is_it), "no {interface} in {}", netns.display());
        Ok(())
    }

    fn uplinks(&self, own: &BTreeSet<String>) -> Result<Vec<Uplink>> {
        let world = self.call("uplinks")?;
        let Tables { bridges, veths, .. } = &world.tables;
        for name in bridges.keys().chain(veths.keys()) {
            assert!(own.contains(name), "{name} would be taken for an uplink");
        }
        Ok(world.foreign.uplinks.clone())
    }

    fn hold_ports(&self, ports: &[HostPort]) -> Result<Box<dyn PortHold>, PortUnavailable> {
        let mut world = match self.call("hold_ports") {
            Ok(world) => world,
            Err(e) => return Err(PortUnavailable::Other(ports[0], e.to_string())),
        };
        for port in ports {
            if !port.addr.is_unspecified() && !world.foreign.addresses.contains(&port.addr) {
                return Err(PortUnavailable::NotLocal(*port));
            }
            if let Some(process) = world.foreign.sockets.get(port) {
                return Err(PortUnavailable::InUse(*port, Some(process.clone())));
            }
        }
        world.tables.held.extend(ports);
        Ok(Box::new(Hold { fake: self.clone(), ports: ports.to_vec() }))
    }

    fn ephemeral_ports(&self) -> Result<(u16, u16)> {
        Ok(self.call("ephemeral_ports")?.ephemeral)
    }

    fn forwarding_off(&self, uplinks: &[Uplink], ipv6: bool) -> Result<BTreeSet<String>> {
        let world = self.call("forwarding_off")?;
        assert_eq!(uplinks, world.foreign.uplinks);
        Ok(world.forwarding_off[usize::from(ipv6)].clone())
    }

    fn exit_code(&self, dir: &Path) -> Result<Option<i32>> {
        Ok(std::fs::read_to_string(dir.join("status")).ok().and_then(|code| code.parse().ok()))
    }

    fn process_start(&self, pid: u32) -> Option<u64> {
        self.world().foreign.processes.get(&pid).copied()
    }
}

struct Hold {
    fake: Fake,
    ports: Vec<HostPort>,
}

impl PortHold for Hold {}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut world = self.fake.world();
        world.log.push("let go of ports".into());
        world.tables.held.retain(|port| !self.ports.contains(port));
    }
}

impl Datapath for Fake {
    fn add_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()> {
        let mut world = self.call("add_endpoint")?;
        let foreign = world.foreign.links.contains(&endpoint.host_name).then_some(1);
        let veth = world.tables.veths.get(&endpoint.host_name).map(|(link, _)| link.index).or(foreign);
        ensure!(
            veth == Some(endpoint.ifindex),
            "{} is not interface {}",
            endpoint.host_name,
            endpoint.ifindex
        );
        world.tables.endpoints.insert(endpoint.host_name.clone(), endpoint.clone());
        Ok(())
    }

    fn remove_endpoint(&mut self, endpoint: &EndpointSpec) -> Result<()> {
        self.call("remove_endpoint")?.tables.endpoints.remove(&endpoint.host_name);
        Ok(())
    }

    fn set_sources(&mut self, number: u32, sources: &[IpNetwork]) -> Result<()> {
        let mut world = self.call("set_sources")?;
        if sources.is_empty() {
            world.tables.sources.remove(&number);
        } else {
            world.tables.sources.insert(number, sources.to_vec());
        }
        Ok(())
    }

    fn publish(&mut self, bindings: &[Binding]) -> Result<()> {
        let mut world = self.call("publish")?;
        for binding in bindings {
            let mut addrs = world.tables.endpoints.values().flat_map(|e| &e.addrs);
            ensure!(addrs.any(|a| a.addr == binding.addr), "no endpoint for {binding:?}");
            let knows = binding.sources == 0 || world.tables.sources.contains_key(&binding.sources);
            ensure!(knows, "no list of sources for {binding:?}");
        }
        world.tables.ports.extend(bindings.iter().map(|b| (b.host, *b)));
        Ok(())
    }

    fn unpublish(&mut self, bindings: &[Binding]) -> Result<()> {
        let mut world = self.call("unpublish")?;
        world.tables.ports.retain(|host, _| !bindings.iter().any(|binding| binding.host == *host));
        Ok(())
    }

    fn set_uplinks(&mut self, uplinks: &[Uplink]) -> Result<()> {
        self.call("set_uplinks")?.tables.known_uplinks = uplinks.to_vec();
        Ok(())
    }

    fn set_bridges(&mut self, bridges: &BTreeMap<u32, String>) -> Result<()> {
        self.call("set_bridges")?.tables.guarded = bridges.values().cloned().collect();
        Ok(())
    }

    fn xdp_modes(&self) -> BTreeMap<u32, &'static str> {
        BTreeMap::new()
    }

    fn set_addresses(&mut self, addrs: &[IpAddr], named: &BTreeSet<IpAddr>) -> Result<()> {
        let mut world = self.call("set_addresses")?;
        // Without them for even a moment, published ports would not answer.
        assert!(
            world.foreign.addresses.iter().take(2).all(|own| addrs.contains(own)),
            "the host's own are missing"
        );
        world.tables.known_addresses = addrs.to_vec();
        world.tables.name_servers = named.iter().filter(|addr| addrs.contains(addr)).copied().collect();
        Ok(())
    }

    fn retain(
        &mut self,
        endpoints: &[EndpointSpec],
        bindings: &[Binding],
        lists: &BTreeSet<u32>,
    ) -> Result<()> {
        let mut world = self.call("retain")?;
        world.tables.endpoints.retain(|_, there| endpoints.contains(there));
        world.tables.ports.retain(|_, there| bindings.contains(there));
        world.tables.sources.retain(|number, _| lists.contains(number));
        Ok(())
    }

    fn sweep(&mut self, _from: FlowPosition) -> Result<Page<usize>> {
        self.call("sweep").map(|_| Page { found: 3, next: None })
    }

    fn is_pressed(&self) -> bool {
        false
    }

    fn set_flow_limits(&mut self, limits: &FlowLimits) {
        self.world().flow_limits = *limits;
    }

    fn flow_limits(&self) -> FlowLimits {
        self.world().flow_limits
    }

    fn tally(&self) -> Option<Tally> {
        None
    }

    fn capacities(&self) -> Result<BTreeMap<String, u32>> {
        self.call("capacities").map(|_| [("FLOWS4".to_owned(), 1000), ("PORTS4".to_owned(), 10)].into())
    }

    fn opened(&self, bindings: &[Binding]) -> Result<Vec<u64>> {
        self.call("opened").map(|_| vec![1; bindings.len()])
    }

    fn counters(&self) -> Result<Vec<ReasonCount>> {
        self.call("counters").map(|_| Vec::new())
    }

    fn port_counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>> {
        let world = self.call("port_counts")?;
        let count = |b: &Binding| {
            ensure!(world.tables.ports.get(&b.host) == Some(b), "{b:?} is not published");
            Ok(PortCount { flows: u64::from(b.host.port), ..PortCount::default() })
        };
        bindings.iter().map(count).collect()
    }

    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>> {
        // A page for each flow.
        let world = self.call("flows")?;
        let at = from.bucket.unwrap_or_default();
        let flow = world.flows.get(at as usize).cloned();
        let is_last = at as usize + 1 >= world.flows.len();
        let next = (!is_last).then_some(FlowPosition { bucket: Some(at + 1), ..from });
        Ok(Page { found: flow.into_iter().filter(|flow| filter.matches_info(flow)).collect(), next })
    }

    fn count_flows(&self) -> Result<usize> {
        Ok(self.call("count_flows")?.flows.len())
    }

    fn flush(&mut self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>> {
        // In two steps, of which the first finds nothing.
        let mut world = self.call("flush")?;
        if from.bucket.is_none() {
            return Ok(Page { found: 0, next: Some(FlowPosition { bucket: Some(1), ..from }) });
        }
        let before = world.flows.len();
        world.flows.retain(|flow| !filter.matches_info(flow));
        Ok(Page { found: before - world.flows.len(), next: None })
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<()> {
        self.call("set_timeouts")?.timeouts = *timeouts;
        Ok(())
    }

    fn destroy(&mut self) -> Result<()> {
        let mut world = self.call("destroy")?;
        world.tables.endpoints.clear();
        world.tables.ports.clear();
        world.tables.sources.clear();
        world.tables.known_uplinks.clear();
        world.tables.guarded.clear();
        world.tables.known_addresses.clear();
        world.tables.name_servers.clear();
        world.destroyed = true;
        Ok(())
    }
}
