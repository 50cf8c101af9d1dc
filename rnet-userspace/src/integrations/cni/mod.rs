//! rnet as a CNI plugin: an engine runs the binary for each container, says by the environment what is to be done and by
//! standard input on which network, and reads the answer from standard output.
//!
//! ```text
//! engine ─ call, config ─▶ serve ─┬─ bridge:  a network and an interface that rnet makes; check
//!                                 ├─ portmap: ports of an interface that a plugin before it has made
//!                                 └─ removal: what DEL and GC take away
//!                                      └▶ daemon                     ipam: other plugins that give addresses
//! ```
//!
//! All state is the daemon's. The network is there from the first ADD to the last DEL. What an engine has begun it can
//! end: DEL succeeds whatever is left, but for a daemon that does not run, which still has the state.

mod bridge;
mod call;
mod check;
mod config;
mod daemon;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ipam;
mod json;
mod portmap;
mod ports;
mod removal;
mod result;
mod serve;
#[cfg(test)]
mod tests;
mod version;

use sha2::{Digest as _, Sha256};

pub use self::serve::{Reply, serve};

/// The daemon's id for a container: the engine's own where it is one already.
fn container_id(name: &str) -> String {
    if name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return name.to_owned();
    }
    hash(&format!("container {name}"))
}

/// The daemon's id for a network, which is always the same for the same name.
fn network_id(name: &str, mode: config::Mode) -> String {
    match mode {
        config::Mode::Bridge => hash(&format!("network {name}")),
        // One chain may have both.
        config::Mode::Portmap => hash(&format!("network {name} of others")),
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
