//! Ports that are published, and withdrawn, while a container runs.

use super::*;
use crate::controller::request::Publish;

fn asked(ports: &[&str], from: &[&str]) -> Publish {
    Publish {
        ports: ports.iter().map(|p| (*p).to_owned()).collect(),
        from: from.iter().map(|f| f.parse().unwrap()).collect(),
    }
}

fn unpublish(instance: &mut Instance, ports: &[&str]) -> Result<usize> {
    let ports: Vec<_> = ports.iter().map(|p| (*p).to_owned()).collect();
    instance.unpublish("web", &ports).map(|gone| gone.len())
}

fn ports(bench: &Bench) -> Vec<String> {
    let tables = bench.fake.tables();
    tables
        .ports
        .values()
        .map(|b| format!("{}:{}->{}/{} {}", b.host.addr, b.host.port, b.port, b.host.protocol, b.sources))
        .collect()
}

#[test]
fn ports_come_and_go_and_the_others_are_not_touched() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&publishing("web", &["8080:80"])).unwrap();
    let before = bench.snapshot();
    bench.fake.world().log.clear();
    let given = instance.publish("web", &asked(&["9000-9001:90-91", "53/udp"], &["10.0.0.0/8"])).unwrap();
    assert_eq!(given.iter().map(|b| b.host.port).collect::<Vec<_>>(), [9000, 9001, 32768]);
    let calls = bench.fake.world().log.iter().filter(|call| *call == "publish").count();
    assert_eq!(calls, 1, "a range is one call");
    instance.publish("web", &asked(&["81:81"], &["192.0.2.0/24"])).unwrap();
    instance.publish("web", &asked(&["82:82"], &["10.0.0.0/8"])).unwrap();
    assert_eq!(
        ports(&bench),
        [
            "0.0.0.0:81->81/tcp 2",
            "0.0.0.0:82->82/tcp 1",
            "0.0.0.0:8080->80/tcp 0",
            "0.0.0.0:9000->90/tcp 1",
            "0.0.0.0:9001->91/tcp 1",
            "0.0.0.0:32768->53/udp 1"
        ]
    );
    assert_eq!(bench.fake.tables().sources.len(), 2);
    assert_eq!(unpublish(&mut instance, &["9000-9001:90-91", "53/udp"]).unwrap(), 3);
    assert_eq!(unpublish(&mut instance, &["81:81", "82"]).unwrap(), 2);
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn what_cannot_be_published_or_withdrawn_is_refused_whole() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&publishing("web", &["8080:80", "8443:443/udp"])).unwrap();
    instance.create_container(&publishing("db", &["5432:5432"])).unwrap();
    instance.create_container(&joining("none", Connect::to("none"))).unwrap();
    running(&mut instance, &bench.fake, namespace("ended"), 100);
    instance.mark_exited("ended", None).unwrap();
    let before = bench.snapshot();
    for (container, spec, expected) in [
        ("web", "5432:1", "port is already allocated (container db has 0.0.0.0:5432/tcp)"),
        ("web", "8080:81", "port is already allocated (container web has 0.0.0.0:8080/tcp)"),
        ("web", "x", "x"),
        ("nobody", "80", "No such container: nobody"),
        ("none", "80", "a container on network none"),
        ("ended", "80", "container ended is not running"),
    ] {
        let told = message(instance.publish(container, &asked(&["7000:70", spec], &[])));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    for spec in ["80/udp", "8081:80", "127.0.0.1:8080:80", "81"] {
        let told = message(unpublish(&mut instance, &["8080:80", spec]));
        assert!(
            told.contains(&format!("container web does not publish {spec}: see what it does with")),
            "{told}"
        );
    }
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn publishing_that_fails_or_ends_anywhere_is_healed() {
    let prepare = |instance: &mut Instance| {
        instance.create_container(&publishing("web", &["8080:80"])).unwrap();
    };
    let request = asked(&["9000-9009:90-99"], &["10.0.0.0/8"]);
    let failures = fail_everywhere(
        || {
            let bench = Bench::new();
            let mut instance = bench.start();
            prepare(&mut instance);
            (bench, instance)
        },
        |instance| instance.publish("web", &request),
        |bench, _, before| assert_eq!(bench.snapshot(), *before),
    );
    // ephemeral_ports, hold_ports, set_sources, publish.
    assert_eq!(failures, 4);
    let consistent = |bench: &Bench, instance: &Instance| {
        let told = instance.container("web").unwrap().ports;
        let tables = bench.fake.tables();
        assert_eq!(tables.ports.len(), told.len());
        assert!(told.iter().all(|b| tables.ports[&b.host] == *b));
        assert_eq!(tables.sources.len(), usize::from(told.len() > 1));
    };
    let deaths = die_everywhere(
        prepare,
        |instance| drop(instance.publish("web", &request).unwrap()),
        |bench, instance, _| consistent(bench, &instance),
    );
    assert_eq!(deaths, 4);
    let deaths = die_everywhere(
        |instance| {
            prepare(instance);
            instance.publish("web", &request).unwrap();
        },
        |instance| assert_eq!(unpublish(instance, &["9000-9009:90-99"]).unwrap(), 10),
        |bench, instance, _| consistent(bench, &instance),
    );
    assert_eq!(deaths, 2);
}

#[test]
fn exposed_ports_are_published_where_nobody_asked_for_them() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let request = CreateContainer {
        expose: vec!["80-81".into(), "53/udp".into()],
        publish_all: true,
        ..publishing("web", &["8080:80"])
    };
    let made = instance.create_container(&request).unwrap();
    assert_eq!(made.exposed.len(), 3);
    assert_eq!(
        ports(&bench),
        ["0.0.0.0:8080->80/tcp 0", "0.0.0.0:32768->81/tcp 0", "0.0.0.0:32768->53/udp 0"]
    );
}
