//! Podman's networks, as a plugin of netavark: `podman network create -d rnet`.
//!
//! Podman keeps networks and addresses itself, calls `create` once for a network, `setup` and `teardown` with each
//! container, and says nothing when a network is removed. So rnet has a network as long as containers are on it; what
//! `create` answers is what rnet would make, found out by making it and taking it away again.
//!
//! Source: netavark's plugin-API.md, API version 1.0.0.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    api::client::Client,
    controller::{
        model::{
            MacAddr, Protocol,
            engine::Engine,
            port_spec::{PortChoice, PortMapping},
        },
        request::{CreateNetwork, EngineContainer, EngineInterface, Subnet},
        view,
    },
};

/// The version of the API that is spoken.
const API_VERSION: &str = "1.0.0";
/// Podman gives the addresses, and keeps its ranges.
const PODMANS_IPAM: &str = "host-local";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
/// How often something is tried that others may be in the way of: a network whose last container goes at this moment, a
/// subnet that is in use.
const TRIES: usize = 5;

/// What a plugin answers to `info`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    version: &'static str,
    api_version: &'static str,
}

/// Which version of what API this is.
pub fn info() -> Info {
    Info { version: env!("CARGO_PKG_VERSION"), api_version: API_VERSION }
}

/// A network as Podman keeps it. What is not named here goes back as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_interface: Option<String>,
    #[serde(default)]
    subnets: Option<Vec<PodmanSubnet>>,
    #[serde(default)]
    ipv6_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    dns_enabled: bool,
    #[serde(default)]
    ipam_options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PodmanSubnet {
    subnet: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_range: Option<Value>,
}

/// A container that comes onto a network, or leaves it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    container_id: String,
    container_name: String,
    #[serde(default)]
    port_mappings: Option<Vec<Published>>,
    network: Network,
    network_options: InterfaceOptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Published {
    container_port: u16,
    #[serde(default)]
    host_ip: String,
    host_port: u16,
    /// One, or several separated by commas.
    protocol: String,
    /// How many ports from these on; 0 is 1.
    #[serde(default)]
    range: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct InterfaceOptions {
    interface_name: String,
    #[serde(default)]
    aliases: Option<Vec<String>>,
    #[serde(default)]
    static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    static_mac: Option<MacAddr>,
}

/// What a container has been given.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    dns_search_domains: Vec<String>,
    dns_server_ips: Vec<IpAddr>,
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Interface {
    mac_address: MacAddr,
    subnets: Vec<InterfaceSubnet>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct InterfaceSubnet {
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    ipnet: IpNetwork,
}

/// The network that Podman is to keep: as asked, with what rnet has chosen.
///
/// # Errors
/// When rnet could not make it, or cannot do what is asked of it.
pub async fn create(client: &Client, network: Network) -> Result<Network> {
    let request = network.request()?;
    let mut tries = 0;
    let made = loop {
        let request = with_subnets(request.clone(), &network.id, tries)?;
        match client.create_engine_network(Engine::Netavark, &network.id, request).await {
            // Subnets that nobody asked for, and that are in use.
            Err(e) if e.is_conflict() && tries < TRIES => tries += 1,
            made => break made?,
        }
    };
    client.remove_engine_network(Engine::Netavark, &network.id).await?;
    Ok(network.with(&made))
}

/// A request with subnets of the families that it has none of. Of Podman's networks rnet knows those only that
/// containers are on, so the next free subnet could be another network's: the network's id, which is a hash, chooses
/// among so many that two hardly meet.
fn with_subnets(mut request: CreateNetwork, id: &str, nth: usize) -> Result<CreateNetwork> {
    let byte = |at: usize| {
        let digits = id.get(2 * at..2 * at + 2).context("the network's id is too short")?;
        u8::from_str_radix(digits, 16).with_context(|| format!("understand the network's id {id}"))
    };
    let has = |ipv6| request.subnets.iter().any(|s| s.subnet.is_some_and(|subnet| subnet.is_ipv6() == ipv6));
    let mut chosen = Vec::new();
    if request.ipv4 == Some(true) && !has(false) {
        // 10.128.0.0/9, in subnets of /24.
        let addr = [10, 128 | byte(2 * nth)?, byte(2 * nth + 1)?, 0];
        chosen.push(IpNetwork::new(addr.into(), 24)?);
    }
    if request.ipv6 && !has(true) {
        // RFC 4193: 40 bits that look random, and a subnet of /64.
        let [a, b, c, d, e] = [byte(nth)?, byte(nth + 1)?, byte(nth + 2)?, byte(nth + 3)?, byte(nth + 4)?];
        let addr = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        chosen.push(IpNetwork::new(addr.into(), 64)?);
    }
    request
        .subnets
        .extend(chosen.into_iter().map(|subnet| Subnet { subnet: Some(subnet), ..Subnet::default() }));
    Ok(request)
}

/// Puts a container whose namespace is `netns` on a network.
///
/// # Errors
/// When that cannot be done; nothing is left of it then.
pub async fn setup(client: &Client, netns: PathBuf, attachment: &Attachment) -> Result<Status> {
    let network = &attachment.network;
    let container = attachment.container(netns)?;
    let mut tries = 0;
    loop {
        let made = client.create_engine_network(Engine::Netavark, &network.id, network.request()?).await?;
        match client.add_to_engine_container(&container).await {
            Ok(container) => return attachment.status(&made, &container),
            // Its last container has gone at this moment, and the network with it.
            Err(e) if e.is_not_found() && tries < TRIES => tries += 1,
            Err(e) => {
                attachment.leave(client).await?;
                return Err(e.into());
            }
        }
    }
}

/// Takes a container off a network.
///
/// # Errors
/// When that cannot be done.
pub async fn teardown(client: &Client, attachment: &Attachment) -> Result<()> {
    let Attachment { container_id, network_options, .. } = attachment;
    client.remove_engine_interface(Engine::Netavark, container_id, &network_options.interface_name).await?;
    attachment.leave(client).await
}

impl Network {
    fn request(&self) -> Result<CreateNetwork> {
        for (key, what) in [("routes", "static routes"), ("network_dns_servers", "name servers of its own")] {
            let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if self.rest.get(key).is_some_and(|value| !is_empty(value)) {
                bail!("network {} is to have {what}, which rnet does not serve: leave them out", self.name);
            }
        }
        let mut options = BTreeMap::new();
        for (key, value) in self.options.iter().flatten() {
            match (key.as_str(), value.as_str()) {
                ("mtu", _) => drop(options.insert(MTU.to_owned(), value.clone())),
                // Containers of different networks never reach one another.
                ("isolate", "true" | "strict") => {}
                ("isolate", _) => bail!(
                    "network option isolate={value}: rnet's networks are always isolated: leave the option out"
                ),
                _ => drop(options.insert(key.clone(), value.clone())),
            }
        }
        if let Some(interface) = self.network_interface.as_ref().filter(|name| !name.is_empty()) {
            options.insert(BRIDGE_NAME.to_owned(), interface.clone());
        }
        let subnets = self.subnets.as_deref().unwrap_or_default();
        let of_family = |ipv6| subnets.iter().any(|s| s.subnet.is_ipv6() == ipv6);
        Ok(CreateNetwork {
            name: self.name.clone(),
            subnets: subnets
                .iter()
                .map(|s| Subnet { subnet: Some(s.subnet), gateway: s.gateway, ..Subnet::default() })
                .collect(),
            internal: self.internal,
            attachable: false,
            // As with Podman's own driver, an IPv6 subnet alone makes a network of IPv6 alone.
            ipv4: Some(subnets.is_empty() || of_family(false)),
            ipv6: self.ipv6_enabled || of_family(true),
            options,
            labels: BTreeMap::new(),
        })
    }

    fn with(mut self, made: &view::Network) -> Self {
        let asked = self.subnets.take().unwrap_or_default();
        let lease_range = |subnet| {
            let asked = asked.iter().find(|asked| asked.subnet == subnet);
            asked.and_then(|asked| asked.lease_range.clone())
        };
        let subnets = made.subnets.iter().map(|s| PodmanSubnet {
            subnet: s.subnet,
            gateway: s.gateway,
            lease_range: lease_range(s.subnet),
        });
        self.subnets = Some(subnets.collect());
        self.network_interface.clone_from(&made.bridge);
        self.ipam_options
            .get_or_insert_default()
            .entry("driver".to_owned())
            .or_insert_with(|| PODMANS_IPAM.to_owned());
        self
    }
}

impl Attachment {
    fn container(&self, netns: PathBuf) -> Result<EngineContainer> {
        let options = &self.network_options;
        let addrs = options.static_ips.iter().flatten().map(|addr| self.interface_addr(*addr));
        let ports = self.port_mappings.iter().flatten();
        let ports = ports.map(Published::mappings).collect::<Result<Vec<_>>>()?.concat();
        Ok(EngineContainer {
            engine: Engine::Netavark,
            id: self.container_id.clone(),
            name: self.container_name.clone(),
            netns: Some(netns),
            interfaces: vec![EngineInterface {
                network: self.network.id.clone(),
                interface: options.interface_name.clone(),
                mac: options.static_mac,
                addrs: addrs.collect::<Result<_>>()?,
                aliases: options.aliases.clone().unwrap_or_default(),
                ..EngineInterface::default()
            }],
            ports,
            // Podman's conmon has the sockets.
            keeps_ports: true,
        })
    }

    fn interface_addr(&self, addr: IpAddr) -> Result<IpNetwork> {
        let mut subnets = self.network.subnets.iter().flatten();
        let subnet = subnets.find(|s| s.subnet.contains(addr));
        let subnet =
            subnet.with_context(|| format!("{addr} is in no subnet of network {}", self.network.name))?;
        Ok(IpNetwork::new(addr, subnet.subnet.prefix())?)
    }

    fn status(&self, network: &view::Network, container: &view::Container) -> Result<Status> {
        let name = &self.network_options.interface_name;
        let endpoint = container.endpoints.iter().find(|e| e.interface == *name);
        let endpoint = endpoint.with_context(|| format!("find interface {name}, which was made"))?;
        let gateway =
            |addr: &IpNetwork| network.subnets.iter().find(|s| s.subnet.contains(addr.ip()))?.gateway;
        let subnets = endpoint.addrs.iter().map(|addr| InterfaceSubnet {
            gateway: gateway(addr).filter(|_| !network.internal),
            ipnet: *addr,
        });
        let servers = network.subnets.iter().filter_map(|s| s.gateway);
        Ok(Status {
            dns_search_domains: Vec::new(),
            dns_server_ips: servers.filter(|_| self.network.dns_enabled).collect(),
            interfaces: [(name.clone(), Interface { mac_address: endpoint.mac, subnets: subnets.collect() })]
                .into(),
        })
    }

    /// Removes the network if nobody is on it any more.
    async fn leave(&self, client: &Client) -> Result<()> {
        match client.remove_engine_network(Engine::Netavark, &self.network.id).await {
            Err(e) if e.is_forbidden() => Ok(()),
            left => Ok(left?),
        }
    }
}

impl Published {
    fn mappings(&self) -> Result<Vec<PortMapping>> {
        let host_ip =
            match self.host_ip.as_str() {
                "" => None,
                addr => Some(addr.parse::<IpAddr>().with_context(|| {
                    format!("invalid host ip {addr:?} provided for port {}", self.host_port)
                })?),
            };
        let mut mappings = Vec::new();
        let mut protocols: Vec<Protocol> = Vec::new();
        for protocol in self.protocol.split(',') {
            let protocol = protocol.trim().parse().map_err(anyhow::Error::msg)?;
            // Twice the same would be a port that is in its own way.
            if !protocols.contains(&protocol) {
                protocols.push(protocol);
            }
        }
        for protocol in protocols {
            for n in 0..self.range.max(1) {
                let (Some(container), Some(host)) =
                    (self.container_port.checked_add(n), self.host_port.checked_add(n))
                else {
                    bail!(
                        "{} ports from {} and {} on go beyond 65535",
                        self.range,
                        self.host_port,
                        self.container_port
                    );
                };
                let host =
                    if self.host_port == 0 { PortChoice::Ephemeral } else { PortChoice::Exactly(host) };
                mappings.push(PortMapping { host_ip, host, container, protocol });
            }
        }
        Ok(mappings)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
