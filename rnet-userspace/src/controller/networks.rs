//! Networks: what is asked for becomes a record, the record becomes a plan.

use super::{
    Controller,
    apply::collected,
    backend::{BridgeState, Datapath, Host},
    default_network::is_as_asked,
    error::{Error, Result},
    events::Kind,
    lookup,
    model::{
        link::LinkKind,
        name::{check_name, new_id, short_id},
        options::{GatewayMode, LINK, NetworkOptions, VIA_STACK},
    },
    now, plan,
    request::CreateNetwork,
    sizes,
    step::{Change, Step},
    view,
};
use crate::store::schema::{Container, Driver, Network, Phase};

/// The default network.
const DEFAULT: &str = "bridge";
/// The other networks that are there from the start.
const HOST: &str = "host";
const NONE: &str = "none";
/// Names that no network can be given; `default` is Docker's for the default network.
const PREDEFINED: [&str; 4] = [DEFAULT, HOST, NONE, "default"];

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Creates a network.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`] for the name of a predefined network, [`Error::Conflict`]
    /// when a name, a subnet or the interface is taken, [`Error::Failed`]; nothing is left of it then.
    pub fn create_network(&mut self, request: &CreateNetwork) -> Result<view::Network> {
        self.ensure_up()?;
        let name = &request.name;
        check_name("network", name)?;
        if PREDEFINED.contains(&name.as_str()) {
            return Err(Error::Forbidden(format!("operation is not permitted on predefined {name} network")));
        }
        if self.machine.state.networks.values().any(|n| n.name == *name) {
            return Err(Error::Conflict(format!("network with name {name} already exists")));
        }
        let record = record(request, Driver::Bridge, false);
        let network = self.build_network(request, record)?;
        self.tell_network("create", &network);
        Ok(network)
    }

    /// Removes a network that no container is on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for a predefined network, or one that containers are on;
    /// [`Error::Failed`] when some of it could not be removed: removing it again goes on with the rest.
    pub fn remove_network(&mut self, name_or_id: &str) -> Result<view::Network> {
        let network = self.find_network(name_or_id)?.clone();
        if let Some(engine) = network.engine {
            let tool = engine.tool();
            return Err(Error::Forbidden(format!(
                "network {} is {engine}'s: remove it with {tool}",
                network.name
            )));
        }
        if network.predefined {
            return Err(Error::Forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        self.check_unused(&network)?;
        let view = self.network_view(&network);
        self.destroy_network(network)?;
        self.tell_network("destroy", &view);
        Ok(view)
    }

    /// Refuses when containers are on a network.
    pub(super) fn check_unused(&self, network: &Network) -> Result<()> {
        let mut members: Vec<&str> = self.members(&network.id).map(|c| c.name.as_str()).collect();
        members.sort_unstable();
        if !members.is_empty() {
            return Err(Error::Forbidden(format!(
                "network {} has active endpoints ({}): remove these containers first",
                network.name,
                members.join(", ")
            )));
        }
        Ok(())
    }

    /// A network, by name, id or the beginning of its id.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] when it could be several.
    pub fn network(&self, name_or_id: &str) -> Result<view::Network> {
        Ok(self.network_view(self.find_network(name_or_id)?))
    }

    /// All networks, by name.
    pub fn networks(&self) -> Vec<view::Network> {
        let mut views: Vec<_> = self.machine.state.networks.values().map(|n| self.network_view(n)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Makes the networks that are there from the start, those of them that are not yet.
    pub(super) fn create_predefined(&mut self) -> Result<()> {
        let missing = |c: &Self, name| !c.machine.state.networks.values().any(|n| n.name == name);
        let there = self.machine.state.networks.values().find(|n| n.name == DEFAULT).cloned();
        let request = self.config.default_network.request(DEFAULT, there.as_ref());
        self.renew_default(there, &request)?;
        if missing(self, DEFAULT) {
            let record = record(&request, Driver::Bridge, true);
            self.build_network(&request, record)?;
        }
        for (name, driver) in [(HOST, Driver::Host), (NONE, Driver::Null)] {
            if missing(self, name) {
                let request = CreateNetwork { name: name.to_owned(), ..CreateNetwork::default() };
                let record = record(&request, driver, true);
                self.machine.apply(&plan::create_network(&record, &[])?)?;
            }
        }
        Ok(())
    }

    /// Removes the default network if it is not what the configuration says, so that it is made anew. With
    /// containers on it, it stays as it is.
    fn renew_default(&mut self, there: Option<Network>, wanted: &CreateNetwork) -> Result<()> {
        let Some(network) = there.filter(|there| !is_as_asked(there, wanted)) else {
            return Ok(());
        };
        if self.members(&network.id).next().is_some() {
            tracing::warn!(
                "network {DEFAULT} stays as it is while containers are on it: remove them and start again for \
                 what the configuration says of it to take effect"
            );
            return Ok(());
        }
        self.destroy_network(network)
    }

    /// Removes a network with no regard for what is on it.
    pub(super) fn destroy_network(&mut self, network: Network) -> Result<()> {
        let steps = plan::remove_network(&network, &self.machine.addresses)?;
        let removing = Network { phase: Phase::Removing, ..network.clone() };
        if network.phase != Phase::Removing {
            self.machine.apply(&[Step::SaveNetwork(Change::replace(network, removing.clone()))])?;
        }
        self.machine.apply_all(&steps)?;
        self.machine.apply(&[Step::SaveNetwork(Change::remove(removing))])?;
        Ok(())
    }

    pub(super) fn find_network(&self, name_or_id: &str) -> Result<&Network> {
        let networks = &self.machine.state.networks;
        let named = || networks.values().find(|network| network.name == name_or_id);
        lookup::find(networks, name_or_id, named)?
            .ok_or_else(|| Error::NotFound(format!("network {name_or_id} not found")))
    }

    /// Makes a network of `network`, the beginning of its record.
    pub(super) fn build_network(
        &mut self,
        request: &CreateNetwork,
        mut network: Network,
    ) -> Result<view::Network> {
        sizes::check_network(request)?;
        let options = NetworkOptions::parse(&request.options)?;
        check_options(&options, request)?;
        let (bridge, adopted) = self.bridge(&network, options.bridge.clone())?;
        network.subnets = self.subnets(request, &options, adopted.as_ref())?;
        if options.via_stack {
            self.check_forwarding(&network)?;
        }
        self.check_link(&network.name, options.link)?;
        (network.bridge, network.adopted) = (Some(bridge), adopted);
        network.number = self.next_network_number();
        let steps = plan::create_network(&network, &self.machine.addresses)?;
        self.machine.apply(&steps)?;
        Ok(self.network_view(&network))
    }

    /// Refuses a network whose pairs this kernel cannot make.
    fn check_link(&self, name: &str, kind: LinkKind) -> Result<()> {
        let Some(lacking) = self.machine.host.lacks(kind)? else { return Ok(()) };
        Err(Error::Invalid(format!(
            "network {name} with option {LINK}={kind}: {lacking}; leave the option out, or {LINK}={} works",
            LinkKind::Veth
        )))
    }

    /// A number that was given is never given again while a higher one is in use.
    pub(super) fn next_network_number(&self) -> u32 {
        self.machine.state.networks.values().map(|n| n.number).max().unwrap_or(0) + 1
    }

    /// The interface of a network, and what it is like if it is there already.
    fn bridge(&self, network: &Network, asked: Option<String>) -> Result<(String, Option<BridgeState>)> {
        let is_asked = asked.is_some() && !network.predefined;
        let bridge = asked.unwrap_or_else(|| format!("br-{}", short_id(&network.id)));
        if let Some(other) = self.machine.state.networks.values().find(|n| n.bridge.as_ref() == Some(&bridge))
        {
            return Err(Error::Conflict(format!(
                "network {} conflicts with network {} ({bridge}): networks have same bridge name",
                network.name, other.name
            )));
        }
        let host = &self.machine.host;
        if host.find_link(&bridge)?.is_none() {
            return Ok((bridge, None));
        }
        if !is_asked {
            return Err(Error::Conflict(format!(
                "create bridge {bridge} for network {}: an interface of that name is there already and is not \
                 this instance's: remove it",
                network.name
            )));
        }
        let state = host.bridge_state(&bridge).map_err(|e| {
            Error::Conflict(format!(
                "existing interface {bridge} is not a bridge that network {} could use: {e:#}",
                network.name
            ))
        })?;
        Ok((bridge, Some(state)))
    }

    /// The containers on a network.
    fn members(&self, id: &str) -> impl Iterator<Item = &Container> {
        let ids = self.machine.index.members(id).into_iter().flat_map(|members| &members.containers);
        ids.filter_map(|id| self.machine.state.containers.get(id))
    }

    pub(super) fn tell_network(&self, action: &str, network: &view::Network) {
        let attributes = [("name", network.name.as_str()), ("type", network.driver.as_str())];
        self.events.emit(Kind::Network, action, &network.id, attributes);
    }

    pub(super) fn network_view(&self, network: &Network) -> view::Network {
        let on_it = self.members(&network.id).filter(|c| c.phase == Phase::Ready);
        let members = on_it.flat_map(|c| {
            let endpoints = c.endpoints.iter().filter(|e| e.network == network.id && e.phase == Phase::Ready);
            endpoints.map(|e| {
                let member = view::NetworkMember {
                    name: c.name.clone(),
                    endpoint: e.id.clone(),
                    mac: e.mac,
                    addrs: e.addrs.clone(),
                };
                (c.id.clone(), member)
            })
        });
        let driver = match network.driver {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Null => "null",
        };
        view::Network {
            id: network.id.clone(),
            name: network.name.clone(),
            driver: driver.to_owned(),
            engine: network.engine,
            created: network.created.clone(),
            bridge: network.bridge.clone(),
            subnets: network.subnets.clone(),
            internal: network.internal,
            attachable: network.attachable,
            ipv4: network.subnets.is_empty() || network.subnets.iter().any(|s| s.subnet.is_ipv4()),
            ipv6: network.subnets.iter().any(|s| s.subnet.is_ipv6()),
            predefined: network.predefined,
            options: network.options.clone(),
            labels: network.labels.clone(),
            containers: members.collect(),
        }
    }
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Makes bridges again that are gone, and says which networks they belong to.
    pub(super) fn heal_networks(&mut self) -> Result<Vec<String>> {
        let (mut healed, mut errors) = (Vec::new(), Vec::new());
        let networks: Vec<Network> = self.machine.state.networks.values().cloned().collect();
        for network in networks.iter().filter(|n| n.phase == Phase::Ready) {
            match self.heal_network(network) {
                Ok(true) => healed.push(network.id.clone()),
                Ok(false) => {}
                Err(e) => {
                    errors.push(anyhow::Error::from(e).context(format!("restore network {}", network.name)));
                }
            }
        }
        collected(errors)?;
        Ok(healed)
    }

    fn heal_network(&mut self, network: &Network) -> Result<bool> {
        let Some(spec) = plan::bridge(network)? else {
            return Ok(false);
        };
        if self.machine.host.find_bridge(&spec.name)?.is_some() {
            return Ok(false);
        }
        tracing::warn!(network = network.name, bridge = spec.name, "bridge is gone, making it again");
        let own = Network { adopted: None, ..network.clone() };
        self.machine
            .apply(&[Step::SaveNetwork(Change::replace(network.clone(), own)), Step::CreateBridge(spec)])?;
        Ok(true)
    }
}

pub(super) fn record(request: &CreateNetwork, driver: Driver, predefined: bool) -> Network {
    Network {
        id: new_id(),
        name: request.name.clone(),
        phase: Phase::Creating,
        driver,
        number: 0,
        created: now(),
        predefined,
        bridge: None,
        adopted: None,
        engine: None,
        borrowed: false,
        subnets: Vec::new(),
        internal: request.internal,
        attachable: request.attachable,
        options: request.options.clone(),
        labels: request.labels.clone(),
    }
}

fn check_options(options: &NetworkOptions, request: &CreateNetwork) -> Result<()> {
    let modes = [options.gateway_mode_v4, options.gateway_mode_v6];
    if modes.contains(&GatewayMode::Isolated) && !request.internal {
        return Err(Error::Invalid(
            "gateway mode 'isolated' can only be used for an internal network: add --internal".to_owned(),
        ));
    }
    if options.via_stack && request.internal {
        return Err(Error::Invalid(format!(
            "network option {VIA_STACK} is for what passes between containers and the outside, which an internal \
             network has none of: leave out one of the two"
        )));
    }
    // RFC 8200 5: with less, the kernel takes IPv6 off an interface.
    if let Some(mtu) = options.mtu.filter(|mtu| request.ipv6 && *mtu < 1280) {
        return Err(Error::Invalid(format!("invalid MTU number: {mtu}: IPv6 needs at least 1280")));
    }
    Ok(())
}
