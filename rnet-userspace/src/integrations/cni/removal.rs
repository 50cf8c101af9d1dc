//! What DEL and GC take away. What is not there is as good as taken.

use super::{
    call::Command,
    config::Mode,
    container_id,
    error::{Error, Result},
    serve::Session,
};
use crate::{
    api::client,
    controller::{model::engine::Engine, view},
    host::shaping,
};

impl Session<'_> {
    /// Takes the container's interface from the network, and the network with the last one.
    pub(super) fn remove(&self) -> Result<()> {
        self.unlimit();
        self.remove_interface(&self.container, &self.call.interface)?;
        self.forget_network()?;
        // Last: until here the address is in use.
        self.ipam.as_ref().map_or(Ok(()), |ipam| ipam.tell(Command::Del))
    }

    /// Takes away what limits the interface, where there is still a namespace that it could be in. What is left there does
    /// nothing once the interface is gone.
    pub(super) fn unlimit(&self) {
        if let Some(netns) = self.call.netns.as_ref().filter(|_| self.config.mode == Mode::Bridge) {
            let _ = shaping::unlimit(netns, &self.call.interface);
        }
    }

    /// Takes off all interfaces of the network but those that the engine knows.
    pub(super) fn collect(&self) -> Result<()> {
        let Some(valid) = &self.config.valid else {
            return Err(Error::config(
                "cni.dev/valid-attachments is missing: GC would remove every container",
            ));
        };
        let is_valid = |container: &view::Container, interface: &str| {
            valid.iter().any(|(id, name)| container_id(id) == container.id && name == interface)
        };
        let containers = self.daemon.ask(|client| client.every_container())?;
        let mut errors = Vec::new();
        for container in containers.iter().filter(|container| container.engine == Some(Engine::Cni)) {
            let on_it = container.endpoints.iter().filter(|endpoint| endpoint.network_id == self.network);
            for endpoint in on_it.filter(|endpoint| !is_valid(container, &endpoint.interface)) {
                errors.extend(self.remove_interface(&container.id, &endpoint.interface).err());
            }
        }
        errors.extend(self.forget_network().err());
        errors.extend(self.ipam.as_ref().and_then(|ipam| ipam.tell(Command::Gc).err()));
        // All that can be removed is, whatever fails.
        let mut errors = errors.into_iter();
        match errors.next() {
            None => Ok(()),
            Some(first) => {
                let others: Vec<String> = errors.map(|error| error.to_string()).collect();
                Err(first.with_details(others.join("; ")))
            }
        }
    }

    /// Takes an interface if it is of this network: an ADD that was refused because the name was taken is undone, too.
    pub(super) fn remove_interface(&self, id: &str, interface: &str) -> Result<()> {
        let Some(container) = self.daemon.find(|client| client.container(id))? else { return Ok(()) };
        let is_it = |endpoint: &view::Endpoint| {
            endpoint.network_id == self.network && endpoint.interface == interface
        };
        if container.endpoints.iter().any(is_it) {
            self.daemon.ask(|client| client.remove_engine_interface(Engine::Cni, id, interface))?;
        } else if container.endpoints.is_empty() {
            self.daemon.ask(|client| client.remove_engine_container(Engine::Cni, id))?;
        }
        Ok(())
    }

    /// Removes the network unless somebody is on it.
    pub(super) fn forget_network(&self) -> Result<()> {
        match self.daemon.ask(|client| client.remove_engine_network(Engine::Cni, &self.network)) {
            Err(client::Error::Refused { status: 403, .. }) => Ok(()),
            removed => Ok(removed?),
        }
    }
}
