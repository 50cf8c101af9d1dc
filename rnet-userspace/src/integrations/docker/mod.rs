//! Docker's own bridge networks: dockerd keeps bridges, addresses, names and lists, and rnet does what iptables and
//! docker-proxy would.
//!
//! ```text
//!  dockerd ── /events ──▶ follow ──┬─ client: asks what has changed, and all of it now and then
//!                                  ├─ translate: Docker's words into the controller's
//!                                  ├─ host::bridge_ports: which veth leads into which container
//!                                  └▶ Control: follow_network, set_engine_container, remove_…
//! ```
//!
//! Whatever is said twice changes nothing, so that every event may be answered by looking at what is there. Without
//! dockerd all stays as it is: containers may live on, and are looked at when it is back.

mod client;
mod containers;
mod follow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod messages;
mod problems;
mod starting;
mod survey;
#[cfg(test)]
mod tests;
mod translate;

use std::path::PathBuf;

pub use follow::follow;

/// Where dockerd listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// How Docker is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where dockerd listens.
    pub socket: PathBuf,
    /// What the default network is like.
    pub default_network: DefaultNetwork,
}

/// What dockerd cannot be told of its default network while it does not use iptables: then it always says that this
/// does not masquerade, and refuses `--icc=false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// What leaves the host gets the uplink's address.
    pub masquerade: bool,
    /// Its containers may talk to one another.
    pub icc: bool,
}

/// Reads where dockerd listens: `unix:///PATH`, or the path alone.
///
/// # Errors
/// Says what it should be like.
pub fn socket(address: &str) -> Result<PathBuf, String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(format!("invalid address of Docker's daemon: {address}: it should be as {DEFAULT_SOCKET}"))
}
