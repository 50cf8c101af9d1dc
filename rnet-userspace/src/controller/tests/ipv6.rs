//! Networks of both address families.

use super::*;

fn dual(name: &str, subnets: &[&str]) -> CreateNetwork {
    let plain = |s: &&str| Subnet { subnet: Some(s.parse().unwrap()), ..Subnet::default() };
    CreateNetwork { ipv6: true, subnets: subnets.iter().map(plain).collect(), ..network(name) }
}

fn on(network: &str, name: &str) -> CreateContainer {
    joining(name, Connect::to(network))
}

fn addrs_of(instance: &Instance, container: &str) -> Vec<String> {
    instance.container(container).unwrap().endpoints[0].addrs.iter().map(ToString::to_string).collect()
}

#[test]
fn a_network_has_one_subnet_of_each_family() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let made = instance.create_network(&dual("n1", &["fd00:1::/64", "10.1.0.0/24"])).unwrap();
    let subnets: Vec<_> = made.subnets.iter().map(|s| (s.subnet.to_string(), s.gateway)).collect();
    let gateways = ["10.1.0.1", "fd00:1::1"].map(|g| g.parse().ok());
    assert_eq!(subnets, [("10.1.0.0/24".into(), gateways[0]), ("fd00:1::/64".into(), gateways[1])]);
    assert!(made.ipv6);
    let tables = bench.fake.tables();
    let (_, bridge) = &tables.bridges[made.bridge.as_ref().unwrap()];
    let addrs: Vec<_> = bridge.addrs.iter().map(ToString::to_string).collect();
    assert_eq!(addrs, ["10.1.0.1/24", "fd00:1::1/64"]);
    assert!(tables.known_addresses.contains(&"fd00:1::1".parse().unwrap()));
}

#[test]
fn containers_have_the_lowest_free_address_of_each() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&dual("n1", &["10.1.0.0/24", "fd00:1::/64"])).unwrap();
    for name in ["a", "b"] {
        instance.create_container(&on("n1", name)).unwrap();
    }
    assert_eq!(addrs_of(&instance, "b"), ["10.1.0.3/24", "fd00:1::3/64"]);
    let fixed = joining("c", Connect { ip6: Some("fd00:1::beef".parse().unwrap()), ..Connect::to("n1") });
    let made = instance.create_container(&fixed).unwrap();
    assert_eq!(addrs_of(&instance, "c"), ["10.1.0.4/24", "fd00:1::beef/64"]);
    let again = CreateContainer { name: Some("d".into()), ..fixed.clone() };
    assert_eq!(message(instance.create_container(&again)), "Address already in use: fd00:1::beef");
    instance.remove_container("a", true).unwrap();
    instance.create_container(&on("n1", "e")).unwrap();
    assert_eq!(addrs_of(&instance, "e"), ["10.1.0.2/24", "fd00:1::2/64"]);

    let tables = bench.fake.tables();
    let host = &made.endpoints[0].host_interface;
    let gateways: Vec<_> = tables.veths[host].1.gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["10.1.0.1", "fd00:1::1"]);
    let known: Vec<_> =
        tables.endpoints[host].addrs.iter().map(|a| (a.addr, a.gateway, a.masquerade)).collect();
    let ip = |text: &str| text.parse().unwrap();
    assert_eq!(
        known,
        [(ip("10.1.0.4"), Some(ip("10.1.0.1")), true), (ip("fd00:1::beef"), Some(ip("fd00:1::1")), true)]
    );
    let hosts = fs::read_to_string(made.dir.join("hosts")).unwrap();
    assert!(hosts.contains("10.1.0.4\t") && hosts.contains("fd00:1::beef\t"), "{hosts}");
}

#[test]
fn subnets_come_from_the_instances_own_pool() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let of = |made: view::Network| made.subnets[1].subnet;
    let first = of(instance.create_network(&dual("a", &[])).unwrap());
    let second = of(instance.create_network(&dual("b", &["10.5.0.0/24"])).unwrap());
    assert!(first.is_ipv6() && first.prefix() == 64 && first != second);
    let (pool, _) = bench.config().pools.into_iter().find(|(pool, _)| pool.is_ipv6()).unwrap();
    assert!(pool.contains(first.ip()) && pool.contains(second.ip()));
    assert_eq!(instance.network("a").unwrap().subnets[0].subnet.to_string(), "172.18.0.0/16");
    instance.remove_network("a").unwrap();
    assert_eq!(of(instance.create_network(&dual("c", &[])).unwrap()), first);
}

#[test]
fn an_ipv6_network_that_cannot_be_is_refused_with_the_reason() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&dual("n1", &["fd00:1::/64"])).unwrap();
    let before = bench.snapshot();
    let gateway = |gateway: &str, ipv6| CreateNetwork {
        subnets: vec![Subnet { gateway: gateway.parse().ok(), ..Subnet::default() }],
        ipv6,
        ..network("n2")
    };
    let mut narrow = dual("n2", &[]);
    narrow.options.insert("com.docker.network.driver.mtu".into(), "1279".into());
    for (request, expected) in [
        (CreateNetwork { ipv6: false, ..dual("n2", &["fd00:2::/64"]) }, "add --ipv6"),
        (gateway("fd00:2::1", false), "add --ipv6"),
        (
            gateway("fd00:2::1", true),
            "every ip-range, gateway or aux-address must have a corresponding subnet",
        ),
        (dual("n2", &["fd00:1::/80"]), "subnet fd00:1::/80 overlaps network n1 (fd00:1::/64)"),
        (dual("n2", &["fd00:2::/64", "fd00:3::/64"]), "multiple subnets of one address family"),
        (dual("n2", &["fe80::/64"]), "not for containers"),
        (narrow, "invalid MTU number: 1279: IPv6 needs at least 1280"),
    ] {
        let told = message(instance.create_network(&request));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    instance.create_network(&network("v4")).unwrap();
    let fixed = joining("a", Connect { ip6: Some("fd00::2".parse().unwrap()), ..Connect::to("v4") });
    assert_eq!(
        message(instance.create_container(&fixed)),
        "network v4 has no IPv6 subnet that fd00::2 could be in"
    );
    instance.remove_network("v4").unwrap();
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_port_is_published_with_one_number_on_both_families() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&dual("n1", &["10.1.0.0/24", "fd00:1::/64"])).unwrap();
    let specs = ["8080:80", "53", "0.0.0.0:81:81", "[2001:db8::1]:82:82", "83:83/sctp"];
    let request = CreateContainer { networks: vec![Connect::to("n1")], ..publishing("web", &specs) };
    bench.fake.world().foreign.addresses.push("2001:db8::1".parse().unwrap());
    let made = instance.create_container(&request).unwrap();
    let ports: Vec<_> = made
        .ports
        .iter()
        .map(|b| {
            format!(
                "{}->{}",
                std::net::SocketAddr::from((b.host.addr, b.host.port)),
                std::net::SocketAddr::from((b.addr, b.port))
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            "0.0.0.0:8080->10.1.0.2:80",
            "[::]:8080->[fd00:1::2]:80",
            "0.0.0.0:32768->10.1.0.2:53",
            "[::]:32768->[fd00:1::2]:53",
            "0.0.0.0:81->10.1.0.2:81",
            "[2001:db8::1]:82->[fd00:1::2]:82",
            "0.0.0.0:83->10.1.0.2:83",
            "[::]:83->[fd00:1::2]:83",
        ]
    );
}

#[test]
fn the_default_network_gets_ipv6_when_it_is_asked_for() {
    let bench = Bench::new();
    let plain = || bench.config();
    let with = |subnet_v6| {
        let default_network = DefaultNetwork { ipv6: true, subnet_v6, ..DefaultNetwork::default() };
        Config { default_network, ..bench.config() }
    };
    let fixed = || with(Some(Subnet { subnet: "fd00:7::/64".parse().ok(), ..Subnet::default() }));
    let v6 = |instance: &Instance| {
        let subnets = instance.network("bridge").unwrap().subnets;
        subnets.iter().map(|s| s.subnet.to_string()).find(|s| s.contains(':'))
    };
    assert_eq!(v6(&bench.start_with(plain()).unwrap()), None);
    let mut instance = bench.start_with(fixed()).unwrap();
    assert_eq!(v6(&instance), Some("fd00:7::/64".into()), "made anew");
    let tables = bench.fake.tables();
    assert!(tables.bridges["rnet0"].1.addrs.contains(&"fd00:7::1/64".parse().unwrap()));
    instance.create_container(&namespace("web")).unwrap();
    drop(instance);
    let mut instance = bench.start_with(plain()).unwrap();
    assert_eq!(v6(&instance), Some("fd00:7::/64".into()), "kept for the container");
    instance.remove_container("web", true).unwrap();
    drop(instance);
    assert_eq!(v6(&bench.start_with(with(None)).unwrap()), Some("fd00:7::/64".into()), "good enough");
    assert_eq!(v6(&bench.start_with(plain()).unwrap()), None);
}
