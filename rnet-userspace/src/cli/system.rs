//! What the commands need beyond the daemon's interface.

use anyhow::Result;

use crate::{
    api::daemon::Parts,
    config::DaemonConfig,
    controller::view,
    host::process::{Foreground, Input},
};

/// The machine that the commands run on.
pub trait System: Send + Sync + 'static {
    /// Makes what the daemon works with: the controller of the instance, with what is there adopted.
    fn daemon(&self, config: &DaemonConfig) -> Result<Parts>;
    /// Starts a container's command, and waits until it runs or has failed to.
    fn spawn(&self, container: &view::Container, input: Input) -> Result<Foreground>;
    /// Starts another command inside a running container, likewise.
    fn enter(&self, container: &view::Container, command: &[String], input: Input) -> Result<Foreground>;
    /// Looks after the process of a container that `spec` describes. Returns the exit status.
    fn shim(&self, spec: &str) -> u8;
}
