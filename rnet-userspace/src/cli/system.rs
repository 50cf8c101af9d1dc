//! What the commands need beyond the daemon's interface.

use std::process::Child;

use anyhow::Result;

use crate::{api::daemon::Parts, config::DaemonConfig, controller::view};

/// The machine that the commands run on.
pub trait System: Send + Sync + 'static {
    /// Makes what the daemon works with: the controller of the instance, with what is there adopted.
    fn daemon(&self, config: &DaemonConfig) -> Result<Parts>;
    /// Starts a container's command inside its namespaces, with this process's input, output and process group.
    fn spawn(&self, container: &view::Container) -> Result<Child>;
    /// Starts another command inside the namespaces of a running container, likewise.
    fn enter(&self, container: &view::Container, command: &[String]) -> Result<Child>;
    /// Becomes, or starts and waits for, the process of a container that `spec` describes. Returns the exit
    /// status.
    fn shim(&self, spec: &str) -> u8;
}
