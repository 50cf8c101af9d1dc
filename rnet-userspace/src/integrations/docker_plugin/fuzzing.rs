//! dockerd's calls, and the plugin's own state.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::{
    error::Error,
    messages::{self, PortBinding},
    read,
    state::Kept,
    translate,
};
use crate::fuzzing::{Shape, Target, first_line, refused, round_trip, text};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "docker-plugin-call", shape: Shape::Json, run: call, words: WORDS },
    Target { name: "docker-plugin-state", shape: Shape::Json, run: state, words: STATE },
];
const WORDS: &[&str] = &[
    "NetworkDriver.CreateNetwork\n",
    "NetworkDriver.CreateEndpoint\n",
    "NetworkDriver.ProgramExternalConnectivity\n",
    "IpamDriver.RequestPool\n",
    "IpamDriver.RequestAddress\n",
    "IpamDriver.ReleaseAddress\n",
    "NetworkID",
    "EndpointID",
    "Options",
    "com.docker.network.generic",
    "com.docker.network.internal",
    "com.docker.network.portmap",
    "IPv4Data",
    "IPv6Data",
    "Pool",
    "SubPool",
    "Gateway",
    "AuxAddresses",
    "Interface",
    "Address",
    "AddressIPv6",
    "MacAddress",
    "Proto",
    "Port",
    "HostIP",
    "HostPort",
    "HostPortEnd",
    "PoolID",
    "V6",
    "RequestAddressType",
    "10.1.0.0/24",
    "10.1.0.1/24",
    "fd00::/64",
    "02:42:ac:11:00:02",
];
const STATE: &[&str] =
    &["removals", "endpoint", "network", "pools", "subnet", "range", "taken", "10.1.0.0/24", "10.1.0.9"];

/// The call's name, and its body.
fn call(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (call, body) = first_line(text);
    let body = body.as_bytes();
    match call {
        "NetworkDriver.CreateNetwork" => {
            let Some(asked) = understood::<messages::CreateNetwork>(call, body) else { return };
            match translate::network(&asked) {
                Ok(network) => {
                    assert_eq!(network.subnets.len(), asked.ipv4.len() + asked.ipv6.len());
                    let written = serde_json::to_vec(&network).unwrap_or_default();
                    assert_eq!(round_trip(&written), Some(network));
                }
                Err(e) => refused(e, input),
            }
        }
        "NetworkDriver.CreateEndpoint" => {
            let Some(asked) = understood::<messages::CreateEndpoint>(call, body) else { return };
            let made = translate::endpoint(&asked);
            assert_eq!((made.id.as_str(), made.interfaces.len()), (asked.endpoint.as_str(), 1));
            let written = serde_json::to_vec(&made).unwrap_or_default();
            assert_eq!(round_trip(&written), Some(made));
        }
        "NetworkDriver.ProgramExternalConnectivity" => {
            let Some(asked) = understood::<messages::Connectivity>(call, body) else { return };
            ports(&asked.options.ports, input);
        }
        "IpamDriver.RequestPool" => drop(understood::<messages::RequestPool>(call, body)),
        "IpamDriver.ReleasePool" => drop(understood::<messages::Pool>(call, body)),
        "IpamDriver.RequestAddress" => drop(understood::<messages::RequestAddress>(call, body)),
        "IpamDriver.ReleaseAddress" => drop(understood::<messages::ReleaseAddress>(call, body)),
        "NetworkDriver.DeleteNetwork" => drop(understood::<messages::Network>(call, body)),
        _ => drop(understood::<messages::Endpoint>(call, body)),
    }
}

fn ports(asked: &[PortBinding], input: &[u8]) {
    for binding in asked {
        let written = serde_json::to_vec(binding).unwrap_or_default();
        assert_eq!(round_trip::<PortBinding>(&written).as_ref(), Some(binding));
    }
    let made = translate::ports(asked);
    let mut turned = asked.to_vec();
    turned.reverse();
    match (made, translate::ports(&turned)) {
        (Ok(made), Ok(same)) => {
            assert_eq!(made, same, "the order does not matter");
            assert!(made.len() <= asked.len());
            let containers: BTreeSet<u16> = asked.iter().map(|binding| binding.port).collect();
            assert_eq!(made.iter().map(|port| port.container).collect::<BTreeSet<_>>(), containers);
        }
        (Err(e), Err(_)) => refused(e, input),
        (made, turned) => panic!("{made:?} and {turned:?} of the same ports"),
    }
}

fn understood<T: DeserializeOwned>(call: &str, body: &[u8]) -> Option<T> {
    let outcome: super::error::Result<T> = read(call, body);
    match outcome {
        Ok(asked) => Some(asked),
        Err(e) => {
            assert!(matches!(e, Error::NotUnderstood(..)));
            refused(e, body);
            None
        }
    }
}

fn state(input: &[u8]) {
    round_trip::<Kept>(input);
}
