//! Containers as others see them.

use super::{
    Controller,
    backend::{Datapath, Host},
    error::Result,
    model::name::short_id,
    plan, view,
};
use crate::store::schema::{Container, Endpoint, Namespace, Phase};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// A container, by name, id or the beginning of its id.
    ///
    /// # Errors
    /// [`super::Error::NotFound`], or [`super::Error::Invalid`] when it could be several.
    pub fn container(&self, name_or_id: &str) -> Result<view::Container> {
        Ok(self.container_view(self.find_container(name_or_id)?))
    }

    /// All containers, by name.
    pub fn containers(&self) -> Vec<view::Container> {
        let mut views: Vec<_> =
            self.machine.state.containers.values().map(|c| self.container_view(c)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    pub(super) fn container_view(&self, container: &Container) -> view::Container {
        let is_there = |e: &&Endpoint| e.phase == Phase::Ready;
        let mut exposed = container.exposed.clone();
        exposed.extend(
            container
                .ports
                .iter()
                .map(|p| view::ExposedPort { port: p.mapping.container, protocol: p.mapping.protocol }),
        );
        exposed.sort_unstable();
        exposed.dedup();
        view::Container {
            id: container.id.clone(),
            name: container.name.clone(),
            hostname: container.hostname.clone(),
            engine: container.engine,
            state: container.state,
            pid: container.pid,
            exit_code: container.exit_code,
            created: container.created.clone(),
            started: container.started.clone(),
            finished: container.finished.clone(),
            command: container.command.clone(),
            remove: container.remove,
            rootfs: container.rootfs.clone(),
            network_mode: container.network_mode.clone(),
            netns: self.netns_path(container),
            attached: matches!(container.netns, Some(Namespace::Given { .. })),
            namespaces: self.namespaces(container),
            sysctls: container.sysctls.clone(),
            dns: container.resolver.servers.clone(),
            dns_search: container.resolver.search.clone(),
            dns_options: container.resolver.options.clone(),
            extra_hosts: container.extra_hosts.clone(),
            terminal: container.terminal,
            dir: self.dir(&container.id),
            endpoints: container
                .endpoints
                .iter()
                .filter(is_there)
                .map(|e| self.endpoint_view(container, e))
                .collect(),
            exposed,
            ports: plan::bindings(container),
        }
    }

    fn endpoint_view(&self, container: &Container, endpoint: &Endpoint) -> view::Endpoint {
        let network = self.machine.state.networks.get(&endpoint.network);
        view::Endpoint {
            id: endpoint.id.clone(),
            network: network.map(|network| network.name.clone()).unwrap_or_default(),
            network_id: endpoint.network.clone(),
            interface: endpoint.interface.clone(),
            host_interface: endpoint.host_interface.clone(),
            mac: endpoint.mac,
            addrs: endpoint.addrs.clone(),
            gateways: endpoint.gateways.clone(),
            names: if network.is_some_and(|network| !network.predefined) {
                names(container, endpoint)
            } else {
                Vec::new()
            },
            aliases: endpoint.aliases.clone(),
            gw_priority: endpoint.gw_priority,
            fixed: endpoint.fixed.clone(),
        }
    }
}

/// The names under which other containers of the network find this one.
pub(super) fn names(container: &Container, endpoint: &Endpoint) -> Vec<String> {
    let mut names = vec![container.name.clone()];
    names.extend(endpoint.aliases.iter().cloned());
    names.push(short_id(&container.id).to_owned());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
