//! Containers of engines: Docker, Podman, whoever speaks CNI. An engine says what is to be, and says it
//! again whenever it likes: what is so already is left alone, packets and flows included.
//!
//! Bridges and veths are the engine's own, *borrowed*, or are made here on its account. Either way the engine writes the
//! containers' files, runs their processes and says when they end; so nothing but the engine may change them.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use super::{
    Controller,
    backend::{Datapath, Host},
    connect::only,
    endpoints::host_interface,
    error::{Error, Result},
    model::{
        InterfaceAddr,
        engine::Engine,
        name::{check_name, new_id, short_id},
    },
    now, plan, publishing,
    request::{Connect, EngineContainer, EngineInterface},
    step::{Change, Step},
    view::{self, ContainerState, EngineStatus},
};
use crate::store::schema::{Container, Endpoint, Namespace, Network, Phase, Publication, Resolver};

/// Digits of an id.
const ID_DIGITS: usize = 64;

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Serves a container as its engine says it is: with these interfaces and these ports, and no others. All or
    /// nothing, but for interfaces that it had and is to have no more: they are removed afterwards.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a network; [`Error::Invalid`] and [`Error::Conflict`] when what is asked for cannot be
    /// had; [`Error::Failed`].
    pub fn set_engine_container(&mut self, wanted: &EngineContainer) -> Result<view::Container> {
        self.ensure_up()?;
        check_id(&wanted.id)?;
        let before = self.machine.state.containers.get(&wanted.id).cloned();
        match before.filter(|before| before.phase == Phase::Ready) {
            Some(before) if before.engine != Some(wanted.engine) => Err(Error::Conflict(format!(
                "container {} is not {}'s: it is known already",
                short_id(&wanted.id),
                wanted.engine
            ))),
            Some(before) => self.change_engine_container(before, wanted),
            None => self.create_engine_container(wanted),
        }
    }

    /// The same with interfaces and ports in addition to those that it has.
    ///
    /// # Errors
    /// As [`Controller::set_engine_container`].
    pub fn add_to_engine_container(&mut self, more: &EngineContainer) -> Result<view::Container> {
        let mut wanted = more.clone();
        let known = self.machine.state.containers.get(&more.id).filter(|c| c.phase == Phase::Ready);
        if let Some(before) = known {
            wanted.interfaces = interfaces(before);
            wanted.interfaces.retain(|had| !more.interfaces.iter().any(|new| new.is_the_same(had)));
            wanted.interfaces.extend(more.interfaces.iter().cloned());
            wanted.ports = before.ports.iter().map(|publication| publication.mapping).collect();
            let new = more.ports.iter().filter(|port| !wanted.ports.contains(port)).copied();
            let new: Vec<_> = new.collect();
            wanted.ports.extend(new);
        }
        self.set_engine_container(&wanted)
    }

    /// Takes an interface, by its name inside, from a container, and with the last one forgets the container. What is
    /// not known is as good as taken.
    ///
    /// # Errors
    /// [`Error::Failed`], with what is left still known.
    pub fn remove_engine_interface(&mut self, engine: Engine, id: &str, interface: &str) -> Result<()> {
        let Some(container) = self.machine.state.containers.get(id).filter(|c| c.engine == Some(engine))
        else {
            return Ok(());
        };
        let container = container.clone();
        if container.phase != Phase::Ready || container.endpoints.iter().all(|e| e.interface == interface) {
            return self.destroy_container(container);
        }
        let mut wanted = as_wanted(&container, engine);
        wanted.interfaces.retain(|e| e.interface != interface);
        self.change_engine_container(container, &wanted).map(drop)
    }

    /// Forgets a container of an engine's with all that rnet has made for it. One that is not known is as good as
    /// forgotten.
    ///
    /// # Errors
    /// [`Error::Failed`], with what is left still known.
    pub fn remove_engine_container(&mut self, engine: Engine, id: &str) -> Result<()> {
        match self.machine.state.containers.get(id).filter(|c| c.engine == Some(engine)).cloned() {
            Some(container) => self.destroy_container(container),
            None => Ok(()),
        }
    }

    /// Notes how an engine is that is followed, which is shown with the instance's own state.
    pub fn note_engine(&mut self, status: EngineStatus) {
        self.engines.insert(status.engine, status);
    }

    fn create_engine_container(&mut self, wanted: &EngineContainer) -> Result<view::Container> {
        // What an interrupted run has left of it.
        if let Some(left) = self.machine.state.containers.get(&wanted.id).cloned() {
            self.destroy_container(left)?;
        }
        let created = now();
        let bare = Container {
            id: wanted.id.clone(),
            name: self.engine_container_name(wanted),
            hostname: short_id(&wanted.id).to_owned(),
            engine: Some(wanted.engine),
            phase: Phase::Ready,
            state: ContainerState::Running,
            pid: None,
            process_start: None,
            exit_code: None,
            started: Some(created.clone()),
            created,
            finished: None,
            command: Vec::new(),
            remove: true,
            rootfs: None,
            terminal: false,
            network_mode: wanted.interfaces.first().map(|i| i.network.clone()).unwrap_or_default(),
            netns: None,
            endpoints: Vec::new(),
            ports: Vec::new(),
            exposed: Vec::new(),
            resolver: Resolver::default(),
            extra_hosts: Vec::new(),
            sysctls: Default::default(),
        };
        let mut container = self.with_wanted(&bare, wanted)?;
        let held = self.hold_ports(&container)?;
        container.ports = held.ports;
        let netns = self.netns_path(&container).unwrap_or_default();
        let dir = self.dir(&container.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        let steps = plan::create_container(&container, &place, None)?;
        let applied = self.machine.apply(&steps);
        drop(held.hold);
        applied?;
        self.tell_container("create", &container, &[]);
        for endpoint in &container.endpoints {
            self.tell_connected("connect", &container, endpoint);
        }
        self.tell_container("start", &container, &[]);
        Ok(self.container_view(&container))
    }

    fn change_engine_container(
        &mut self,
        before: Container,
        wanted: &EngineContainer,
    ) -> Result<view::Container> {
        let mut after = self.with_wanted(&before, wanted)?;
        if after == before {
            return Ok(self.container_view(&before));
        }
        let held = self.hold_ports(&after)?;
        after.ports = held.ports;
        let is_in = |endpoint: &Endpoint, of: &Container| of.endpoints.iter().any(|e| e.id == endpoint.id);
        let gone = before.endpoints.iter().filter(|e| !is_in(e, &after));
        let gone: Vec<_> = gone.map(|e| Endpoint { phase: Phase::Removing, ..e.clone() }).collect();
        let new: Vec<_> = after.endpoints.iter().filter(|e| !is_in(e, &before)).cloned().collect();
        // Those to be removed are there until the others are.
        after.endpoints.extend(gone.iter().cloned());
        let mut changing = after.clone();
        for endpoint in changing.endpoints.iter_mut().filter(|e| new.iter().any(|new| new.id == e.id)) {
            endpoint.phase = Phase::Creating;
        }
        let netns = self.netns_path(&after).unwrap_or_default();
        let dir = self.dir(&after.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        let mut steps = vec![Step::SaveContainer(Change::replace(before.clone(), changing.clone()))];
        for endpoint in &new {
            steps.extend(plan::connect(endpoint, &only(endpoint, &after), &place)?);
        }
        steps.extend(plan::redirect(&before, &after, &place));
        steps.push(Step::SaveContainer(Change::replace(changing, after.clone())));
        let applied = self.machine.apply(&steps);
        drop(held.hold);
        applied?;
        for endpoint in &new {
            self.tell_connected("connect", &after, endpoint);
        }
        for endpoint in &gone {
            self.drop_endpoint(&after, endpoint)?;
            after.endpoints.retain(|e| e.id != endpoint.id);
        }
        Ok(self.container_view(&after))
    }

    /// `before` with what is wanted of it; what is so already is kept, numbers of ports included.
    fn with_wanted(&self, before: &Container, wanted: &EngineContainer) -> Result<Container> {
        let mut after = Container {
            name: self.engine_container_name(wanted),
            endpoints: Vec::new(),
            ports: Vec::new(),
            ..before.clone()
        };
        after.netns = match &wanted.netns {
            Some(path) => Some(self.engine_netns(path)?),
            None => before.netns.clone(),
        };
        let mut names: BTreeSet<String> = BTreeSet::new();
        for asked in &wanted.interfaces {
            let network = self.joinable(&asked.network)?;
            let known = before.endpoints.iter().find(|e| {
                e.phase == Phase::Ready
                    && e.network == network.id
                    && asked.is_as_asked(e, wanted.netns.is_some())
            });
            let endpoint = match known {
                // What is said of it beside what it is may change.
                Some(known) => Endpoint {
                    interface: if known.borrowed { asked.interface.clone() } else { known.interface.clone() },
                    aliases: asked.aliases.clone(),
                    gw_priority: asked.gw_priority,
                    ..known.clone()
                },
                None => self.engine_endpoint(asked, network, &names)?,
            };
            if after.endpoints.iter().any(|e| e.network == endpoint.network) {
                return Err(Error::Invalid(format!(
                    "container {} is to be on network {} twice",
                    before.name, network.name
                )));
            }
            if !names.insert(endpoint.interface.clone()) {
                return Err(Error::Invalid(format!(
                    "container {} is to have two interfaces called {}",
                    before.name, endpoint.interface
                )));
            }
            after.endpoints.push(endpoint);
        }
        for mapping in &wanted.ports {
            let same = |p: &&Publication| p.mapping == *mapping && p.unheld == wanted.keeps_ports;
            after.ports.push(match before.ports.iter().find(same) {
                Some(known) => known.clone(),
                None => Publication { unheld: wanted.keeps_ports, ..publishing::publication(*mapping, &[]) },
            });
        }
        Ok(after)
    }

    fn engine_endpoint(
        &self,
        asked: &EngineInterface,
        network: &Network,
        names: &BTreeSet<String>,
    ) -> Result<Endpoint> {
        let endpoint = match asked.addrs.is_empty() && asked.veth.is_none() {
            true => {
                let ip = |ipv6| asked.ips.iter().find(|ip| ip.is_ipv6() == ipv6).copied();
                let v4 = |ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
                let v6 = |ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None };
                let connect = Connect {
                    ip: ip(false).and_then(v4),
                    ip6: ip(true).and_then(v6),
                    mac: asked.mac,
                    aliases: asked.aliases.clone(),
                    ..Connect::to(&network.id)
                };
                self.endpoint(&connect, network, names)?
            }
            false => self.endpoint_at(asked, network)?,
        };
        let id = asked.id.clone().unwrap_or_else(new_id);
        check_id(&id)?;
        let host_interface = match &asked.veth {
            Some(veth) => veth.clone(),
            None => host_interface(network, &id)?,
        };
        Ok(Endpoint {
            interface: if asked.interface.is_empty() {
                format!("{host_interface}p")
            } else {
                asked.interface.clone()
            },
            host_interface,
            gateways: asked.gateways.clone().unwrap_or(endpoint.gateways),
            gw_priority: asked.gw_priority,
            borrowed: asked.veth.is_some(),
            id,
            ..endpoint
        })
    }

    /// An interface with addresses that somebody else has given.
    fn endpoint_at(&self, asked: &EngineInterface, network: &Network) -> Result<Endpoint> {
        let members = self.machine.index.members(&network.id);
        let is_taken = |addr: IpAddr| members.is_some_and(|members| members.addrs.contains(&addr));
        if let Some(addr) = asked.addrs.iter().map(|addr| addr.ip()).find(|addr| is_taken(*addr)) {
            return Err(Error::Conflict(format!("address {addr} is in use on network {}", network.name)));
        }
        let fixed = asked.addrs.iter().map(|addr| addr.ip()).collect();
        // Its own addresses aside, the interface is as any other.
        let bare = Network { subnets: Vec::new(), predefined: false, ..network.clone() };
        let connect = Connect { mac: asked.mac, aliases: asked.aliases.clone(), ..Connect::to(&network.id) };
        let endpoint = self.endpoint(&connect, &bare, &BTreeSet::new())?;
        Ok(Endpoint { addrs: asked.addrs.clone(), fixed, gateways: plan::gateways(network), ..endpoint })
    }

    fn engine_netns(&self, path: &Path) -> Result<Namespace> {
        let number = self.machine.host.netns_id(path).map_err(|e| {
            Error::Invalid(format!("open the container's network namespace {}: {e:#}", path.display()))
        })?;
        Ok(Namespace::Given { path: path.to_owned(), number })
    }

    fn engine_container_name(&self, wanted: &EngineContainer) -> String {
        let taken = |name: &str| self.machine.index.id_of(name).is_some_and(|id| *id != wanted.id);
        if taken(&wanted.name) || check_name("container", &wanted.name).is_err() {
            return format!("{}-{}", wanted.engine, short_id(&wanted.id));
        }
        wanted.name.clone()
    }
}

/// Refuses what only its engine may do.
///
/// # Errors
/// [`Error::Forbidden`] for a container of an engine's.
pub(super) fn check_own(container: &Container) -> Result<()> {
    match container.engine {
        Some(engine) => Err(Error::Forbidden(format!(
            "container {} is {engine}'s: change it with {}",
            container.name,
            engine.tool()
        ))),
        None => Ok(()),
    }
}

/// Refuses containers of rnet's own on a network whose addresses Docker gives.
///
/// # Errors
/// [`Error::Forbidden`] for such a network.
pub(super) fn check_open(network: &Network) -> Result<()> {
    match network.engine {
        Some(engine @ (Engine::Docker | Engine::DockerDriver)) => Err(Error::Forbidden(format!(
            "network {} is {engine}'s, and Docker gives its addresses: connect containers to it with {}",
            network.name,
            engine.tool()
        ))),
        Some(Engine::Cni | Engine::Netavark) | None => Ok(()),
    }
}

/// An id names files.
pub(super) fn check_id(id: &str) -> Result<()> {
    if id.len() == ID_DIGITS && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid id {id:?}: it should be {ID_DIGITS} hexadecimal digits")))
}

/// What a container of an engine's is, said as the engine would.
fn as_wanted(container: &Container, engine: Engine) -> EngineContainer {
    EngineContainer {
        engine,
        id: container.id.clone(),
        name: container.name.clone(),
        netns: match &container.netns {
            Some(Namespace::Given { path, .. }) => Some(path.clone()),
            Some(Namespace::Own(_) | Namespace::Shared(_) | Namespace::Host) | None => None,
        },
        interfaces: interfaces(container),
        ports: container.ports.iter().map(|publication| publication.mapping).collect(),
        keeps_ports: container.ports.iter().any(|publication| publication.unheld),
    }
}

fn interfaces(container: &Container) -> Vec<EngineInterface> {
    let ready = container.endpoints.iter().filter(|e| e.phase == Phase::Ready);
    ready
        .map(|e| EngineInterface {
            id: Some(e.id.clone()),
            network: e.network.clone(),
            interface: e.interface.clone(),
            veth: e.borrowed.then(|| e.host_interface.clone()),
            mac: Some(e.mac),
            addrs: e.addrs.clone(),
            ips: Vec::new(),
            gateways: Some(e.gateways.clone()),
            aliases: e.aliases.clone(),
            gw_priority: e.gw_priority,
        })
        .collect()
}

impl EngineInterface {
    /// Whether both are one interface of a container.
    fn is_the_same(&self, other: &Self) -> bool {
        !self.interface.is_empty() && self.interface == other.interface
    }

    /// Whether an interface that is there is what this asks for.
    fn is_as_asked(&self, endpoint: &Endpoint, is_inside: bool) -> bool {
        let veth = self.veth.as_ref().is_none_or(|veth| *veth == endpoint.host_interface);
        // An end that the engine takes is called what the engine likes.
        let name = !is_inside
            || endpoint.borrowed
            || self.interface.is_empty()
            || self.interface == endpoint.interface;
        let addrs = |of: &[InterfaceAddr]| of.iter().copied().collect::<BTreeSet<_>>();
        veth && name
            && self.veth.is_some() == endpoint.borrowed
            && self.id.as_ref().is_none_or(|id| *id == endpoint.id)
            && self.mac.is_none_or(|mac| mac == endpoint.mac)
            && (self.addrs.is_empty() || addrs(&self.addrs) == addrs(&endpoint.addrs))
            && self.ips.iter().all(|ip| endpoint.addrs.iter().any(|addr| addr.ip() == *ip))
            && self.gateways.as_ref().is_none_or(|gateways| *gateways == endpoint.gateways)
    }
}
