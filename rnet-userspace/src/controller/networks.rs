//! Networks: what is asked for becomes a record, the record becomes a plan.

use ipnetwork::IpNetwork;

use super::{
    Controller,
    apply::collected,
    backend::{Datapath, Host},
    error::{Error, Result},
    ipam, lookup,
    model::{
        name::{check_name, new_id, short_id},
        options::{self, NetworkOptions},
        subnet::{check_gateway, check_ip_range, check_subnet, overlap},
    },
    now, plan,
    request::{CreateNetwork, Subnet},
    step::{Change, Step},
    view::{self, SubnetView},
};
use crate::store::schema::{Driver, Network, Phase};

/// The default network and its interface.
const DEFAULT: &str = "bridge";
const DEFAULT_BRIDGE: &str = "rnet0";
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
        self.build_network(request, false)
    }

    /// Removes a network that no container is on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for a predefined network, or one that containers are on;
    /// [`Error::Failed`] when some of it could not be removed: removing it again goes on with the rest.
    pub fn remove_network(&mut self, name_or_id: &str) -> Result<view::Network> {
        let network = self.find_network(name_or_id)?.clone();
        if network.predefined {
            return Err(Error::Forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        let containers = self.machine.state.containers.values();
        let members: Vec<&str> = containers
            .filter(|c| c.endpoints.iter().any(|e| e.network == network.id))
            .map(|c| c.name.as_str())
            .collect();
        if !members.is_empty() {
            return Err(Error::Forbidden(format!(
                "network {} has active endpoints ({}): remove these containers first",
                network.name,
                members.join(", ")
            )));
        }
        let view = self.network_view(&network);
        self.destroy_network(network)?;
        Ok(view)
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
        if missing(self, DEFAULT) {
            let options = options::with_bridge(DEFAULT_BRIDGE);
            let request = CreateNetwork { name: DEFAULT.to_owned(), options, ..CreateNetwork::default() };
            self.build_network(&request, true)?;
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
        lookup::find(&self.machine.state.networks, name_or_id, |n| &n.name)?
            .ok_or_else(|| Error::NotFound(format!("network {name_or_id} not found")))
    }

    fn build_network(&mut self, request: &CreateNetwork, predefined: bool) -> Result<view::Network> {
        refuse_ipv6(request)?;
        let options = NetworkOptions::parse(&request.options)?;
        let mut network = record(request, Driver::Bridge, predefined);
        network.bridge = Some(self.bridge_name(&network, options.bridge)?);
        network.subnets = vec![self.subnet(&request.subnets)?];
        // A number that was given is never given again while a higher one is in use.
        network.number = self.machine.state.networks.values().map(|n| n.number).max().unwrap_or(0) + 1;
        let steps = plan::create_network(&network, &self.machine.addresses)?;
        self.machine.apply(&steps)?;
        Ok(self.network_view(&network))
    }

    fn bridge_name(&self, network: &Network, asked: Option<String>) -> Result<String> {
        let bridge = asked.unwrap_or_else(|| format!("br-{}", short_id(&network.id)));
        if let Some(other) = self.machine.state.networks.values().find(|n| n.bridge.as_ref() == Some(&bridge))
        {
            return Err(Error::Conflict(format!(
                "network {} conflicts with network {} ({bridge}): networks have same bridge name",
                network.name, other.name
            )));
        }
        if self.machine.host.find_link(&bridge)?.is_some() {
            return Err(Error::Conflict(format!(
                "create bridge {bridge} for network {}: an interface of that name is there already and is not \
                 this instance's: remove it, or choose another name with -o com.docker.network.bridge.name=NAME",
                network.name
            )));
        }
        Ok(bridge)
    }

    fn subnet(&self, asked: &[Subnet]) -> Result<SubnetView> {
        let asked = match asked {
            [] => &Subnet { subnet: None, ip_range: None, gateway: None },
            [one] => one,
            _ => return Err(Error::Invalid("bridge driver doesn't support multiple subnets".to_owned())),
        };
        let subnet = match asked.subnet {
            Some(subnet) => self.check_free(subnet)?,
            None if asked.ip_range.is_some() || asked.gateway.is_some() => {
                return Err(Error::Invalid(
                    "every ip-range or gateway must have a corresponding subnet".to_owned(),
                ));
            }
            None => self.next_subnet()?,
        };
        if let Some(range) = asked.ip_range {
            check_ip_range(subnet, range)?;
        }
        let gateway = asked.gateway.unwrap_or_else(|| ipam::default_gateway(subnet));
        check_gateway(subnet, gateway)?;
        Ok(SubnetView { subnet, ip_range: asked.ip_range, gateway })
    }

    fn check_free(&self, subnet: IpNetwork) -> Result<IpNetwork> {
        check_subnet(subnet)?;
        match self.in_use()?.iter().find(|(taken, _)| overlap(*taken, subnet)) {
            Some((_, what)) => Err(Error::Conflict(format!(
                "invalid pool request: Pool overlaps with other one on this address space: \
                 subnet {subnet} overlaps {what}: choose another subnet"
            ))),
            None => Ok(subnet),
        }
    }

    fn next_subnet(&self) -> Result<IpNetwork> {
        let taken: Vec<IpNetwork> = self.in_use()?.into_iter().map(|(net, _)| net).collect();
        ipam::next_subnet(&self.config.pools, &taken).ok_or_else(|| {
            Error::Conflict(
                "all predefined address pools have been fully subnetted: remove a network, or name a --subnet"
                    .to_owned(),
            )
        })
    }

    /// What no subnet may overlap, each with its name.
    fn in_use(&self) -> Result<Vec<(IpNetwork, String)>> {
        let mut taken = Vec::new();
        for network in self.machine.state.networks.values() {
            taken.extend(
                network
                    .subnets
                    .iter()
                    .map(|s| (s.subnet, format!("network {} ({})", network.name, s.subnet))),
            );
        }
        for route in self.machine.host.routes()? {
            // 0.0.0.0/1 and 128.0.0.0/1 are how VPNs write a default route; no subnet could avoid both.
            if route.prefix() > 1 {
                taken.push((route, format!("route {route} of this host")));
            }
        }
        let addresses = self.machine.host.addresses()?;
        taken.extend(addresses.into_iter().map(|addr| (addr.into(), format!("address {addr} of this host"))));
        Ok(taken)
    }

    fn network_view(&self, network: &Network) -> view::Network {
        let members =
            self.machine.state.containers.values().filter(|c| c.phase == Phase::Ready).flat_map(|c| {
                c.endpoints.iter().filter(|e| e.network == network.id).map(|e| {
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
            created: network.created.clone(),
            bridge: network.bridge.clone(),
            subnets: network.subnets.clone(),
            internal: network.internal,
            attachable: network.attachable,
            ipv6: network.subnets.iter().any(|s| s.subnet.is_ipv6()),
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
        self.machine.apply(&[Step::CreateBridge(spec)])?;
        Ok(true)
    }
}

fn record(request: &CreateNetwork, driver: Driver, predefined: bool) -> Network {
    Network {
        id: new_id(),
        name: request.name.clone(),
        phase: Phase::Creating,
        driver,
        number: 0,
        created: now(),
        predefined,
        bridge: None,
        subnets: Vec::new(),
        internal: request.internal,
        attachable: request.attachable,
        options: request.options.clone(),
        labels: request.labels.clone(),
    }
}

/// The only place that keeps IPv6 out of networks: address management and the plan are written over both
/// families.
fn refuse_ipv6(request: &CreateNetwork) -> Result<()> {
    let is_v6 =
        |s: &Subnet| s.subnet.is_some_and(|net| net.is_ipv6()) || s.gateway.is_some_and(|a| a.is_ipv6());
    if request.ipv6 || request.subnets.iter().any(is_v6) {
        return Err(Error::Invalid(format!(
            "create network {}: IPv6 networks are not supported yet: leave out --ipv6 and IPv6 subnets",
            request.name
        )));
    }
    Ok(())
}

/// Whether containers on this network may be given fixed addresses: as with Docker, not on the default one.
pub(super) fn takes_fixed_addresses(network: &Network) -> bool {
    !network.predefined
}
