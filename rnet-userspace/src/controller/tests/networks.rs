use std::collections::BTreeMap;

use super::*;

fn with(name: &str, subnet: Option<&str>, range: Option<&str>, gateway: Option<&str>) -> CreateNetwork {
    let subnet = Subnet {
        subnet: subnet.map(|s| s.parse().unwrap()),
        ip_range: range.map(|s| s.parse().unwrap()),
        gateway: gateway.map(|s| s.parse().unwrap()),
        ..Subnet::default()
    };
    CreateNetwork { subnets: vec![subnet], ..network(name) }
}

fn subnet_of(instance: &Instance, name: &str) -> String {
    instance.network(name).unwrap().subnets[0].subnet.to_string()
}

#[test]
fn the_predefined_networks_are_there_from_the_start() {
    let bench = Bench::new();
    let instance = bench.start();
    let networks = instance.networks();
    let listed: Vec<_> = networks.iter().map(|n| (n.name.as_str(), n.driver.as_str())).collect();
    assert_eq!(listed, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
    assert_eq!(networks[0].bridge.as_deref(), Some("rnet0"));
    assert_eq!(networks[0].subnets[0].gateway, "172.17.0.1".parse().ok());
    let tables = bench.fake.tables();
    assert_eq!(tables.bridges["rnet0"].1.addrs[0].to_string(), "172.17.0.1/16");
    let known: Vec<_> = tables.known_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(known, ["127.0.0.1", "172.17.0.1", "192.0.2.1"]);
    assert_eq!(tables.known_uplinks[0].name, "uplink0");
}

#[test]
fn the_default_network_steps_aside_for_what_is_there() {
    let bench = Bench::new();
    bench.fake.world().foreign.routes.push("172.17.0.0/16".parse().unwrap());
    bench.fake.world().foreign.addresses.push("172.18.3.4".parse().unwrap());
    assert_eq!(subnet_of(&bench.start(), "bridge"), "172.19.0.0/16");
}

#[test]
fn subnets_come_from_the_next_free_pool_and_return_to_it() {
    let bench = Bench::new();
    let mut instance = bench.start();
    // A VPN's way of writing a default route is in nobody's way.
    bench.fake.world().foreign.routes.push("128.0.0.0/1".parse().unwrap());
    for (name, subnet) in [("a", "172.18.0.0/16"), ("b", "172.19.0.0/16")] {
        let made = instance.create_network(&network(name)).unwrap();
        assert_eq!(made.subnets[0].subnet.to_string(), subnet);
        assert_eq!(made.bridge.unwrap(), format!("br-{}", &made.id[..12]));
    }
    instance.remove_network("a").unwrap();
    instance.create_network(&network("c")).unwrap();
    assert_eq!(subnet_of(&instance, "c"), "172.18.0.0/16");
}

#[test]
fn a_network_is_made_and_removed_whole() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.fake.tables();
    let mut request = with("n1", Some("10.9.0.0/24"), Some("10.9.0.64/30"), Some("10.9.0.254"));
    request.options = BTreeMap::from([
        ("com.docker.network.bridge.name".to_owned(), "web0".to_owned()),
        ("com.docker.network.driver.mtu".to_owned(), "1400".to_owned()),
    ]);
    let made = instance.create_network(&request).unwrap();
    let tables = bench.fake.tables();
    let (_, bridge) = &tables.bridges["web0"];
    assert_eq!((bridge.addrs[0].to_string().as_str(), bridge.mtu), ("10.9.0.254/24", Some(1400)));
    assert!(tables.known_addresses.contains(&"10.9.0.254".parse().unwrap()));
    assert_eq!(instance.network(&made.id[..5]).unwrap(), made);
    assert_eq!(instance.remove_network(&made.id).unwrap(), made);
    assert_eq!(bench.fake.tables(), before);
    assert!(matches!(instance.network("n1"), Err(Error::NotFound(m)) if m == "network n1 not found"));
}

#[test]
fn addresses_of_an_ip_range_are_used_up_in_order_and_again() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance
        .create_network(&with("n1", Some("10.9.0.0/24"), Some("10.9.0.64/30"), Some("10.9.0.254")))
        .unwrap();
    let on_n1 = |name: &str| CreateContainer { networks: vec![Connect::to("n1")], ..namespace(name) };
    for (name, addr) in
        [("a", "10.9.0.64/24"), ("b", "10.9.0.65/24"), ("c", "10.9.0.66/24"), ("d", "10.9.0.67/24")]
    {
        instance.create_container(&on_n1(name)).unwrap();
        assert_eq!(addr_of(&instance, name), addr);
    }
    assert_eq!(
        message(instance.create_container(&on_n1("e"))),
        "no available addresses on this pool: 10.9.0.64/30 is full"
    );
    instance.remove_container("b", true).unwrap();
    instance.create_container(&on_n1("e")).unwrap();
    assert_eq!(addr_of(&instance, "e"), "10.9.0.65/24");
    // A fixed address may lie outside the range.
    let fixed = joining("f", Connect { ip: Some("10.9.0.7".parse().unwrap()), ..Connect::to("n1") });
    instance.create_container(&fixed).unwrap();
    assert_eq!(addr_of(&instance, "f"), "10.9.0.7/24");
}

#[test]
fn a_network_that_cannot_be_is_refused_with_the_reason() {
    let bench = Bench::new();
    bench.fake.world().foreign.routes.push("10.8.0.0/16".parse().unwrap());
    bench.fake.world().foreign.links.insert("eth7".into());
    let mut instance = bench.start();
    instance.create_network(&network_in("n1", "10.1.0.0/16")).unwrap();
    let before = bench.snapshot();
    let option = |key: &str, value: &str| CreateNetwork {
        options: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        ..network("n2")
    };
    let two = CreateNetwork {
        subnets: [network_in("n2", "10.2.0.0/24"), network_in("n2", "10.3.0.0/24")]
            .map(|n| n.subnets[0].clone())
            .into(),
        ..network("n2")
    };
    for (request, expected) in [
        (network("n 2"), "invalid network name \"n 2\""),
        (network("n1"), "network with name n1 already exists"),
        (network("host"), "operation is not permitted on predefined host network"),
        (network_in("n2", "10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (network_in("n2", "10.1.5.0/24"), "subnet 10.1.5.0/24 overlaps network n1 (10.1.0.0/16)"),
        (network_in("n2", "10.0.0.0/12"), "Pool overlaps with other one on this address space"),
        (network_in("n2", "10.8.1.0/24"), "subnet 10.8.1.0/24 overlaps route 10.8.0.0/16 of this host"),
        (network_in("n2", "192.0.2.0/30"), "overlaps route 192.0.2.0/24 of this host"),
        (
            network_in("n2", "fd00::/64"),
            "subnet fd00::/64 is an IPv6 one, and network n2 has no IPv6: add --ipv6",
        ),
        (
            with("n2", Some("10.2.0.0/24"), None, Some("10.3.0.1")),
            "invalid gateway 10.3.0.1: it is not in subnet",
        ),
        (with("n2", Some("10.2.0.0/24"), Some("10.3.0.0/28"), None), "doesn't contain ip-range"),
        (
            with("n2", None, None, Some("10.3.0.1")),
            "every ip-range, gateway or aux-address must have a corresponding subnet",
        ),
        (two, "bridge driver doesn't support multiple subnets"),
        (option("com.docker.network.bridge.name", "rnet0"), "networks have same bridge name"),
        (option("com.docker.network.bridge.name", "eth7"), "existing interface eth7 is not a bridge"),
        (option("com.docker.network.bridge.name", "sixteen-letters-"), "1 to 15 characters"),
        (option("com.docker.network.driver.mtu", "-1"), "invalid MTU number: -1"),
        (option("no.such.option", "1"), "unknown network option \"no.such.option\": known are com.docker"),
    ] {
        let told = message(instance.create_network(&request));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn pools_run_out_with_a_way_on() {
    let bench = Bench::new();
    let pools = vec![("10.77.0.0/23".parse().unwrap(), 24)];
    let mut instance = bench.start_with(Config { pools, ..bench.config() }).unwrap();
    instance.create_network(&network("a")).unwrap();
    assert_eq!(subnet_of(&instance, "a"), "10.77.1.0/24");
    let told = message(instance.create_network(&network("b")));
    assert!(told.starts_with("all predefined address pools have been fully subnetted"), "{told}");
    let pools = vec![("10.77.0.0/23".parse().unwrap(), 16)];
    let told = message(Bench::new().start_with(Config { pools, ..bench.config() }).map(drop));
    assert_eq!(told, "invalid address pool 10.77.0.0/23: subnets of /16 cannot be cut from it");
}

#[test]
fn what_cannot_be_removed_is_not() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&network("n1")).unwrap();
    for name in ["b", "a"] {
        instance
            .create_container(&CreateContainer { networks: vec![Connect::to("n1")], ..namespace(name) })
            .unwrap();
    }
    let before = bench.snapshot();
    assert_eq!(
        message(instance.remove_network("bridge")),
        "bridge is a pre-defined network and cannot be removed"
    );
    assert!(matches!(instance.remove_network("host"), Err(Error::Forbidden(_))));
    assert!(message(instance.remove_network("n1")).starts_with("network n1 has active endpoints ("));
    assert!(matches!(instance.remove_network("n2"), Err(Error::NotFound(_))));
    assert_eq!(bench.snapshot(), before);
    let members: Vec<String> =
        instance.network("n1").unwrap().containers.into_values().map(|m| m.name).collect();
    assert!(members.len() == 2 && members.contains(&"a".to_owned()) && members.contains(&"b".to_owned()));
}

#[test]
fn a_default_bridge_that_is_somebody_elses_is_left_alone() {
    let bench = Bench::new();
    bench.fake.world().foreign.links.insert("rnet0".into());
    let told = message(bench.start_with(bench.config()).map(drop));
    assert!(told.contains("create bridge rnet0") && told.contains("not this instance's"), "{told}");
    assert!(bench.fake.tables().bridges.is_empty());
    assert_nothing_is_left(&bench);
}

/// Of an instance that could not be started for the first time.
fn assert_nothing_is_left(bench: &Bench) {
    assert_eq!(bench.snapshot(), Bench::new().snapshot());
    assert!(bench.fake.world().destroyed, "the datapath is removed");
}

#[test]
fn source_ports_that_the_kernel_uses_itself_are_refused() {
    let bench = Bench::new();
    let told = message(bench.start_with(Config { snat_ports: (1024, 40000), ..bench.config() }).map(drop));
    assert!(told.contains("1024-40000") && told.contains("32768-60999"), "{told}");
    assert_nothing_is_left(&bench);
    assert!(
        message(bench.start_with(Config { snat_ports: (9, 8), ..bench.config() }).map(drop)).contains("9-8")
    );
    drop(bench.start_with(Config { snat_ports: (61000, 65535), ..bench.config() }).unwrap());

    bench.fake.world().destroyed = false;
    let before = bench.snapshot();
    message(bench.start_with(Config { snat_ports: (9, 8), ..bench.config() }).map(drop));
    assert_eq!(bench.snapshot(), before, "what runs already is left as it is");
    assert!(!bench.fake.world().destroyed);
}

#[test]
fn a_bridge_that_is_there_is_used_and_given_back() {
    let bench = Bench::new();
    let state = crate::controller::backend::BridgeState {
        addrs: vec!["10.5.0.9/24".parse().unwrap()],
        ..Default::default()
    };
    {
        let mut world = bench.fake.world();
        world.foreign.links.insert("br-lan".into());
        world.foreign.bridges.insert("br-lan".into(), state);
        world.foreign.routes.push("10.5.0.0/24".parse().unwrap());
        world.foreign.addresses.push("10.5.0.9".parse().unwrap());
    }
    let mut instance = bench.start();
    let before = bench.snapshot();
    let on_it = |request: CreateNetwork| CreateNetwork {
        options: BTreeMap::from([("com.docker.network.bridge.name".to_owned(), "br-lan".to_owned())]),
        ..request
    };
    let made = instance.create_network(&on_it(network("n1"))).unwrap();
    let subnet = &made.subnets[0];
    assert_eq!(
        (subnet.subnet.to_string().as_str(), subnet.gateway),
        ("10.5.0.0/24", "10.5.0.9".parse().ok())
    );
    instance.create_container(&joining("web", Connect::to("n1"))).unwrap();
    assert_eq!(addr_of(&instance, "web"), "10.5.0.1/24");
    drop(instance);
    let mut instance = bench.start();
    instance.remove_container("web", true).unwrap();
    instance.remove_network("n1").unwrap();
    assert_eq!(bench.snapshot(), before);
    // Its own address is in another subnet than the one that is asked for.
    let made = instance.create_network(&on_it(network_in("n2", "10.6.0.0/24"))).unwrap();
    assert_eq!(made.subnets[0].gateway, "10.6.0.1".parse().ok());
    instance.remove_network("n2").unwrap();
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn destinations_that_keep_addresses_are_told_as_long_as_the_network_is_there() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let options = [("rnet.non_masquerade".to_owned(), "10.0.0.0/8".to_owned())].into();
    let made = instance.create_network(&CreateNetwork { options, ..network("pods") }).unwrap();
    let list = || bench.fake.tables().sources.into_iter().collect::<Vec<_>>();
    let number = rnet_common::source::exempt(instance.machine.state.networks[&made.id].number);
    let expected = vec![(number, vec!["10.0.0.0/8".parse().unwrap()])];
    assert_eq!(list(), expected);
    // No container is on it, and the list is not taken for a left-over.
    drop(instance);
    let mut instance = bench.start();
    assert_eq!(list(), expected);
    instance.remove_network("pods").unwrap();
    assert_eq!(list(), []);
}
