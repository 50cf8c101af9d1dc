//! How much is in use: for those who watch an instance, and ask often.

use std::net::IpAddr;

use super::{
    Controller,
    backend::{Datapath, Host, Tally},
    error::Result,
    model::Binding,
    plan, view,
};
use crate::store::schema::{Container, Phase};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// How much is in use. What passed the containers' interfaces is left out, for it takes a look into each namespace.
    ///
    /// # Errors
    /// When the datapath's tables cannot be asked.
    pub fn usage(&self) -> Result<view::Usage> {
        let tally = self.machine.datapath.tally();
        let ready = self.machine.state.containers.values().filter(|c| c.phase == Phase::Ready);
        let mut containers: Vec<&Container> = ready.collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let bindings: Vec<Vec<Binding>> = containers.iter().map(|c| plan::bindings(c)).collect();
        let mut opened = self.machine.datapath.opened(&bindings.concat())?.into_iter();
        let mut usages = Vec::with_capacity(containers.len());
        for (container, bindings) in containers.iter().zip(&bindings) {
            let opened = opened.by_ref().take(bindings.len()).sum();
            usages.push(self.container_usage(container, bindings.len(), opened, tally.as_ref()));
        }
        let addrs = || containers.iter().flat_map(|c| &c.endpoints).flat_map(|e| &e.addrs).map(|a| a.ip());
        let hosts = || bindings.iter().flatten().map(|b| b.host.addr);
        let entries = |table: &str| match table {
            "FLOWS4" => tally.as_ref().map(|tally| tally.entries[0]),
            "FLOWS6" => tally.as_ref().map(|tally| tally.entries[1]),
            "PORTS4" => Some(hosts().filter(IpAddr::is_ipv4).count() as u64),
            "PORTS6" => Some(hosts().filter(IpAddr::is_ipv6).count() as u64),
            "ENDPOINTS4" => Some(addrs().filter(IpAddr::is_ipv4).count() as u64),
            "ENDPOINTS6" => Some(addrs().filter(IpAddr::is_ipv6).count() as u64),
            _ => None,
        };
        let capacities = self.machine.datapath.capacities()?;
        let table = |(name, capacity): (String, u32)| view::TableUsage {
            entries: entries(&name),
            name,
            capacity: capacity.into(),
        };
        Ok(view::Usage {
            flows: tally.as_ref().map(|tally| tally.flows),
            tables: capacities.into_iter().map(table).collect(),
            networks: self.machine.state.networks.len(),
            ports: bindings.iter().map(Vec::len).sum(),
            containers: usages,
        })
    }

    fn container_usage(
        &self,
        container: &Container,
        ports: usize,
        opened: u64,
        tally: Option<&Tally>,
    ) -> view::ContainerUsage {
        let of = |addr: IpAddr| tally.and_then(|tally| tally.by_container.get(&addr)).copied();
        let ready = || container.endpoints.iter().filter(|e| e.phase == Phase::Ready);
        view::ContainerUsage {
            id: container.id.clone(),
            name: container.name.clone(),
            state: container.state,
            netns: self.netns_path(container),
            ports,
            opened,
            flows: ready().flat_map(|e| &e.addrs).filter_map(|addr| of(addr.ip())).sum(),
            interfaces: ready()
                .map(|e| view::InterfaceUsage {
                    name: e.interface.clone(),
                    network: self
                        .machine
                        .state
                        .networks
                        .get(&e.network)
                        .map(|network| network.name.clone())
                        .unwrap_or_default(),
                    traffic: None,
                    opened: e.addrs.iter().filter_map(|addr| opened_from(addr.ip(), tally?)).collect(),
                })
                .collect(),
        }
    }
}

/// What a container has opened from one of its addresses.
fn opened_from(addr: IpAddr, tally: &Tally) -> Option<view::OpenedFlows> {
    let opened = tally.opened.get(&addr)?;
    let family = if addr.is_ipv4() { "ipv4" } else { "ipv6" };
    Some(view::OpenedFlows { family: family.to_owned(), flows: opened.flows, quota: opened.quota })
}
