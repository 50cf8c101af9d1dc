//! Containers: creating, removing and showing them.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use super::{
    Controller,
    backend::{Datapath, Host},
    error::{Error, Result},
    files::{self, ContainerFiles},
    ipam, lookup,
    model::{
        InterfaceAddr, MacAddr,
        name::{check_hostname, check_name, made_up_name, new_id, short_id},
    },
    networks::takes_fixed_addresses,
    now, plan,
    publishing::{self, Held},
    request::{Connect, CreateContainer},
    step::{Change, Step},
    view::{self, ContainerState, SubnetView},
};
use crate::store::schema::{Container, Driver, Endpoint, Network, Phase};

/// The network of a container that names none.
const DEFAULT_NETWORK: &str = "bridge";

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Creates a container: its namespace, its interface and its ports, ready for a process.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] for the network, [`Error::Conflict`] when a name, an address or
    /// a port is taken, [`Error::Failed`]; nothing is left of it then.
    pub fn create_container(&mut self, request: &CreateContainer) -> Result<view::Container> {
        self.ensure_up()?;
        let ports = publishing::parse(&request.publish)?;
        let network = self.network_for(request)?;
        let mut container = self.record(request, network.as_ref())?;
        let files = self.files(request, &container, network.as_ref())?;
        let Held { bindings, hold } = self.hold_ports(&ports, &container, network.as_ref())?;
        container.ports = bindings;
        let steps =
            plan::create_container(&container, network.as_ref(), &self.netns_path(&container), files)?;
        let applied = self.machine.apply(&steps);
        // The datapath keeps the ports from host programs from here on.
        drop(hold);
        applied?;
        Ok(self.container_view(&container))
    }

    /// Removes a container with all that it has. With `force` one that runs, too: the caller has ended its
    /// process.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it runs; [`Error::Failed`] when some of it could not be
    /// removed: removing it again goes on with the rest.
    pub fn remove_container(&mut self, name_or_id: &str, force: bool) -> Result<view::Container> {
        let container = self.find_container(name_or_id)?.clone();
        if container.state == ContainerState::Running && container.phase == Phase::Ready && !force {
            return Err(Error::Conflict(format!(
                "cannot remove container \"/{}\": container is running: stop the container before removing or \
                 force remove",
                container.name
            )));
        }
        let view = self.container_view(&container);
        self.destroy_container(container)?;
        Ok(view)
    }

    /// A container, by name, id or the beginning of its id.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] when it could be several.
    pub fn container(&self, name_or_id: &str) -> Result<view::Container> {
        Ok(self.container_view(self.find_container(name_or_id)?))
    }

    /// All containers, by name.
    pub fn containers(&self) -> Vec<view::Container> {
        let mut views: Vec<_> =
            self.machine.state.containers.values().map(|c| self.container_view(c)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    pub(super) fn find_container(&self, name_or_id: &str) -> Result<&Container> {
        lookup::find(&self.machine.state.containers, name_or_id, |c| &c.name)?
            .ok_or_else(|| Error::NotFound(format!("No such container: {name_or_id}")))
    }

    /// Removes a container with no regard for what it does.
    pub(super) fn destroy_container(&mut self, container: Container) -> Result<()> {
        let mut steps = self.release_steps(&container)?;
        steps.push(Step::RemoveFiles(self.dir(&container.id)));
        let removing = Container { phase: Phase::Removing, ..container.clone() };
        if container.phase != Phase::Removing {
            self.machine.apply(&[Step::SaveContainer(Change::replace(container, removing.clone()))])?;
        }
        self.machine.apply_all(&steps)?;
        self.machine.apply(&[Step::SaveContainer(Change::remove(removing))])?;
        Ok(())
    }

    /// The steps that take from a container all that it has in the kernel.
    pub(super) fn release_steps(&self, container: &Container) -> Result<Vec<Step>> {
        let network = self.network_of(container);
        plan::release_container(
            container,
            network.as_ref(),
            &self.netns_path(container),
            &self.dir(&container.id),
        )
    }

    /// The network that a container is on, if it is on any.
    pub(super) fn network_of(&self, container: &Container) -> Option<Network> {
        container.endpoints.first().and_then(|e| self.machine.state.networks.get(&e.network)).cloned()
    }

    /// Where a container's namespace is, or was.
    pub(super) fn netns_path(&self, container: &Container) -> PathBuf {
        self.machine.host.netns_path(&self.netns_name(&container.name))
    }

    pub(super) fn container_view(&self, container: &Container) -> view::Container {
        let name_of =
            |id: &str| self.machine.state.networks.get(id).map(|n| n.name.clone()).unwrap_or_default();
        let endpoint = |e: &Endpoint| view::Endpoint {
            id: e.id.clone(),
            network: name_of(&e.network),
            network_id: e.network.clone(),
            interface: e.interface.clone(),
            host_interface: e.host_interface.clone(),
            mac: e.mac,
            addrs: e.addrs.clone(),
            gateways: e.gateways.clone(),
            names: vec![container.name.clone()],
            aliases: Vec::new(),
            gw_priority: 0,
            fixed: Vec::new(),
        };
        view::Container {
            id: container.id.clone(),
            name: container.name.clone(),
            hostname: container.hostname.clone(),
            state: container.state,
            pid: container.pid,
            exit_code: container.exit_code,
            created: container.created.clone(),
            started: container.started.clone(),
            finished: container.finished.clone(),
            command: container.command.clone(),
            remove: container.remove,
            rootfs: container.rootfs.clone(),
            network_mode: container
                .endpoints
                .first()
                .map_or_else(|| "none".to_owned(), |e| name_of(&e.network)),
            netns: Some(self.netns_path(container)),
            attached: false,
            namespaces: view::Namespaces::Held(self.dir(&container.id)),
            sysctls: Default::default(),
            terminal: false,
            dir: self.dir(&container.id),
            endpoints: container.endpoints.iter().map(endpoint).collect(),
            exposed: Vec::new(),
            ports: container.ports.clone(),
        }
    }

    fn netns_name(&self, container: &str) -> String {
        format!("{}-{container}", self.config.instance)
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.containers_dir().join(id)
    }

    /// The network that is asked for; none for `none`.
    fn network_for(&self, request: &CreateContainer) -> Result<Option<Network>> {
        // `default` is Docker's other name for it.
        let asked = asked_network(request)
            .map(|c| c.network.as_str())
            .filter(|name| *name != "default")
            .unwrap_or(DEFAULT_NETWORK);
        let unsupported = |what: &str| {
            Error::Invalid(format!(
                "--network {asked}: {what} is not supported yet: name a bridge network, or none"
            ))
        };
        if asked.starts_with("container:") {
            return Err(unsupported("sharing another container's network"));
        }
        let network = self.find_network(asked)?;
        match network.driver {
            Driver::Host => Err(unsupported("the host's network")),
            Driver::Null
                if asked_network(request)
                    .is_some_and(|c| c.ip.is_some() || c.ip6.is_some() || c.mac.is_some()) =>
            {
                Err(Error::Invalid(format!(
                    "a container on network {asked} has no interface to give an address to"
                )))
            }
            Driver::Null => Ok(None),
            Driver::Bridge if network.phase != Phase::Ready => {
                Err(Error::Conflict(format!("network {asked} is being removed")))
            }
            Driver::Bridge => Ok(Some(network.clone())),
        }
    }

    /// The container as it will be once it is made, but for its ports.
    fn record(&self, request: &CreateContainer, network: Option<&Network>) -> Result<Container> {
        let id = new_id();
        let name = self.container_name(request)?;
        let hostname = request.hostname.clone().unwrap_or_else(|| short_id(&id).to_owned());
        check_hostname(&hostname)?;
        let created = now();
        // A namespace that runs nothing is all there from the start.
        let (state, started) = if request.command.is_empty() {
            (ContainerState::Running, Some(created.clone()))
        } else {
            (ContainerState::Created, None)
        };
        Ok(Container {
            netns: Some(self.netns_name(&name)),
            endpoints: network.map(|n| self.endpoint(request, n)).transpose()?.into_iter().collect(),
            id,
            name,
            hostname,
            phase: Phase::Ready,
            state,
            pid: None,
            process_start: None,
            exit_code: None,
            created,
            started,
            finished: None,
            command: request.command.clone(),
            remove: request.remove,
            rootfs: request.rootfs.clone(),
            ports: Vec::new(),
        })
    }

    fn container_name(&self, request: &CreateContainer) -> Result<String> {
        let holder = |name: &str| self.machine.state.containers.values().find(|c| c.name == name);
        let Some(name) = request.name.clone() else {
            let taken = |name: &str| holder(name).is_some() || self.netns_is_there(name);
            return Ok(made_up_name(taken));
        };
        check_name("container", &name)?;
        if let Some(holder) = holder(&name) {
            return Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\": remove that \
                 container, or choose another name",
                holder.id
            )));
        }
        if self.netns_is_there(&name) {
            return Err(Error::Conflict(format!(
                "create network namespace {} for container {name}: one of that name is there already and is not \
                 this instance's: remove it, or choose another name",
                self.netns_name(&name)
            )));
        }
        Ok(name)
    }

    fn netns_is_there(&self, container: &str) -> bool {
        let host = &self.machine.host;
        host.netns_exists(&host.netns_path(&self.netns_name(container)))
    }

    fn endpoint(&self, request: &CreateContainer, network: &Network) -> Result<Endpoint> {
        let none = Connect::default();
        let request = asked_network(request).unwrap_or(&none);
        if (request.ip.is_some() || request.ip6.is_some()) && !takes_fixed_addresses(network) {
            return Err(Error::Invalid(
                "user-specified IP address is supported on user-defined networks only: create one with `rnet network \
                 create --subnet`"
                    .to_owned(),
            ));
        }
        if let Some(addr) = request.ip6.filter(|_| !network.subnets.iter().any(|s| s.subnet.is_ipv6())) {
            return Err(Error::Invalid(format!(
                "network {} has no IPv6 subnet that {addr} could be in",
                network.name
            )));
        }
        let taken = self.addresses_on(network);
        let addrs = network.subnets.iter().map(|s| address(request, s, &taken)).collect::<Result<_>>()?;
        let gateways = if network.internal {
            Vec::new()
        } else {
            network.subnets.iter().filter_map(|s| s.gateway).collect()
        };
        let id = new_id();
        Ok(Endpoint {
            network: network.id.clone(),
            interface: "eth0".to_owned(),
            host_interface: format!("veth{}", id.get(..8).unwrap_or(&id)),
            mac: self.mac(request, network)?,
            addrs,
            gateways,
            id,
        })
    }

    fn mac(&self, request: &Connect, network: &Network) -> Result<MacAddr> {
        let mut endpoints = self.endpoints_on(network);
        let Some(mac) = request.mac else {
            return Ok(random_mac());
        };
        if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
            return Err(Error::Invalid(format!("invalid MAC address {mac}: it is no interface's own")));
        }
        if endpoints.any(|(_, e)| e.mac == mac) {
            return Err(Error::Conflict(format!("MAC address {mac} is in use on network {}", network.name)));
        }
        Ok(mac)
    }

    fn addresses_on(&self, network: &Network) -> BTreeSet<IpAddr> {
        let members = self.endpoints_on(network).flat_map(|(_, e)| e.addrs.iter().map(|a| a.ip()));
        members.chain(network.subnets.iter().filter_map(|s| s.gateway)).collect()
    }

    fn endpoints_on<'a>(
        &'a self,
        network: &'a Network,
    ) -> impl Iterator<Item = (&'a Container, &'a Endpoint)> {
        let containers = self.machine.state.containers.values();
        containers
            .flat_map(|c| c.endpoints.iter().map(move |e| (c, e)))
            .filter(|(_, e)| e.network == network.id)
    }

    fn files(
        &self,
        request: &CreateContainer,
        container: &Container,
        network: Option<&Network>,
    ) -> Result<ContainerFiles> {
        let gateway = network.and_then(|n| n.subnets.iter().find_map(|s| s.gateway));
        let extra =
            request.extra_hosts.iter().map(|h| files::extra_host(h, gateway)).collect::<Result<Vec<_>>>()?;
        let addrs: Vec<IpAddr> = container.endpoints.iter().flat_map(|e| &e.addrs).map(|a| a.ip()).collect();
        Ok(ContainerFiles {
            dir: self.dir(&container.id),
            resolv_conf: files::resolv_conf(&files::host_resolv_conf(), &request.dns),
            hosts: files::hosts(&addrs, &container.hostname, &extra),
            hostname: container.hostname.clone(),
        })
    }
}

fn asked_network(request: &CreateContainer) -> Option<&Connect> {
    request.networks.first()
}

fn address(request: &Connect, subnet: &SubnetView, taken: &BTreeSet<IpAddr>) -> Result<InterfaceAddr> {
    let fixed =
        if subnet.subnet.is_ipv4() { request.ip.map(IpAddr::from) } else { request.ip6.map(IpAddr::from) };
    let addr = match fixed {
        Some(addr) => ipam::check_fixed(subnet.subnet, addr, taken).map(|()| addr),
        None => ipam::lowest_free(subnet.subnet, subnet.ip_range, taken),
    };
    let addr = addr.map_err(|e| match e {
        ipam::AddressError::OutOfRange(..) => Error::Invalid(e.to_string()),
        ipam::AddressError::Full(_) | ipam::AddressError::InUse(_) => Error::Conflict(e.to_string()),
    })?;
    plan::interface_addr(addr, subnet.subnet)
}

/// A locally administered unicast address (IEEE 802, section 8.4).
fn random_mac() -> MacAddr {
    let mut octets: [u8; 6] = rand::random();
    octets[0] = octets[0] & 0xfc | 0x02;
    MacAddr(octets)
}
