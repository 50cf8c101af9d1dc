//! Gateway modes, and what else a network's options do.

use super::*;
use crate::controller::backend::{Direct, EndpointAddr};

const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

/// A network of both families, 10.1.0.0/24 and fd00:1::/64.
fn dual(name: &str, options: &[(&str, &str)]) -> CreateNetwork {
    let plain = |s: &str| Subnet { subnet: Some(s.parse().unwrap()), ..Subnet::default() };
    CreateNetwork {
        ipv6: true,
        subnets: vec![plain("10.1.0.0/24"), plain("fd00:1::/64")],
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..network(name)
    }
}

fn on_n1(name: &str, specs: &[&str]) -> CreateContainer {
    CreateContainer { networks: vec![Connect::to("n1")], ..publishing(name, specs) }
}

fn known_addrs(bench: &Bench) -> Vec<EndpointAddr> {
    bench.fake.tables().endpoints.values().next().unwrap().addrs.clone()
}

fn ports_of(instance: &Instance, container: &str) -> Vec<String> {
    let socket = |addr, port| std::net::SocketAddr::new(addr, port);
    let ports = instance.container(container).unwrap().ports;
    ports
        .iter()
        .map(|b| format!("{}->{}", socket(b.host.addr, b.host.port), socket(b.addr, b.port)))
        .collect()
}

#[test]
fn each_family_has_its_own_gateway_mode() {
    for (modes, expected) in [
        ([("nat", "nat")], [(true, Direct::None), (true, Direct::None)]),
        ([("nat", "routed")], [(true, Direct::None), (false, Direct::Published)]),
        ([("routed", "nat-unprotected")], [(false, Direct::Published), (true, Direct::All)]),
    ] {
        let bench = Bench::new();
        let mut instance = bench.start();
        let (v4, v6) = modes[0];
        instance.create_network(&dual("n1", &[(MODE4, v4), (MODE6, v6)])).unwrap();
        instance.create_container(&on_n1("web", &[])).unwrap();
        let known: Vec<_> = known_addrs(&bench).iter().map(|a| (a.masquerade, a.direct)).collect();
        assert_eq!(known, expected, "{modes:?}");
    }
}

#[test]
fn a_routed_port_is_the_containers_own_and_takes_none_of_the_hosts() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&dual("n1", &[(MODE6, "routed")])).unwrap();
    instance.create_container(&on_n1("web", &["8080:80", "8081:80", "[2001:db8::7]:9000:90/sctp"])).unwrap();
    assert_eq!(
        ports_of(&instance, "web"),
        [
            "0.0.0.0:8080->10.1.0.2:80",
            "[fd00:1::2]:80->[fd00:1::2]:80",
            "0.0.0.0:8081->10.1.0.2:80",
            "[fd00:1::2]:90->[fd00:1::2]:90",
        ]
    );
    // Neither published nor in use on the host itself.
    instance.create_network(&CreateNetwork { ipv6: true, ..network("n2") }).unwrap();
    let other = CreateContainer {
        networks: vec![Connect::to("n2")],
        ..publishing("db", &["80:80", "[::]:90:90/sctp"])
    };
    instance.create_container(&other).unwrap();
    assert!(ports_of(&instance, "db")[1].starts_with("[::]:80->"));
    let listed = instance.published().unwrap();
    assert_eq!(listed.iter().filter(|p| p.container == "web").count(), 4);
    instance.remove_container("web", true).unwrap();
    assert!(instance.published().unwrap().iter().all(|p| p.container == "db"));
}

#[test]
fn nothing_of_the_host_is_held_for_routed_ports_alone() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&dual("n1", &[(MODE4, "routed"), (MODE6, "routed")])).unwrap();
    bench.fake.world().log.clear();
    instance.create_container(&on_n1("web", &["80", "81:80", "7000-7001:90-91"])).unwrap();
    assert!(!bench.fake.world().log.iter().any(|call| call == "hold_ports"));
    assert_eq!(ports_of(&instance, "web").len(), 6);
}

#[test]
fn an_isolated_network_has_no_address_on_its_bridge() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let isolated = dual("n1", &[(MODE4, "isolated"), (MODE6, "isolated")]);
    assert_eq!(
        message(instance.create_network(&isolated)),
        "gateway mode 'isolated' can only be used for an internal network: add --internal"
    );
    let made = instance.create_network(&CreateNetwork { internal: true, ..isolated.clone() }).unwrap();
    assert!(made.subnets.iter().all(|s| s.gateway.is_none()));
    assert!(bench.fake.tables().bridges[made.bridge.as_ref().unwrap()].1.addrs.is_empty());
    let web = instance.create_container(&on_n1("web", &[])).unwrap();
    assert_eq!(web.endpoints[0].addrs[0].to_string(), "10.1.0.1/24", "no gateway takes it");
    assert!(web.endpoints[0].gateways.is_empty());
    assert!(known_addrs(&bench).iter().all(|a| a.gateway.is_none() && !a.masquerade));
    instance.remove_container("web", true).unwrap();
    instance.remove_network("n1").unwrap();

    let mut named = CreateNetwork { internal: true, ..isolated };
    named.subnets[0].gateway = "10.1.0.9".parse().ok();
    assert!(
        message(instance.create_network(&named))
            .contains("in gateway mode 'isolated' the bridge has no address")
    );
}

#[test]
fn an_internal_network_lets_nothing_in_whatever_its_mode() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let open = dual("n1", &[(MODE4, "nat-unprotected"), (MODE6, "routed")]);
    instance.create_network(&CreateNetwork { internal: true, ..open }).unwrap();
    instance.create_container(&on_n1("web", &[])).unwrap();
    assert!(known_addrs(&bench).iter().all(|a| a.direct == Direct::None && a.gateway.is_some()));
    assert!(message(instance.create_container(&on_n1("db", &["80"]))).contains("network n1 is internal"));
}

#[test]
fn a_network_may_say_where_its_ports_are_published_and_how_large_its_packets_are() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let options = [
        ("com.docker.network.bridge.host_binding_ipv4", "192.0.2.1"),
        ("com.docker.network.driver.mtu", "1400"),
    ];
    instance.create_network(&dual("n1", &options)).unwrap();
    instance.create_container(&on_n1("web", &["8080:80", "0.0.0.0:81:81"])).unwrap();
    assert_eq!(ports_of(&instance, "web"), ["192.0.2.1:8080->10.1.0.2:80", "0.0.0.0:81->10.1.0.2:81"]);
    assert_eq!(bench.fake.tables().endpoints.values().next().unwrap().mtu, 1400);
}
