//! Translation of what a dockerd 20.10 has said (`recorded/`), which ran with `--iptables=false` and `--ipv6`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    DefaultNetwork,
    messages::{Container, Event, Network, Summary},
    socket,
    translate::{self, Followed, Interface},
};
use crate::{
    controller::{
        model::{
            InterfaceAddr, Protocol,
            options::NetworkOptions,
            port_spec::{PortChoice, PortMapping},
        },
        request::EngineContainer,
    },
    host::bridge_ports::{BridgePort, Inside},
};

const DEFAULT: DefaultNetwork = DefaultNetwork { masquerade: true, icc: true };

macro_rules! recorded {
    ($file:literal) => {
        read(include_str!(concat!("recorded/", $file)))
    };
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn addrs(of: &[&str]) -> Vec<InterfaceAddr> {
    of.iter().map(|addr| addr.parse().unwrap()).collect()
}

fn changed(mut value: Value, key: &str, to: Value) -> Network {
    value[key] = to;
    serde_json::from_value(value).unwrap()
}

fn all_networks() -> BTreeMap<String, Followed> {
    let networks: [Network; 3] =
        [recorded!("network-bridge.json"), recorded!("network-six.json"), recorded!("network-inner.json")];
    networks.iter().map(|n| (n.id.clone(), translate::network(n, &[], DEFAULT).unwrap())).collect()
}

/// The container with each interface behind a veth of its own.
fn translated(container: &Container) -> (EngineContainer, Vec<String>) {
    let networks = all_networks();
    let interfaces = translate::interfaces(container, &networks);
    let at = interfaces.iter().enumerate().map(|(i, interface)| {
        interface.at(&BridgePort {
            name: format!("veth{i}"),
            inside: Some(Inside { name: format!("eth{i}"), mac: interface.mac }),
        })
    });
    translate::container(container, PathBuf::from("/proc/1/ns/net"), at.collect(), &networks)
}

fn at(host_ip: &str, host: u16, container: u16, protocol: Protocol) -> PortMapping {
    PortMapping { host_ip: host_ip.parse().ok(), host: PortChoice::Exactly(host), container, protocol }
}

#[test]
fn the_default_network_has_the_bridges_addresses_and_masquerades_as_rnet_is_told() {
    let network: Network = recorded!("network-bridge.json");
    let on_bridge = addrs(&["172.17.0.1/16", "fd00:77::1/64"]);
    let Followed { network: wanted, unserved } = translate::network(&network, &on_bridge, DEFAULT).unwrap();
    assert_eq!((wanted.name.as_str(), wanted.bridge.as_str(), unserved.len()), ("bridge", "docker0", 0));
    let gateways: Vec<_> = wanted.subnets.iter().map(|s| s.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["172.17.0.1", "fd00:77::1"]);
    let options = NetworkOptions::parse(&wanted.options).unwrap();
    assert!(options.icc && options.masquerade, "dockerd says that it does not masquerade");
    let quiet =
        translate::network(&network, &on_bridge, DefaultNetwork { masquerade: false, icc: false }).unwrap();
    let quiet = NetworkOptions::parse(&quiet.network.options).unwrap();
    assert!(!quiet.masquerade && !quiet.icc);
}

#[test]
fn other_networks_are_called_by_their_id_and_say_themselves_whether_they_masquerade() {
    let inner: Network = recorded!("network-inner.json");
    let wanted = translate::network(&inner, &[], DEFAULT).unwrap().network;
    assert_eq!(wanted.bridge, format!("br-{}", &inner.id[..12]));
    assert!(wanted.internal);
    let six: Value = recorded!("network-six.json");
    let off = json!({ "com.docker.network.bridge.enable_ip_masquerade": "false" });
    let wanted = translate::network(&changed(six, "Options", off), &[], DEFAULT).unwrap().network;
    assert_eq!(wanted.subnets.len(), 2);
    assert!(!NetworkOptions::parse(&wanted.options).unwrap().masquerade);
}

#[test]
fn gateway_modes_of_later_versions_are_taken_over() {
    let six: Value = recorded!("network-six.json");
    let modes = json!({
        "com.docker.network.bridge.gateway_mode_ipv4": "isolated",
        "com.docker.network.bridge.gateway_mode_ipv6": "routed",
        "com.docker.network.enable_ipv4": "true",
    });
    let mut network = changed(six, "Options", modes);
    network.ipam.config[1].gateway = "fd00:7::1/64".into();
    let Followed { network: wanted, unserved } = translate::network(&network, &[], DEFAULT).unwrap();
    let gateways: Vec<_> = wanted.subnets.iter().map(|s| s.gateway.map(|g| g.to_string())).collect();
    assert_eq!(gateways, [None, Some("fd00:7::1".into())]);
    assert_eq!(unserved, [""; 0]);
}

#[test]
fn options_that_are_not_served_are_named_and_bad_values_refused() {
    let six: Value = recorded!("network-six.json");
    let odd = json!({ "com.docker.network.host_ipv4": "192.0.2.9" });
    let followed = translate::network(&changed(six.clone(), "Options", odd), &[], DEFAULT).unwrap();
    assert!(followed.unserved[0].contains("six") && followed.unserved[0].contains("host_ipv4=192.0.2.9"));
    // Docker makes the interfaces itself.
    let netkits = json!({ "rnet.link": "netkit" });
    let followed = translate::network(&changed(six.clone(), "Options", netkits), &[], DEFAULT).unwrap();
    assert!(followed.unserved[0].contains("six") && followed.unserved[0].contains("rnet.link=netkit"));
    assert!(!followed.network.options.contains_key("rnet.link"));
    let bad = json!({ "com.docker.network.bridge.enable_icc": "perhaps" });
    assert!(translate::network(&changed(six, "Options", bad), &[], DEFAULT).is_err());
}

#[test]
fn a_container_has_the_ports_that_dockerd_holds() {
    let web: Container = recorded!("container-web.json");
    assert!(translate::runs(&web));
    let (wanted, unserved) = translated(&web);
    assert_eq!((wanted.name.as_str(), unserved.len(), wanted.keeps_ports), ("web", 0, true));
    let interfaces: Vec<_> = wanted
        .interfaces
        .iter()
        .map(|i| (i.veth.as_deref().unwrap(), i.interface.as_str(), i.addrs.len()))
        .collect();
    assert_eq!(interfaces, [("veth0", "eth0", 2), ("veth1", "eth1", 2)]);
    use Protocol::{Tcp, Udp};
    let expected = [
        at("127.0.0.1", 53, 53, Udp),
        at("0.0.0.0", 7000, 7000, Tcp),
        at("::", 7000, 7000, Tcp),
        at("0.0.0.0", 7001, 7001, Tcp),
        at("::", 7001, 7001, Tcp),
        at("0.0.0.0", 8080, 80, Tcp),
        at("::", 8080, 80, Tcp),
    ];
    assert_eq!(wanted.ports, expected, "99 is only exposed");
}

#[test]
fn ports_of_a_family_that_the_container_has_not_lead_nowhere() {
    let mut web: Container = recorded!("container-web.json");
    for endpoint in web.network_settings.networks.values_mut() {
        endpoint.global_ipv6_address.clear();
    }
    let (wanted, unserved) = translated(&web);
    assert_eq!((wanted.ports.len(), unserved.len()), (4, 0));
    assert!(wanted.ports.iter().all(|port| port.host_ip.is_some_and(|ip| ip.is_ipv4())));
    let inner: Container = recorded!("container-in.json");
    let mut inner = inner;
    inner.network_settings.ports = web.network_settings.ports;
    assert_eq!(translated(&inner).0.ports, [], "an internal network is reached from nowhere");
}

#[test]
fn a_port_that_cannot_be_served_keeps_no_other_from_it() {
    let mut web: Container = recorded!("container-web.json");
    let ports = json!({
        "1/sctp": [{ "HostIp": "0.0.0.0", "HostPort": "1" }],
        "2/sctp": [{ "HostIp": "0.0.0.0", "HostPort": "3" }],
        "4/tcp": [{ "HostIp": "eth0", "HostPort": "4" }],
        "5/tcp": [{ "HostIp": "", "HostPort": "5" }],
        "6/tcp": [{ "HostIp": "192.0.2.1", "HostPort": "" }],
        "7/tcp": null,
    });
    web.network_settings.ports = serde_json::from_value(ports).unwrap();
    let (wanted, unserved) = translated(&web);
    let numbers: Vec<_> = wanted.ports.iter().map(|port| (port.container, port.host)).collect();
    assert_eq!(
        numbers,
        [(1, PortChoice::Exactly(1)), (5, PortChoice::Exactly(5)), (6, PortChoice::Ephemeral)]
    );
    assert!(unserved[0].contains("container web") && unserved[0].contains("SCTP"), "{unserved:?}");
    assert!(unserved[1].contains("4/tcp") && unserved[1].contains("eth0"), "{unserved:?}");
}

#[test]
fn containers_without_a_network_of_their_own_have_no_interfaces() {
    let networks = all_networks();
    let hosted: Container = recorded!("container-hosted.json");
    let sharing: Container = recorded!("container-sharing.json");
    assert_eq!(translate::interfaces(&hosted, &networks), []);
    assert_eq!(translate::interfaces(&sharing, &networks), []);
    assert!(translate::runs(&hosted));
    let mut web: Container = recorded!("container-web.json");
    web.state.pid = 0;
    assert!(!translate::runs(&web), "it waits to be started again");
}

#[test]
fn a_network_says_of_its_members_what_they_say_themselves() {
    let bridge: Network = recorded!("network-bridge.json");
    let web: Container = recorded!("container-web.json");
    let member = Interface::of_member(&bridge.id, &bridge.containers[&web.id]).unwrap();
    let own =
        translate::interfaces(&web, &all_networks()).into_iter().find(|i| i.network == bridge.id).unwrap();
    assert_eq!(member, own);
    assert_eq!(member.addrs, addrs(&["172.17.0.2/16", "fd00:77::242:ac11:2/64"]));
    assert_eq!(Interface::of_member(&bridge.id, &Default::default()), None);
}

#[test]
fn events_and_lists_are_understood() {
    let events: Vec<Event> = include_str!("recorded/events.jsonl").lines().map(read).collect();
    let told: Vec<_> = events.iter().map(|e| (e.kind.as_str(), e.action.as_str())).collect();
    assert_eq!(
        told,
        [
            ("container", "create"),
            ("network", "connect"),
            ("container", "start"),
            ("network", "disconnect"),
            ("container", "die")
        ]
    );
    assert_eq!(events[1].actor.attributes["container"], events[0].actor.id);
    let list: Vec<Summary> = recorded!("containers.json");
    assert_eq!(list[0].network_settings.networks["inner"].addrs(), addrs(&["172.18.0.2/16"]));
}

#[test]
fn addresses_of_dockerd_are_unix_sockets() {
    for address in ["unix:///run/d.sock", "/run/d.sock"] {
        assert_eq!(socket(address).unwrap(), PathBuf::from("/run/d.sock"));
    }
    for bad in ["tcp://127.0.0.1:2375", "unix://d.sock", ""] {
        assert!(socket(bad).unwrap_err().contains("unix:///var/run/docker.sock"), "{bad}");
    }
}

#[test]
fn ports_are_known_before_they_are_held_unless_dockerd_chooses_them() {
    let web: Container = recorded!("container-web.json");
    let interfaces = translated(&web).0.interfaces;
    let asked = json!({
        "53/udp": [{ "HostIp": "127.0.0.1", "HostPort": "53" }],
        "7000/tcp": [{ "HostIp": "", "HostPort": "7000" }],
        "7001/tcp": [{ "HostIp": "", "HostPort": "7001" }],
        "80/tcp": [{ "HostIp": "", "HostPort": "8080" }],
        "81/tcp": [{ "HostIp": "", "HostPort": "" }],
        "82/tcp": [{ "HostIp": "", "HostPort": "9000-9010" }],
    });
    let asked = serde_json::from_value(asked).unwrap();
    let known = translate::ports_to_be(&asked, &interfaces, &all_networks());
    assert_eq!(known, translated(&web).0.ports, "what dockerd says of them later");
    let mut networks = all_networks();
    for followed in networks.values_mut() {
        let bind = ("com.docker.network.bridge.host_binding_ipv4".to_owned(), "127.0.0.1".to_owned());
        followed.network.options.extend([bind]);
    }
    let bound = translate::ports_to_be(&asked, &interfaces, &networks);
    assert!(bound.iter().all(|port| port.host_ip.unwrap().is_loopback()), "{bound:?}");
}
