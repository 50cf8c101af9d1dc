//! What is taken, found without going through every record: what a change costs does not grow with how much there
//! is already.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{model::MacAddr, ports::PortTable};
use crate::store::schema::Container;

/// Drawn from the containers' records, and kept in step with them.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Host ports that are published, or kept for a container.
    pub(super) ports: PortTable,
    names: HashMap<String, String>,
    networks: BTreeMap<String, Members>,
    sources: BTreeSet<u32>,
}

/// What is on a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// Addresses of containers.
    pub(super) addrs: BTreeSet<IpAddr>,
    /// Their Ethernet addresses.
    pub(super) macs: BTreeSet<MacAddr>,
    /// Ids of the containers.
    pub(super) containers: BTreeSet<String>,
}

impl Index {
    /// Of these containers.
    pub(super) fn new<'a>(containers: impl IntoIterator<Item = &'a Container>) -> Self {
        let mut index = Self::default();
        for container in containers {
            index.update(None, Some(container));
        }
        index
    }

    /// Follows a change of a container's record.
    pub(super) fn update(&mut self, before: Option<&Container>, after: Option<&Container>) {
        if let Some(container) = before {
            self.remove(container);
        }
        if let Some(container) = after {
            self.add(container);
        }
    }

    /// The id of the container called so.
    pub(super) fn id_of(&self, name: &str) -> Option<&String> {
        self.names.get(name)
    }

    /// What is on a network, by its id.
    pub(super) fn members(&self, network: &str) -> Option<&Members> {
        self.networks.get(network)
    }

    /// The lowest number that no list of sources has, nor any of `given`.
    pub(super) fn free_source_number(&self, given: &BTreeSet<u32>) -> u32 {
        let mut numbers = 1..;
        // There are more numbers than lists fit into memory.
        numbers.find(|n| !self.sources.contains(n) && !given.contains(n)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, container: &Container) {
        self.names.insert(container.name.clone(), container.id.clone());
        for endpoint in &container.endpoints {
            let members = self.networks.entry(endpoint.network.clone()).or_default();
            members.addrs.extend(endpoint.addrs.iter().map(|addr| addr.ip()));
            members.macs.insert(endpoint.mac);
            members.containers.insert(container.id.clone());
        }
        for publication in &container.ports {
            for port in &publication.held {
                self.ports.insert(*port, &container.name);
            }
            self.sources.extend(publication.bindings.iter().map(|b| b.sources).filter(|number| *number != 0));
        }
    }

    fn remove(&mut self, container: &Container) {
        self.names.remove(&container.name);
        for endpoint in &container.endpoints {
            let Some(members) = self.networks.get_mut(&endpoint.network) else { continue };
            for addr in &endpoint.addrs {
                members.addrs.remove(&addr.ip());
            }
            members.macs.remove(&endpoint.mac);
            members.containers.remove(&container.id);
            if members.containers.is_empty() {
                self.networks.remove(&endpoint.network);
            }
        }
        for publication in &container.ports {
            for port in &publication.held {
                self.ports.remove(port, &container.name);
            }
            for binding in &publication.bindings {
                self.sources.remove(&binding.sources);
            }
        }
    }
}
