//! From Docker's words to the controller's. Pure: what has to be looked up is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use ipnetwork::IpNetwork;

use super::{
    DefaultNetwork,
    messages::{Container, Endpoint, Member, Network, Pool, PortBinding, PortBindings},
};
use crate::{
    controller::{
        model::{
            InterfaceAddr, MacAddr, Protocol,
            engine::Engine,
            options::{self, GatewayMode, NetworkOptions},
            port_spec::{PortChoice, PortMapping},
        },
        request::{EngineContainer, EngineInterface, EngineNetwork},
        view::SubnetView,
    },
    host::bridge_ports::BridgePort,
};

const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Options that are about what dockerd does itself, or that say again what other fields say.
const OF_NO_CONCERN: [&str; 6] = [
    DEFAULT_BRIDGE,
    "com.docker.network.container_iface_prefix",
    "com.docker.network.container_interface_prefix",
    "com.docker.network.enable_ipv4",
    "com.docker.network.enable_ipv6",
    "com.docker.network.bridge.vlan_filtering",
];

/// A bridge network that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Followed {
    pub network: EngineNetwork,
    /// What of it is not served, in words.
    pub unserved: Vec<String>,
}

/// A bridge network as the controller is to know it. `addrs` are the bridge's own; `default` is for the default network.
///
/// # Errors
/// Why it cannot be followed.
pub(super) fn network(
    network: &Network,
    addrs: &[InterfaceAddr],
    default: DefaultNetwork,
) -> Result<Followed, String> {
    let bridge = bridge_name(network);
    let mut wanted = BTreeMap::new();
    let mut unserved = Vec::new();
    for (key, value) in &network.options {
        // Docker makes the interfaces itself.
        if options::is_known(key) && key != options::LINK {
            wanted.insert(key.clone(), value.clone());
        } else if !OF_NO_CONCERN.contains(&key.as_str()) {
            unserved.push(format!("network {}: option {key}={value} is not served", network.name));
        }
    }
    wanted.insert(BRIDGE_NAME.to_owned(), bridge.clone());
    if network.options.get(DEFAULT_BRIDGE).is_some_and(|is| is == "true") {
        wanted.insert(options::ENABLE_IP_MASQUERADE.to_owned(), default.masquerade.to_string());
        if !default.icc {
            wanted.insert(options::ENABLE_ICC.to_owned(), default.icc.to_string());
        }
    }
    let read = NetworkOptions::parse(&wanted).map_err(|e| e.to_string())?;
    let subnet = |pool: &Pool| subnet(pool, &read, addrs);
    let subnets: Vec<_> = network.ipam.config.iter().map(subnet).collect::<Result<_, _>>()?;
    let network = EngineNetwork {
        engine: Engine::Docker,
        id: network.id.clone(),
        name: network.name.clone(),
        bridge,
        subnets,
        internal: network.internal,
        options: wanted,
        labels: network.labels.clone(),
    };
    Ok(Followed { network, unserved })
}

/// The interface of a bridge network.
pub(super) fn bridge_name(network: &Network) -> String {
    let named = network.options.get(BRIDGE_NAME).filter(|name| !name.is_empty());
    named.cloned().unwrap_or_else(|| format!("br-{}", network.id.get(..12).unwrap_or(&network.id)))
}

fn subnet(pool: &Pool, options: &NetworkOptions, addrs: &[InterfaceAddr]) -> Result<SubnetView, String> {
    let parse = |text: &str| text.parse::<IpNetwork>().map_err(|e| format!("subnet {text}: {e}"));
    let subnet = parse(&pool.subnet)?;
    let subnet = IpNetwork::new(subnet.network(), subnet.prefix()).unwrap_or(subnet);
    let is_isolated = options.gateway_mode(subnet.is_ipv6()) == GatewayMode::Isolated;
    // dockerd does not always say it, and the bridge knows best.
    let on_bridge = addrs.iter().map(|addr| addr.ip()).find(|addr| subnet.contains(*addr));
    let said = pool.gateway.split('/').next().unwrap_or_default().parse().ok();
    let said = said.filter(|addr| subnet.contains(*addr));
    Ok(SubnetView {
        subnet,
        ip_range: if pool.ip_range.is_empty() { None } else { Some(parse(&pool.ip_range)?) },
        gateway: if is_isolated { None } else { on_bridge.or(said) },
        aux: BTreeMap::new(),
    })
}

/// A container's interface as the controller is to know it, and where it is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub endpoint: String,
    pub network: String,
    pub mac: MacAddr,
    pub addrs: Vec<InterfaceAddr>,
    pub aliases: Vec<String>,
    pub gw_priority: i64,
}

impl Interface {
    /// As its network tells of it.
    pub(super) fn of_member(network: &str, member: &Member) -> Option<Self> {
        let addrs = [&member.ipv4_address, &member.ipv6_address];
        Self::new(Self {
            endpoint: member.endpoint_id.clone(),
            network: network.to_owned(),
            mac: member.mac_address.parse().ok()?,
            addrs: addrs.into_iter().filter_map(|addr| addr.parse().ok()).collect(),
            aliases: Vec::new(),
            gw_priority: 0,
        })
    }

    /// As its container tells of it. None while it is not on the network yet.
    pub(super) fn of_endpoint(endpoint: &Endpoint) -> Option<Self> {
        Self::new(Self {
            endpoint: endpoint.endpoint_id.clone(),
            network: endpoint.network_id.clone(),
            mac: endpoint.mac_address.parse().ok()?,
            addrs: endpoint.addrs(),
            aliases: endpoint.aliases.clone(),
            gw_priority: endpoint.gw_priority,
        })
    }

    fn new(interface: Self) -> Option<Self> {
        Some(interface).filter(|i| !i.endpoint.is_empty() && !i.addrs.is_empty())
    }

    /// The same at its veth, under that one's name while it is not seen inside.
    pub(super) fn at(&self, port: &BridgePort) -> EngineInterface {
        EngineInterface {
            id: Some(self.endpoint.clone()),
            network: self.network.clone(),
            interface: port
                .inside
                .as_ref()
                .map_or(port.name.as_str(), |inside| inside.name.as_str())
                .to_owned(),
            veth: Some(port.name.clone()),
            mac: Some(self.mac),
            ips: Vec::new(),
            addrs: self.addrs.clone(),
            gateways: None,
            aliases: self.aliases.clone(),
            gw_priority: self.gw_priority,
        }
    }
}

/// Whether a container has a process.
pub(super) fn runs(container: &Container) -> bool {
    container.state.running && container.state.pid != 0
}

/// The networks that a container is on.
pub(super) fn networks_of(container: &Container) -> BTreeSet<String> {
    let networks = container.network_settings.networks.values();
    networks.map(|endpoint| endpoint.network_id.clone()).filter(|id| !id.is_empty()).collect()
}

/// The interfaces of a container on `networks`.
pub(super) fn interfaces(container: &Container, networks: &BTreeMap<String, Followed>) -> Vec<Interface> {
    let endpoints = container.network_settings.networks.values();
    endpoints
        .filter(|endpoint| networks.contains_key(&endpoint.network_id))
        .filter_map(Interface::of_endpoint)
        .collect()
}

/// A container with these interfaces, and what of it is not served, in words.
pub(super) fn container(
    container: &Container,
    netns: PathBuf,
    interfaces: Vec<EngineInterface>,
    networks: &BTreeMap<String, Followed>,
) -> (EngineContainer, Vec<String>) {
    let name = container.name.trim_start_matches('/').to_owned();
    let (ports, unserved) = ports(&container.network_settings.ports, &ways(&interfaces, networks));
    let unserved = unserved.into_iter().map(|why| format!("container {name}: {why}")).collect();
    let container = EngineContainer {
        engine: Engine::Docker,
        id: container.id.clone(),
        name,
        netns: Some(netns),
        interfaces,
        ports,
        keeps_ports: true,
    };
    (container, unserved)
}

/// The published ports of a container that is not running yet, as far as what was asked for says which dockerd holds.
pub(super) fn ports_to_be(
    asked: &PortBindings,
    interfaces: &[EngineInterface],
    networks: &BTreeMap<String, Followed>,
) -> Vec<PortMapping> {
    let bind = interfaces.iter().find_map(|i| networks.get(&i.network)?.network.options.get(HOST_BINDING));
    let mut exact = PortBindings::new();
    for (port, bindings) in asked {
        let bindings =
            bindings.iter().flatten().filter(|b| b.host_port.parse().is_ok_and(|port: u16| port != 0));
        let exactly = |binding: &PortBinding| match (binding.host_ip.as_str(), bind) {
            ("", Some(bind)) if bind != "0.0.0.0" => {
                vec![PortBinding { host_ip: bind.clone(), ..binding.clone() }]
            }
            ("", _) => {
                ["0.0.0.0", "::"].map(|any| PortBinding { host_ip: any.into(), ..binding.clone() }).into()
            }
            _ => vec![binding.clone()],
        };
        exact.insert(port.clone(), Some(bindings.flat_map(exactly).collect()));
    }
    ports(&exact, &ways(interfaces, networks)).0
}

/// The address families in which a container can be reached from outside: whether of IPv6.
fn ways(interfaces: &[EngineInterface], networks: &BTreeMap<String, Followed>) -> BTreeSet<bool> {
    let leads_out = |i: &&EngineInterface| networks.get(&i.network).is_some_and(|n| !n.network.internal);
    interfaces.iter().filter(leads_out).flat_map(|i| &i.addrs).map(|addr| addr.is_ipv6()).collect()
}

/// The published ports. `ways` are the address families that the container can be reached in: whether of IPv6. As with
/// Docker without its proxy, a port of one that it has not leads nowhere.
fn ports(said: &PortBindings, ways: &BTreeSet<bool>) -> (Vec<PortMapping>, Vec<String>) {
    let (mut mappings, mut unserved) = (Vec::new(), Vec::new());
    for (port, bindings) in said {
        for binding in bindings.iter().flatten() {
            let Some(mapping) = mapping(port, binding) else {
                let PortBinding { host_ip, host_port } = binding;
                unserved.push(format!("port {port} at {host_ip:?}, {host_port:?} is not understood"));
                continue;
            };
            let leads_somewhere = match mapping.host_ip {
                Some(addr) => ways.contains(&addr.is_ipv6()),
                None => !ways.is_empty(),
            };
            if !leads_somewhere || mappings.contains(&mapping) {
                continue;
            }
            if mapping.protocol == Protocol::Sctp && mapping.host != PortChoice::Exactly(mapping.container) {
                unserved.push(format!(
                    "port {port} is not published at {}: SCTP can only be with host port and container port the same",
                    binding.host_port
                ));
                continue;
            }
            mappings.push(mapping);
        }
    }
    (mappings, unserved)
}

fn mapping(port: &str, binding: &PortBinding) -> Option<PortMapping> {
    let (number, protocol) = port.split_once('/')?;
    let host_ip: Option<IpAddr> = match binding.host_ip.as_str() {
        "" => None,
        addr => Some(addr.parse().ok()?),
    };
    Some(PortMapping {
        host_ip,
        // None is needed where the container's own is used (gateway mode `routed`).
        host: match binding.host_port.as_str() {
            "" | "0" => PortChoice::Ephemeral,
            port => PortChoice::Exactly(port.parse().ok()?),
        },
        container: number.parse().ok()?,
        protocol: protocol.parse().ok()?,
    })
}
