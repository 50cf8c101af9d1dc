//! From libnetwork's words to rnet's. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{
    ENGINE,
    error::{Error, Result},
    messages::{self, AddressPool, CreateEndpoint, PortBinding},
};
use crate::controller::{
    model::{
        Binding, MacAddr, Protocol,
        name::short_id,
        options::{GatewayMode, NetworkOptions},
        port_spec::{PortChoice, PortMapping, PortRange},
    },
    request::{CreateNetwork, EngineContainer, EngineInterface, Subnet},
};

/// A network. dockerd does not tell its name, so it is called by the id that `docker network ls` shows.
///
/// # Errors
/// [`Error::Invalid`] for options that rnet does not have, in its own words.
pub(super) fn network(asked: &messages::CreateNetwork) -> Result<CreateNetwork> {
    let options: BTreeMap<_, _> =
        asked.options.generic.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    let parsed = NetworkOptions::parse(&options)?;
    let subnets = [(&asked.ipv4, false), (&asked.ipv6, true)].into_iter().flat_map(|(pools, ipv6)| {
        // Docker gives every network a gateway, and there the bridge has none.
        let has_gateway = parsed.gateway_mode(ipv6) != GatewayMode::Isolated;
        pools.iter().map(move |pool| subnet(pool, has_gateway))
    });
    Ok(CreateNetwork {
        name: short_id(&asked.network).to_owned(),
        subnets: subnets.collect(),
        internal: asked.options.internal,
        attachable: false,
        ipv4: Some(!asked.ipv4.is_empty()),
        ipv6: !asked.ipv6.is_empty(),
        options,
        labels: BTreeMap::new(),
    })
}

fn subnet(pool: &AddressPool, has_gateway: bool) -> Subnet {
    Subnet {
        subnet: pool.pool,
        ip_range: None,
        gateway: pool.gateway.map(|gateway| gateway.ip()).filter(|_| has_gateway),
        aux: pool.aux_addresses.iter().map(|(name, addr)| (name.clone(), addr.ip())).collect(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A new endpoint, without ports: these come once it has been joined.
pub(super) fn endpoint(asked: &CreateEndpoint) -> EngineContainer {
    let CreateEndpoint { network, endpoint, interface } = asked;
    let addrs = [interface.ipv4, interface.ipv6].into_iter().flatten().collect();
    let mac = interface.mac.or_else(|| interface.ipv4.and_then(mac_of));
    let known = known(endpoint, network, Vec::new());
    let interfaces = known.interfaces.into_iter();
    let interfaces = interfaces.map(|known| EngineInterface { mac, addrs: Vec::clone(&addrs), ..known });
    EngineContainer { interfaces: interfaces.collect(), ..known }
}

/// The Ethernet address that Docker's own networks go with an address: whoever has the address next has this one, too, so
/// that what neighbours remember stays true. dockerd does not announce what it sets.
fn mac_of(addr: IpNetwork) -> Option<MacAddr> {
    let IpAddr::V4(addr) = addr.ip() else { return None };
    let [a, b, c, d] = addr.octets();
    Some(MacAddr([0x02, 0x42, a, b, c, d]))
}

/// An endpoint that is there, with these ports. It is a container of its own: which endpoints are one container's,
/// dockerd does not tell.
pub(super) fn known(endpoint: &str, network: &str, ports: Vec<PortMapping>) -> EngineContainer {
    EngineContainer {
        engine: ENGINE,
        id: endpoint.to_owned(),
        name: short_id(endpoint).to_owned(),
        netns: None,
        interfaces: vec![EngineInterface {
            id: Some(endpoint.to_owned()),
            network: network.to_owned(),
            ..EngineInterface::default()
        }],
        ports,
        keeps_ports: false,
    }
}

/// Published ports, always in the same order: dockerd's is another one each time.
///
/// # Errors
/// [`Error::Invalid`] for a protocol that has no ports.
pub(super) fn ports(asked: &[PortBinding]) -> Result<Vec<PortMapping>> {
    let mut asked: Vec<_> = asked.iter().collect();
    asked.sort_by_key(|b| (b.proto, b.port, b.host_ip, b.host_port, b.host_port_end));
    // Twice the same would be one port and one that nobody has asked for.
    asked.dedup();
    asked.into_iter().map(port).collect()
}

fn port(asked: &PortBinding) -> Result<PortMapping> {
    let PortBinding { proto, port, host_ip, host_port, host_port_end, .. } = *asked;
    let protocol = Protocol::from_number(proto)
        .ok_or_else(|| Error::Invalid(format!("IP protocol {proto} has no ports that could be published")))?;
    let range = PortRange::new(host_port, host_port_end).filter(|_| host_port != host_port_end);
    let host = match (host_port, range) {
        (0, _) => PortChoice::Ephemeral,
        (_, Some(range)) => PortChoice::OneOf(range),
        (_, None) => PortChoice::Exactly(host_port),
    };
    Ok(PortMapping { host_ip, host, container: port, protocol })
}

/// A published port, as libnetwork would have it.
pub(super) fn published(binding: &Binding) -> PortBinding {
    PortBinding {
        proto: binding.host.protocol.number(),
        ip: Some(binding.addr),
        port: binding.port,
        host_ip: Some(binding.host.addr),
        host_port: binding.host.port,
        host_port_end: binding.host.port,
    }
}

/// The first address of a family.
pub(super) fn of_family(addrs: &[IpAddr], ipv6: bool) -> Option<IpAddr> {
    addrs.iter().copied().find(|addr| addr.is_ipv6() == ipv6)
}

/// The same of interfaces' addresses.
pub(super) fn interface_of_family(addrs: &[IpNetwork], ipv6: bool) -> Option<IpNetwork> {
    addrs.iter().copied().find(|addr| addr.is_ipv6() == ipv6)
}
