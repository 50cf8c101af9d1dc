//! From what is wanted to the steps that make it so. Pure: the same record always gives the same steps, which
//! is how a removal, or the healing of an interrupted run, knows what there is to remove.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;

use super::{
    backend::{BridgeSpec, Direct, EndpointAddr, VethSpec},
    error::{Error, Result},
    files::ContainerFiles,
    model::options::NetworkOptions,
    step::{Change, EndpointIntent, Step},
};
use crate::store::schema::{Container, Endpoint, Network, Phase};

/// What the kernel gives a veth (`ETH_DATA_LEN`), in bytes.
const DEFAULT_MTU: u32 = 1500;

/// Makes a network. `addresses` are the host's own as the datapath knows them.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn create_network(network: &Network, addresses: &[IpAddr]) -> Result<Vec<Step>> {
    let ready = Network { phase: Phase::Ready, ..network.clone() };
    let objects = network_objects(network, addresses)?;
    if objects.is_empty() {
        return Ok(vec![Step::SaveNetwork(Change::add(ready))]);
    }
    let creating = Network { phase: Phase::Creating, ..network.clone() };
    let mut steps = vec![Step::SaveNetwork(Change::add(creating.clone()))];
    steps.extend(objects);
    steps.push(Step::SaveNetwork(Change::replace(creating, ready)));
    Ok(steps)
}

/// Removes what a network has in the kernel.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn remove_network(network: &Network, addresses: &[IpAddr]) -> Result<Vec<Step>> {
    let without: Vec<IpAddr> = addresses
        .iter()
        .filter(|addr| !network.subnets.iter().any(|s| s.gateway == Some(**addr)))
        .copied()
        .collect();
    Ok(undo(&network_objects(network, &without)?))
}

/// The bridge of a network.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn bridge(network: &Network) -> Result<Option<BridgeSpec>> {
    let Some(name) = network.bridge.clone() else {
        return Ok(None);
    };
    let gateways = network.subnets.iter().filter_map(|s| Some((s.gateway?, s.subnet)));
    let addrs = gateways.map(|(addr, subnet)| interface_addr(addr, subnet)).collect::<Result<_>>()?;
    Ok(Some(BridgeSpec { name, addrs, mtu: NetworkOptions::parse(&network.options)?.mtu }))
}

/// Makes a container as `ready` describes it. `network` is the one that it is on.
///
/// # Errors
/// As [`container_objects`].
pub(super) fn create_container(
    ready: &Container,
    network: Option<&Network>,
    netns: &Path,
    files: ContainerFiles,
) -> Result<Vec<Step>> {
    let creating = Container { phase: Phase::Creating, ..ready.clone() };
    let dir = files.dir.clone();
    let mut steps = vec![Step::SaveContainer(Change::add(creating.clone())), Step::WriteFiles(files)];
    steps.extend(container_objects(ready, network, netns, &dir)?);
    steps.push(Step::SaveContainer(Change::replace(creating, ready.clone())));
    Ok(steps)
}

/// Removes what a container has in the kernel; its files stay.
///
/// # Errors
/// As [`container_objects`].
pub(super) fn release_container(
    container: &Container,
    network: Option<&Network>,
    netns: &Path,
    dir: &Path,
) -> Result<Vec<Step>> {
    Ok(undo(&container_objects(container, network, netns, dir)?))
}

/// Makes one interface of a container: the veth, then what the datapath knows of it.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn connect(endpoint: &Endpoint, network: &Network, netns: &Path) -> Result<[Step; 2]> {
    let veth = veth(endpoint, network, netns.to_owned())?;
    Ok([Step::CreateVeth(veth), Step::AddEndpoint(endpoint_intent(endpoint, network)?)])
}

/// An endpoint for the datapath.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn endpoint_intent(endpoint: &Endpoint, network: &Network) -> Result<EndpointIntent> {
    let options = NetworkOptions::parse(&network.options)?;
    let addr = |addr: &IpNetwork| EndpointAddr {
        addr: addr.ip(),
        gateway: network.subnets.iter().find(|s| s.subnet.contains(addr.ip())).and_then(|s| s.gateway),
        masquerade: options.masquerade && options.gateway_mode(addr.is_ipv6()).translates(),
        direct: if network.internal { Direct::None } else { options.gateway_mode(addr.is_ipv6()).direct() },
    };
    Ok(EndpointIntent {
        host_name: endpoint.host_interface.clone(),
        bridge: bridge_name(network)?,
        network: network.number,
        mac: endpoint.mac,
        addrs: endpoint.addrs.iter().map(addr).collect(),
        mtu: options.mtu.unwrap_or(DEFAULT_MTU),
        policy: options.policy(network.internal),
    })
}

/// An address with the prefix length of its subnet.
///
/// # Errors
/// [`Error::Invalid`] when they are of different families.
pub(super) fn interface_addr(addr: IpAddr, subnet: IpNetwork) -> Result<IpNetwork> {
    IpNetwork::new(addr, subnet.prefix())
        .map_err(|e| Error::Invalid(format!("invalid address {addr} for subnet {subnet}: {e}")))
}

fn network_objects(network: &Network, addresses: &[IpAddr]) -> Result<Vec<Step>> {
    let Some(bridge) = bridge(network)? else {
        return Ok(Vec::new());
    };
    let mut after = addresses.to_vec();
    after.extend(bridge.addrs.iter().map(IpNetwork::ip));
    after.sort_unstable();
    after.dedup();
    Ok(vec![Step::CreateBridge(bridge), Step::SetAddresses { before: addresses.to_vec(), after }])
}

/// What a container has in the kernel, in the order in which it is made: a packet never finds a program
/// without the entries that it looks up, nor a port without the endpoint behind it.
fn container_objects(
    container: &Container,
    network: Option<&Network>,
    netns: &Path,
    dir: &Path,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(name) = &container.netns {
        steps.push(Step::CreateNetns(name.clone()));
        steps.push(Step::HoldNamespaces { dir: dir.to_owned(), hostname: container.hostname.clone() });
    }
    if let Some(network) = network {
        for endpoint in &container.endpoints {
            steps.extend(connect(endpoint, network, netns)?);
        }
    }
    if !container.ports.is_empty() {
        steps.push(Step::Publish(container.ports.clone()));
    }
    Ok(steps)
}

fn veth(endpoint: &Endpoint, network: &Network, netns: PathBuf) -> Result<VethSpec> {
    let options = NetworkOptions::parse(&network.options)?;
    Ok(VethSpec {
        host_name: endpoint.host_interface.clone(),
        bridge: bridge_name(network)?,
        netns,
        name: endpoint.interface.clone(),
        mac: endpoint.mac,
        addrs: endpoint.addrs.clone(),
        gateways: endpoint.gateways.clone(),
        isolated: !options.icc,
        mtu: options.mtu,
    })
}

fn bridge_name(network: &Network) -> Result<String> {
    let missing =
        || Error::Invalid(format!("network {} has no bridge to connect a container to", network.name));
    network.bridge.clone().ok_or_else(missing)
}

fn undo(steps: &[Step]) -> Vec<Step> {
    steps.iter().rev().filter_map(Step::inverse).collect()
}
