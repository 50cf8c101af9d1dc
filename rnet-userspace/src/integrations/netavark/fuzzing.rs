//! What Podman says to the plugin.

use super::{Attachment, Network, with_subnets};
use crate::fuzzing::{Shape, Target, refused, round_trip};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "netavark-network", shape: Shape::Json, run: network, words: WORDS },
    Target { name: "netavark-attachment", shape: Shape::Json, run: attachment, words: WORDS },
];
const WORDS: &[&str] = &[
    "id",
    "name",
    "network_interface",
    "subnets",
    "subnet",
    "gateway",
    "lease_range",
    "ipv6_enabled",
    "internal",
    "dns_enabled",
    "ipam_options",
    "options",
    "mtu",
    "isolate",
    "routes",
    "network_dns_servers",
    "10.93.1.0/24",
    "fd00::/64",
    "container_id",
    "container_name",
    "port_mappings",
    "container_port",
    "host_ip",
    "host_port",
    "protocol",
    "tcp,udp,sctp",
    "range",
    "network",
    "network_options",
    "interface_name",
    "aliases",
    "static_ips",
    "static_mac",
    "10.93.1.9",
    "1fb4c25ccf4c623e",
];

fn network(input: &[u8]) {
    let Some(network) = round_trip::<Network>(input) else { return };
    let request = match network.request() {
        Ok(request) => request,
        Err(e) => return refused(format_args!("{e:#}"), input),
    };
    for nth in 0..=super::TRIES {
        match with_subnets(request.clone(), &network.id, nth) {
            Ok(made) => {
                let has =
                    |ipv6| made.subnets.iter().any(|s| s.subnet.is_some_and(|net| net.is_ipv6() == ipv6));
                assert!(made.ipv4 != Some(true) || has(false), "{made:?}");
                assert!(!made.ipv6 || has(true), "{made:?}");
                assert!(made.subnets.starts_with(&request.subnets));
            }
            Err(e) => refused(format_args!("{e:#}"), input),
        }
    }
}

fn attachment(input: &[u8]) {
    /// Ports of three protocols.
    const MOST: usize = 3 << 16;
    let attachment = match serde_json::from_slice::<Attachment>(input) {
        Ok(attachment) => attachment,
        Err(e) => return refused(e, input),
    };
    let entries = attachment.port_mappings.as_ref().map_or(0, Vec::len);
    // Each stands for as many as it says.
    if entries > 16 {
        return;
    }
    match attachment.container("/run/netns/x".into()) {
        Ok(container) => {
            assert!(container.ports.len() <= entries * MOST);
            assert_eq!(container.interfaces.len(), 1);
        }
        Err(e) => refused(format_args!("{e:#}"), input),
    }
}
