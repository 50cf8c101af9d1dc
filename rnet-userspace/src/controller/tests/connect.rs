//! Containers that come onto networks and leave them while they run.

use super::*;
use crate::controller::{backend::DefaultRoute, events::Kind};

/// A container on the default network with published ports, and two networks more.
fn prepared() -> (Bench, Instance) {
    let bench = Bench::new();
    let mut instance = bench.start();
    prepare(&mut instance);
    (bench, instance)
}

fn prepare(instance: &mut Instance) {
    instance.create_network(&network_in("a", "10.1.0.0/24")).unwrap();
    instance.create_network(&network_in("z", "10.2.0.0/24")).unwrap();
    let from = vec!["198.51.100.0/24".parse().unwrap()];
    instance
        .create_container(&CreateContainer { from, ..publishing("web", &["8080:80", "53/udp"]) })
        .unwrap();
}

fn routes(bench: &Bench) -> Vec<DefaultRoute> {
    bench.fake.tables().default_routes.get(Path::new("/run/netns/rnet-web")).cloned().unwrap_or_default()
}

fn route(gateway: &str, interface: &str) -> DefaultRoute {
    DefaultRoute { gateway: gateway.parse().unwrap(), interface: interface.to_owned() }
}

fn ports(bench: &Bench) -> Vec<String> {
    let tables = bench.fake.tables();
    tables.ports.values().map(|b| format!("{} {} {}", b.host.port, b.addr, b.sources)).collect()
}

fn file(bench: &Bench, instance: &Instance, name: &str) -> String {
    let id = instance.container("web").unwrap().id;
    fs::read_to_string(bench.config().run_dir.join("containers").join(id).join(name)).unwrap()
}

#[test]
fn a_container_comes_onto_a_network_and_leaves_it() {
    let (bench, mut instance) = prepared();
    let (before, view) = (bench.snapshot(), instance.container("web").unwrap());
    // `z` comes after `bridge`, which keeps the default route and the ports.
    let aliases = vec!["www".to_owned()];
    let asked = Connect { aliases, ip: "10.2.0.9".parse().ok(), ..Connect::to("z") };
    instance.connect("web", &asked).unwrap();
    let web = instance.container("web").unwrap();
    let joined = &web.endpoints[1];
    assert_eq!((joined.interface.as_str(), joined.addrs[0].to_string().as_str()), ("eth1", "10.2.0.9/24"));
    assert_eq!(joined.names, ["web", "www", &web.id[..12]]);
    assert_eq!(routes(&bench), [route("172.17.0.1", "eth0")]);
    assert_eq!(ports(&bench), ["8080 172.17.0.2 1", "32768 172.17.0.2 1"]);
    assert!(file(&bench, &instance, "hosts").contains("10.2.0.9\t"));
    assert!(file(&bench, &instance, "resolv.conf").contains("nameserver 10.2.0.1\n"));
    assert_eq!(instance.network("z").unwrap().containers.len(), 1);

    instance.disconnect("z", "web", false).unwrap();
    assert_eq!(instance.container("web").unwrap(), view);
    assert_eq!(bench.snapshot(), before);
    let (events, _) = instance.events().listen();
    let told: Vec<_> =
        events.iter().filter(|e| e.kind == Kind::Network).map(|e| e.action.as_str()).skip(3).collect();
    assert_eq!(told, ["connect", "disconnect"]);
}

#[test]
fn the_network_of_the_highest_priority_and_then_the_first_by_name_leads_outside() {
    let (bench, mut instance) = prepared();
    instance.connect("web", &Connect::to("a")).unwrap();
    assert_eq!(routes(&bench), [route("10.1.0.1", "eth1")]);
    assert_eq!(ports(&bench), ["8080 10.1.0.2 1", "32768 10.1.0.2 1"], "ports keep their numbers");
    instance.connect("web", &Connect { gw_priority: 1, ..Connect::to("z") }).unwrap();
    assert_eq!(routes(&bench), [route("10.2.0.1", "eth2")]);
    assert_eq!(ports(&bench), ["8080 10.2.0.2 1", "32768 10.2.0.2 1"]);
    instance.disconnect("z", "web", false).unwrap();
    assert_eq!(routes(&bench), [route("10.1.0.1", "eth1")]);
    instance.disconnect("a", "web", false).unwrap();
    assert_eq!(routes(&bench), [route("172.17.0.1", "eth0")]);
    assert_eq!(ports(&bench), ["8080 172.17.0.2 1", "32768 172.17.0.2 1"]);
    // The name that is free is the next one's.
    instance.disconnect("bridge", "web", false).unwrap();
    instance.connect("web", &Connect::to("z")).unwrap();
    assert_eq!(instance.container("web").unwrap().endpoints[0].interface, "eth0");
}

#[test]
fn ports_wait_for_a_network_that_leads_outside_and_stay_the_containers() {
    let (bench, mut instance) = prepared();
    instance.disconnect("bridge", "web", false).unwrap();
    assert!(ports(&bench).is_empty() && routes(&bench).is_empty());
    assert!(instance.container("web").unwrap().ports.is_empty());
    assert!(bench.fake.tables().sources.is_empty());
    let told = message(instance.create_container(&publishing("thief", &["8080:80"])));
    assert!(told.contains("port is already allocated (container web has 0.0.0.0:8080/tcp)"), "{told}");
    drop(instance);
    let mut instance = bench.start();
    assert!(instance.create_container(&publishing("thief", &["8080:80"])).is_err());
    instance.connect("web", &Connect::to("a")).unwrap();
    assert_eq!(ports(&bench), ["8080 10.1.0.2 1", "32768 10.1.0.2 1"]);
    instance.remove_container("web", true).unwrap();
    instance.create_container(&publishing("thief", &["8080:80"])).unwrap();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (bench, mut instance) = prepared();
    instance.create_container(&joining("none", Connect::to("none"))).unwrap();
    running(&mut instance, &bench.fake, joining("onhost", Connect::to("host")), 100);
    running(&mut instance, &bench.fake, joining("sharing", Connect::to("container:web")), 101);
    running(&mut instance, &bench.fake, namespace("ended"), 102);
    instance.mark_exited("ended", Some(0)).unwrap();
    instance
        .create_container(&joining("other", Connect { ip: "10.1.0.9".parse().ok(), ..Connect::to("a") }))
        .unwrap();
    let before = bench.snapshot();
    let a = Connect::to("a");
    for (container, asked, expected) in [
        ("web", Connect::to("bridge"), "endpoint with name web already exists in network bridge"),
        ("web", Connect::to("nowhere"), "network nowhere not found"),
        ("nobody", a.clone(), "No such container: nobody"),
        ("web", Connect::to("host"), "container cannot be disconnected from host network"),
        ("web", Connect::to("none"), "one of the networks in private (none) mode"),
        ("none", a.clone(), "one of the networks in private (none) mode"),
        (
            "onhost",
            a.clone(),
            "container cannot be disconnected from host network or connected to host network",
        ),
        ("sharing", a.clone(), "container sharing network namespace with another container or host"),
        ("ended", a.clone(), "container ended is not running"),
        ("web", Connect { ip: "10.1.0.9".parse().ok(), ..a.clone() }, "Address already in use: 10.1.0.9"),
        ("web", Connect { ip: "10.9.0.9".parse().ok(), ..a.clone() }, "requested address is out of range"),
        ("web", Connect { aliases: vec!["a b".into()], ..a }, "invalid host name \"a b\""),
    ] {
        let told = message(instance.connect(container, &asked));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    let web = instance.container("web").unwrap();
    for (network, container, expected) in [
        ("a", "web", format!("container {} is not connected to network a", web.id)),
        ("nowhere", "web", "network nowhere not found".to_owned()),
        ("a", "nobody", "No such container: nobody".to_owned()),
        ("host", "onhost", "container cannot be disconnected from host network".to_owned()),
    ] {
        let told = message(instance.disconnect(network, container, false));
        assert!(told.contains(&expected), "{told:?} lacks {expected:?}");
    }
    instance.disconnect("a", "web", true).unwrap();
    assert_eq!(bench.snapshot(), before);
    let told = message(instance.remove_network("a"));
    assert!(told.starts_with("network a has active endpoints (other)"), "{told}");
}

#[test]
fn a_network_that_a_port_cannot_go_on_with_is_refused() {
    let (bench, mut instance) = prepared();
    instance.create_container(&publishing("sctp", &["80:80/sctp"])).unwrap();
    // On a network whose ports are published on another address, the same number may be somebody else's.
    let options =
        BTreeMap::from([("com.docker.network.bridge.host_binding_ipv4".to_owned(), "192.0.2.1".to_owned())]);
    instance.create_network(&CreateNetwork { options, ..network_in("b", "10.3.0.0/24") }).unwrap();
    bench.fake.world().foreign.sockets.insert(
        crate::controller::model::HostPort {
            addr: "192.0.2.1".parse().unwrap(),
            port: 8080,
            protocol: crate::controller::model::Protocol::Tcp,
        },
        "nginx[7]".into(),
    );
    let before = bench.snapshot();
    let told = message(instance.connect("web", &Connect::to("b")));
    assert!(
        told.contains(
            "failed to bind host port 192.0.2.1:8080/tcp: address already in use (held by nginx[7])"
        ),
        "{told}"
    );
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_connection_that_fails_anywhere_changes_nothing() {
    // `a` takes the default route and the ports over, which is all that can happen.
    for (target, calls) in [("a", 7), ("z", 5)] {
        let failures = fail_everywhere(
            prepared,
            |instance| instance.connect("web", &Connect::to(target)),
            |bench, instance, before| {
                assert_eq!(bench.snapshot(), *before);
                instance.connect("web", &Connect::to(target)).unwrap();
            },
        );
        assert_eq!(failures, calls);
    }
}

#[test]
fn a_disconnection_that_fails_anywhere_can_be_finished() {
    let prepare = || {
        let (bench, mut instance) = prepared();
        instance.connect("web", &Connect::to("a")).unwrap();
        (bench, instance)
    };
    let (reference, mut instance) = prepare();
    instance.disconnect("a", "web", false).unwrap();
    let expected = (routes(&reference), ports(&reference));
    let failures = fail_everywhere(
        prepare,
        |instance| instance.disconnect("a", "web", false),
        |bench, instance, before| {
            if bench.snapshot() != *before {
                let (routes, ports) = (routes(bench), ports(bench));
                assert_eq!((routes, ports), expected, "nothing leads to what is being removed");
                assert_eq!(instance.container("web").unwrap().endpoints.len(), 1);
            }
            instance.disconnect("a", "web", false).unwrap();
            assert_eq!((routes(bench), ports(bench)), expected);
            assert_eq!(bench.fake.tables().veths.len(), 1);
            instance.remove_network("a").unwrap();
        },
    );
    assert_eq!(failures, 5);
}

#[test]
fn an_interrupted_change_of_networks_is_undone_or_finished_at_the_next_start() {
    let connected = |instance: &mut Instance| {
        prepare(instance);
        instance.connect("web", &Connect::to("a")).unwrap();
    };
    let check = |bench: &Bench, mut instance: Instance| {
        let tables = bench.fake.tables();
        let web = instance.container("web").unwrap();
        let on_a = web.endpoints.len() == 2;
        assert_eq!((tables.veths.len(), tables.endpoints.len()), (web.endpoints.len(), web.endpoints.len()));
        let (gateway, addr, interface) =
            if on_a { ("10.1.0.1", "10.1.0.2", "eth1") } else { ("172.17.0.1", "172.17.0.2", "eth0") };
        assert_eq!(routes(bench), [route(gateway, interface)]);
        assert_eq!(ports(bench), [format!("8080 {addr} 1"), format!("32768 {addr} 1")]);
        let hosts = file(bench, &instance, "hosts");
        assert_eq!(hosts.contains("10.1.0.2"), on_a, "{hosts}");
        // It can go on from here.
        if on_a {
            instance.disconnect("a", "web", false).unwrap();
        } else {
            instance.connect("web", &Connect::to("a")).unwrap();
        }
        instance.remove_container("web", true).unwrap();
        instance.remove_network("a").unwrap();
    };
    let deaths = die_everywhere(
        prepare,
        |instance| instance.connect("web", &Connect::to("a")).unwrap(),
        |bench, instance, _| check(bench, instance),
    );
    assert_eq!(deaths, 7);
    let deaths = die_everywhere(
        connected,
        |instance| instance.disconnect("a", "web", false).unwrap(),
        |bench, instance, _| check(bench, instance),
    );
    assert_eq!(deaths, 5);
}
