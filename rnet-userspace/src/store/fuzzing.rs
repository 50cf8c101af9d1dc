//! Records of the state on disk.

use super::schema::{Container, Network, Record};
use crate::{
    controller::Directory,
    fuzzing::{Shape, Target, round_trip},
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "state-network", shape: Shape::Json, run: network, words: WORDS },
    Target { name: "state-container", shape: Shape::Json, run: container, words: WORDS },
];
const WORDS: &[&str] = &[
    "ready",
    "creating",
    "removing",
    "bridge",
    "null",
    "running",
    "exited",
    "created",
    "engine",
    "docker",
    "cni",
    "netavark",
    "own",
    "shared",
    "given",
    "host",
    "path",
    "number",
    "endpoints",
    "addrs",
    "mac",
    "02:00:00:00:00:01",
    "10.1.0.2/24",
    "mapping",
    "exactly",
    "oneof",
    "ephemeral",
    "tcp",
    "udp",
    "sctp",
    "held",
    "bindings",
    "borrowed",
    "unheld",
];

fn network(input: &[u8]) {
    let Some(network) = round_trip::<Network>(input) else { return };
    let directory = Directory::default();
    directory.update_network(None, Some(&network));
    directory.update_network(Some(&network), None);
    assert!(directory.gateways().borrow().is_empty(), "a network that is gone has gateways");
    assert!(network.is_lasting());
}

fn container(input: &[u8]) {
    let Some(container) = round_trip::<Container>(input) else { return };
    let directory = Directory::default();
    directory.update_container(None, Some(&container));
    directory.update_container(Some(&container), None);
    for addr in container.endpoints.iter().flat_map(|endpoint| &endpoint.addrs) {
        assert_eq!(directory.client(addr.ip()), None, "a container that is gone asks");
    }
}
