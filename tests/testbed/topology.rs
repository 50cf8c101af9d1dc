//! The networks that tests run on.
//!
//! ```text
//!   far 10.201.0.2 ─────── 10.201.0.1 client 10.200.0.2 ─────────── 10.200.0.1 host ── (rnet's containers)
//!                MTU 1300                                           10.200.0.9
//! ```
//! The host's default route leads to the client, so that whatever leaves the host arrives there. The client
//! has no route to containers: a packet that left with a container's address could not be answered.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use crate::{Netns, ethtool, wait_until};

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
/// The host's first address, which masquerading uses.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// The host's second address, on the same interface.
pub const HOST_SECOND: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 9);
/// The address of the machine behind the client.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
/// The interface that joins client and host, on both of them.
pub const UPLINK: &str = "eth0";

/// Who completes the checksums of packets between client and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Nobody: veth passes packets on with "to be computed" set, so that a wrong difference goes unseen, and
    /// segments stay merged up to 64 KiB.
    Offloaded,
    /// The sender's kernel, on both ends of the uplink: what arrives is verified by the receiver, and what the
    /// host sends is completed when it leaves, as by a network card. A wrong difference loses the packet.
    Finalised,
}

/// A host, and a client outside it.
#[derive(Debug)]
pub struct Host {
    /// Where rnet runs.
    pub ns: Netns,
    /// Outside.
    pub client: Netns,
    far: OnceLock<Netns>,
}

impl Host {
    /// A host whose uplink leaves checksums to the receiver.
    pub fn new() -> Self {
        Self::with(Checksums::Offloaded)
    }

    /// A host with this uplink.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn with(checksums: Checksums) -> Self {
        let (ns, client) = (Netns::new("host"), Netns::new("client"));
        join(&client, &ns, UPLINK);
        client.ip(&format!("addr add {CLIENT}/24 dev {UPLINK}"));
        ns.ip(&format!(
            "addr add {HOST}/24 dev {UPLINK}
             addr add {HOST_SECOND}/24 dev {UPLINK}
             route add default via {CLIENT}"
        ));
        let host = Self { ns, client, far: OnceLock::new() };
        if checksums == Checksums::Finalised {
            host.set_tx_checksum(&host.ns, UPLINK, false);
            host.make_uplink_a_wire();
        }
        wait_for_carrier(&host.ns, UPLINK);
        wait_for_carrier(&host.client, UPLINK);
        host
    }

    /// Switches an interface's transmit checksum offload.
    pub fn set_tx_checksum(&self, ns: &Netns, interface: &str, on: bool) {
        ethtool::set_tx_checksum(ns, interface, on);
    }

    /// Has packets arrive at the host as from a wire: the client's checksums are complete and its segments come one by
    /// one, and the host joins them, as a network card's driver does.
    pub fn make_uplink_a_wire(&self) {
        self.set_tx_checksum(&self.client, UPLINK, false);
        ethtool::set_gro(&self.ns, UPLINK);
    }

    /// A machine behind the client, over a link with an MTU of 1300. Made when first asked for.
    pub fn far(&self) -> &Netns {
        self.far.get_or_init(|| {
            let far = Netns::new("far");
            join(&far, &self.client, "far0");
            self.client.set_sysctl("net/ipv4/ip_forward", "1");
            self.client.ip("addr add 10.201.0.1/24 dev far0
                            link set far0 mtu 1300");
            far.ip(&format!(
                "addr add {FAR}/24 dev far0
                 link set far0 mtu 1300
                 route add default via 10.201.0.1"
            ));
            wait_for_carrier(&far, "far0");
            far
        })
    }

    /// A port on the host's first address.
    pub fn at(&self, port: u16) -> SocketAddr {
        (HOST, port).into()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Joins two namespaces with a veth pair of which each end is called `interface`, up.
pub fn join(a: &Netns, b: &Netns, interface: &str) {
    a.ip(&format!(
        "link add {interface} type veth peer name {interface} netns {}
         link set {interface} up",
        b.name()
    ));
    b.ip(&format!("link set {interface} up"));
}

/// Waits until packets can pass an interface. A veth gets there as soon as both ends are up, but the kernel
/// tells it to the rest of the stack a moment later.
pub fn wait_for_carrier(ns: &Netns, interface: &str) {
    wait_until(&format!("{interface} of {} is up", ns.name()), Duration::from_secs(10), || {
        let links = ns.output_of("ip", &["-o", "link", "show", interface])?;
        links.contains("state UP").then_some(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Failure, icmp, tcp};

    #[test]
    fn client_and_host_reach_one_another_and_only_the_host_knows_more() {
        crate::require_root!();
        let host = Host::new();
        for addr in [HOST, HOST_SECOND] {
            icmp::ping(&host.client, addr).expect("the host answers on both addresses");
        }
        icmp::ping(&host.ns, CLIENT).expect("the client answers");
        let elsewhere = SocketAddr::from(([172, 17, 0, 2], 80));
        assert_eq!(tcp::connect(&host.client, elsewhere).unwrap_err(), Failure::Unreachable);
    }

    #[test]
    fn the_far_machine_is_behind_the_client() {
        crate::require_root!();
        let host = Host::with(Checksums::Finalised);
        host.far();
        let reply = icmp::ping(&host.ns, FAR).expect("the client forwards");
        assert_eq!(reply.ttl, 63);
    }
}
