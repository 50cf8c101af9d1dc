//! The daemon's HTTP interface, on a unix socket and wherever else it is told to listen, and its client.
//!
//! ```text
//! client ── HTTP/1.1 ─▶ server ─┬─ docker: the calls that Docker's Engine has, as it has them
//!                               └─ native: the rest, under /rnet
//!                                    └▶ supervisor ─┬─▶ Control: networks, endpoints, ports
//!                                                   └─▶ Processes: what runs inside the containers
//! ```

pub mod activation;
mod activity;
pub mod address;
pub mod calls;
pub mod client;
pub(crate) mod connections;
mod control;
pub mod daemon;
pub mod docker;
mod engines;
mod error;
mod exporter;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listeners;
mod metrics;
mod native;
mod processes;
mod server;
pub(crate) mod socket;
mod supervisor;
#[cfg(test)]
mod tests;
pub mod tls;
mod trace;

pub use control::Control;
pub use processes::{Process, Processes, Signal};

/// Path of an instance's socket.
pub fn socket_path(instance: &str) -> std::path::PathBuf {
    std::path::Path::new("/run").join(instance).join("rnet.sock")
}

/// The instance that is meant when none is named.
pub const DEFAULT_INSTANCE: &str = "rnet";
