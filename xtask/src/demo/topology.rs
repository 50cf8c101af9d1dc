//! The stage: a host, and a client outside of it on one cable.

use std::{net::Ipv4Addr, process::Command};

use anyhow::Result;

use super::netns::OwnNamespace;
use crate::command::output;

/// The host's address outside. RFC 5737: for documentation.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The client's address.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// Both namespaces. They go, and the cable with them, with this value.
pub(super) struct Topology {
    pub(super) host: OwnNamespace,
    pub(super) client: OwnNamespace,
}

impl Topology {
    /// Builds it, under names that begin with `prefix`.
    pub(super) fn build(prefix: &str) -> Result<Self> {
        let host = OwnNamespace::create(&format!("{prefix}-host"))?;
        let client = OwnNamespace::create(&format!("{prefix}-client"))?;
        // Made inside one of the namespaces, so that this machine's own never sees an end of it.
        let cable =
            format!("-n {} link add uplink0 type veth peer name eth0 netns {}", host.name(), client.name());
        output(Command::new("ip").args(cable.split_whitespace()))?;
        for (end, interface, address) in [(&host, "uplink0", HOST), (&client, "eth0", CLIENT)] {
            end.ip(&format!("address add {address}/24 dev {interface}"))?;
            end.ip(&format!("link set {interface} up"))?;
        }
        // The client has no route to the containers: what it reaches, it reaches at the host's address. The host's
        // default route leads nowhere, and is there because a host has one.
        host.ip(&format!("route add default via {CLIENT}"))?;
        Ok(Self { host, client })
    }
}
