//! Containers that come onto networks and leave them while they run.

use super::{
    Controller,
    backend::{Datapath, Host},
    engines::{check_open, check_own},
    error::{Error, Result},
    plan,
    request::Connect,
    step::{Change, Step},
    view::ContainerState,
};
use crate::store::schema::{Container, Endpoint, Namespace, Phase};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Puts a container on one more network. Its published ports stay published, with the numbers that they have.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when it is on that network already; [`Error::Invalid`] and
    /// [`Error::Conflict`] when what is asked for cannot be had; [`Error::Failed`]. Nothing is changed then.
    pub fn connect(&mut self, container: &str, asked: &Connect) -> Result<()> {
        self.ensure_up()?;
        let before = self.find_container(container)?.clone();
        check_own(&before)?;
        check_connectable(&before)?;
        let network = self.joinable(&asked.network)?;
        check_open(network)?;
        if before.endpoints.iter().any(|e| e.network == network.id) {
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                before.name, network.name
            )));
        }
        let netns = self.netns_path(&before).unwrap_or_default();
        let mut interfaces: std::collections::BTreeSet<_> =
            before.endpoints.iter().map(|e| e.interface.clone()).collect();
        if let Some(Namespace::Given { path, .. }) = &before.netns {
            interfaces.extend(self.machine.host.interfaces(path)?);
        }
        let endpoint = self.endpoint(asked, network, &interfaces)?;
        let with = |phase| {
            let mut container = before.clone();
            container.endpoints.push(Endpoint { phase, ..endpoint.clone() });
            container
        };
        let mut after = with(Phase::Ready);
        let held = self.hold_ports(&after)?;
        after.ports = held.ports;
        let connecting = with(Phase::Creating);
        let dir = self.dir(&before.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        let mut steps = vec![Step::SaveContainer(Change::replace(before.clone(), connecting.clone()))];
        steps.extend(plan::connect(&endpoint, &only(&endpoint, &before), &place)?);
        steps.extend(plan::redirect(&before, &after, &place));
        steps.extend(self.update_files(&before, &after)?);
        steps.push(Step::SaveContainer(Change::replace(connecting, after.clone())));
        let applied = self.machine.apply(&steps);
        // The datapath keeps the ports from host programs from here on.
        drop(held.hold);
        applied?;
        self.tell_connected("connect", &after, &endpoint);
        Ok(())
    }

    /// Takes a container off a network. Published ports go on where another of its networks leads outside, and keep
    /// their numbers where none does. With `force`, a container that is not on the network is as good as taken off.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when it is not on that network; [`Error::Failed`] when some of the
    /// interface could not be removed: disconnecting again goes on with the rest.
    pub fn disconnect(&mut self, network: &str, container: &str, force: bool) -> Result<()> {
        self.ensure_up()?;
        let network = self.find_network(network)?;
        let (id, name) = (network.id.clone(), network.name.clone());
        let before = self.find_container(container)?.clone();
        check_own(&before)?;
        if matches!(before.netns, Some(Namespace::Host)) && name == "host" {
            return Err(Error::Invalid(
                "container cannot be disconnected from host network or connected to host network".to_owned(),
            ));
        }
        let Some(endpoint) = before.endpoints.iter().find(|e| e.network == id).cloned() else {
            if force {
                return Ok(());
            }
            return Err(Error::Forbidden(format!(
                "container {} is not connected to network {name}",
                before.id
            )));
        };
        if endpoint.phase == Phase::Removing {
            return self.drop_endpoint(&before, &endpoint);
        }
        let mut leaving = before.clone();
        for e in leaving.endpoints.iter_mut().filter(|e| e.id == endpoint.id) {
            e.phase = Phase::Removing;
        }
        let held = self.hold_ports(&leaving)?;
        leaving.ports = held.ports;
        let netns = self.netns_path(&before).unwrap_or_default();
        let dir = self.dir(&before.id);
        let place = plan::Place { networks: &self.machine.state.networks, netns: &netns, dir: &dir };
        // What is to go on is led elsewhere before the interface is taken away, all or none.
        let mut steps = vec![Step::SaveContainer(Change::replace(before.clone(), leaving.clone()))];
        steps.extend(plan::redirect(&before, &leaving, &place));
        steps.extend(self.update_files(&before, &leaving)?);
        let applied = self.machine.apply(&steps);
        drop(held.hold);
        applied?;
        self.drop_endpoint(&leaving, &endpoint)
    }

    /// Removes an interface that nothing leads to any more, and strikes it out.
    pub(super) fn drop_endpoint(&mut self, container: &Container, endpoint: &Endpoint) -> Result<()> {
        let steps = plan::disconnect(endpoint, &self.machine.state.networks)?;
        self.machine.apply_all(&steps)?;
        let mut without = container.clone();
        without.endpoints.retain(|e| e.id != endpoint.id);
        self.machine.apply(&[Step::SaveContainer(Change::replace(container.clone(), without))])?;
        self.tell_connected("disconnect", container, endpoint);
        Ok(())
    }
}

/// Default routes are changed when the interface is there, so that it is made without any.
pub(super) fn only(endpoint: &Endpoint, container: &Container) -> Container {
    let mut alone = container.clone();
    alone.endpoints.retain(|e| e.id != endpoint.id);
    alone
}

fn check_connectable(container: &Container) -> Result<()> {
    if container.phase != Phase::Ready || container.state == ContainerState::Exited {
        return Err(Error::Conflict(format!("container {} is not running", container.name)));
    }
    let words = match &container.netns {
        Some(Namespace::Host) => {
            "container cannot be disconnected from host network or connected to host network"
        }
        Some(Namespace::Shared(_)) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
        Some(Namespace::Own(_)) if container.network_mode == "none" => {
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        }
        Some(Namespace::Own(_) | Namespace::Given { .. }) => return Ok(()),
        None => return Err(Error::Conflict(format!("container {} is not running", container.name))),
    };
    Err(Error::Invalid(words.to_owned()))
}
