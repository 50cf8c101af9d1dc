//! Published ports: from Docker's grammar to bindings whose host ports are held.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use rnet_common::limits::PORTS;

use super::{
    Controller,
    backend::{Datapath, Host, PortHold, PortUnavailable},
    endpoints::gateway_endpoint,
    error::{Error, Result},
    model::{
        HostPort, Protocol,
        engine::Engine,
        name::short_id,
        options::{GatewayMode, NetworkOptions},
        port_spec::{PortChoice, PortMapping, PortSpec},
    },
    ports::{self, PortError, Want},
};
use crate::store::schema::{Container, Namespace, Network, Publication};

/// Host ports that turn out to be a host program's before a request is given up, as with Docker.
const MAX_TRIES: usize = 10;
/// Sources of all ports of a request together: each port has a list of its own.
const MAX_SOURCES: usize = 1 << 20;

/// Published ports of a container whose host ports are held, until the datapath has them.
pub(super) struct Held {
    /// All of the container's.
    pub(super) ports: Vec<Publication>,
    /// Lets go when dropped.
    pub(super) hold: Option<Box<dyn PortHold>>,
}

/// What is to be published, and has no host port yet.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub(super) fn publications(specs: &[String], from: &[IpNetwork]) -> Result<Vec<Publication>> {
    let mut publications = Vec::new();
    for spec in specs {
        let spec: PortSpec = spec.parse().map_err(Error::Invalid)?;
        let ports = publications.len() + spec.len();
        if ports > PORTS {
            return Err(Error::Invalid(format!("more than {PORTS} ports are to be published at once")));
        }
        if ports * from.len() > MAX_SOURCES {
            return Err(Error::Invalid(format!(
                "{} sources of {ports} ports are too many at once: {MAX_SOURCES} in all are allowed",
                from.len()
            )));
        }
        publications.extend(spec.mappings().map(|mapping| publication(mapping, from)));
    }
    Ok(publications)
}

/// As [`publications`], of one port.
pub(super) fn publication(mapping: PortMapping, from: &[IpNetwork]) -> Publication {
    Publication { mapping, from: from.to_vec(), held: Vec::new(), bindings: Vec::new(), unheld: false }
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Leads the published ports of `container` to its endpoints, takes host ports where there are none, and keeps
    /// those that there are: all or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a port cannot be published as asked, [`Error::Conflict`] when a container or a
    /// program of the host has one: the message names it.
    pub(super) fn hold_ports(&mut self, container: &Container) -> Result<Held> {
        let routes = Routes::of(container, &self.machine.state.networks)?;
        let mut wants = Vec::new();
        for publication in &container.ports {
            let mapping = &publication.mapping;
            let refuse = |why: String| Error::Invalid(format!("cannot publish {}: {why}", show(mapping)));
            wants.push(self.want(mapping, container, &routes).map_err(refuse)?);
        }
        if wants.is_empty() {
            return Ok(Held { ports: Vec::new(), hold: None });
        }
        let own: BTreeSet<HostPort> = container.ports.iter().flat_map(|p| &p.held).copied().collect();
        let kept =
            container.ports.iter().zip(&wants).map(|(publication, want)| match publication.held.first() {
                Some(port) => Want { host: PortChoice::Exactly(port.port), ..want.clone() },
                None => want.clone(),
            });
        // A number that it has may be somebody else's on an address that is new to it.
        match self.hold(&kept.collect::<Vec<_>>(), container, &own) {
            Err(Error::Conflict(_)) if !own.is_empty() => self.hold(&wants, container, &own),
            held => held,
        }
    }

    fn want(&self, mapping: &PortMapping, container: &Container, routes: &Routes) -> Result<Want, String> {
        if mapping.container == 0 {
            return Err("port 0 is no port of a container".to_owned());
        }
        let host = mapping.host_ip.or(routes.bind).unwrap_or(self.config.bind);
        check_host_address(host)?;
        let nothing = Want {
            addrs: Vec::new(),
            routed: Vec::new(),
            host: mapping.host,
            port: mapping.container,
            protocol: mapping.protocol,
        };
        if routes.lead_nowhere() {
            return Ok(nothing);
        }
        let pair = |host: IpAddr| match routes.of_family(host.is_ipv6()) {
            Some(route) => Ok((host, route)),
            None => {
                let family = if host.is_ipv4() { "IPv4" } else { "IPv6" };
                Err(format!("{host} is an {family} address, and container {} has none", container.name))
            }
        };
        let mut pairs = Vec::new();
        // As with Docker, no address at all is every address of both families.
        let is_any = mapping.host_ip.is_none() && host.is_ipv4() && host.is_unspecified();
        match pair(host) {
            Err(_) if is_any => {}
            pair => pairs.push(pair?),
        }
        if is_any {
            pairs.extend(pair(Ipv6Addr::UNSPECIFIED.into()).ok());
        }
        let (routed, addrs): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(_, route)| route.mode == GatewayMode::Routed);
        if !addrs.is_empty() {
            check_translatable(mapping)?;
        }
        Ok(Want {
            addrs: addrs.into_iter().map(|(host, route)| (host, route.addr)).collect(),
            routed: routed.into_iter().map(|(_, route)| route.addr).collect(),
            ..nothing
        })
    }

    fn hold(&mut self, wants: &[Want], container: &Container, own: &BTreeSet<HostPort>) -> Result<Held> {
        let wrap = |error: &dyn std::fmt::Display| {
            // Docker puts the same before what its drivers say.
            if container.engine == Some(Engine::DockerDriver) {
                return error.to_string();
            }
            let endpoint = container.endpoints.first().map_or("", |e| short_id(&e.id));
            format!(
                "failed to set up container networking: driver failed programming external connectivity on \
                 endpoint {} ({endpoint}): {error}",
                container.name
            )
        };
        let ephemeral = self.machine.host.ephemeral_ports()?;
        let mut unavailable = BTreeSet::new();
        loop {
            let picks = ports::allocate(
                &self.machine.index.ports,
                &mut self.cursors,
                &container.name,
                wants,
                ephemeral,
                &unavailable,
                own,
            )
            .map_err(|e: PortError| Error::Conflict(wrap(&e)))?;
            let all = || picks.iter().flatten();
            let held = container.ports.iter().zip(&picks).filter(|(publication, _)| !publication.unheld);
            let bindings = held.flat_map(|(_, picks)| picks).map(|pick| pick.binding);
            let bindings = bindings.filter(|binding| !binding.is_routed());
            let new: Vec<HostPort> =
                bindings.map(|binding| binding.host).filter(|port| !own.contains(port)).collect();
            let held = if new.is_empty() { Ok(None) } else { self.machine.host.hold_ports(&new).map(Some) };
            let error = match held {
                Ok(hold) => {
                    let picked = container.ports.iter().zip(&picks);
                    let ports = picked.map(|(publication, picks)| with(publication, picks)).collect();
                    return Ok(Held { ports: self.number_sources(ports), hold });
                }
                Err(error) => error,
            };
            match error {
                PortUnavailable::InUse(port, _)
                    if unavailable.len() < MAX_TRIES
                        && all().any(|pick| pick.any_will_do && pick.binding.host == port) =>
                {
                    unavailable.insert(port);
                }
                PortUnavailable::InUse(..) => return Err(Error::Conflict(wrap(&error))),
                PortUnavailable::NotLocal(_) => return Err(Error::Invalid(wrap(&error))),
                PortUnavailable::Other(..) => return Err(Error::Failed(anyhow::anyhow!(wrap(&error)))),
            }
        }
    }

    /// Gives the container's lists of sources their numbers: those that it has keep theirs.
    fn number_sources(&self, mut ports: Vec<Publication>) -> Vec<Publication> {
        let mut numbers: Vec<(Vec<IpNetwork>, u32)> = Vec::new();
        for publication in ports.iter().filter(|p| !p.from.is_empty()) {
            let number = publication.bindings.iter().map(|b| b.sources).find(|number| *number != 0);
            if let Some(number) =
                number.filter(|_| !numbers.iter().any(|(from, _)| *from == publication.from))
            {
                numbers.push((publication.from.clone(), number));
            }
        }
        let mut taken: BTreeSet<u32> = numbers.iter().map(|(_, number)| *number).collect();
        for publication in ports.iter_mut().filter(|p| !p.from.is_empty()) {
            let known = numbers.iter().find(|(from, _)| *from == publication.from).map(|(_, number)| *number);
            let number = known.unwrap_or_else(|| {
                let number = self.machine.index.free_source_number(&taken);
                taken.insert(number);
                numbers.push((publication.from.clone(), number));
                number
            });
            for binding in &mut publication.bindings {
                binding.sources = number;
            }
        }
        ports
    }
}

/// The ways to a container from outside.
struct Routes {
    v4: Option<Route>,
    v6: Option<Route>,
    /// Where ports are published that name no host address.
    bind: Option<IpAddr>,
}

/// The way of one address family.
#[derive(Clone, Copy)]
struct Route {
    addr: IpAddr,
    mode: GatewayMode,
}

impl Routes {
    fn of(container: &Container, networks: &BTreeMap<String, Network>) -> Result<Self> {
        let (mut routes, mut bind) = ([None, None], None);
        for (ipv6, route) in [false, true].into_iter().zip(&mut routes) {
            let Some(endpoint) = gateway_endpoint(&container.endpoints, networks, ipv6) else { continue };
            let Some(network) = networks.get(&endpoint.network) else { continue };
            let options = NetworkOptions::parse(&network.options)?;
            let addr = endpoint.addrs.iter().map(|addr| addr.ip()).find(|addr| addr.is_ipv6() == ipv6);
            *route = addr.map(|addr| Route { addr, mode: options.gateway_mode(ipv6) });
            bind = bind.or(options.bind);
        }
        let [v4, v6] = routes;
        Ok(Self { v4, v6, bind })
    }

    fn of_family(&self, ipv6: bool) -> Option<Route> {
        if ipv6 { self.v6 } else { self.v4 }
    }

    fn lead_nowhere(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

/// Whether ports of this container can be published at all.
///
/// # Errors
/// Why not, in Docker's words where it has them.
pub(super) fn check_publishable(container: &Container, networks: &BTreeMap<String, Network>) -> Result<()> {
    let refuse = |why: String| Err(Error::Invalid(why));
    match &container.netns {
        Some(Namespace::Shared(_)) => {
            return refuse(
                "conflicting options: port publishing and the container type network mode".to_owned(),
            );
        }
        Some(Namespace::Host) => {
            return refuse(
                "conflicting options: port publishing and the host's network, where every port is the host's already"
                    .to_owned(),
            );
        }
        Some(Namespace::Own(_) | Namespace::Given { .. }) | None => {}
    }
    let Some(first) = container.endpoints.first() else {
        return refuse(
            "cannot publish ports: a container on network none has no address that a port could lead to"
                .to_owned(),
        );
    };
    if Routes::of(container, networks)?.lead_nowhere() {
        let name = networks.get(&first.network).map_or("", |network| network.name.as_str());
        return refuse(format!(
            "cannot publish ports: network {name} is internal, and nothing outside reaches its containers"
        ));
    }
    Ok(())
}

/// A publication with what it has been given.
fn with(publication: &Publication, picks: &[ports::Pick]) -> Publication {
    let bindings: Vec<_> = picks
        .iter()
        .map(|pick| {
            let known = publication.bindings.iter().find(|b| b.sources != 0);
            let sources = known.map_or(0, |b| b.sources);
            // At the container's own address there is nothing to keep.
            let unheld = publication.unheld && !pick.binding.is_routed();
            super::model::Binding { sources, unheld, ..pick.binding }
        })
        .collect();
    // Host ports stay the container's while no network of it leads outside.
    let held = if bindings.is_empty() {
        publication.held.clone()
    } else {
        bindings.iter().filter(|binding| !binding.is_routed()).map(|binding| binding.host).collect()
    };
    Publication { bindings, held, ..publication.clone() }
}

fn show(mapping: &PortMapping) -> String {
    let host_ip = mapping.host_ip.map(|addr| match addr {
        IpAddr::V4(addr) => format!("{addr}:"),
        IpAddr::V6(addr) => format!("[{addr}]:"),
    });
    let host = match mapping.host {
        PortChoice::Exactly(port) => format!("{port}:"),
        PortChoice::OneOf(range) => format!("{range}:"),
        PortChoice::Ephemeral if host_ip.is_some() => ":".to_owned(),
        PortChoice::Ephemeral => String::new(),
    };
    format!("{}{host}{}/{}", host_ip.unwrap_or_default(), mapping.container, mapping.protocol)
}

/// SCTP's checksum is a CRC32c over the whole packet (RFC 9260 6.8), which no kernel helper updates; addresses are
/// not part of it.
fn check_translatable(mapping: &PortMapping) -> Result<(), String> {
    if mapping.protocol != Protocol::Sctp || mapping.host == PortChoice::Exactly(mapping.container) {
        return Ok(());
    }
    Err(format!(
        "SCTP can only be published with host port and container port the same, because its checksum covers the \
         whole packet: publish {port}:{port}/sctp",
        port = mapping.container
    ))
}

fn check_host_address(host: IpAddr) -> Result<(), String> {
    if host.is_multicast() {
        return Err(format!("{host} is a multicast address, and ports are published on a host's own"));
    }
    Ok(())
}
