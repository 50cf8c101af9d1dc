//! What dockerd answers, and tells.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    DefaultNetwork,
    client::Lines,
    messages::{Container, Network, Summary},
    translate::{self, Interface},
};
use crate::{
    controller::model::name::check_interface,
    fuzzing::{Shape, Target, refused},
    host::bridge_ports::BridgePort,
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "dockerd-network", shape: Shape::Json, run: network, words: WORDS },
    Target { name: "dockerd-container", shape: Shape::Json, run: container, words: WORDS },
    Target { name: "dockerd-events", shape: Shape::Bytes, run: events, words: EVENTS },
];
const WORDS: &[&str] = &[
    "Id",
    "Name",
    "Driver",
    "bridge",
    "IPAM",
    "Config",
    "Subnet",
    "IPRange",
    "Gateway",
    "Options",
    "Containers",
    "EndpointID",
    "MacAddress",
    "IPv4Address",
    "IPv6Address",
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.host_binding_ipv4",
    "State",
    "Running",
    "Pid",
    "NetworkSettings",
    "SandboxKey",
    "Ports",
    "80/tcp",
    "HostIp",
    "HostPort",
    "Networks",
    "NetworkID",
    "IPAddress",
    "IPPrefixLen",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "HostConfig",
    "PortBindings",
    "10.1.0.0/24",
    "10.1.0.2",
    "fd00::2",
    "0.0.0.0",
    "::",
    "53/udp",
    "9/sctp",
    "8080",
];
const EVENTS: &[&str] = &[
    "{\"Type\":\"container\",",
    "\"Action\":\"start\",",
    "\"Actor\":{\"ID\":\"c\",\"Attributes\":null}}",
    "\n",
    "\r\n",
    "null\n",
    "{}\n",
];
const DEFAULT: DefaultNetwork = DefaultNetwork { masquerade: true, icc: true };

fn network(input: &[u8]) {
    let said = match serde_json::from_slice::<Network>(input) {
        Ok(said) => said,
        Err(e) => return refused(e, input),
    };
    match translate::network(&said, &[], DEFAULT) {
        Ok(followed) => {
            let network = followed.network;
            assert!(check_interface(&network.bridge).is_ok(), "bridge {:?}", network.bridge);
            assert_eq!(network.subnets.len(), said.ipam.config.len());
            for subnet in &network.subnets {
                assert_eq!(subnet.subnet.ip(), subnet.subnet.network());
                assert!(subnet.gateway.is_none_or(|gateway| subnet.subnet.contains(gateway)), "{subnet:?}");
            }
        }
        Err(e) => refused(e, input),
    }
    for member in said.containers.values() {
        if let Some(interface) = Interface::of_member(&said.id, member) {
            check(&interface);
        }
    }
}

fn container(input: &[u8]) {
    if let Err(e) = serde_json::from_slice::<Vec<Summary>>(input) {
        refused(e, input);
    }
    let said = match serde_json::from_slice::<Container>(input) {
        Ok(said) => said,
        Err(e) => return refused(e, input),
    };
    let mut networks = BTreeMap::new();
    for id in translate::networks_of(&said) {
        let known = Network { id: id.clone(), name: "n".to_owned(), ..Network::default() };
        if let Ok(followed) = translate::network(&known, &[], DEFAULT) {
            networks.insert(id, followed);
        }
    }
    let interfaces = translate::interfaces(&said, &networks);
    interfaces.iter().for_each(check);
    let port = BridgePort { name: "veth0".to_owned(), inside: None };
    let found: Vec<_> = interfaces.iter().map(|interface| interface.at(&port)).collect();
    let bindings =
        |ports: &super::messages::PortBindings| ports.values().flatten().map(Vec::len).sum::<usize>();
    let to_be = translate::ports_to_be(&said.host_config.port_bindings, &found, &networks);
    assert!(to_be.len() <= 2 * bindings(&said.host_config.port_bindings));
    let (made, unserved) = translate::container(&said, PathBuf::from("/run/netns/x"), found, &networks);
    assert!(made.ports.len() + unserved.len() <= bindings(&said.network_settings.ports));
    assert!(made.ports.iter().enumerate().all(|(n, port)| !made.ports[..n].contains(port)), "each once");
    assert!(!made.name.starts_with('/'));
    translate::runs(&said);
}

fn check(interface: &Interface) {
    assert!(!interface.endpoint.is_empty() && !interface.addrs.is_empty(), "{interface:?}");
}

/// However the stream is cut, the same is told.
fn events(input: &[u8]) {
    let told = |size: usize| {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for piece in input.chunks(size) {
            lines.push(piece).unwrap_or_else(|e| panic!("{} bytes are refused: {e}", input.len()));
            while let Some(event) = lines.next() {
                told.push(event.map_err(|e| e.to_string()));
            }
        }
        told
    };
    let whole = told(input.len().max(1));
    whole.iter().filter_map(|event| event.as_ref().err()).for_each(|e| refused(e, input));
    assert!(whole.len() <= input.iter().filter(|byte| **byte == b'\n').count());
    for size in [1, 7] {
        assert_eq!(told(size), whole, "in pieces of {size}");
    }
}
