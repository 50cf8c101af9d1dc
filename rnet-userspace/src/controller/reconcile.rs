//! Start and end of an instance, and what happens when the host changes under it: store, kernel and datapath
//! are made to agree. What is right is left alone, so that traffic never notices.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Error as Cause};
use rnet_common::source;

use super::{
    Config, Controller,
    apply::{Machine, collected},
    backend::{Datapath, FlowPosition, Host, Uplink},
    error::{Error, Result},
    faults::Faults,
    files,
    model::{engine::Engine, flow_filter::FlowFilter, xdp::Xdp},
    plan,
    ports::Cursors,
    step::Step,
    view::ContainerState,
};
use crate::store::{
    Store, remove_empty_dir,
    schema::{Container, Endpoint, Phase, State},
};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Takes up an instance: removes what an interrupted change left, makes the predefined networks if they
    /// are not there, makes again what is gone, and adopts the rest. When that fails for an instance of which
    /// nothing was there, nothing is left of it, the datapath included. `state` is what the store has, so that whoever cannot
    /// read it need not make a datapath.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the configuration contradicts itself or the host; [`Error::Conflict`] when
    /// the default network cannot be made; [`Error::Failed`].
    pub fn start(config: Config, host: H, datapath: D, store: Store, state: State) -> Result<Self> {
        let is_new = state == State::default();
        let mut machine = Machine::new(host, datapath, store, state);
        machine.frames = config.xdp != Xdp::Off;
        let mut controller = Self {
            config,
            machine,
            cursors: Cursors::default(),
            uplinks: None,
            guarded: None,
            engines: Default::default(),
            events: Default::default(),
            down: false,
        };
        if let Err(error) = controller.check().and_then(|()| controller.take_up()) {
            if is_new && let Err(e) = controller.down() {
                tracing::warn!("remove what a failed start has made: {e}");
            }
            return Err(error);
        }
        controller.machine.faults = Faults::new(controller.config.fault);
        Ok(controller)
    }

    /// Follows changes of the host: its uplinks and addresses; bridges and pairs that are gone are made
    /// again, containers whose namespace or process is gone are noted to have ended.
    ///
    /// # Errors
    /// Everything that could not be put right, in one line.
    pub fn refresh_host(&mut self) -> Result<()> {
        if self.down {
            return Ok(());
        }
        let mut errors = Vec::new();
        match self.heal_networks() {
            Ok(healed) => errors.extend(self.heal_containers(&healed).err().map(Cause::from)),
            Err(e) => errors.push(e.into()),
        }
        errors.extend(self.follow_host().err().map(Cause::from));
        Ok(collected(errors)?)
    }

    /// Removes everything that this instance made: containers, whose processes the caller has ended,
    /// networks, the datapath, files and state. Goes on past errors.
    ///
    /// # Errors
    /// All that went wrong, in one line. What is left is still in the store, and calling this again goes on
    /// with it.
    pub fn down(&mut self) -> Result<()> {
        self.down = true;
        let mut errors: Vec<Cause> = Vec::new();
        let State { containers, networks } = self.machine.state.clone();
        // All at once, which takes about as long as one. Removing the containers then finds no more of them.
        let own = containers.values().flat_map(|c| c.endpoints.iter().filter(|e| !e.borrowed));
        let links = own.map(|endpoint| endpoint.host_interface.clone()).collect();
        errors.extend(self.machine.host.delete_links(&links).err());
        for container in containers.into_values() {
            let name = container.name.clone();
            let done = self.destroy_container(container);
            errors.extend(done.err().map(|e| Cause::from(e).context(format!("remove container {name}"))));
        }
        for network in networks.into_values() {
            // What is left of a container is removed by way of its network.
            if self.machine.index.members(&network.id).is_some() {
                continue;
            }
            let name = network.name.clone();
            let done = self.destroy_network(network);
            errors.extend(done.err().map(|e| Cause::from(e).context(format!("remove network {name}"))));
        }
        errors.extend(self.machine.datapath.destroy().err().map(|e| e.context("remove the datapath")));
        if errors.is_empty() {
            errors.extend(files::remove(&self.containers_dir()).err());
            errors.extend(self.machine.store.remove().err());
            errors.extend(remove_empty_dir(&self.config.run_dir).err());
        }
        Ok(collected(errors)?)
    }

    pub(super) fn containers_dir(&self) -> std::path::PathBuf {
        self.config.run_dir.join("containers")
    }

    fn check(&self) -> Result<()> {
        self.config.check()?;
        check_snat_ports(self.config.snat_ports, self.machine.host.ephemeral_ports()?)
    }

    fn take_up(&mut self) -> Result<()> {
        // First of all, because removing a network takes its gateway from what is known here.
        let addresses = self.machine.host.addresses()?;
        self.machine.set_addresses(addresses)?;
        self.machine.datapath.set_timeouts(&self.config.timeouts)?;
        let dir = self.containers_dir();
        std::fs::create_dir_all(&dir).with_context(|| format!("create directory {}", dir.display()))?;
        self.remove_unfinished();
        self.create_predefined()?;
        let healed = self.heal_networks()?;
        if let Err(e) = self.heal_containers(&healed) {
            // One broken container must not keep the others from being served.
            tracing::warn!("take up containers: {e}");
        }
        self.adopt()?;
        self.follow_host()?;
        for name in self.config.uplinks.iter().flatten() {
            if !self.uplinks.iter().flatten().any(|uplink| uplink.name == *name) {
                tracing::warn!(uplink = name, "no such interface leads outside; it is used once it does");
            }
        }
        Ok(())
    }

    /// Removes what was being made or removed when the last run ended.
    fn remove_unfinished(&mut self) {
        let State { containers, networks } = self.machine.state.clone();
        for container in containers.into_values().filter(|c| c.phase != Phase::Ready) {
            let name = container.name.clone();
            match self.destroy_container(container) {
                Ok(()) => tracing::info!(container = name, "removed what an interrupted change left"),
                Err(e) => tracing::warn!(container = name, "remove what an interrupted change left: {e}"),
            }
        }
        for network in networks.into_values().filter(|n| n.phase != Phase::Ready) {
            if self.machine.index.members(&network.id).is_some() {
                continue;
            }
            let name = network.name.clone();
            match self.destroy_network(network) {
                Ok(()) => tracing::info!(network = name, "removed what an interrupted change left"),
                Err(e) => tracing::warn!(network = name, "remove what an interrupted change left: {e}"),
            }
        }
    }

    /// Notes containers that have ended and finishes releasing them; makes pairs again that are gone or were
    /// on a bridge that had to be made again (`rebuilt` are ids of such networks).
    fn heal_containers(&mut self, rebuilt: &[String]) -> Result<()> {
        let mut errors = Vec::new();
        let links = self.machine.host.link_names()?;
        let containers = self.machine.state.containers.values().filter(|c| c.phase == Phase::Ready);
        // Nearly always none, and this is asked with every change of a link.
        let mut unwell: Vec<Container> = Vec::new();
        for container in containers {
            match self.needs_healing(container, rebuilt, &links) {
                Ok(true) => unwell.push(container.clone()),
                Ok(false) => {}
                // Whoever can't be looked at is not gone.
                Err(e) => {
                    errors.push(Cause::from(e).context(format!("look after container {}", container.name)));
                }
            }
        }
        for container in unwell {
            let name = container.name.clone();
            let healed = self.heal_container(container, rebuilt, &links);
            errors.extend(healed.err().map(|e| Cause::from(e).context(format!("restore container {name}"))));
        }
        Ok(collected(errors)?)
    }

    /// Whether [`Controller::heal_container`] has something to do.
    fn needs_healing(
        &self,
        container: &Container,
        rebuilt: &[String],
        links: &BTreeSet<String>,
    ) -> Result<bool> {
        if container.state == ContainerState::Exited {
            return Ok(container.remove || container.netns.is_some());
        }
        let is_right = |e: &Endpoint| {
            let is_there = e.borrowed || links.contains(&e.host_interface) && !rebuilt.contains(&e.network);
            e.phase == Phase::Ready && is_there
        };
        Ok(!self.is_alive(container, links)? || !container.endpoints.iter().all(is_right))
    }

    fn heal_container(
        &mut self,
        container: Container,
        rebuilt: &[String],
        links: &BTreeSet<String>,
    ) -> Result<()> {
        if container.state == ContainerState::Exited {
            return self.release(container).map(drop);
        }
        if !self.is_alive(&container, links)? {
            tracing::info!(container = container.name, "its process or its namespace is gone");
            return self.note_exited(container, None).map(drop);
        }
        let container = self.finish_changes(container)?;
        let netns = self.netns_path(&container).unwrap_or_default();
        let dir = self.dir(&container.id);
        for endpoint in container.endpoints.iter().filter(|e| !e.borrowed) {
            if links.contains(&endpoint.host_interface) && !rebuilt.contains(&endpoint.network) {
                continue;
            }
            tracing::warn!(
                container = container.name,
                link = endpoint.host_interface,
                "making its link again"
            );
            let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
            let mut steps = vec![Step::DeletePair(endpoint.host_interface.clone())];
            steps.extend(plan::connect(endpoint, &container, &place)?);
            self.machine.apply(&steps)?;
        }
        Ok(())
    }

    /// Removes interfaces that were being connected or disconnected when the last run ended, and makes default routes
    /// and files what they are without them.
    fn finish_changes(&mut self, mut container: Container) -> Result<Container> {
        let unfinished: Vec<_> =
            container.endpoints.iter().filter(|e| e.phase != Phase::Ready).cloned().collect();
        for endpoint in unfinished {
            tracing::info!(
                container = container.name,
                link = endpoint.host_interface,
                "removing what an interrupted change left"
            );
            let mut with = container.clone();
            for e in with.endpoints.iter_mut().filter(|e| e.id == endpoint.id) {
                e.phase = Phase::Ready;
            }
            let mut without = container.clone();
            without.endpoints.retain(|e| e.id != endpoint.id);
            let mut steps: Vec<_> = self.update_files(&with, &without)?.into_iter().collect();
            if container.has_own_routes() {
                steps.push(plan::default_routes_of(
                    &with,
                    &without,
                    &self.machine.state.networks,
                    self.netns_path(&container).unwrap_or_default(),
                ));
            }
            self.drop_endpoint(&container, &endpoint)?;
            self.machine.apply(&steps)?;
            container = without;
        }
        Ok(container)
    }

    /// A container without a process lives as long as its namespace. Where only its engine knows that, it lives as long
    /// as what the engine has taken into it: an interface goes with the namespace that it is in, and its other end too.
    fn is_alive(&self, container: &Container, links: &BTreeSet<String>) -> Result<bool> {
        let is_taken = container.engine.is_some() && container.netns.is_none();
        let has_lost =
            |e: &Endpoint| !e.borrowed && e.phase == Phase::Ready && !links.contains(&e.host_interface);
        if is_taken && container.endpoints.iter().any(has_lost) {
            return Ok(false);
        }
        if let Some(pid) = container.pid {
            let start = self.machine.host.process_start(pid)?;
            if start.is_none() || start != container.process_start {
                return Ok(false);
            }
        }
        self.netns_is_there(container)
    }

    /// Gives the datapath every endpoint and port of the store, most of which it has already, then removes
    /// from it what the store does not have.
    fn adopt(&mut self) -> Result<()> {
        let (mut bindings, mut lists) = (Vec::new(), BTreeSet::new());
        for network in self.machine.state.networks.values().cloned().collect::<Vec<_>>() {
            if let Some(exemptions) = plan::exemptions(&network)? {
                self.machine.apply(&[exemptions])?;
                lists.insert(source::exempt(network.number));
            }
        }
        let containers: Vec<Container> = self.machine.state.containers.values().cloned().collect();
        let mut is_complete = true;
        for container in containers.iter().filter(|c| c.phase == Phase::Ready) {
            // What fails for a moment must not cost the container its connections.
            if let Err(e) = self.adopt_container(container).or_else(|_| self.adopt_container(container)) {
                tracing::warn!(container = container.name, "take up container: {e:#}");
                is_complete = false;
            }
            bindings.extend(plan::bindings(container));
        }
        if !bindings.is_empty() {
            self.machine.datapath.publish(&bindings)?;
        }
        if !is_complete {
            // What the datapath has of that container is not to be taken for too much.
            return Ok(());
        }
        let endpoints: Vec<_> = self.machine.endpoints.values().cloned().collect();
        lists.extend(bindings.iter().map(|binding| binding.sources));
        Ok(self.machine.datapath.retain(&endpoints, &bindings, &lists)?)
    }

    fn adopt_container(&mut self, container: &Container) -> Result<()> {
        if let Some(netns) = self.netns_path(container) {
            for endpoint in container.endpoints.iter().filter(|e| e.phase == Phase::Ready) {
                let kind = plan::link_kind(endpoint, &self.machine.state.networks)?;
                self.machine.take_frames(kind, &endpoint.host_interface, &netns, &endpoint.interface);
            }
        }
        let networks = &self.machine.state.networks;
        let ready = container.endpoints.iter().filter(|e| e.phase == Phase::Ready);
        let intents = ready.map(|e| plan::endpoint_intent(e, plan::network_of(e, networks)?));
        let mut steps = intents.map(|intent| intent.map(Step::AddEndpoint)).collect::<Result<Vec<_>>>()?;
        steps.extend(plan::source_lists(container));
        Ok(self.machine.apply_all(&steps)?)
    }

    fn follow_host(&mut self) -> Result<()> {
        let guarded = self.dockers_bridges()?;
        if self.guarded.as_ref() != Some(&guarded) {
            self.machine.datapath.set_bridges(&guarded)?;
            let known = self.guarded.take().unwrap_or_default();
            for (_, name) in guarded.iter().filter(|(index, _)| !known.contains_key(index)) {
                // An engine makes its bridges anew after a reboot, and says nothing of it.
                if let Err(e) = self.machine.host.lend_bridge(name) {
                    tracing::warn!(bridge = name, "{e:#}");
                }
            }
            self.guarded = Some(guarded);
        }
        let uplinks = self.wanted_uplinks()?;
        if self.uplinks.as_ref() != Some(&uplinks) {
            self.machine.datapath.set_uplinks(&uplinks)?;
            self.uplinks = Some(uplinks);
            self.warn_of_forwarding()?;
        }
        let mut addresses = self.machine.host.addresses()?;
        addresses.sort_unstable();
        addresses.dedup();
        if addresses == self.machine.addresses {
            return Ok(());
        }
        let gone: Vec<_> =
            self.machine.addresses.iter().filter(|addr| !addresses.contains(addr)).copied().collect();
        self.machine.set_addresses(addresses)?;
        // Whoever gets the address next must not get their answers.
        for addr in gone {
            let filter = FlowFilter { addr: Some(addr.into()), ..FlowFilter::default() };
            let (mut flows, mut at) = (0, Some(FlowPosition::default()));
            while let Some(from) = at {
                let page = self.machine.datapath.flush(&filter, from)?;
                flows += page.found;
                at = page.next;
            }
            tracing::info!(%addr, flows, "an address of this host is gone, and with it the flows that used it");
        }
        Ok(())
    }

    /// Docker's bridges, of which every container is served: names by index. On those of CNI's plugins there may be
    /// containers whose ports and packets are not rnet's.
    fn dockers_bridges(&self) -> Result<BTreeMap<u32, String>> {
        let mut bridges = BTreeMap::new();
        let networks = self.machine.state.networks.values();
        for network in networks.filter(|n| n.borrowed && n.engine == Some(Engine::Docker)) {
            let Some(name) = &network.bridge else { continue };
            if let Some(link) = self.machine.host.find_link(name)? {
                bridges.insert(link.index, name.clone());
            }
        }
        Ok(bridges)
    }

    pub(super) fn wanted_uplinks(&self) -> Result<Vec<Uplink>> {
        let State { networks, containers } = &self.machine.state;
        let bridges = networks.values().filter_map(|n| n.bridge.clone());
        let links = containers.values().flat_map(|c| c.endpoints.iter().map(|e| e.host_interface.clone()));
        let mut uplinks = self.machine.host.uplinks(&bridges.chain(links).collect())?;
        if let Some(wanted) = &self.config.uplinks {
            uplinks.retain(|uplink| wanted.contains(&uplink.name));
        }
        Ok(uplinks)
    }
}

/// The host's own connections are not tracked: a source port that both could use would lead answers astray.
fn check_snat_ports((first, last): (u16, u16), (own_first, own_last): (u16, u16)) -> Result<()> {
    if first == 0 || first > last {
        return Err(Error::Invalid(format!("invalid source ports {first}-{last} for masqueraded flows")));
    }
    if first <= own_last && own_first <= last {
        return Err(Error::Invalid(format!(
            "source ports {first}-{last} for masqueraded flows overlap {own_first}-{own_last}, which the kernel \
             gives to the host's own sockets: choose others, or change net.ipv4.ip_local_port_range"
        )));
    }
    Ok(())
}
