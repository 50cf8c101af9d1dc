//! What the configuration says of the default network, and what changes without a restart.

use super::*;

fn subnet(subnet: &str, gateway: &str, range: Option<&str>) -> Subnet {
    Subnet {
        subnet: subnet.parse().ok(),
        gateway: gateway.parse().ok(),
        ip_range: range.map(|range| range.parse().unwrap()),
        ..Subnet::default()
    }
}

fn told(bench: &Bench, default_network: DefaultNetwork) -> Config {
    Config { default_network, ..bench.config() }
}

/// Subnet, range and gateway of the default network, without what is absent.
fn default_subnet(instance: &Instance) -> String {
    let s = &instance.network("bridge").unwrap().subnets[0];
    let range = s.ip_range.map(|r| format!(" {r}")).unwrap_or_default();
    format!("{}{range} {}", s.subnet, s.gateway.unwrap())
}

#[test]
fn the_default_network_is_made_as_the_configuration_says() {
    let bench = Bench::new();
    let other = DefaultNetwork {
        subnet: Some(subnet("10.9.0.0/16", "10.9.255.254", Some("10.9.7.0/24"))),
        mtu: Some(1400),
        icc: false,
        masquerade: false,
        ..DefaultNetwork::default()
    };
    let mut instance = bench.start_with(told(&bench, other)).unwrap();
    assert_eq!(default_subnet(&instance), "10.9.0.0/16 10.9.7.0/24 10.9.255.254");
    instance.create_container(&namespace("web")).unwrap();
    assert_eq!(addr_of(&instance, "web"), "10.9.7.0/16");
    let tables = bench.fake.tables();
    let bridge = &tables.bridges["rnet0"].1;
    assert_eq!((bridge.mtu, bridge.addrs[0].to_string()), (Some(1400), "10.9.255.254/16".into()));
    let (endpoint, veth) = (tables.endpoints.values().next().unwrap(), tables.veths.values().next().unwrap());
    assert!(!endpoint.policy.icc && !endpoint.addrs[0].masquerade && veth.1.isolated);
    assert_eq!((endpoint.mtu, veth.1.mtu), (1400, Some(1400)));
    assert_eq!(veth.1.gateways, ["10.9.255.254".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_default_network_that_is_told_otherwise_is_made_anew_once_it_is_empty() {
    let bench = Bench::new();
    let first = || DefaultNetwork {
        subnet: Some(subnet("10.9.0.0/24", "10.9.0.1", None)),
        ..DefaultNetwork::default()
    };
    let mut instance = bench.start_with(told(&bench, first())).unwrap();
    let id = instance.network("bridge").unwrap().id;
    instance.create_container(&namespace("web")).unwrap();
    drop(instance);
    let second = || DefaultNetwork { mtu: Some(1300), ..first() };
    let mut instance = bench.start_with(told(&bench, second())).unwrap();
    assert_eq!(instance.network("bridge").unwrap().id, id, "kept for the container");
    instance.remove_container("web", true).unwrap();
    drop(instance);
    let instance = bench.start_with(told(&bench, second())).unwrap();
    let renewed = instance.network("bridge").unwrap();
    assert_ne!(renewed.id, id);
    assert_eq!(bench.fake.tables().bridges["rnet0"].1.mtu, Some(1300));
    drop(instance);
    let instance = bench.start_with(told(&bench, second())).unwrap();
    assert_eq!(instance.network("bridge").unwrap().id, renewed.id, "as asked already");
    drop(instance);
    // Nobody says which addresses it should have: those that it has will do.
    assert_eq!(default_subnet(&bench.start()), "10.9.0.0/24 10.9.0.1");
}

#[test]
fn what_changes_without_a_restart_is_taken_over_and_the_rest_is_not() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let udp = |fake: &Fake| fake.world().timeouts.udp;
    let mut config = Config {
        bind: "192.0.2.1".parse().unwrap(),
        pools: vec![("10.77.0.0/16".parse().unwrap(), 24)],
        uplinks: Some(Vec::new()),
        snat_ports: (5000, 5001),
        ..told(&bench, DefaultNetwork { mtu: Some(1300), ..DefaultNetwork::default() })
    };
    config.timeouts.udp = 7;
    config.flow_limits.per_container = Some(77);
    assert_eq!(bench.fake.tables().known_uplinks.len(), 1);
    instance.reload(config.clone()).unwrap();
    assert_eq!((udp(&bench.fake), bench.fake.tables().known_uplinks.len()), (7, 0));
    assert_eq!(instance.status().unwrap().flow_quota, Some(77));
    let made = instance.create_container(&publishing("web", &["80"])).unwrap();
    assert_eq!(made.ports[0].host.addr.to_string(), "192.0.2.1");
    assert_eq!(
        instance.create_network(&network("n1")).unwrap().subnets[0].subnet.to_string(),
        "10.77.0.0/24"
    );
    assert_eq!(instance.status().unwrap().snat_ports, (1024, 32767));
    assert_eq!(bench.fake.tables().bridges["rnet0"].1.mtu, None);

    let before = bench.snapshot();
    config.pools = vec![("10.77.0.0/16".parse().unwrap(), 8)];
    config.timeouts.udp = 9;
    config.flow_limits.per_container = Some(9);
    assert!(message(instance.reload(config)).contains("subnets of /8 cannot be cut from it"));
    assert_eq!((udp(&bench.fake), bench.snapshot()), (7, before));
    assert_eq!(instance.status().unwrap().flow_quota, Some(77));
}

#[test]
fn containers_that_name_no_servers_get_those_of_the_configuration() {
    let bench = Bench::new();
    let ip = |text: &str| text.parse().unwrap();
    let config = Config {
        dns: vec![ip("192.0.2.53")],
        dns_search: vec!["example.com".into()],
        dns_options: vec!["ndots:3".into()],
        ..bench.config()
    };
    let mut instance = bench.start_with(config).unwrap();
    let mut resolv_conf = |request: CreateContainer| {
        let made = instance.create_container(&request).unwrap();
        fs::read_to_string(made.dir.join("resolv.conf")).unwrap()
    };
    let default = resolv_conf(namespace("a"));
    for line in ["nameserver 192.0.2.53\n", "search example.com\n", "options ndots:3\n"] {
        assert!(default.contains(line), "{default}");
    }
    let own = resolv_conf(CreateContainer { dns: vec![ip("198.51.100.1")], ..namespace("b") });
    assert!(own.contains("nameserver 198.51.100.1\n") && !own.contains("192.0.2.53"), "{own}");
    assert!(own.contains("search example.com\n"), "each by itself: {own}");
}
