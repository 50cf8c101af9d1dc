//! Containers: served before they run, as dockerd says they are when they do, and forgotten when they have ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt as _;
use tokio::task;

use super::{
    client::Error,
    follow::{Follower, ask, short},
    messages,
    translate::{self, Interface},
};
use crate::{
    controller::{
        self,
        model::engine::Engine,
        request::{EngineContainer, EngineInterface},
    },
    host::bridge_ports::{self, BridgePort},
};

impl Follower {
    /// A container is on a network, and may be about to start there.
    pub(super) async fn connecting(&mut self, network: &str, container: &str) -> Result<(), Error> {
        if self.others.contains(network) {
            return Ok(());
        }
        if !self.networks.contains_key(network) {
            self.look_at_network(network).await?;
        }
        if !self.networks.contains_key(network) {
            return Ok(());
        }
        match self.client.network(network).await {
            Ok(there) => {
                if let Some(member) = there.containers.get(container)
                    && let Some(interface) = Interface::of_member(network, member)
                {
                    self.starts.expect(container, &member.name, interface);
                    self.look_for_starting().await;
                }
            }
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        // Of one that runs, nothing more is told.
        if self.served.contains_key(container) {
            self.ask(container);
        }
        Ok(())
    }

    /// Serves those whose interfaces have appeared.
    pub(super) async fn look_for_starting(&mut self) {
        let waiting: Vec<_> =
            self.starts.waiting().map(|(id, s)| (id.clone(), s.name.clone(), s.waiting.clone())).collect();
        let bridges = waiting.iter().flat_map(|(_, _, interfaces)| interfaces);
        let ports = self.ports(&bridges.cloned().collect::<Vec<_>>()).await;
        for (id, name, interfaces) in waiting {
            let found: Vec<EngineInterface> =
                interfaces.iter().filter_map(|i| Some(i.at(ports.get(&i.endpoint)?))).collect();
            if found.is_empty() {
                continue;
            }
            for endpoint in found.iter().filter_map(|i| i.id.as_ref()) {
                self.starts.found(&id, endpoint);
            }
            let ports =
                self.bindings.get(&id).map(|asked| translate::ports_to_be(asked, &found, &self.networks));
            let mut more = EngineContainer {
                engine: Engine::Docker,
                id: id.clone(),
                name: name.clone(),
                netns: None,
                interfaces: found,
                ports: ports.unwrap_or_default(),
                keeps_ports: true,
            };
            let with_ports = more.clone();
            let mut outcome = self.control(move |c| c.add_to_engine_container(&with_ports).map(drop)).await;
            if outcome.is_err() && !more.ports.is_empty() {
                more.ports.clear();
                outcome = self.control(move |c| c.add_to_engine_container(&more).map(drop)).await;
            }
            // What goes wrong is tried again, and told, once it has started.
            match outcome {
                Ok(()) => tracing::debug!(container = name, "served before it runs"),
                Err(e) => tracing::debug!(container = name, "serve before it runs: {e}"),
            }
        }
    }

    /// Has dockerd asked what a container is like.
    pub(super) fn ask(&mut self, container: &str) {
        if let Some(again) = self.asking.get_mut(container) {
            *again = true;
            return;
        }
        self.asking.insert(container.to_owned(), false);
        let (client, id, at_once) = (self.client.clone(), container.to_owned(), Arc::clone(&self.at_once));
        let question = async move {
            // It is never closed.
            let _permit = at_once.acquire().await;
            let answer = client.container(&id).await;
            (id, answer)
        };
        self.asked.push(question.boxed());
    }

    pub(super) async fn learn(
        &mut self,
        id: String,
        answer: Result<messages::Container, Error>,
    ) -> Result<(), Error> {
        if self.asking.remove(&id) == Some(true) {
            self.ask(&id);
            return Ok(());
        }
        if let Ok(container) = &answer {
            self.bindings.insert(id.clone(), container.host_config.port_bindings.clone());
        }
        match answer {
            Ok(container) if translate::runs(&container) => self.serve(&container).await?,
            // It is about to run, or has ended, of which more will be heard.
            Ok(_) if self.starts.contains(&id) => {}
            Ok(_) | Err(Error::NotFound(_)) => self.forget(&id).await,
            Err(e) => self.told(&id, vec![format!("container {}: {e}", short(&id))]).await,
        }
        Ok(())
    }

    pub(super) async fn serve(&mut self, container: &messages::Container) -> Result<(), Error> {
        let id = container.id.as_str();
        for network in translate::networks_of(container) {
            if !self.networks.contains_key(&network) && !self.others.contains(&network) {
                self.look_at_network(&network).await?;
            }
        }
        let interfaces = translate::interfaces(container, &self.networks);
        self.starts.remove(id);
        if interfaces.is_empty() {
            self.served.entry(id.to_owned()).or_default();
            let problems = self.remove(id).await;
            self.told(id, problems.into_iter().collect()).await;
            return Ok(());
        }
        let ports = self.ports(&interfaces).await;
        let mut problems = Vec::new();
        let mut found = Vec::new();
        let name = container.name.trim_start_matches('/');
        for interface in &interfaces {
            match ports.get(&interface.endpoint) {
                Some(port) if port.inside.is_some() => found.push(interface.at(port)),
                _ => problems.push(format!(
                    "container {name}: no port of bridge {} leads to its interface {}",
                    self.networks.get(&interface.network).map_or("", |n| n.network.bridge.as_str()),
                    interface.mac
                )),
            }
        }
        match netns_of(container) {
            Some(netns) if !found.is_empty() => {
                let (wanted, unserved) = translate::container(container, netns, found, &self.networks);
                problems.extend(unserved);
                match self.set(wanted).await {
                    Ok(()) => _ = self.served.entry(id.to_owned()).or_default(),
                    Err(e) => problems.push(format!("container {name}: {e}")),
                }
            }
            Some(_) => {}
            None => {
                problems.push(format!("container {name}: its network namespace is not to be seen from here"));
            }
        }
        self.told(id, problems).await;
        Ok(())
    }

    /// Serves a container. What is in the way is gone, or of the same container before its last start.
    pub(super) async fn set(&mut self, wanted: EngineContainer) -> controller::Result<()> {
        let wanted = Arc::new(wanted);
        let control = Arc::clone(&self.control);
        let try_once = || {
            let wanted = Arc::clone(&wanted);
            ask(&control, move |c| c.set_engine_container(&wanted).map(drop))
        };
        match try_once().await {
            Err(controller::Error::Conflict(_)) => {
                self.remove(&wanted.id).await;
                if let Ok(there) = self.client.containers().await {
                    self.forget_gone(&there).await;
                }
                try_once().await
            }
            outcome => outcome,
        }
    }

    /// The ports that lead to these interfaces, by endpoint. dockerd makes the veth before it tells of the interface, so
    /// that where one is missing and one port is new, that is it, before its other end is inside.
    pub(super) async fn ports(&mut self, interfaces: &[Interface]) -> BTreeMap<String, BridgePort> {
        let is_seen = |port: &&BridgePort| port.inside.is_some();
        let missing = interfaces.iter().filter(|i| self.veths.get(&i.endpoint).filter(is_seen).is_none());
        let bridges: BTreeSet<String> =
            missing.filter_map(|i| Some(self.networks.get(&i.network)?.network.bridge.clone())).collect();
        let seen = self.veths.values().filter(is_seen).map(|port| port.name.clone());
        let seen: Arc<BTreeSet<String>> = Arc::new(seen.collect());
        for bridge in bridges {
            let (name, seen) = (bridge.clone(), Arc::clone(&seen));
            let found = task::spawn_blocking(move || bridge_ports::ports_of(&name, &seen)).await;
            let mut found = found.map_err(anyhow::Error::from).and_then(|found| found).unwrap_or_else(|e| {
                tracing::warn!(bridge, "docker: {e:#}");
                Vec::new()
            });
            let on_it =
                |i: &&Interface| self.networks.get(&i.network).is_some_and(|n| n.network.bridge == bridge);
            let mut missing: Vec<&Interface> = interfaces.iter().filter(on_it).collect();
            missing.retain(|interface| {
                let leads_there =
                    |port: &BridgePort| port.inside.as_ref().is_some_and(|i| i.mac == interface.mac);
                let port = found.iter().position(leads_there);
                if let Some(port) = port {
                    self.veths.insert(interface.endpoint.clone(), found.swap_remove(port));
                }
                port.is_none() && !self.veths.contains_key(&interface.endpoint)
            });
            found.retain(|port| !self.veths.values().any(|known| known.name == port.name));
            if let ([interface], [port]) = (&missing[..], &found[..])
                && port.inside.is_none()
            {
                self.veths.insert(interface.endpoint.clone(), port.clone());
            }
        }
        let found = |i: &Interface| Some((i.endpoint.clone(), self.veths.get(&i.endpoint)?.clone()));
        interfaces.iter().filter_map(found).collect()
    }

    /// A container has ended.
    pub(super) async fn forget(&mut self, id: &str) {
        if let Some(again) = self.asking.get_mut(id) {
            *again = true;
        }
        self.served.remove(id);
        let problems = self.remove(id).await.map(|why| vec![why]).unwrap_or_default();
        self.told(id, problems).await;
    }

    pub(super) async fn remove(&mut self, id: &str) -> Option<String> {
        let of = id.to_owned();
        let known = self.control(move |c| match c.container(&of) {
            Ok(known) if known.engine == Some(Engine::Docker) => {
                c.remove_engine_container(Engine::Docker, &of)?;
                Ok(known.endpoints.into_iter().map(|e| e.id).collect())
            }
            Ok(_) | Err(controller::Error::NotFound(_)) => Ok(Vec::new()),
            Err(e) => Err(e),
        });
        match known.await {
            Ok(endpoints) => {
                self.veths.retain(|endpoint, _| !endpoints.contains(endpoint));
                None
            }
            Err(e) => Some(format!("container {}: {e}", short(id))),
        }
    }
}

/// A file that stands for a container's network namespace. By its process it ends with the container; where dockerd's
/// processes have other numbers here, it is what dockerd has mounted.
fn netns_of(container: &messages::Container) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{}/ns/net", container.state.pid));
    let mount = PathBuf::from(&container.network_settings.sandbox_key);
    let kind = fs::metadata("/proc/self/ns/net").ok()?.dev();
    let number = |path: &Path| fs::metadata(path).ok().filter(|m| m.dev() == kind).map(|m| m.ino());
    match (number(&process), number(&mount)) {
        (Some(a), Some(b)) if a != b => Some(mount),
        (Some(_), _) => Some(process),
        (None, Some(_)) => Some(mount),
        (None, None) => None,
    }
}
