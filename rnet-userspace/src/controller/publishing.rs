//! Published ports: from Docker's grammar to bindings whose host ports are held.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use super::{
    Controller,
    backend::{Datapath, Host, PortHold, PortUnavailable},
    error::{Error, Result},
    model::{
        Binding, HostPort, Protocol,
        name::short_id,
        options::{GatewayMode, NetworkOptions},
        port_spec::{PortChoice, PortMapping, PortSpec},
    },
    ports::{self, PortTable, Want},
};
use crate::store::schema::{Container, Network};

/// Host ports that turn out to be a host program's before a request is given up, as with Docker.
const MAX_TRIES: usize = 10;

/// Host ports held for a container, until the datapath has them.
pub(super) struct Held {
    /// The ports.
    pub(super) bindings: Vec<Binding>,
    /// Lets go when dropped.
    pub(super) hold: Option<Box<dyn PortHold>>,
}

/// Reads what was given with `-p`.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub(super) fn parse(publish: &[String]) -> Result<Vec<PortSpec>> {
    publish.iter().map(|spec| spec.parse().map_err(Error::Invalid)).collect()
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Chooses host ports for a container and takes them, all or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a port cannot be published as asked, [`Error::Conflict`] when a container or a
    /// program of the host has one: the message names it.
    pub(super) fn hold_ports(
        &mut self,
        specs: &[PortSpec],
        container: &Container,
        network: Option<&Network>,
    ) -> Result<Held> {
        let options = network.map(|n| NetworkOptions::parse(&n.options)).transpose()?.unwrap_or_default();
        let mut wants = Vec::new();
        for spec in specs {
            let refuse = |why: String| Error::Invalid(format!("cannot publish {spec}: {why}"));
            check_publishable(network).map_err(refuse)?;
            for mapping in spec.mappings() {
                wants.push(self.want(&mapping, container, &options).map_err(refuse)?);
            }
        }
        if wants.is_empty() {
            return Ok(Held { bindings: Vec::new(), hold: None });
        }
        self.hold(&wants, container)
    }

    fn want(
        &self,
        mapping: &PortMapping,
        container: &Container,
        options: &NetworkOptions,
    ) -> Result<Want, String> {
        if mapping.container == 0 {
            return Err("port 0 is no port of a container".to_owned());
        }
        let has = |v4| {
            container.endpoints.iter().flat_map(|e| &e.addrs).map(|a| a.ip()).find(|a| a.is_ipv4() == v4)
        };
        let pair = |host: IpAddr| match has(host.is_ipv4()) {
            Some(addr) => Ok((host, addr)),
            None => {
                let family = if host.is_ipv4() { "IPv4" } else { "IPv6" };
                Err(format!("{host} is an {family} address, and container {} has none", container.name))
            }
        };
        let host = mapping.host_ip.or(options.bind).unwrap_or(self.config.bind);
        check_host_address(host)?;
        let mut pairs = vec![pair(host)?];
        // As with Docker, no address at all is every address of both families.
        if mapping.host_ip.is_none() && host.is_ipv4() && host.is_unspecified() {
            pairs.extend(pair(Ipv6Addr::UNSPECIFIED.into()).ok());
        }
        let is_routed = |addr: &IpAddr| options.gateway_mode(addr.is_ipv6()) == GatewayMode::Routed;
        let (routed, addrs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(_, addr)| is_routed(addr));
        if !addrs.is_empty() {
            check_translatable(mapping)?;
        }
        let routed = routed.into_iter().map(|(_, addr)| addr).collect();
        Ok(Want { addrs, routed, host: mapping.host, port: mapping.container, protocol: mapping.protocol })
    }

    fn hold(&mut self, wants: &[Want], container: &Container) -> Result<Held> {
        let wrap = |error: &dyn std::fmt::Display| {
            let endpoint = container.endpoints.first().map_or("", |e| short_id(&e.id));
            format!(
                "failed to set up container networking: driver failed programming external connectivity on \
                 endpoint {} ({endpoint}): {error}",
                container.name
            )
        };
        let ephemeral = self.machine.host.ephemeral_ports()?;
        let table = self.port_table();
        let mut unavailable = BTreeSet::new();
        loop {
            let picks = ports::allocate(
                table.clone(),
                &mut self.cursors,
                &container.name,
                wants,
                ephemeral,
                &unavailable,
            )
            .map_err(|e| Error::Conflict(wrap(&e)))?;
            let bindings = picks.iter().map(|pick| pick.binding);
            let host_ports: Vec<HostPort> =
                bindings.filter(|binding| !binding.is_routed()).map(|binding| binding.host).collect();
            let held = if host_ports.is_empty() {
                Ok(None)
            } else {
                self.machine.host.hold_ports(&host_ports).map(Some)
            };
            let error = match held {
                Ok(hold) => {
                    let bindings = picks.into_iter().map(|pick| pick.binding).collect();
                    return Ok(Held { bindings, hold });
                }
                Err(error) => error,
            };
            match error {
                PortUnavailable::InUse(port, _)
                    if unavailable.len() < MAX_TRIES
                        && picks.iter().any(|pick| pick.any_will_do && pick.binding.host == port) =>
                {
                    unavailable.insert(port);
                }
                PortUnavailable::InUse(..) => return Err(Error::Conflict(wrap(&error))),
                PortUnavailable::NotLocal(_) => return Err(Error::Invalid(wrap(&error))),
                PortUnavailable::Other(..) => return Err(Error::Failed(anyhow::anyhow!(wrap(&error)))),
            }
        }
    }

    /// Host ports that containers have, those being made or removed included.
    fn port_table(&self) -> PortTable {
        let mut table = PortTable::default();
        for container in self.machine.state.containers.values() {
            for binding in container.ports.iter().filter(|binding| !binding.is_routed()) {
                table.insert(binding.host, &container.name);
            }
        }
        table
    }
}

fn check_publishable(network: Option<&Network>) -> Result<(), String> {
    match network {
        None => Err("a container on network none has no address that a port could lead to".to_owned()),
        Some(network) if network.internal => {
            Err(format!("network {} is internal, and nothing outside reaches its containers", network.name))
        }
        Some(_) => Ok(()),
    }
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
