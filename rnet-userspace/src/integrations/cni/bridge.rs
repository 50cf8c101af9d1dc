//! A network of rnet's own: ADD makes it and connects the container.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{
    call::Command,
    config::Bandwidth,
    error::{Code, Error, Result},
    ports,
    result::{Interface, Ip, Outcome, Route},
    serve::Session,
};
use crate::{
    controller::{
        model::engine::Engine,
        request::{CreateNetwork, EngineContainer, EngineInterface, Subnet},
        view,
    },
    host::{interfaces, shaping},
};

/// How often a network is made again that went with the last of others' containers meanwhile.
const MAX_TRIES: usize = 10;

impl Session<'_> {
    pub(super) fn add(&self) -> Result<Value> {
        self.check_netns()?;
        let leased = self.ipam.as_ref().map(super::ipam::Ipam::add).transpose()?;
        let added = self.connect(leased.as_ref());
        let (Err(error), Some(ipam)) = (&added, &self.ipam) else {
            return added.map(|outcome| outcome.to_json(self.version));
        };
        let error = error.clone();
        Err(match ipam.tell(Command::Del) {
            Ok(()) => error,
            Err(left) => error.with_details(format!("giving back the address failed, too: {left}")),
        })
    }

    fn connect(&self, leased: Option<&Outcome>) -> Result<Outcome> {
        let request = self.network_request(leased)?;
        for _ in 0..MAX_TRIES {
            let network = self
                .daemon
                .ask(|client| client.create_engine_network(Engine::Cni, &self.network, request.clone()))?;
            if let Some(difference) = difference(&network, &request) {
                // What is left of an earlier configuration gives way when nobody is on it.
                self.forget_network()?;
                if self.daemon.find(|client| client.engine_network(&self.network))?.is_none() {
                    continue;
                }
                return Err(Error::config(format!(
                    "network {} is there with another {difference}, which stays until its last container is gone",
                    network.name
                )));
            }
            let wanted = match self.wanted(&network, leased) {
                Ok(wanted) => wanted,
                Err(error) => return self.undone(error),
            };
            return match self.daemon.ask(|client| client.add_to_engine_container(&wanted)) {
                Err(e) if e.is_not_found() => continue,
                Err(error) => self.undone(error.into()),
                Ok(container) => match self.outcome(&network, &container, leased) {
                    Ok(outcome) => Ok(outcome),
                    Err(error) => {
                        self.unlimit();
                        self.remove_interface(&self.container, &self.call.interface)?;
                        self.undone(error)
                    }
                },
            };
        }
        Err(Error::new(Code::TryAgain, format!("network {} comes and goes", self.config.name)))
    }

    /// Takes the network back that may have been made for nobody.
    fn undone<T>(&self, error: Error) -> Result<T> {
        Err(match self.forget_network() {
            Ok(()) => error,
            Err(left) => error.with_details(format!("removing the network failed, too: {left}")),
        })
    }

    fn network_request(&self, leased: Option<&Outcome>) -> Result<CreateNetwork> {
        let config = self.config;
        let mut subnets = config.subnets.clone();
        for ip in leased.iter().flat_map(|leased| &leased.ips) {
            let subnet = IpNetwork::new(ip.address.network(), ip.address.prefix());
            let subnet = subnet.map_err(|e| Error::config(format!("ipam: {}: {e}", ip.address)))?;
            subnets.push(Subnet { subnet: Some(subnet), gateway: ip.gateway, ..Subnet::default() });
        }
        let has = |ipv6| subnets.iter().filter_map(|s| s.subnet).any(|subnet| subnet.is_ipv6() == ipv6);
        Ok(CreateNetwork {
            name: config.name.clone(),
            internal: config.internal,
            ipv4: Some(has(false) || subnets.is_empty()),
            ipv6: config.ipv6 || has(true),
            options: config.options.clone(),
            subnets,
            ..CreateNetwork::default()
        })
    }

    fn wanted(&self, network: &view::Network, leased: Option<&Outcome>) -> Result<EngineContainer> {
        let gateways = self.gateways(network, leased)?;
        let addrs: Vec<IpNetwork> =
            leased.map(|l| l.ips.iter().map(|ip| ip.address).collect()).unwrap_or_default();
        if let Some(addr) = addrs.iter().find(|addr| gateway_of(network, **addr) == Some(addr.ip())) {
            return Err(Error::new(Code::Taken, format!("ipam: address {addr} is the bridge's own")));
        }
        let interface = EngineInterface {
            network: self.network.clone(),
            interface: self.call.interface.clone(),
            mac: self.config.mac,
            addrs,
            ips: if leased.is_some() { Vec::new() } else { self.config.ips.clone() },
            gateways: Some(gateways.clone()),
            aliases: self.config.aliases.clone(),
            gw_priority: self.priority(),
            ..EngineInterface::default()
        };
        let others = self.other_interfaces()?;
        let ports = if gateways.is_empty() && others.iter().all(|other| other.gateways.is_empty()) {
            self.check_unreachable()?;
            Vec::new()
        } else {
            self.config.ports.clone()
        };
        Ok(self.with_interface(interface, ports))
    }

    /// Where the container's default routes lead.
    fn gateways(&self, network: &view::Network, leased: Option<&Outcome>) -> Result<Vec<IpAddr>> {
        if self.config.internal {
            return Ok(Vec::new());
        }
        let mut gateways = Vec::new();
        for gateway in network.subnets.iter().filter_map(|subnet| subnet.gateway) {
            let asked = match leased {
                None => self.config.default_route.unwrap_or(true),
                Some(leased) => {
                    let mut routes = leased.routes.iter().filter(|r| r.is_default());
                    let route = routes.find(|route| route.to.is_ipv6() == gateway.is_ipv6());
                    if let Some(other) =
                        route.and_then(|route| route.gateway).filter(|other| *other != gateway)
                    {
                        return Err(Error::config(format!(
                            "ipam: the default route leads to {other}, and the bridge has {gateway}"
                        )));
                    }
                    route.is_some() || self.config.default_route == Some(true)
                }
            };
            if asked {
                gateways.push(gateway);
            }
        }
        Ok(gateways)
    }

    /// What the container has on other networks.
    ///
    /// # Errors
    /// [`Code::Taken`] when one of them has the name that this one is to have.
    pub(super) fn other_interfaces(&self) -> Result<Vec<view::Endpoint>> {
        let container = self.daemon.find(|client| client.container(&self.container))?;
        let endpoints = container.into_iter().flat_map(|container| container.endpoints);
        let others: Vec<_> = endpoints.filter(|endpoint| endpoint.network_id != self.network).collect();
        match others.iter().find(|other| other.interface == self.call.interface) {
            Some(other) => Err(Error::new(
                Code::Taken,
                format!(
                    "the container's interface {} is on network {} already",
                    other.interface, other.network
                ),
            )),
            None => Ok(others),
        }
    }

    /// Ports of a container that cannot answer: those of an internal network are let pass, as Docker does, for the engine
    /// says the same ports for each of a container's networks.
    fn check_unreachable(&self) -> Result<()> {
        match self.config.ports.first() {
            Some(port) if !self.config.internal => Err(Error::config(format!(
                "cannot publish {}: without a default route the container could not answer: leave out isDefaultGateway, \
                 or add a route to ipam",
                ports::show(port)
            ))),
            _ => Ok(()),
        }
    }

    fn outcome(
        &self,
        network: &view::Network,
        container: &view::Container,
        leased: Option<&Outcome>,
    ) -> Result<Outcome> {
        let netns = self.call.netns()?;
        let endpoint = container.endpoints.iter().find(|e| e.interface == self.call.interface);
        let endpoint =
            endpoint.ok_or_else(|| Error::new(Code::Failed, "the daemon has made another interface"))?;
        let failed = |e: anyhow::Error| Error::new(Code::Failed, format!("{e:#}"));
        if self.config.hairpin {
            interfaces::set_hairpin(&endpoint.host_interface).map_err(failed)?;
        }
        let Bandwidth { incoming, outgoing } = self.config.bandwidth;
        if incoming.is_some() || outgoing.is_some() {
            shaping::limit(netns, &self.call.interface, outgoing, incoming).map_err(failed)?;
        }
        let mut routes = Vec::new();
        for route in leased.iter().flat_map(|leased| &leased.routes).filter(|route| !route.is_default()) {
            if route.has_more {
                return Err(Error::config(format!(
                    "ipam: the route to {} is to have more than a gateway, which rnet does not set",
                    route.to
                )));
            }
            // As of the bridge plugin, the subnet's gateway where the route names none.
            let gateway = route.gateway.or_else(|| {
                network.subnets.iter().filter_map(|s| s.gateway).find(|g| g.is_ipv6() == route.to.is_ipv6())
            });
            interfaces::add_route(netns, &self.call.interface, route.to, gateway)
                .map_err(|e| Error::new(Code::Failed, format!("{e:#}")))?;
            routes.push(Route { gateway, ..route.clone() });
        }
        let inside = interfaces::inside(netns, &self.call.interface).map_err(failed)?;
        for gateway in inside.iter().flat_map(|inside| &inside.gateways) {
            let everywhere = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            let to =
                everywhere.parse().map_err(|e| Error::new(Code::Failed, format!("{everywhere}: {e}")))?;
            routes.insert(0, Route { to, gateway: Some(*gateway), has_more: false });
        }
        let bridge = network.bridge.clone().unwrap_or_default();
        let host = |name: &str| -> Result<Interface> {
            let seen = interfaces::interface(name).map_err(failed)?;
            Ok(Interface {
                name: name.to_owned(),
                mac: seen.as_ref().map(|seen| seen.mac.to_string()),
                mtu: seen.and_then(|seen| seen.mtu),
                sandbox: None,
            })
        };
        let veth = host(&endpoint.host_interface)?;
        let own = Interface {
            name: endpoint.interface.clone(),
            mac: Some(endpoint.mac.to_string()),
            mtu: veth.mtu,
            sandbox: Some(netns.display().to_string()),
        };
        Ok(Outcome {
            interfaces: vec![host(&bridge)?, veth, own],
            ips: endpoint
                .addrs
                .iter()
                .map(|addr| Ip { address: *addr, gateway: gateway_of(network, *addr), interface: Some(2) })
                .collect(),
            routes,
            dns: self.dns(network, leased),
        })
    }

    /// What the plugin that gave the addresses says, else the configuration; before it rnet's own servers, if asked for.
    fn dns(&self, network: &view::Network, leased: Option<&Outcome>) -> Value {
        let is_empty = |dns: &&Value| dns.as_object().is_none_or(serde_json::Map::is_empty);
        let theirs = leased.map(|leased| &leased.dns).filter(|dns| !is_empty(dns));
        let mut dns = theirs.unwrap_or(&self.config.dns).clone();
        if !self.config.name_server {
            return dns;
        }
        let own = network.subnets.iter().filter_map(|subnet| subnet.gateway).map(|gateway| json!(gateway));
        let others = dns["nameservers"].as_array().cloned().unwrap_or_default();
        dns["nameservers"] = own.chain(others).collect();
        dns
    }
}

fn gateway_of(network: &view::Network, addr: IpNetwork) -> Option<IpAddr> {
    network.subnets.iter().find(|subnet| subnet.subnet.contains(addr.ip())).and_then(|subnet| subnet.gateway)
}

/// What of a network that is there is not as it was asked for.
fn difference(network: &view::Network, asked: &CreateNetwork) -> Option<String> {
    if network.internal != asked.internal {
        return Some("internal".to_owned());
    }
    if network.options != asked.options {
        return Some("bridge or option".to_owned());
    }
    if network.ipv6 != asked.ipv6 {
        return Some("ipv6".to_owned());
    }
    let missing = asked.subnets.iter().find(|asked| {
        !network.subnets.iter().any(|subnet| {
            asked.subnet == Some(subnet.subnet)
                && asked.ip_range == subnet.ip_range
                && (asked.gateway.is_none() || asked.gateway == subnet.gateway)
        })
    });
    missing.map(|_| {
        let there: Vec<String> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
        format!("subnet or gateway ({})", there.join(", "))
    })
}
