//! A controller and processes in memory, for tests: enough rules to tell every status apart.

#![expect(clippy::unwrap_in_result, reason = "what is unwrapped here are constants and locks")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use anyhow::anyhow;
use futures::{FutureExt as _, future::BoxFuture};
use ipnetwork::IpNetwork;
use rnet_common::settings::Timeouts;
use tokio::sync::watch;

use super::{Control, Process, Processes, Signal};
use crate::controller::{
    Config, Error,
    backend::{FlowInfo, FlowPosition, Page, PortCount, ReasonCount},
    error::Result,
    events::{Events, Kind},
    model::{
        Binding, HostPort, Protocol,
        engine::Engine,
        flow_filter::FlowFilter,
        timeouts::{self, Seconds},
    },
    request::{Connect, CreateContainer, CreateNetwork, EngineContainer, EngineNetwork, FreeSubnet, Publish},
    view::{self, ContainerState},
};

const TIME: &str = "2026-01-02T03:04:05.678901234Z";

#[derive(Default)]
pub(crate) struct FakeControl {
    pub(crate) networks: Mutex<BTreeMap<String, view::Network>>,
    pub(crate) containers: Mutex<BTreeMap<String, view::Container>>,
    pub(crate) timeouts: Mutex<Timeouts>,
    pub(crate) events: Events,
    pub(crate) sweeps: AtomicUsize,
    pub(crate) refreshes: AtomicUsize,
    pub(crate) downs: AtomicUsize,
    ids: AtomicU32,
}

fn no_engines() -> Error {
    Error::Failed(anyhow!("the fake controller serves no engines"))
}

impl FakeControl {
    /// With the network `bridge`, 172.17.0.0/16.
    pub(crate) fn new() -> Arc<Self> {
        let fake = Self::default();
        let bridge = CreateNetwork { name: "bridge".into(), ..CreateNetwork::default() };
        fake.create_network(&bridge).unwrap();
        Arc::new(fake)
    }

    fn id(&self) -> String {
        format!("{:064x}", 0xabc0_0000_u32 + self.ids.fetch_add(1, Ordering::SeqCst))
    }

    fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
        of.lock().unwrap()
    }

    fn edit<T>(&self, container: &str, edit: impl FnOnce(&mut view::Container) -> T) -> Result<T> {
        let mut containers = Self::lock(&self.containers);
        let found = containers.values_mut().find(|c| c.id == container || c.name == container);
        found.map(edit).ok_or_else(|| Error::NotFound(format!("No such container: {container}")))
    }
}

/// `HOSTPORT:PORT`, the only spelling that is known here.
fn binding(spec: &str) -> Result<Binding> {
    let invalid = || Error::Invalid(format!("invalid port: {spec}"));
    let (host, port) = spec.split_once(':').ok_or_else(invalid)?;
    let parse = |port: &str| port.parse().map_err(|_| invalid());
    let host = HostPort { addr: [0, 0, 0, 0].into(), port: parse(host)?, protocol: Protocol::Tcp };
    Ok(Binding { host, addr: [172, 17, 0, 2].into(), port: parse(port)?, sources: 0, unheld: false })
}

impl Control for FakeControl {
    fn create_network(&self, request: &CreateNetwork) -> Result<view::Network> {
        let mut networks = Self::lock(&self.networks);
        match request.name.as_str() {
            "" => return Err(Error::Invalid("create network: it has no name".into())),
            "broken" => return Err(anyhow!("no space left").context("create bridge").into()),
            name if networks.contains_key(name) => {
                return Err(Error::Conflict(format!("network with name {name} already exists")));
            }
            _ => {}
        }
        let asked = request.subnets.first();
        let network = view::Network {
            engine: None,
            id: self.id(),
            name: request.name.clone(),
            driver: "bridge".into(),
            created: TIME.into(),
            bridge: Some("br-0".into()),
            subnets: vec![view::SubnetView {
                subnet: asked.and_then(|s| s.subnet).unwrap_or_else(|| "172.17.0.0/16".parse().unwrap()),
                ip_range: asked.and_then(|s| s.ip_range),
                gateway: asked.and_then(|s| s.gateway).or_else(|| "172.17.0.1".parse().ok()),
                aux: BTreeMap::new(),
            }],
            internal: request.internal,
            attachable: request.attachable,
            ipv4: true,
            ipv6: request.ipv6,
            predefined: request.name == "bridge",
            options: request.options.clone(),
            labels: request.labels.clone(),
            containers: BTreeMap::new(),
        };
        networks.insert(network.name.clone(), network.clone());
        self.events.emit(Kind::Network, "create", &network.id, [("name", network.name.as_str())]);
        Ok(network)
    }

    fn remove_network(&self, network: &str) -> Result<view::Network> {
        if network == "bridge" {
            return Err(Error::Forbidden("bridge is a pre-defined network and cannot be removed".into()));
        }
        let network = self.network(network)?;
        self.events.emit(Kind::Network, "destroy", &network.id, [("name", network.name.as_str())]);
        Ok(Self::lock(&self.networks).remove(&network.name).unwrap())
    }

    fn network(&self, network: &str) -> Result<view::Network> {
        let networks = Self::lock(&self.networks);
        let found = networks.values().find(|n| n.name == network || n.id == network);
        found.cloned().ok_or_else(|| Error::NotFound(format!("network {network} not found")))
    }

    fn networks(&self) -> Vec<view::Network> {
        Self::lock(&self.networks).values().cloned().collect()
    }

    fn connect(&self, container: &str, connect: &Connect) -> Result<()> {
        let network = self.network(&connect.network)?;
        self.edit(container, |c| {
            if c.endpoints.iter().any(|e| e.network == network.name) {
                return Err(Error::Forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    c.name, network.name
                )));
            }
            let mut endpoint = c.endpoints.first().unwrap().clone();
            endpoint.network = network.name;
            endpoint.network_id = network.id;
            endpoint.aliases.clone_from(&connect.aliases);
            endpoint.fixed = connect.ip.into_iter().map(Into::into).collect();
            c.endpoints.push(endpoint);
            Ok(())
        })?
    }

    fn disconnect(&self, network: &str, container: &str, _force: bool) -> Result<()> {
        let network = self.network(network)?;
        self.edit(container, |c| {
            let before = c.endpoints.len();
            c.endpoints.retain(|e| e.network != network.name);
            if c.endpoints.len() == before {
                return Err(Error::Forbidden(format!(
                    "container {} is not connected to network {}",
                    c.id, network.name
                )));
            }
            Ok(())
        })?
    }

    fn publish(&self, container: &str, publish: &Publish) -> Result<Vec<Binding>> {
        let ports = publish.ports.iter().map(|spec| binding(spec)).collect::<Result<Vec<_>>>()?;
        self.edit(container, |c| c.ports.extend(&ports))?;
        Ok(ports)
    }

    fn unpublish(&self, container: &str, ports: &[String]) -> Result<Vec<Binding>> {
        let ports = ports.iter().map(|spec| binding(spec)).collect::<Result<Vec<_>>>()?;
        self.edit(container, |c| c.ports.retain(|port| !ports.contains(port)))?;
        Ok(ports)
    }

    fn create_container(&self, request: &CreateContainer) -> Result<view::Container> {
        let name = request.name.clone().unwrap_or_else(|| "quiet_fox".into());
        if self.container(&name).is_ok() {
            return Err(Error::Conflict(format!("the container name {name} is already in use")));
        }
        let network = self.network(request.networks.first().map_or("bridge", |c| &c.network))?;
        let ports = request.publish.iter().map(|spec| binding(spec)).collect::<Result<_>>()?;
        let id = self.id();
        let container = view::Container {
            engine: None,
            hostname: request.hostname.clone().unwrap_or_else(|| id[..12].into()),
            name,
            state: if request.command.is_empty() { ContainerState::Running } else { ContainerState::Created },
            pid: None,
            exit_code: None,
            created: TIME.into(),
            started: None,
            finished: None,
            command: request.command.clone(),
            remove: request.remove,
            rootfs: request.rootfs.clone(),
            netns: Some(PathBuf::from("/run/netns/x")),
            dir: PathBuf::from("/run/x").join(&id),
            endpoints: vec![view::Endpoint {
                id: self.id(),
                network: network.name,
                network_id: network.id,
                interface: "eth0".into(),
                host_interface: "veth0".into(),
                mac: "02:42:ac:11:00:02".parse().unwrap(),
                addrs: vec!["172.17.0.2/16".parse().unwrap()],
                gateways: vec![[172, 17, 0, 1].into()],
                names: Vec::new(),
                aliases: Vec::new(),
                gw_priority: 0,
                fixed: Vec::new(),
            }],
            network_mode: "bridge".into(),
            attached: false,
            namespaces: view::Namespaces::Held(PathBuf::from("/run/x")),
            sysctls: BTreeMap::new(),
            dns: request.dns.clone(),
            dns_search: request.dns_search.clone(),
            dns_options: request.dns_options.clone(),
            extra_hosts: request.extra_hosts.clone(),
            terminal: request.terminal,
            exposed: Vec::new(),
            ports,
            id: id.clone(),
        };
        self.events.emit(Kind::Container, "create", &id, [("name", container.name.as_str())]);
        Self::lock(&self.containers).insert(id, container.clone());
        Ok(container)
    }

    fn container(&self, container: &str) -> Result<view::Container> {
        self.edit(container, |c| c.clone())
    }

    fn containers(&self) -> Vec<view::Container> {
        Self::lock(&self.containers).values().cloned().collect()
    }

    fn mark_started(&self, container: &str, pid: u32) -> Result<()> {
        self.edit(container, |c| {
            c.state = ContainerState::Running;
            c.pid = Some(pid);
            c.started = Some(TIME.into());
        })
    }

    fn mark_exited(&self, container: &str, code: Option<i32>) -> Result<()> {
        self.edit(container, |c| {
            c.state = ContainerState::Exited;
            c.exit_code = code;
            c.finished = Some(TIME.into());
        })
    }

    fn remove_container(&self, container: &str, force: bool) -> Result<view::Container> {
        let found = self.container(container)?;
        if found.state == ContainerState::Running && !force {
            return Err(Error::Conflict(format!(
                "container {container} is running: stop it, or remove it with -f"
            )));
        }
        Self::lock(&self.containers).remove(&found.id);
        Ok(found)
    }

    fn create_engine_network(
        &self,
        _engine: Engine,
        _id: &str,
        _request: &CreateNetwork,
    ) -> Result<view::Network> {
        Err(no_engines())
    }

    fn free_subnet(&self, _asked: &FreeSubnet) -> Result<IpNetwork> {
        Err(no_engines())
    }

    fn follow_network(&self, _network: &EngineNetwork) -> Result<view::Network> {
        Err(no_engines())
    }

    fn remove_engine_network(&self, _engine: Engine, _id: &str) -> Result<()> {
        Err(no_engines())
    }

    fn set_engine_container(&self, _container: &EngineContainer) -> Result<view::Container> {
        Err(no_engines())
    }

    fn add_to_engine_container(&self, _container: &EngineContainer) -> Result<view::Container> {
        Err(no_engines())
    }

    fn remove_engine_interface(&self, _engine: Engine, _id: &str, _interface: &str) -> Result<()> {
        Err(no_engines())
    }

    fn remove_engine_container(&self, _engine: Engine, _id: &str) -> Result<()> {
        Err(no_engines())
    }

    fn note_engine(&self, _status: view::EngineStatus) -> Result<()> {
        Err(no_engines())
    }

    fn published(&self) -> Result<Vec<view::PublishedPort>> {
        let count = PortCount { flows: 1, packets: 10, bytes: 1000 };
        let of = |c: view::Container| {
            c.ports.into_iter().map(move |binding| view::PublishedPort {
                container: c.name.clone(),
                binding,
                count,
            })
        };
        Ok(self.containers().into_iter().flat_map(of).collect())
    }

    fn counters(&self) -> Result<Vec<ReasonCount>> {
        let count = |verdict: &str, reason: &str| ReasonCount {
            program: "from_uplink".into(),
            verdict: verdict.into(),
            reason: reason.into(),
            meaning: "Meant.".into(),
            packets: 3,
            bytes: 300,
        };
        Ok(vec![count("carried", "published"), count("dropped", "unpublished")])
    }

    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>> {
        // Nothing on the first page, one flow on the second.
        if !from.v6 {
            return Ok(Page { found: Vec::new(), next: Some(FlowPosition { v6: true, bucket: None }) });
        }
        let flow = FlowInfo {
            protocol: "tcp".into(),
            src: ([192, 0, 2, 1], 40000).into(),
            dst: ([192, 0, 2, 2], 8080).into(),
            to_src: ([192, 0, 2, 1], 40000).into(),
            to_dst: ([172, 17, 0, 2], 80).into(),
            kind: "published".into(),
            state: "established".into(),
            packets: 10,
            bytes: 1000,
            idle: 1,
            timeout: 7439,
        };
        let found = Some(flow).filter(|flow| filter.matches_info(flow)).into_iter().collect();
        Ok(Page { found, next: None })
    }

    fn flush(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>> {
        let Page { found, next } = self.flows(filter, from)?;
        Ok(Page { found: found.len(), next })
    }

    fn timeouts(&self) -> Seconds {
        timeouts::by_name(&Self::lock(&self.timeouts))
    }

    fn set_timeouts(&self, changes: &Seconds) -> Result<Seconds> {
        let mut all = Self::lock(&self.timeouts);
        *all = timeouts::changed(*all, changes)?;
        Ok(timeouts::by_name(&all))
    }

    fn reload(&self, config: Config) -> Result<()> {
        *Self::lock(&self.timeouts) = config.timeouts;
        Ok(())
    }

    fn status(&self) -> Result<view::Status> {
        let containers = self.containers();
        Ok(view::Status {
            instance: "fake".into(),
            version: "0".into(),
            pid: std::process::id(),
            pins: "/sys/fs/bpf/fake/v1".into(),
            state: "/var/lib/fake".into(),
            uplinks: vec!["up0".into()],
            xdp: BTreeMap::new(),
            networks: self.networks().len(),
            running: containers.iter().filter(|c| c.state == ContainerState::Running).count(),
            ports: containers.iter().map(|c| c.ports.len()).sum(),
            containers: containers.len(),
            flows: 1,
            snat_ports: (1024, 32767),
            flow_quota: Some(100),
            source_rate: 500,
            engines: Vec::new(),
        })
    }

    fn usage(&self) -> Result<view::Usage> {
        let traffic = view::Traffic {
            rx_bytes: 1000,
            rx_packets: 10,
            rx_dropped: 1,
            tx_bytes: 2000,
            tx_packets: 20,
            tx_dropped: 0,
        };
        let interface = |network: &str| view::InterfaceUsage {
            name: "eth0".into(),
            network: network.into(),
            traffic: Some(traffic),
            opened: vec![view::OpenedFlows { family: "ipv4".into(), flows: 1, quota: Some(100) }],
        };
        let container = |c: view::Container| view::ContainerUsage {
            id: c.id,
            name: c.name,
            state: c.state,
            netns: c.netns,
            ports: c.ports.len(),
            opened: 4,
            flows: 2,
            interfaces: vec![interface("bridge")],
        };
        Ok(view::Usage {
            flows: Some(3),
            tables: vec![
                view::TableUsage { name: "FLOWS4".into(), entries: Some(6), capacity: 1000 },
                view::TableUsage { name: "PORTS4".into(), entries: None, capacity: 10 },
            ],
            networks: Self::lock(&self.networks).len(),
            ports: 1,
            containers: self.containers().into_iter().map(container).collect(),
        })
    }

    fn sweep(&self, _from: FlowPosition) -> Result<Page<usize>> {
        Ok(Page { found: self.sweeps.fetch_add(1, Ordering::SeqCst), next: None })
    }

    fn is_pressed(&self) -> bool {
        false
    }

    fn refresh_host(&self) -> Result<()> {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn down(&self) -> Result<()> {
        self.downs.fetch_add(1, Ordering::SeqCst);
        Self::lock(&self.containers).clear();
        Ok(())
    }
}

/// Processes that run until a signal ends them; the first word of their command says what is special.
#[derive(Default)]
pub(crate) struct FakeProcesses {
    running: Mutex<BTreeMap<u32, Arc<FakeProcess>>>,
}

/// `None` as long as it runs, then its status as far as one can know it.
struct FakeProcess {
    ended: watch::Sender<Option<Option<i32>>>,
    signals: Mutex<Vec<Signal>>,
    stubborn: bool,
}

impl FakeProcesses {
    /// A process whose parent is somebody else: nobody here learns its status.
    pub(crate) fn spawn_foreign(&self) -> u32 {
        self.add(None, false)
    }

    /// Ends a process with what can be known of its status.
    pub(crate) fn end(&self, pid: u32, code: Option<i32>) {
        self.running.lock().unwrap()[&pid].ended.send_replace(Some(code));
    }

    pub(crate) fn signals(&self, pid: u32) -> Vec<Signal> {
        self.running.lock().unwrap()[&pid].signals.lock().unwrap().clone()
    }

    fn add(&self, ended: Option<Option<i32>>, stubborn: bool) -> u32 {
        let mut running = self.running.lock().unwrap();
        let pid = 1000 + u32::try_from(running.len()).unwrap();
        let process = FakeProcess { ended: watch::Sender::new(ended), signals: Mutex::default(), stubborn };
        running.insert(pid, Arc::new(process));
        pid
    }
}

impl Processes for FakeProcesses {
    fn start_detached(&self, container: &view::Container) -> anyhow::Result<u32> {
        match container.command[0].as_str() {
            "missing" => Err(anyhow!("no such program in the container").context("run missing")),
            "true" => Ok(self.add(Some(Some(0)), false)),
            "stubborn" => Ok(self.add(None, true)),
            _ => Ok(self.add(None, false)),
        }
    }

    fn open(&self, pid: u32) -> anyhow::Result<Option<Box<dyn Process>>> {
        let running = self.running.lock().unwrap();
        Ok(running.get(&pid).map(|process| Box::new(Arc::clone(process)) as Box<dyn Process>))
    }
}

impl Process for Arc<FakeProcess> {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.signals.lock().unwrap().push(signal);
        match signal {
            Signal::Terminate if self.stubborn => {}
            Signal::Terminate => drop(self.ended.send_replace(Some(Some(143)))),
            Signal::Kill => drop(self.ended.send_replace(Some(Some(137)))),
        }
        Ok(())
    }

    fn exited(&self) -> BoxFuture<'static, Option<i32>> {
        let mut ended = self.ended.subscribe();
        async move { ended.wait_for(Option::is_some).await.map(|code| code.flatten()).unwrap_or_default() }
            .boxed()
    }
}
