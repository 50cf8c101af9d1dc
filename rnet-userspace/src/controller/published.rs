//! Ports that are published, and withdrawn, while a container runs.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Controller,
    backend::{Datapath, Host},
    engines::check_own,
    error::{Error, Result},
    model::{
        Binding, Protocol,
        port_spec::{PortChoice, PortMapping, PortSpec},
    },
    plan, publishing,
    request::Publish,
    step::{Change, Step},
    view::ContainerState,
};
use crate::store::schema::{Container, Phase, Publication};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Publishes more ports of a container that is there, all or none, and returns what was given. What it has
    /// published before is not touched.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when a port cannot be published as asked; [`Error::Conflict`] when
    /// somebody has one, or the container has ended; [`Error::Failed`].
    pub fn publish(&mut self, container: &str, request: &Publish) -> Result<Vec<Binding>> {
        self.ensure_up()?;
        let before = self.publishable(container)?.clone();
        let new = publishing::publications(&request.ports, &request.from)?;
        publishing::check_publishable(&before, &self.machine.state.networks)?;
        let first_new = before.ports.len();
        let mut after = before.clone();
        after.ports.extend(new);
        let held = self.hold_ports(&after)?;
        after.ports = held.ports;
        let given = after.ports.iter().skip(first_new).flat_map(|p| p.bindings.clone()).collect();
        let applied = self.replace_ports(before, after);
        // The datapath keeps the ports from host programs from here on.
        drop(held.hold);
        applied.map(|()| given)
    }

    /// Withdraws published ports, all or none, and returns what was taken. A port without a host port stands for all
    /// that the container port is published on.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the container, or for a port that is not published so; [`Error::Invalid`];
    /// [`Error::Failed`].
    pub fn unpublish(&mut self, container: &str, ports: &[String]) -> Result<Vec<Binding>> {
        self.ensure_up()?;
        let before = self.publishable(container)?.clone();
        let mut of_port: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, publication) in before.ports.iter().enumerate() {
            of_port.entry(key(&publication.mapping)).or_default().push(at);
        }
        let mut meant = BTreeSet::new();
        for spec in ports {
            let parsed: PortSpec = spec.parse().map_err(Error::Invalid)?;
            for mapping in parsed.mappings() {
                let published = of_port.get(&key(&mapping)).into_iter().flatten().copied();
                let matching =
                    published.filter(|at| is_meant(&mapping, &before.ports[*at]) && !meant.contains(at));
                let matching: Vec<_> = matching.collect();
                if matching.is_empty() {
                    return Err(Error::NotFound(format!(
                        "container {} does not publish {spec}: see what it does with `rnet port {}`",
                        before.name, before.name
                    )));
                }
                meant.extend(matching);
            }
        }
        let mut after = before.clone();
        after.ports = Vec::new();
        let mut gone = Vec::new();
        for (at, publication) in before.ports.iter().enumerate() {
            if meant.contains(&at) {
                gone.extend(publication.bindings.iter().copied());
            } else {
                after.ports.push(publication.clone());
            }
        }
        self.replace_ports(before, after)?;
        Ok(gone)
    }

    fn publishable(&self, container: &str) -> Result<&Container> {
        let container = self.find_container(container)?;
        check_own(container)?;
        if container.phase != Phase::Ready || container.state == ContainerState::Exited {
            return Err(Error::Conflict(format!("container {} is not running", container.name)));
        }
        Ok(container)
    }

    fn replace_ports(&mut self, before: Container, after: Container) -> Result<()> {
        let netns = self.netns_path(&before).unwrap_or_default();
        let dir = self.dir(&before.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        let mut steps = plan::redirect(&before, &after, &place);
        // First: what the datapath has is known to the store, whatever happens on the way.
        steps.insert(0, Step::SaveContainer(Change::replace(before, after)));
        Ok(self.machine.apply(&steps)?)
    }
}

fn key(mapping: &PortMapping) -> (u16, Protocol) {
    (mapping.container, mapping.protocol)
}

/// Whether the publication, of the same container port, is one of those that were asked for.
fn is_meant(asked: &PortMapping, publication: &Publication) -> bool {
    let has = |test: &dyn Fn(u16) -> bool| publication.held.iter().any(|port| test(port.port));
    (asked.host_ip.is_none() || asked.host_ip == publication.mapping.host_ip)
        && match asked.host {
            PortChoice::Ephemeral => true,
            PortChoice::Exactly(wanted) => has(&|port| port == wanted),
            PortChoice::OneOf(range) => has(&|port| range.first() <= port && port <= range.last()),
        }
}
