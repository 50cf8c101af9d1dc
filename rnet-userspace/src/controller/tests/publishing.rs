use super::*;
use crate::controller::model::{HostPort, Protocol};

fn host_port(addr: &str, port: u16) -> HostPort {
    HostPort { addr: addr.parse().unwrap(), port, protocol: Protocol::Tcp }
}

fn host_has(bench: &Bench, addr: &str, port: u16) {
    bench.fake.world().foreign.sockets.insert(host_port(addr, port), "nginx[7]".into());
}

fn ports_of(instance: &Instance, container: &str) -> Vec<String> {
    let ports = instance.container(container).unwrap().ports;
    ports.iter().map(|b| format!("{}:{}->{}/{}", b.host.addr, b.host.port, b.port, b.host.protocol)).collect()
}

#[test]
fn ports_are_held_until_the_datapath_has_them() {
    let bench = Bench::new();
    let mut instance = bench.start();
    bench.fake.world().log.clear();
    let specs = ["8080:80", "192.0.2.1:9000-9001:90-91/udp", "53"];
    let made = instance.create_container(&publishing("web", &specs)).unwrap();
    let log = bench.fake.world().log.clone();
    let order: Vec<_> = log
        .iter()
        .filter(|call| ["hold_ports", "publish", "let go of ports"].contains(&call.as_str()))
        .collect();
    assert_eq!(order, ["hold_ports", "publish", "let go of ports"]);
    assert_eq!(
        ports_of(&instance, "web"),
        ["0.0.0.0:8080->80/tcp", "192.0.2.1:9000->90/udp", "192.0.2.1:9001->91/udp", "0.0.0.0:32768->53/tcp"]
    );
    let tables = bench.fake.tables();
    assert!(tables.held.is_empty());
    assert_eq!(tables.ports.values().copied().collect::<Vec<_>>().len(), 4);
    assert!(
        made.ports.iter().all(|b| b.addr == made.endpoints[0].addrs[0].ip() && tables.ports[&b.host] == *b)
    );
}

#[test]
fn the_default_address_is_the_configured_one() {
    let bench = Bench::new();
    let mut instance =
        bench.start_with(Config { bind: "192.0.2.1".parse().unwrap(), ..bench.config() }).unwrap();
    instance.create_container(&publishing("web", &["8080:80", "0.0.0.0:8081:81"])).unwrap();
    assert_eq!(ports_of(&instance, "web"), ["192.0.2.1:8080->80/tcp", "0.0.0.0:8081->81/tcp"]);
}

#[test]
fn a_port_of_another_container_is_refused_with_its_name() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&publishing("web", &["192.0.2.1:8000:80"])).unwrap();
    let before = bench.snapshot();
    let told = message(instance.create_container(&publishing("db", &["7000:70", "8000:80"])));
    let (wrapped, cause) = told.split_once("): ").unwrap();
    assert!(wrapped.starts_with(
        "failed to set up container networking: driver failed programming external connectivity on endpoint db ("
    ));
    assert_eq!(
        cause,
        "Bind for 0.0.0.0:8000 failed: port is already allocated (container web has 192.0.2.1:8000/tcp)"
    );
    assert_eq!(bench.snapshot(), before);
    instance.create_container(&publishing("db", &["8000:80/udp"])).unwrap();
}

#[test]
fn a_port_of_a_host_program_is_refused_with_its_name() {
    let bench = Bench::new();
    let mut instance = bench.start();
    host_has(&bench, "0.0.0.0", 8000);
    let before = bench.snapshot();
    let refused = instance.create_container(&publishing("web", &["7000:70", "8000:80"]));
    assert!(matches!(refused, Err(Error::Conflict(_))));
    let told = message(refused);
    assert!(
        told.ends_with(
            "failed to bind host port 0.0.0.0:8000/tcp: address already in use (held by nginx[7])"
        )
    );
    let told = message(instance.create_container(&publishing("web", &["203.0.113.9:80:80"])));
    assert!(
        told.ends_with("failed to bind host port 203.0.113.9:80/tcp: cannot assign requested address"),
        "{told}"
    );
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn random_ports_pass_over_what_host_programs_have_within_bounds() {
    let bench = Bench::new();
    let mut instance = bench.start();
    (32768..32777).for_each(|port| host_has(&bench, "0.0.0.0", port));
    instance.create_container(&publishing("a", &["80"])).unwrap();
    assert_eq!(ports_of(&instance, "a"), ["0.0.0.0:32777->80/tcp"]);
    (32778..32789).for_each(|port| host_has(&bench, "0.0.0.0", port));
    let told = message(instance.create_container(&publishing("b", &["80"])));
    assert!(told.contains("failed to bind host port 0.0.0.0:32788/tcp: address already in use"), "{told}");
    // The search goes on where it ended.
    instance.create_container(&publishing("b", &["80"])).unwrap();
    assert_eq!(ports_of(&instance, "b"), ["0.0.0.0:32789->80/tcp"]);
}

#[test]
fn a_range_for_one_container_port_gives_its_first_free_one() {
    let bench = Bench::new();
    let mut instance = bench.start();
    host_has(&bench, "0.0.0.0", 8001);
    for (name, port) in [("a", 8000), ("b", 8002)] {
        instance.create_container(&publishing(name, &["8000-8002:80"])).unwrap();
        assert_eq!(ports_of(&instance, name), [format!("0.0.0.0:{port}->80/tcp")]);
    }
    let before = bench.snapshot();
    let told = message(instance.create_container(&publishing("c", &["8000-8002:80"])));
    assert!(told.ends_with("all ports are allocated: tcp ports 8000-8002 of 0.0.0.0"), "{told}");
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn what_cannot_be_published_is_refused_with_the_reason() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&CreateNetwork { internal: true, ..network("closed") }).unwrap();
    let before = bench.snapshot();
    for (spec, expected) in [
        ("80/icmp", "invalid proto: icmp"),
        ("80-82:80-81", "invalid ranges specified for container and host Ports: 80-81 and 80-82"),
        ("8080:0", "cannot publish 8080:0/tcp: port 0 is no port of a container"),
        ("[2001:db8::1]:80:80", "2001:db8::1 is an IPv6 address, and container web has none"),
        ("[::1]:80:80", "::1 is an IPv6 address, and container web has none"),
        ("224.0.0.1:80:80", "224.0.0.1 is a multicast address"),
        ("80/sctp", "host port and container port the same, because its checksum covers the whole packet"),
        ("81:80/sctp", "publish 80:80/sctp"),
    ] {
        let told = message(instance.create_container(&publishing("web", &["7000:70", spec])));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    let closed = CreateContainer { networks: vec![Connect::to("closed")], ..publishing("web", &["80"]) };
    assert!(message(instance.create_container(&closed)).contains("network closed is internal"));
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn published_ports_are_listed_with_their_counts() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&publishing("web", &["9000:90", "8000:80"])).unwrap();
    instance.create_container(&publishing("db", &["7000:70"])).unwrap();
    let listed: Vec<_> = instance
        .published()
        .unwrap()
        .iter()
        .map(|p| (p.container.clone(), p.binding.port, p.count.flows))
        .collect();
    assert_eq!(listed, [("db".into(), 70, 7000), ("web".into(), 80, 8000), ("web".into(), 90, 9000)]);
}
