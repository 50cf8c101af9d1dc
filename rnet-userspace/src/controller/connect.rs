//! Containers that come onto networks, and leave them, while they run.

use super::{
    Controller,
    backend::{Datapath, Host},
    error::{Error, Result},
    model::Binding,
    request::{Connect, Publish},
};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Puts a container on one more network.
    ///
    /// # Errors
    /// Always.
    pub fn connect(&mut self, container: &str, connect: &Connect) -> Result<()> {
        let _ = (container, connect);
        Err(Error::Invalid("connect is not there yet".into()))
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// Always.
    pub fn disconnect(&mut self, network: &str, container: &str, force: bool) -> Result<()> {
        let _ = (network, container, force);
        Err(Error::Invalid("disconnect is not there yet".into()))
    }

    /// Publishes ports.
    ///
    /// # Errors
    /// Always.
    pub fn publish(&mut self, container: &str, publish: &Publish) -> Result<Vec<Binding>> {
        let _ = (container, publish);
        Err(Error::Invalid("publish is not there yet".into()))
    }

    /// Withdraws ports.
    ///
    /// # Errors
    /// Always.
    pub fn unpublish(&mut self, container: &str, ports: &[String]) -> Result<Vec<Binding>> {
        let _ = (container, ports);
        Err(Error::Invalid("unpublish is not there yet".into()))
    }
}
