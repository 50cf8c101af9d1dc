//! Containers and networks of engines.

use super::*;
use crate::controller::{
    model::{
        HostPort, Protocol,
        engine::Engine,
        port_spec::{PortChoice, PortMapping},
    },
    request::{EngineContainer, EngineInterface, EngineNetwork, FreeSubnet},
    view::SubnetView,
};

const NETNS: &str = "/run/docker/netns/0123";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn docker0(bench: &Bench) -> EngineNetwork {
    let mut world = bench.fake.world();
    world.foreign.links.insert("docker0".into());
    world.foreign.bridges.insert("docker0".into(), Default::default());
    EngineNetwork {
        engine: Engine::Docker,
        id: id('a'),
        name: "bridge".into(),
        bridge: "docker0".into(),
        subnets: vec![SubnetView {
            subnet: "172.20.0.0/16".parse().unwrap(),
            ip_range: None,
            gateway: Some("172.20.0.1".parse().unwrap()),
            aux: BTreeMap::new(),
        }],
        internal: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

fn port(host: u16) -> PortMapping {
    PortMapping {
        host_ip: Some("0.0.0.0".parse().unwrap()),
        host: PortChoice::Exactly(host),
        container: 80,
        protocol: Protocol::Tcp,
    }
}

/// A container of Docker's that publishes port 8080, whose veth and socket are there.
fn web(bench: &Bench) -> EngineContainer {
    let host = HostPort { addr: "0.0.0.0".parse().unwrap(), port: 8080, protocol: Protocol::Tcp };
    let mut world = bench.fake.world();
    world.foreign.links.insert("veth1234567".into());
    world.foreign.namespaces.insert(NETNS.into(), 7);
    world.foreign.sockets.insert(host, "dockerd".into());
    EngineContainer {
        engine: Engine::Docker,
        id: id('c'),
        name: "web".into(),
        netns: Some(NETNS.into()),
        interfaces: vec![EngineInterface {
            network: id('a'),
            interface: "eth0".into(),
            veth: Some("veth1234567".into()),
            mac: Some("02:42:ac:14:00:02".parse().unwrap()),
            addrs: vec!["172.20.0.2/16".parse().unwrap()],
            ..EngineInterface::default()
        }],
        ports: vec![port(8080)],
        keeps_ports: true,
    }
}

fn made_here(network: &str, interface: &str) -> EngineContainer {
    EngineContainer {
        engine: Engine::Cni,
        id: id('d'),
        name: "pod".into(),
        netns: Some(NETNS.into()),
        interfaces: vec![EngineInterface {
            network: network.into(),
            interface: interface.into(),
            ..EngineInterface::default()
        }],
        ports: Vec::new(),
        keeps_ports: false,
    }
}

#[test]
fn a_container_on_the_engines_own_bridge_is_served_and_nothing_is_made() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.fake.tables();
    let network = instance.follow_network(&docker0(&bench)).unwrap();
    assert_eq!((network.name.as_str(), network.engine), ("docker/bridge", Some(Engine::Docker)));
    let made = instance.set_engine_container(&web(&bench)).unwrap();
    assert_eq!((made.name.as_str(), made.engine), ("web", Some(Engine::Docker)));
    let tables = bench.fake.tables();
    assert_eq!((&tables.bridges, &tables.veths), (&before.bridges, &before.veths));
    assert!(tables.held_namespaces.is_empty() && tables.default_routes.is_empty());
    let endpoint = &tables.endpoints["veth1234567"];
    assert_eq!(endpoint.addrs[0].gateway, Some("172.20.0.1".parse().unwrap()));
    let binding = tables.ports.values().next().unwrap();
    assert!(binding.unheld && binding.host.port == 8080, "dockerd has the port: {binding:?}");

    assert!(tables.lent.contains("docker0"));
    assert_eq!(tables.guarded, ["docker0"], "who is not served yet goes nowhere");

    // Said again, nothing happens.
    bench.fake.world().log.clear();
    instance.follow_network(&docker0(&bench)).unwrap();
    instance.set_engine_container(&web(&bench)).unwrap();
    assert_eq!(bench.fake.world().log, [""; 0]);

    instance.remove_engine_container(Engine::Docker, &id('c')).unwrap();
    instance.remove_engine_container(Engine::Docker, &id('c')).unwrap();
    instance.remove_engine_network(Engine::Docker, &id('a')).unwrap();
    assert_eq!(bench.fake.tables(), before);
    assert!(bench.fake.world().foreign.links.contains("docker0"));
}

#[test]
fn ports_of_a_network_without_icc_are_isolated_as_long_as_it_is_followed() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let open = docker0(&bench);
    let closed = EngineNetwork {
        options: [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into(),
        ..open.clone()
    };
    let isolated = || bench.fake.tables().isolated.into_iter().collect::<Vec<_>>();
    instance.follow_network(&closed).unwrap();
    instance.set_engine_container(&web(&bench)).unwrap();
    assert_eq!(isolated(), ["veth1234567"]);
    instance.follow_network(&open).unwrap();
    assert_eq!(isolated(), [""; 0]);
    instance.follow_network(&closed).unwrap();
    assert_eq!(isolated(), ["veth1234567"]);
    instance.down().unwrap();
    assert_eq!(isolated(), [""; 0]);
}

#[test]
fn what_is_said_beside_an_interface_may_change_and_its_name_too() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.follow_network(&docker0(&bench)).unwrap();
    let mut wanted = web(&bench);
    // As it is known before it is inside.
    wanted.interfaces[0].interface = "veth1234567".into();
    wanted.netns = None;
    wanted.ports.clear();
    let before = instance.add_to_engine_container(&wanted).unwrap();
    let mut wanted = EngineContainer { name: "other".into(), ..web(&bench) };
    wanted.interfaces[0].aliases = vec!["www".into()];
    wanted.interfaces[0].gw_priority = 3;
    let added = |log: &[String]| log.iter().any(|call| call.contains("endpoint"));
    bench.fake.world().log.clear();
    let after = instance.set_engine_container(&wanted).unwrap();
    assert!(!added(&bench.fake.world().log.iter().map(|c| c.to_string()).collect::<Vec<_>>()));
    assert_eq!((after.name.as_str(), after.endpoints[0].interface.as_str()), ("other", "eth0"));
    assert_eq!((after.endpoints[0].gw_priority, &after.endpoints[0].id), (3, &before.endpoints[0].id));
    assert!(instance.container("web").is_err() && instance.container("other").is_ok());
    assert_eq!(after.ports.len(), 1);
}

#[test]
fn what_an_engine_has_is_changed_by_the_engine_only() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.follow_network(&docker0(&bench)).unwrap();
    instance.set_engine_container(&web(&bench)).unwrap();
    let before = bench.snapshot();
    let refused = |outcome: Result<()>| match outcome {
        Err(Error::Forbidden(why)) => assert!(why.contains("docker's") && why.contains("`docker`"), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(instance.remove_container("web", true).map(drop));
    refused(instance.mark_exited("web", None).map(drop));
    refused(instance.connect("web", &Connect::to("bridge")));
    refused(instance.disconnect("docker/bridge", "web", true));
    refused(instance.publish("web", &Default::default()).map(drop));
    refused(instance.unpublish("web", &["80".into()]).map(drop));
    refused(instance.remove_network("docker/bridge").map(drop));
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_restart_takes_up_containers_of_engines_and_down_leaves_what_is_theirs() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.follow_network(&docker0(&bench)).unwrap();
    instance.set_engine_container(&web(&bench)).unwrap();
    let before = bench.fake.tables();
    drop(instance);
    let mut instance = bench.start();
    assert_eq!(bench.fake.tables(), before);
    instance.set_engine_container(&web(&bench)).unwrap();
    // The engine's bridge and veth are its own to make again.
    let foreign = bench.fake.world().foreign.clone();
    bench.fake.world().foreign.links.clear();
    bench.fake.world().foreign.bridges.clear();
    instance.refresh_host().unwrap();
    assert_eq!(bench.fake.tables().veths.len(), before.veths.len());
    // It does, and nothing passes unserved nor without what the bridge needs.
    assert!(bench.fake.tables().guarded.is_empty());
    bench.fake.world().tables.lent.clear();
    bench.fake.world().foreign = foreign;
    instance.refresh_host().unwrap();
    assert_eq!(bench.fake.tables().guarded, ["docker0"]);
    assert!(bench.fake.tables().lent.contains("docker0"));
    // The container has ended, and nobody has said so.
    bench.fake.world().foreign.namespaces.clear();
    instance.refresh_host().unwrap();
    assert!(matches!(instance.container("web"), Err(Error::NotFound(_))));
    assert!(bench.fake.tables().ports.is_empty() && bench.fake.tables().endpoints.is_empty());
    instance.down().unwrap();
}

#[test]
fn a_failure_leaves_the_container_as_it_was() {
    let tries = fail_everywhere(
        || {
            let bench = Bench::new();
            let mut instance = bench.start();
            instance.follow_network(&docker0(&bench)).unwrap();
            web(&bench);
            (bench, instance)
        },
        |instance| instance.set_engine_container(&web(&Bench::new())),
        |bench, _, before| assert_eq!(bench.snapshot(), *before),
    );
    assert!(tries > 3, "{tries}");
}

#[test]
fn interfaces_come_and_go_and_ports_stay() {
    let bench = Bench::new();
    let mut instance = bench.start();
    bench.fake.world().foreign.namespaces.insert(NETNS.into(), 7);
    for (name, subnet, digit) in [("front", "10.1.0.0/24", '1'), ("back", "10.2.0.0/24", '2')] {
        instance.create_engine_network(Engine::Cni, &id(digit), &network_in(name, subnet)).unwrap();
    }
    let before = bench.fake.tables();
    let first = EngineContainer { ports: vec![port(8080)], ..made_here("front", "eth0") };
    instance.add_to_engine_container(&first).unwrap();
    let port_then = bench.fake.tables().ports;
    assert!(!port_then.values().next().unwrap().unheld, "nobody else has it");

    // The same port comes with every network.
    let second = EngineContainer { ports: vec![port(8080)], ..made_here("back", "eth1") };
    let both = instance.add_to_engine_container(&second).unwrap();
    let names: Vec<_> = both.endpoints.iter().map(|e| (e.network.as_str(), e.interface.as_str())).collect();
    assert_eq!(names, [("front", "eth0"), ("back", "eth1")]);
    assert_eq!(both.ports.len(), 1);
    // Repeating either changes nothing.
    let all = bench.fake.tables();
    instance.add_to_engine_container(&first).unwrap();
    instance.add_to_engine_container(&second).unwrap();
    assert_eq!(bench.fake.tables(), all);

    instance.remove_engine_interface(Engine::Cni, &id('d'), "eth1").unwrap();
    instance.remove_engine_interface(Engine::Cni, &id('d'), "eth1").unwrap();
    let one = instance.container("pod").unwrap();
    assert_eq!((one.endpoints.len(), one.ports.len()), (1, 1));
    instance.remove_engine_interface(Engine::Cni, &id('d'), "eth0").unwrap();
    assert!(matches!(instance.container("pod"), Err(Error::NotFound(_))));
    assert_eq!(bench.fake.tables(), before);
}

#[test]
fn an_interface_that_an_engine_takes_is_made_beside_its_bridge() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_engine_network(Engine::DockerDriver, &id('1'), &network_in("n", "10.1.0.0/24")).unwrap();
    let before = bench.fake.tables();
    let endpoint = EngineInterface {
        id: Some(id('e')),
        network: id('1'),
        mac: Some("02:42:0a:01:00:02".parse().unwrap()),
        addrs: vec!["10.1.0.2/24".parse().unwrap()],
        ..EngineInterface::default()
    };
    let mut wanted = EngineContainer {
        engine: Engine::DockerDriver,
        id: id('e'),
        name: "eeeeeeeeeeee".into(),
        netns: None,
        interfaces: vec![endpoint],
        ports: Vec::new(),
        keeps_ports: false,
    };
    let made = instance.set_engine_container(&wanted).unwrap();
    let own = CreateContainer { networks: vec![Connect::to("n")], ..CreateContainer::default() };
    let refused = instance.create_container(&own).unwrap_err();
    assert!(
        matches!(&refused, Error::Forbidden(why) if why.contains("Docker gives its addresses")),
        "{refused}"
    );
    instance
        .create_container(&CreateContainer { name: Some("own".into()), ..CreateContainer::default() })
        .unwrap();
    assert!(matches!(instance.connect("own", &Connect::to("n")), Err(Error::Forbidden(_))));
    instance.remove_container("own", true).unwrap();
    let (_, veth) = &bench.fake.tables().veths["vetheeeeeeee"];
    assert_eq!((veth.netns.as_ref(), veth.name.as_str()), (None, "vetheeeeeeeep"));
    assert_eq!(made.endpoints[0].interface, "vetheeeeeeeep");
    // Its namespace is nobody's business here: it lives until the engine says otherwise.
    instance.refresh_host().unwrap();
    wanted.ports = vec![port(8080)];
    let published = instance.set_engine_container(&wanted).unwrap();
    assert_eq!((published.ports.len(), bench.fake.tables().ports.len()), (1, 1));
    wanted.ports.clear();
    instance.set_engine_container(&wanted).unwrap();
    assert!(bench.fake.tables().ports.is_empty());
    instance.remove_engine_container(Engine::DockerDriver, &id('e')).unwrap();
    assert_eq!(bench.fake.tables(), before);

    // An engine that crashes says nothing; but the interface goes with the namespace, and nobody would take another.
    wanted.ports = vec![port(8080)];
    instance.set_engine_container(&wanted).unwrap();
    bench.fake.world().tables.veths.remove("vetheeeeeeee");
    instance.refresh_host().unwrap();
    assert_eq!(bench.fake.tables(), before);
    assert!(matches!(instance.container("eeeeeeeeeeee"), Err(Error::NotFound(_))));
}

#[test]
fn a_subnet_for_an_engine_avoids_what_is_there_and_what_is_promised() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_engine_network(Engine::DockerDriver, &id('1'), &network_in("n", "10.1.0.0/24")).unwrap();
    let net = |text: &str| text.parse().unwrap();
    let first = instance.free_subnet(&FreeSubnet::default()).unwrap();
    let next = instance.free_subnet(&FreeSubnet { avoid: vec![first], ..FreeSubnet::default() }).unwrap();
    assert!(first != next && first.is_ipv4());
    assert!(instance.free_subnet(&FreeSubnet { ipv6: true, ..FreeSubnet::default() }).unwrap().is_ipv6());
    let ask = |subnet: &str, avoid: &str| {
        instance.free_subnet(&FreeSubnet { subnet: Some(net(subnet)), ipv6: false, avoid: vec![net(avoid)] })
    };
    assert_eq!(ask("10.2.0.0/24", "10.3.0.0/24").unwrap(), net("10.2.0.0/24"));
    assert!(
        matches!(ask("10.1.0.0/25", "10.3.0.0/24"), Err(Error::Conflict(why)) if why.contains("network n"))
    );
    assert!(
        matches!(ask("10.3.0.0/16", "10.3.9.0/24"), Err(Error::Conflict(why)) if why.contains("pool 10.3.9.0/24"))
    );
    assert!(matches!(ask("127.0.0.0/8", "10.3.0.0/24"), Err(Error::Invalid(_))));
}

#[test]
fn docker_tells_its_drivers_no_names_and_has_a_name_server_of_its_own() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let directory = instance.directory();
    instance.create_engine_network(Engine::DockerDriver, &id('1'), &network_in("n", "10.1.0.0/24")).unwrap();
    assert!(!directory.is_gateway("10.1.0.1".parse().unwrap()));
    instance.create_engine_network(Engine::Cni, &id('2'), &network_in("m", "10.2.0.0/24")).unwrap();
    assert!(directory.is_gateway("10.2.0.1".parse().unwrap()));
}

#[test]
fn ids_are_checked() {
    let bench = Bench::new();
    let mut instance = bench.start();
    for bad in ["", "abc", &"G".repeat(64), &format!("../{}", "a".repeat(61))] {
        let network = EngineNetwork { id: bad.into(), ..docker0(&bench) };
        assert!(matches!(instance.follow_network(&network), Err(Error::Invalid(_))), "{bad}");
        let container = EngineContainer { id: bad.into(), ..web(&bench) };
        assert!(matches!(instance.set_engine_container(&container), Err(Error::Invalid(_))), "{bad}");
    }
}

#[test]
fn what_a_crash_of_the_host_has_torn_is_forgotten() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.follow_network(&docker0(&bench)).unwrap();
    let before = bench.snapshot();
    instance.set_engine_container(&web(&bench)).unwrap();
    drop(instance);
    let record = bench.config().state_dir.join(format!("containers/{}.boot", id('c')));
    fs::write(&record, &fs::read(&record).unwrap()[..40]).unwrap();
    let mut instance = bench.start();
    assert!(matches!(instance.container("web"), Err(Error::NotFound(_))));
    assert_eq!(bench.snapshot(), before);
    // The engine tells of it again.
    instance.set_engine_container(&web(&bench)).unwrap();
    instance.remove_engine_container(Engine::Docker, &id('c')).unwrap();
    assert_eq!(bench.snapshot(), before);
}
