//! From what is wanted to the steps that make it so. Pure: the same record always gives the same steps, which
//! is how a removal, or the healing of an interrupted run, knows what there is to remove.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use rnet_common::source;

use super::{
    backend::{BridgeSpec, Direct, EndpointAddr, PairSpec},
    endpoints::default_routes,
    error::{Error, Result},
    files::ContainerFiles,
    model::{Binding, link::LinkKind, options::NetworkOptions},
    step::{Change, EndpointIntent, RouteChange, Step},
};
use crate::store::schema::{Container, Endpoint, Namespace, Network, Phase};

/// What the kernel gives a veth or a netkit (`ETH_DATA_LEN`), in bytes.
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
    if network.borrowed {
        let lent = network.bridge.clone().zip(network.adopted.clone());
        return Ok(lent.map(|(name, before)| Step::ReturnBridge { name, before }).into_iter().collect());
    }
    // What a bridge had before it was this network's it keeps.
    let kept = |addr: &IpAddr| network.adopted.iter().any(|a| a.addrs.iter().any(|own| own.ip() == *addr));
    let given = |addr: &IpAddr| network.subnets.iter().any(|s| s.gateway == Some(*addr)) && !kept(addr);
    let without: Vec<IpAddr> = addresses.iter().filter(|addr| !given(addr)).copied().collect();
    Ok(undo(&network_objects(network, &without)?))
}

/// The bridge of a network, unless it is an engine's own.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn bridge(network: &Network) -> Result<Option<BridgeSpec>> {
    let Some(name) = network.bridge.clone().filter(|_| !network.borrowed) else {
        return Ok(None);
    };
    let gateways = network.subnets.iter().filter_map(|s| Some((s.gateway?, s.subnet)));
    let addrs = gateways.map(|(addr, subnet)| interface_addr(addr, subnet)).collect::<Result<_>>()?;
    Ok(Some(BridgeSpec { name, addrs, mtu: NetworkOptions::parse(&network.options)?.mtu }))
}

/// Where a container's things are, and the networks that it may be on.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// Networks by id.
    pub networks: &'a BTreeMap<String, Network>,
    /// Its network namespace.
    pub netns: &'a Path,
    /// Its directory.
    pub dir: &'a Path,
}

/// Makes a container as `ready` describes it.
///
/// # Errors
/// As [`container_objects`].
pub(super) fn create_container(
    ready: &Container,
    place: &Place<'_>,
    files: Option<ContainerFiles>,
) -> Result<Vec<Step>> {
    let creating = Container { phase: Phase::Creating, ..ready.clone() };
    let mut steps = vec![Step::SaveContainer(Change::add(creating.clone()))];
    steps.extend(files.map(Step::WriteFiles));
    steps.extend(container_objects(ready, place)?);
    steps.push(Step::SaveContainer(Change::replace(creating, ready.clone())));
    Ok(steps)
}

/// Removes what a container has in the kernel; its files stay.
///
/// # Errors
/// As [`container_objects`].
pub(super) fn release_container(container: &Container, place: &Place<'_>) -> Result<Vec<Step>> {
    Ok(undo(&container_objects(container, place)?))
}

/// Makes one interface of a container: the pair, unless it is an engine's own, then what the datapath knows of it.
///
/// # Errors
/// [`Error::Invalid`] when the network is not there, or its options cannot be understood.
pub(super) fn connect(endpoint: &Endpoint, container: &Container, place: &Place<'_>) -> Result<Vec<Step>> {
    let network = network_of(endpoint, place.networks)?;
    let intent = endpoint_intent(endpoint, network)?;
    let is_isolated = !intent.policy.icc;
    let add = Step::AddEndpoint(intent);
    if endpoint.borrowed {
        let isolate = is_isolated.then(|| Step::IsolatePort(endpoint.host_interface.clone()));
        return Ok(isolate.into_iter().chain([add]).collect());
    }
    let routes = default_routes(&container.endpoints, place.networks);
    let gateways = routes.into_iter().filter(|route| route.interface == endpoint.interface);
    let gateways = gateways.map(|route| route.gateway).collect();
    let netns = container.netns.as_ref().map(|_| place.netns.to_owned());
    Ok(vec![Step::CreatePair(pair(endpoint, network, gateways, netns)?), add])
}

/// Takes one interface from a container.
///
/// # Errors
/// As [`connect`].
pub(super) fn disconnect(endpoint: &Endpoint, networks: &BTreeMap<String, Network>) -> Result<Vec<Step>> {
    let network = network_of(endpoint, networks)?;
    let intent = endpoint_intent(endpoint, network)?;
    let link = endpoint.host_interface.clone();
    let is_isolated = !intent.policy.icc;
    let mut steps = vec![Step::RemoveEndpoint(intent)];
    if !endpoint.borrowed {
        steps.push(Step::DeletePair(link));
    } else if is_isolated {
        steps.push(Step::ReleasePort(link));
    }
    Ok(steps)
}

/// What makes a container's ports and default routes of `before` those of `after`, all of whose interfaces are there.
pub(super) fn redirect(before: &Container, after: &Container, place: &Place<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let routes = |container: &Container| default_routes(&container.endpoints, place.networks);
    if after.has_own_routes() && routes(before) != routes(after) {
        steps.push(default_routes_of(before, after, place.networks, place.netns.to_owned()));
    }
    let (old, new) = (sources(before), sources(after));
    steps.extend(new.iter().filter(|(number, _)| !old.contains_key(number)).map(|(number, from)| {
        Step::SetSources { number: *number, before: Vec::new(), after: (*from).clone() }
    }));
    let (old_bindings, new_bindings) = (bindings(before), bindings(after));
    if old_bindings != new_bindings {
        steps.push(Step::Republish { before: old_bindings, after: new_bindings });
    }
    steps.extend(old.iter().filter(|(number, _)| !new.contains_key(number)).map(|(number, from)| {
        Step::SetSources { number: *number, before: (*from).clone(), after: Vec::new() }
    }));
    steps
}

/// Makes the default routes of a container of `before` those of `after`.
pub(super) fn default_routes_of(
    before: &Container,
    after: &Container,
    networks: &BTreeMap<String, Network>,
    netns: PathBuf,
) -> Step {
    let interfaces = before.endpoints.iter().chain(&after.endpoints).map(|e| e.interface.clone());
    let interfaces: BTreeSet<_> = interfaces.collect();
    Step::SetDefaultRoutes(RouteChange {
        netns,
        interfaces: interfaces.into_iter().collect(),
        before: default_routes(&before.endpoints, networks),
        after: default_routes(&after.endpoints, networks),
    })
}

/// Tells the datapath the lists of sources of a container's ports.
pub(super) fn source_lists(container: &Container) -> impl Iterator<Item = Step> + use<> {
    let lists = sources(container).into_iter();
    let steps: Vec<_> = lists
        .map(|(number, from)| Step::SetSources { number, before: Vec::new(), after: from.clone() })
        .collect();
    steps.into_iter()
}

/// What an interface of a container is one end of. Of an engine's own it is a veth.
///
/// # Errors
/// [`Error::Invalid`] when the network is not there, or its options cannot be understood.
pub(super) fn link_kind(endpoint: &Endpoint, networks: &BTreeMap<String, Network>) -> Result<LinkKind> {
    Ok(NetworkOptions::parse(&network_of(endpoint, networks)?.options)?.link)
}

/// All that a container's ports are in the datapath.
pub(super) fn bindings(container: &Container) -> Vec<Binding> {
    container.ports.iter().flat_map(|publication| publication.bindings.iter().copied()).collect()
}

/// The lists of sources of a container's ports, by number.
pub(super) fn sources(container: &Container) -> BTreeMap<u32, &Vec<IpNetwork>> {
    let numbers = container.ports.iter().flat_map(|p| p.bindings.iter().map(move |b| (b.sources, &p.from)));
    numbers.filter(|(number, _)| *number != 0).collect()
}

/// The gateways of a network's containers; none where nothing leads outside.
pub(super) fn gateways(network: &Network) -> Vec<IpAddr> {
    if network.internal {
        return Vec::new();
    }
    network.subnets.iter().filter_map(|subnet| subnet.gateway).collect()
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

/// Tells the datapath the destinations that a network does not masquerade towards.
///
/// # Errors
/// [`Error::Invalid`] when the network's options cannot be understood.
pub(super) fn exemptions(network: &Network) -> Result<Option<Step>> {
    let after = NetworkOptions::parse(&network.options)?.non_masquerade;
    let number = source::exempt(network.number);
    Ok((!after.is_empty()).then_some(Step::SetSources { number, before: Vec::new(), after }))
}

fn network_objects(network: &Network, addresses: &[IpAddr]) -> Result<Vec<Step>> {
    let exemptions = exemptions(network)?;
    let Some(bridge) = bridge(network)? else {
        return Ok(exemptions.into_iter().collect());
    };
    let mut after = addresses.to_vec();
    after.extend(bridge.addrs.iter().map(IpNetwork::ip));
    after.sort_unstable();
    after.dedup();
    let bridge = match network.adopted.clone() {
        Some(before) => Step::AdoptBridge { spec: bridge, before },
        None => Step::CreateBridge(bridge),
    };
    let mut steps = vec![bridge, Step::SetAddresses { before: addresses.to_vec(), after }];
    steps.extend(exemptions);
    Ok(steps)
}

/// What a container has in the kernel, in the order in which it is made: a packet never finds a program
/// without the entries that it looks up, nor a port without the endpoint behind it.
fn container_objects(container: &Container, place: &Place<'_>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(Namespace::Own(name)) = &container.netns {
        steps.push(Step::CreateNetns(name.clone()));
    }
    if let (None, Some(Namespace::Own(_) | Namespace::Given { .. })) = (container.engine, &container.netns) {
        steps.push(Step::HoldNamespaces { dir: place.dir.to_owned(), hostname: container.hostname.clone() });
    }
    for endpoint in &container.endpoints {
        steps.extend(connect(endpoint, container, place)?);
    }
    if !container.sysctls.is_empty() {
        steps.push(Step::SetSysctls {
            netns: place.netns.to_owned(),
            dir: place.dir.to_owned(),
            settings: container.sysctls.clone(),
        });
    }
    steps.extend(source_lists(container));
    let bindings = bindings(container);
    if !bindings.is_empty() {
        steps.push(Step::Publish(bindings));
    }
    Ok(steps)
}

pub(super) fn network_of<'a>(
    endpoint: &Endpoint,
    networks: &'a BTreeMap<String, Network>,
) -> Result<&'a Network> {
    let gone = || Error::Invalid(format!("the network of {} is not there", endpoint.host_interface));
    networks.get(&endpoint.network).ok_or_else(gone)
}

fn pair(
    endpoint: &Endpoint,
    network: &Network,
    gateways: Vec<IpAddr>,
    netns: Option<PathBuf>,
) -> Result<PairSpec> {
    let options = NetworkOptions::parse(&network.options)?;
    Ok(PairSpec {
        kind: options.link,
        host_name: endpoint.host_interface.clone(),
        bridge: bridge_name(network)?,
        netns,
        name: endpoint.interface.clone(),
        mac: endpoint.mac,
        addrs: endpoint.addrs.clone(),
        gateways,
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
