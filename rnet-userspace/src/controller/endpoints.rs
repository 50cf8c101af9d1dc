//! What a container's interface is like: addresses, names, and which of several has the default route.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Controller,
    backend::{Datapath, DefaultRoute, Host},
    error::{Error, Result},
    index::Members,
    ipam,
    model::{InterfaceAddr, MacAddr, name::new_id, options::NetworkOptions},
    plan,
    request::Connect,
    sizes,
    view::SubnetView,
};
use crate::store::schema::{Driver, Endpoint, Network, Phase};

/// The endpoint that leads outside, of one address family: that of the highest priority, and among equals that on
/// the first network by name, as with Docker. Internal networks lead nowhere.
pub(super) fn gateway_endpoint<'a>(
    endpoints: &'a [Endpoint],
    networks: &BTreeMap<String, Network>,
    ipv6: bool,
) -> Option<&'a Endpoint> {
    let name = |e: &Endpoint| networks.get(&e.network).map(|network| network.name.as_str());
    let leading_out = endpoints
        .iter()
        .filter(|e| e.phase != Phase::Removing && e.gateways.iter().any(|gateway| gateway.is_ipv6() == ipv6));
    leading_out.min_by(|a, b| b.gw_priority.cmp(&a.gw_priority).then_with(|| name(a).cmp(&name(b))))
}

/// The default routes of a container with these endpoints.
pub(super) fn default_routes(
    endpoints: &[Endpoint],
    networks: &BTreeMap<String, Network>,
) -> Vec<DefaultRoute> {
    let route = |ipv6| {
        let endpoint = gateway_endpoint(endpoints, networks, ipv6)?;
        let gateway = *endpoint.gateways.iter().find(|gateway| gateway.is_ipv6() == ipv6)?;
        Some(DefaultRoute { gateway, interface: endpoint.interface.clone() })
    };
    [false, true].into_iter().filter_map(route).collect()
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// The network that a container can be connected to.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for one without a bridge; [`Error::Conflict`] for one that is being
    /// removed.
    pub(super) fn joinable(&self, name_or_id: &str) -> Result<&Network> {
        // `default` is Docker's other name for it.
        let network = self.find_network(if name_or_id == "default" { "bridge" } else { name_or_id })?;
        match network.driver {
            Driver::Bridge if network.phase == Phase::Ready => Ok(network),
            Driver::Bridge => Err(Error::Conflict(format!("network {} is being removed", network.name))),
            Driver::Host => Err(Error::Invalid(
                "container cannot be disconnected from host network or connected to host network".to_owned(),
            )),
            Driver::Null => Err(Error::Invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                    .to_owned(),
            )),
        }
    }

    /// An interface on `network`. `interfaces` are the names that are taken inside the namespace.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Conflict`] when what is asked for cannot be had.
    pub(super) fn endpoint(
        &self,
        asked: &Connect,
        network: &Network,
        interfaces: &BTreeSet<String>,
    ) -> Result<Endpoint> {
        let fixed: Vec<IpAddr> =
            asked.ip.map(IpAddr::from).into_iter().chain(asked.ip6.map(IpAddr::from)).collect();
        // As with Docker, not on the default network.
        if !fixed.is_empty() && network.predefined {
            return Err(Error::Invalid(
                "user-specified IP address is supported on user-defined networks only: create one with `rnet network \
                 create --subnet`"
                    .to_owned(),
            ));
        }
        let has = |ipv6| network.subnets.iter().any(|s| s.subnet.is_ipv6() == ipv6);
        if let Some(addr) = fixed.iter().find(|addr| !has(addr.is_ipv6())) {
            let family = if addr.is_ipv6() { "IPv6" } else { "IPv4" };
            return Err(Error::Invalid(format!(
                "network {} has no {family} subnet that {addr} could be in",
                network.name
            )));
        }
        check_aliases(&asked.aliases, network)?;
        let nobody = Members::default();
        let members = self.machine.index.members(&network.id).unwrap_or(&nobody);
        let addrs = network.subnets.iter().map(|subnet| address(&fixed, subnet, &members.addrs));
        let addrs = addrs.collect::<Result<_>>()?;
        let id = new_id();
        Ok(Endpoint {
            network: network.id.clone(),
            phase: Phase::Ready,
            interface: free_interface(interfaces),
            host_interface: host_interface(network, &id)?,
            mac: mac(asked.mac, network, members)?,
            addrs,
            fixed,
            gateways: plan::gateways(network),
            gw_priority: asked.gw_priority,
            aliases: asked.aliases.clone(),
            borrowed: false,
            id,
        })
    }
}

/// The name of the host's end of an endpoint's pair: its kind, and the beginning of the endpoint's id.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn host_interface(network: &Network, id: &str) -> Result<String> {
    let kind = NetworkOptions::parse(&network.options)?.link;
    Ok(format!("{kind}{}", id.get(..8).unwrap_or(id)))
}

/// `eth0`, `eth1`, …: the first that nobody has.
fn free_interface(taken: &BTreeSet<String>) -> String {
    let mut names = (0_u32..).map(|n| format!("eth{n}"));
    // There are more numbers than interfaces.
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}

fn check_aliases(aliases: &[String], network: &Network) -> Result<()> {
    if !aliases.is_empty() && network.predefined {
        return Err(Error::Invalid(
            "network-scoped aliases are only supported for user-defined networks: create one with `rnet network create`"
                .to_owned(),
        ));
    }
    sizes::check_aliases(aliases)?;
    aliases.iter().try_for_each(|alias| super::model::name::check_hostname(alias))
}

fn mac(asked: Option<MacAddr>, network: &Network, members: &Members) -> Result<MacAddr> {
    let Some(mac) = asked else {
        return Ok(random_mac());
    };
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(Error::Invalid(format!("invalid MAC address {mac}: it is no interface's own")));
    }
    if members.macs.contains(&mac) {
        return Err(Error::Conflict(format!("MAC address {mac} is in use on network {}", network.name)));
    }
    Ok(mac)
}

fn address(fixed: &[IpAddr], subnet: &SubnetView, members: &BTreeSet<IpAddr>) -> Result<InterfaceAddr> {
    let reserved: Vec<IpAddr> = subnet.gateway.into_iter().chain(subnet.aux.values().copied()).collect();
    let taken = |addr: &IpAddr| members.contains(addr) || reserved.contains(addr);
    let addr = match fixed.iter().find(|addr| addr.is_ipv6() == subnet.subnet.is_ipv6()) {
        Some(addr) => ipam::check_fixed(subnet.subnet, *addr, taken).map(|()| *addr),
        None => ipam::lowest_free(subnet.subnet, subnet.ip_range, taken),
    };
    let addr = addr.map_err(|e| match e {
        ipam::AddressError::OutOfRange(..) => Error::Invalid(e.to_string()),
        ipam::AddressError::Full(_) | ipam::AddressError::InUse(_) => Error::Conflict(e.to_string()),
    })?;
    plan::interface_addr(addr, subnet.subnet)
}

fn random_mac() -> MacAddr {
    let mut octets: [u8; 6] = rand::random();
    // Of one interface, and administered locally.
    octets[0] = octets[0] & 0xfc | 0x02;
    MacAddr(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_numbered_from_the_first_free() {
        let taken = |names: &[&str]| free_interface(&names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(taken(&["lo"]), "eth0");
        assert_eq!(taken(&["lo", "eth0", "eth2"]), "eth1");
    }
}
