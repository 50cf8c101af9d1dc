use std::fs::File;

use super::*;
use crate::controller::{
    backend::{Direct, EndpointAddr, FlowPosition, Page},
    model::flow_filter::FlowFilter,
    view::ContainerState,
};

#[test]
fn a_container_gets_a_namespace_an_interface_and_files() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let dns = vec!["198.51.100.53".parse().unwrap()];
    let extra_hosts = vec!["db:10.0.0.9".to_owned(), "host:host-gateway".to_owned()];
    let request = CreateContainer { hostname: Some("web.test".into()), dns, extra_hosts, ..namespace("web") };
    let made = instance.create_container(&request).unwrap();
    assert_eq!(made.state, ContainerState::Running);
    assert_eq!(made.netns.as_ref().and_then(|path| path.to_str()), Some("/run/netns/rnet-web"));
    let endpoint = &made.endpoints[0];
    assert_eq!(endpoint.host_interface, format!("veth{}", &endpoint.id[..8]));
    assert_eq!((endpoint.interface.as_str(), endpoint.network.as_str()), ("eth0", "bridge"));
    assert_eq!(endpoint.mac.0[0] & 3, 2, "{} is not a local unicast address", endpoint.mac);

    let tables = bench.fake.tables();
    let (veth_link, veth) = &tables.veths[&endpoint.host_interface];
    assert_eq!((veth.bridge.as_str(), veth.addrs[0].to_string().as_str()), ("rnet0", "172.17.0.2/16"));
    assert_eq!((veth.gateways[0].to_string().as_str(), veth.mac), ("172.17.0.1", endpoint.mac));
    assert_eq!((veth.netns.as_ref(), veth.name.as_str()), (made.netns.as_ref(), "eth0"));
    let known = &tables.endpoints[&endpoint.host_interface];
    assert_eq!((known.ifindex, &known.bridge), (veth_link.index, &tables.bridges["rnet0"].0));
    let addr = EndpointAddr {
        addr: veth.addrs[0].ip(),
        gateway: Some("172.17.0.1".parse().unwrap()),
        masquerade: true,
        direct: Direct::None,
    };
    assert_eq!((known.addrs.as_slice(), known.mac), ([addr].as_slice(), endpoint.mac));
    assert_eq!(known.mtu, 1500);
    assert!(known.policy.icc && !known.policy.internal);

    let read = |name| fs::read_to_string(made.dir.join(name)).unwrap();
    assert_eq!(read("hostname"), "web.test\n");
    assert!(read("resolv.conf").starts_with("nameserver 198.51.100.53\n"));
    assert!(read("hosts").ends_with("10.0.0.9\tdb\n172.17.0.1\thost\n172.17.0.2\tweb.test web\n"));
    assert_eq!(instance.network("bridge").unwrap().containers[&made.id].endpoint, endpoint.id);
}

#[test]
fn removing_leaves_everything_as_it_was() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.snapshot();
    instance.create_container(&publishing("web", &["8080:80", "53/udp"])).unwrap();
    assert_eq!(
        message(instance.remove_container("web", false)),
        "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
    );
    instance.remove_container("web", true).unwrap();
    assert_eq!(bench.snapshot(), before);
    assert_eq!(message(instance.container("web")), "No such container: web");
}

#[test]
fn an_internal_network_has_a_gateway_but_no_way_out() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&CreateNetwork { internal: true, ..network_in("n1", "10.1.0.0/24") }).unwrap();
    let request = CreateContainer { networks: vec![Connect::to("n1")], ..namespace("web") };
    let made = instance.create_container(&request).unwrap();
    let tables = bench.fake.tables();
    let host = &made.endpoints[0].host_interface;
    assert!(tables.veths[host].1.gateways.is_empty());
    assert_eq!(tables.endpoints[host].addrs[0].gateway, Some("10.1.0.1".parse().unwrap()));
    assert!(tables.endpoints[host].policy.internal);
}

#[test]
fn networks_have_numbers_and_policies_of_their_own() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let mut closed = network("closed");
    closed.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
    closed.options.insert("com.docker.network.bridge.enable_ip_masquerade".into(), "false".into());
    instance.create_network(&closed).unwrap();
    instance.create_container(&namespace("a")).unwrap();
    instance
        .create_container(&CreateContainer { networks: vec![Connect::to("closed")], ..namespace("b") })
        .unwrap();
    let tables = bench.fake.tables();
    let known = |name| &tables.endpoints[&instance.container(name).unwrap().endpoints[0].host_interface];
    assert_ne!(known("a").network, known("b").network);
    assert!(!known("b").policy.icc && !known("b").addrs[0].masquerade);
    let isolated =
        |name| tables.veths[&instance.container(name).unwrap().endpoints[0].host_interface].1.isolated;
    assert!(isolated("b") && !isolated("a"), "a bridge must not carry what the datapath drops");
}

#[test]
fn network_none_has_a_namespace_and_nothing_else() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let none = |name| CreateContainer { networks: vec![Connect::to("none")], ..namespace(name) };
    let made = instance.create_container(&none("a")).unwrap();
    assert!(made.endpoints.is_empty() && bench.fake.tables().netns.contains(made.netns.as_ref().unwrap()));
    assert!(bench.fake.tables().veths.is_empty());
    let told =
        message(instance.create_container(&CreateContainer { publish: vec!["80".into()], ..none("b") }));
    assert!(told.starts_with("cannot publish ports: a container on network none"), "{told}");
    let told = message(
        instance.create_container(&joining("b", Connect { mac: Some(made_mac()), ..Connect::to("none") })),
    );
    assert!(told.contains("has no interface"), "{told}");
    instance.remove_container("a", true).unwrap();
    assert!(bench.fake.tables().netns.is_empty());
}

fn made_mac() -> crate::controller::model::MacAddr {
    "02:00:00:00:00:09".parse().unwrap()
}

#[test]
fn a_container_that_cannot_be_is_refused_with_the_reason() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&network_in("n1", "10.1.0.0/29")).unwrap();
    let at = |ip: &str| joining("b", Connect { ip: Some(ip.parse().unwrap()), ..Connect::to("n1") });
    let first = instance
        .create_container(&joining("web", Connect { mac: Some(made_mac()), ..Connect::to("n1") }))
        .unwrap();
    bench.fake.world().tables.netns.insert("/run/netns/rnet-taken".into());
    let before = bench.snapshot();
    let in_network = |name: &str| joining("b", Connect::to(name));
    let conflict =
        format!("Conflict. The container name \"/web\" is already in use by container \"{}\"", first.id);
    for (request, expected) in [
        (namespace("-b"), "invalid container name \"-b\""),
        (namespace("web"), conflict.as_str()),
        (namespace("taken"), "create network namespace rnet-taken for container taken: one of that name"),
        (in_network("n2"), "network n2 not found"),
        (in_network("host"), "a container without a network namespace of its own needs a command"),
        (in_network("container:db"), "No such container: db"),
        (CreateContainer { hostname: Some("a b".into()), ..namespace("b") }, "invalid host name \"a b\""),
        (
            joining("b", Connect { ip: "172.17.0.9".parse().ok(), ..Connect::to("bridge") }),
            "supported on user-defined networks only",
        ),
        (at("10.1.0.2"), "Address already in use: 10.1.0.2"),
        (at("10.1.0.1"), "Address already in use: 10.1.0.1"),
        (
            at("10.1.0.7"),
            "requested address is out of range: 10.1.0.7 is not a host address of subnet 10.1.0.0/29",
        ),
        (at("10.2.0.2"), "requested address is out of range: 10.2.0.2"),
        (
            joining("b", Connect { ip6: Some("fd00::2".parse().unwrap()), ..Connect::to("n1") }),
            "network n1 has no IPv6 subnet",
        ),
        (
            joining("b", Connect { mac: Some(made_mac()), ..Connect::to("n1") }),
            "MAC address 02:00:00:00:00:09 is in use on network n1",
        ),
        (
            joining("b", Connect { mac: Some("01:00:5e:00:00:01".parse().unwrap()), ..Connect::to("n1") }),
            "no interface's own",
        ),
        (
            CreateContainer { extra_hosts: vec!["db".into()], ..namespace("b") },
            "bad format for add-host: \"db\"",
        ),
    ] {
        let told = message(instance.create_container(&request));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_container_without_a_name_gets_one() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let made = instance.create_container(&CreateContainer::default()).unwrap();
    assert!(made.name.contains('_') && made.hostname == made.id[..12], "{made:?}");
    assert_eq!(instance.container(&made.id[..6]).unwrap(), made);
}

#[test]
fn a_process_that_ends_gives_back_address_and_ports() {
    let bench = Bench::new();
    let mut instance = bench.start();
    running(&mut instance, &bench.fake, publishing("web", &["8080:80"]), 100);
    let web = instance.container("web").unwrap();
    assert_eq!((web.state, web.pid), (ContainerState::Running, Some(100)));
    assert_eq!(
        message(instance.mark_started("web", 101)),
        "cannot start container web: it is running already"
    );

    let ended = instance.mark_exited("web", Some(3)).unwrap();
    assert_eq!((ended.state, ended.pid, ended.exit_code), (ContainerState::Exited, None, Some(3)));
    assert!(ended.endpoints.is_empty() && ended.ports.is_empty() && ended.finished.is_some());
    assert!(ended.dir.join("hosts").exists(), "the log is kept beside it");
    let tables = bench.fake.tables();
    assert!(tables.veths.is_empty() && tables.netns.is_empty() && tables.ports.is_empty());
    assert_eq!(instance.mark_exited("web", Some(4)).unwrap(), ended);
    assert_eq!(message(instance.mark_started("web", 101)), "cannot start container web: it has ended");

    let next = instance.create_container(&publishing("db", &["8080:80"])).unwrap();
    assert_eq!(next.endpoints[0].addrs[0].to_string(), "172.17.0.2/16");
    instance.remove_container("web", false).unwrap();
    assert!(!ended.dir.exists());
}

#[test]
fn a_container_that_is_to_go_with_its_process_goes() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.snapshot();
    running(&mut instance, &bench.fake, CreateContainer { remove: true, ..publishing("web", &["80"]) }, 100);
    let ended = instance.mark_exited("web", Some(0)).unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, Some(0)));
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_container_that_never_started_can_be_removed_without_force() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.snapshot();
    let request = CreateContainer { command: vec!["server".into()], ..namespace("web") };
    assert_eq!(instance.create_container(&request).unwrap().state, ContainerState::Created);
    instance.remove_container("web", false).unwrap();
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn the_status_counts_what_is_there() {
    let bench = Bench::new();
    let mut instance = bench.start();
    running(&mut instance, &bench.fake, publishing("web", &["8080:80", "8081:81"]), 100);
    running(&mut instance, &bench.fake, namespace("db"), 101);
    instance.mark_exited("db", None).unwrap();
    let status = instance.status().unwrap();
    assert_eq!((status.networks, status.containers, status.running, status.ports), (3, 2, 1, 2));
    assert_eq!(
        (status.uplinks.as_slice(), status.snat_ports),
        (["uplink0".to_owned()].as_slice(), (1024, 32767))
    );
    assert_eq!(instance.sweep(FlowPosition::default()).unwrap(), Page { found: 3, next: None });
    let flows = instance.flows(&FlowFilter::default(), FlowPosition::default()).unwrap();
    assert!(flows.found.is_empty() && instance.counters().unwrap().is_empty());
}

#[test]
fn settings_are_the_containers_own() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let with = |request: CreateContainer, key: &str| CreateContainer {
        sysctls: BTreeMap::from([(key.to_owned(), "1".to_owned())]),
        ..request
    };
    instance.create_container(&with(namespace("a"), "net.ipv4.ip_forward")).unwrap();
    let log = bench.fake.world().log.clone();
    let at = |call: &str| log.iter().position(|logged| logged == call).unwrap();
    assert!(at("sysctl net.ipv4.ip_forward=1") > at("create_pair"), "an interface's can be set, too");
    let told = message(instance.create_container(&with(namespace("b"), "kernel.panic")));
    assert!(told.starts_with("sysctl 'kernel.panic' is not allowed"), "{told}");
    let host = CreateContainer { command: vec!["x".into()], ..joining("b", Connect::to("host")) };
    let told = message(instance.create_container(&with(host, "net.ipv4.ip_forward")));
    assert!(told.contains("--network host has no namespaces of its own"), "{told}");
}

#[test]
fn a_request_cannot_write_lines_of_its_own_into_resolv_conf() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.snapshot();
    for (search, option) in
        [("a.test\nnameserver 192.0.2.66", "rotate"), ("a.test", "rotate\nnameserver 192.0.2.66")]
    {
        let (dns_search, dns_options) = (vec![search.to_owned()], vec![option.to_owned()]);
        let request = CreateContainer { dns_search, dns_options, ..namespace("web") };
        instance.create_container(&request).unwrap_err();
    }
    assert_eq!(bench.snapshot(), before);
    let dns_search = vec!["a.test".to_owned(), ".".to_owned()];
    let request = CreateContainer { dns_search, dns_options: vec!["ndots:2".to_owned()], ..namespace("web") };
    let made = instance.create_container(&request).unwrap();
    assert!(
        fs::read_to_string(made.dir.join("resolv.conf"))
            .unwrap()
            .ends_with("search a.test\noptions ndots:2\n")
    );
}

#[test]
fn a_request_cannot_ask_for_more_ports_than_there_can_be() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let many = vec!["0-65535"; 60_000];
    let refused = message(instance.create_container(&publishing("web", &many)));
    assert_eq!(refused, "more than 131072 ports are to be published at once");
    let from = vec!["10.0.0.0/8".parse().unwrap(); 50_000];
    let request = CreateContainer { from, ..publishing("web", &["1-65535"]) };
    let refused = message(instance.create_container(&request));
    assert!(refused.contains("sources of 65535 ports are too many"), "{refused}");
}

#[test]
fn lists_have_an_end() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let subnet = Subnet {
        aux: (0..600).map(|n| (n.to_string(), [10, 1, 0, 9].into())).collect(),
        ..Subnet::default()
    };
    let mut wide = network("n2");
    wide.subnets = vec![subnet; 2];
    let labels = (0..1025).map(|n| (n.to_string(), String::new())).collect();
    let before = bench.snapshot();
    for (request, expected) in [
        (CreateNetwork { labels, ..network("n2") }, "1025 labels are too many: 1024 are allowed"),
        (wide, "1200 auxiliary addresses are too many: 1024 are allowed"),
    ] {
        assert_eq!(message(instance.create_network(&request)), expected);
    }
    instance.create_network(&network("n1")).unwrap();
    let dns = |many| vec!["192.0.2.53".parse().unwrap(); many];
    let words = |many| vec!["a.test".to_owned(); many];
    let aliases = Connect { aliases: words(65), ..Connect::to("n1") };
    for (request, expected) in [
        (
            CreateContainer { dns: dns(33), ..namespace("web") },
            "33 name servers are too many: 32 are allowed",
        ),
        (CreateContainer { dns_search: words(33), ..namespace("web") }, "33 search domains are too many"),
        (CreateContainer { extra_hosts: words(1025), ..namespace("web") }, "1025 extra hosts are too many"),
        (
            CreateContainer { networks: vec![Connect::to("n1"); 129], ..namespace("web") },
            "129 networks are too many",
        ),
        (joining("web", aliases), "65 aliases are too many: 64 are allowed"),
    ] {
        let told = message(instance.create_container(&request));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    instance.remove_network("n1").unwrap();
    assert_eq!(bench.snapshot(), before);
    instance.create_container(&CreateContainer { dns: dns(32), ..namespace("web") }).unwrap();
}

#[test]
fn a_container_cannot_fill_the_daemons_memory_by_its_own_hosts() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let made = instance.create_container(&namespace("web")).unwrap();
    let hosts = made.dir.join("hosts");
    // Read whole it would be a terabyte.
    File::options().write(true).open(&hosts).unwrap().set_len(1 << 40).unwrap();
    instance.create_network(&network("n1")).unwrap();
    instance.connect("web", &Connect::to("n1")).unwrap();
    assert_eq!(fs::metadata(&hosts).unwrap().len(), 1 << 40, "it is the container's by now");
    assert!(fs::read_to_string(made.dir.join("resolv.conf")).unwrap().contains("nameserver"));
}
