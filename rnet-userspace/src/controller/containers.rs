//! Containers: creating and removing them.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use super::{
    Controller,
    backend::{Datapath, Host},
    engines::{check_open, check_own},
    error::{Error, Result},
    events::Kind,
    exposed,
    files::{self, ContainerFiles, Content, Servers},
    lookup,
    model::{
        name::{check_hostname, check_name, made_up_name, new_id, short_id},
        resolv_conf, sysctl,
    },
    now, plan,
    publishing::{self, Held},
    request::CreateContainer,
    sandbox::Mode,
    sizes,
    step::{Change, Step},
    view::{self, ContainerState},
};
use crate::store::schema::{Container, Endpoint, Namespace, Phase, Resolver};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Creates a container: its namespace, its interfaces and its ports, ready for a process.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] for the network, [`Error::Conflict`] when a name, an address or
    /// a port is taken, [`Error::Failed`]; nothing is left of it then.
    pub fn create_container(&mut self, request: &CreateContainer) -> Result<view::Container> {
        self.ensure_up()?;
        sizes::check_container(request)?;
        let mut container = self.record(request)?;
        if !container.ports.is_empty() {
            publishing::check_publishable(&container, &self.machine.state.networks)?;
        }
        let files = self.files(&container)?;
        let Held { ports, hold } = self.hold_ports(&container)?;
        container.ports = ports;
        let netns = self.netns_path(&container).unwrap_or_default();
        let dir = self.dir(&container.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        let steps = plan::create_container(&container, &place, Some(files))?;
        let applied = self.machine.apply(&steps);
        // The datapath keeps the ports from host programs from here on.
        drop(hold);
        applied?;
        self.tell_container("create", &container, &[]);
        for endpoint in &container.endpoints {
            self.tell_connected("connect", &container, endpoint);
        }
        if container.state == ContainerState::Running {
            self.tell_container("start", &container, &[]);
        }
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
        check_own(&container)?;
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

    pub(super) fn find_container(&self, name_or_id: &str) -> Result<&Container> {
        let containers = &self.machine.state.containers;
        let named = || self.machine.index.id_of(name_or_id).and_then(|id| containers.get(id));
        lookup::find(containers, name_or_id, named)?
            .ok_or_else(|| Error::NotFound(format!("No such container: {name_or_id}")))
    }

    /// Removes a container with no regard for what it does.
    pub(super) fn destroy_container(&mut self, container: Container) -> Result<()> {
        let mut steps = self.release_steps(&container)?;
        steps.push(Step::RemoveFiles(self.dir(&container.id)));
        let removing = Container { phase: Phase::Removing, ..container.clone() };
        if container.phase != Phase::Removing {
            self.machine
                .apply(&[Step::SaveContainer(Change::replace(container.clone(), removing.clone()))])?;
        }
        self.machine.apply_all(&steps)?;
        self.machine.apply(&[Step::SaveContainer(Change::remove(removing))])?;
        if container.state == ContainerState::Running && container.phase == Phase::Ready {
            let code = if container.command.is_empty() { "0" } else { "137" };
            self.tell_container("die", &container, &[("exitCode", code)]);
        }
        self.tell_released(&container);
        self.tell_container("destroy", &container, &[]);
        Ok(())
    }

    /// The steps that take from a container all that it has in the kernel.
    pub(super) fn release_steps(&self, container: &Container) -> Result<Vec<Step>> {
        let netns = self.netns_path(container).unwrap_or_default();
        let dir = self.dir(&container.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        plan::release_container(container, &place)
    }

    pub(super) fn dir(&self, id: &str) -> PathBuf {
        self.containers_dir().join(id)
    }

    /// A container's files as they should be.
    pub(super) fn files(&self, container: &Container) -> Result<ContainerFiles> {
        let dir = self.dir(&container.id);
        let networks = &self.machine.state.networks;
        let endpoints = || container.endpoints.iter().filter(|e| e.phase != Phase::Removing);
        let content = match &container.netns {
            Some(Namespace::Shared(id)) => Content::SharedWith(self.dir(id)),
            Some(Namespace::Host) => Content::Own {
                resolv_conf: files::resolv_conf(
                    &files::host_resolv_conf(),
                    &container.resolver,
                    Servers::OnHost,
                ),
                hosts: files::hosts_of_host(&self.extra_hosts(container, None)?),
                hostname: container.hostname.clone(),
            },
            Some(Namespace::Own(_) | Namespace::Given { .. }) | None => {
                let joined = || endpoints().filter_map(|e| networks.get(&e.network));
                let gateway = joined().find_map(|n| n.subnets.iter().find_map(|s| s.gateway));
                let servers: Vec<IpAddr> = joined()
                    .filter(|network| !network.predefined)
                    .flat_map(|network| network.subnets.iter().filter_map(|s| s.gateway))
                    // resolv.conf(5): MAXNS.
                    .take(3)
                    .collect();
                let servers = if servers.is_empty() { Servers::Others } else { Servers::Rnet(&servers) };
                let addrs: Vec<IpAddr> = endpoints().flat_map(|e| &e.addrs).map(|addr| addr.ip()).collect();
                let extra = self.extra_hosts(container, gateway)?;
                Content::Own {
                    resolv_conf: files::resolv_conf(&files::host_resolv_conf(), &container.resolver, servers),
                    hosts: files::hosts(&addrs, &container.hostname, &extra),
                    hostname: container.hostname.clone(),
                }
            }
        };
        Ok(ContainerFiles { dir, content })
    }

    /// What makes a container's files of `before` those of `after`. An engine writes its containers' itself.
    pub(super) fn update_files(&self, before: &Container, after: &Container) -> Result<Option<Step>> {
        if after.engine.is_some() {
            return Ok(None);
        }
        Ok(Some(Step::UpdateFiles { before: self.files(before)?, after: self.files(after)? }))
    }

    /// `host-gateway` is the container's own way to the host, or that of the default network.
    fn extra_hosts(&self, container: &Container, gateway: Option<IpAddr>) -> Result<Vec<(String, IpAddr)>> {
        let default = || {
            let network =
                self.machine.state.networks.values().find(|n| n.predefined && n.bridge.is_some())?;
            network.subnets.iter().find_map(|s| s.gateway)
        };
        let gateway = gateway.or_else(default);
        container.extra_hosts.iter().map(|host| files::extra_host(host, gateway)).collect()
    }

    /// The container as it will be once it is made, but for its host ports.
    fn record(&self, request: &CreateContainer) -> Result<Container> {
        let (mode, network_mode) = self.mode(request)?;
        let id = new_id();
        let name = self.container_name(request)?;
        let hostname = match &mode {
            Mode::Host if request.hostname.is_none() => self.machine.host.hostname()?,
            Mode::Shared(other) => self.find_container(other)?.hostname.clone(),
            Mode::Networks(_) | Mode::None | Mode::Host => {
                request.hostname.clone().unwrap_or_else(|| short_id(&id).to_owned())
            }
        };
        check_hostname(&hostname)?;
        for domain in &request.dns_search {
            resolv_conf::check_search_domain(domain).map_err(Error::Invalid)?;
        }
        for option in &request.dns_options {
            resolv_conf::check_option(option).map_err(Error::Invalid)?;
        }
        let netns = self.namespace(&mode, request, &name)?;
        let endpoints = self.endpoints(&mode, &netns)?;
        for key in request.sysctls.keys() {
            sysctl::check(key).map_err(Error::Invalid)?;
            if !matches!(netns, Namespace::Own(_)) {
                return Err(Error::Invalid(format!(
                    "sysctl '{key}' is not allowed: a container with --network {network_mode} has no namespaces of its own"
                )));
            }
        }
        let exposed = exposed::parse(&request.expose)?;
        let mut ports = publishing::publications(&request.publish, &request.from)?;
        if request.publish_all {
            exposed::publish_all(&exposed, &mut ports, &request.from);
        }
        let created = now();
        // A namespace that runs nothing is all there from the start.
        let (state, started) = if request.command.is_empty() {
            (ContainerState::Running, Some(created.clone()))
        } else {
            (ContainerState::Created, None)
        };
        Ok(Container {
            // Somebody else's namespace is gone when they say so, and all of the container with it.
            remove: request.remove || matches!(netns, Namespace::Given { .. }),
            netns: Some(netns),
            engine: None,
            endpoints,
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
            rootfs: request.rootfs.clone(),
            terminal: request.terminal,
            network_mode,
            ports,
            exposed,
            resolver: Resolver {
                servers: or_default(&request.dns, &self.config.dns),
                search: or_default(&request.dns_search, &self.config.dns_search),
                options: or_default(&request.dns_options, &self.config.dns_options),
            },
            extra_hosts: request.extra_hosts.clone(),
            sysctls: request.sysctls.clone(),
        })
    }

    fn endpoints(&self, mode: &Mode, netns: &Namespace) -> Result<Vec<Endpoint>> {
        let Mode::Networks(asked) = mode else { return Ok(Vec::new()) };
        let mut interfaces = match netns {
            Namespace::Given { path, .. } => self.machine.host.interfaces(path)?,
            Namespace::Own(_) | Namespace::Shared(_) | Namespace::Host => BTreeSet::new(),
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for asked in asked {
            let name = if asked.network.is_empty() { "bridge" } else { &asked.network };
            let network = self.joinable(name)?;
            check_open(network)?;
            if endpoints.iter().any(|e| e.network == network.id) {
                return Err(Error::Invalid(format!("network {} is named twice", network.name)));
            }
            let endpoint = self.endpoint(asked, network, &interfaces)?;
            interfaces.insert(endpoint.interface.clone());
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    fn container_name(&self, request: &CreateContainer) -> Result<String> {
        let Some(name) = request.name.clone() else {
            let taken = |name: &str| self.machine.index.id_of(name).is_some() || self.netns_is_taken(name);
            return Ok(made_up_name(taken));
        };
        check_name("container", &name)?;
        if let Some(holder) = self.machine.index.id_of(&name) {
            return Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\": remove that \
                 container, or choose another name"
            )));
        }
        if self.netns_is_taken(&name) {
            return Err(Error::Conflict(format!(
                "create network namespace {} for container {name}: one of that name is there already and is not \
                 this instance's: remove it, or choose another name",
                self.netns_name(&name)
            )));
        }
        Ok(name)
    }

    fn netns_is_taken(&self, container: &str) -> bool {
        let host = &self.machine.host;
        host.netns_exists(&host.netns_path(&self.netns_name(container)))
    }

    /// Tells of something that happened to a container.
    pub(super) fn tell_container(&self, action: &str, container: &Container, more: &[(&str, &str)]) {
        let attributes =
            [("name", container.name.as_str()), ("image", "")].into_iter().chain(more.iter().copied());
        self.events.emit(Kind::Container, action, &container.id, attributes);
    }

    /// Tells that a container came onto a network, or left it.
    pub(super) fn tell_connected(&self, action: &str, container: &Container, endpoint: &Endpoint) {
        let network = self.machine.state.networks.get(&endpoint.network);
        let name = network.map_or("", |network| network.name.as_str());
        let attributes = [("container", container.id.as_str()), ("name", name), ("type", "bridge")];
        self.events.emit(Kind::Network, action, &endpoint.network, attributes);
    }

    /// Tells that a container has left all of its networks.
    pub(super) fn tell_released(&self, container: &Container) {
        for endpoint in &container.endpoints {
            self.tell_connected("disconnect", container, endpoint);
        }
    }
}

/// What was asked for, or what the instance has for those who ask for nothing.
fn or_default<T: Clone>(asked: &[T], default: &[T]) -> Vec<T> {
    if asked.is_empty() { default.to_vec() } else { asked.to_vec() }
}
