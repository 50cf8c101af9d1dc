//! What a daemon that starts finds, and what one that ends leaves.

use super::*;
use crate::controller::{backend::Uplink, view::ContainerState};

fn full() -> CreateContainer {
    publishing("web", &["8080:80", "53/udp"])
}

#[test]
fn what_an_interrupted_creation_left_is_removed() {
    let create = |instance: &mut Instance| drop(instance.create_container(&full()).unwrap());
    let deaths = die_everywhere(
        |_| {},
        create,
        |bench, mut instance, before| {
            assert_eq!(bench.snapshot(), *before);
            create(&mut instance);
        },
    );
    assert_eq!(deaths, 9);
    let create = |instance: &mut Instance| drop(instance.create_network(&network("n1")).unwrap());
    let deaths = die_everywhere(
        |_| {},
        create,
        |bench, mut instance, before| {
            assert_eq!(bench.snapshot(), *before);
            create(&mut instance);
        },
    );
    assert_eq!(deaths, 5);
}

#[test]
fn an_interrupted_removal_is_finished() {
    let create = |instance: &mut Instance| drop(instance.create_container(&full()).unwrap());
    let remove = |instance: &mut Instance| drop(instance.remove_container("web", true).unwrap());
    let deaths = die_everywhere(create, remove, |bench, instance, _| {
        assert!(instance.containers().is_empty());
        let tables = bench.fake.tables();
        assert!(tables.veths.is_empty() && tables.netns.is_empty());
        assert!(tables.endpoints.is_empty() && tables.ports.is_empty());
        assert_eq!(fs::read_dir(bench.config().run_dir.join("containers")).unwrap().count(), 0);
    });
    assert_eq!(deaths, 5);
}

#[test]
fn a_restart_adopts_what_is_there_and_touches_nothing() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&network_in("n1", "10.1.0.0/24")).unwrap();
    instance.create_container(&full()).unwrap();
    let on_n1 = CreateContainer { networks: vec![Connect::to("n1")], ..publishing("db", &["7000-7002:70"]) };
    running(&mut instance, &bench.fake, on_n1, 100);
    let (views, networks, before) = (instance.containers(), instance.networks(), bench.snapshot());
    drop(instance);

    bench.fake.world().log.clear();
    let mut instance = bench.start();
    assert_eq!((instance.containers(), instance.networks()), (views, networks));
    assert_eq!(bench.snapshot(), before);
    let log = bench.fake.world().log.clone();
    let changes = ["create_", "delete_", "remove_", "unpublish", "destroy", "hold_ports"];
    assert!(!log.iter().any(|call| changes.iter().any(|change| call.starts_with(change))), "{log:?}");

    // Addresses and ports that were given stay given.
    let told = message(instance.create_container(&publishing("x", &["7000:70"])));
    assert!(told.contains("container db has 0.0.0.0:7000/tcp"), "{told}");
    instance.create_container(&namespace("x")).unwrap();
    assert_eq!(addr_of(&instance, "x"), "172.17.0.3/16");
    instance.remove_container("web", true).unwrap();
    instance.mark_exited("db", Some(0)).unwrap();
}

#[test]
fn what_the_store_does_not_have_is_taken_from_the_datapath() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&full()).unwrap();
    let before = bench.fake.tables();
    {
        let tables = &mut bench.fake.world().tables;
        let stale = tables.endpoints.values().next().unwrap().clone();
        tables.endpoints.insert(
            "veth00000000".into(),
            crate::controller::backend::EndpointSpec { host_name: "veth00000000".into(), ..stale },
        );
        let mut stale = *tables.ports.values().next().unwrap();
        stale.host.port = 9;
        tables.ports.insert(stale.host, stale);
    }
    bench.start();
    assert_eq!(bench.fake.tables(), before);
}

#[test]
fn what_is_gone_is_made_again_with_the_same_addresses() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&full()).unwrap();
    let (views, before) = (instance.containers(), bench.fake.tables());
    let same_but_for_indexes = |after: Tables| {
        let spec = |t: &Tables| t.veths.values().map(|(_, spec)| spec.clone()).collect::<Vec<_>>();
        assert_eq!(spec(&after), spec(&before));
        assert_eq!(after.ports, before.ports);
        let (name, known) = after.endpoints.iter().next().unwrap();
        assert_eq!((known.ifindex, &known.bridge), (after.veths[name].0.index, &after.bridges["rnet0"].0));
        assert_eq!(after.bridges["rnet0"].1, before.bridges["rnet0"].1);
    };
    // A bridge that goes leaves its ports behind, connected to nothing.
    bench.fake.world().tables.bridges.clear();
    let mut instance = bench.start();
    assert_eq!(instance.containers(), views);
    same_but_for_indexes(bench.fake.tables());

    bench.fake.world().tables.veths.clear();
    instance.refresh_host().unwrap();
    same_but_for_indexes(bench.fake.tables());
    bench.fake.world().tables.bridges.clear();
    instance.refresh_host().unwrap();
    same_but_for_indexes(bench.fake.tables());
}

#[test]
fn containers_that_ended_meanwhile_are_noted() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&namespace("netns-gone")).unwrap();
    for (name, pid) in [("ended", 100), ("id-used-again", 101), ("alive", 102)] {
        running(&mut instance, &bench.fake, namespace(name), pid);
    }
    running(&mut instance, &bench.fake, CreateContainer { remove: true, ..namespace("to-go") }, 103);
    fs::write(instance.container("ended").unwrap().dir.join("status"), "9").unwrap();
    {
        let mut world = bench.fake.world();
        world.tables.netns.remove(Path::new("/run/netns/rnet-netns-gone"));
        world.tables.veths.retain(|_, (_, veth)| {
            !veth.netns.as_ref().is_some_and(|netns| netns.ends_with("rnet-netns-gone"))
        });
        world.foreign.processes = [(101, 5), (102, 10200)].into();
    }
    for instance in [bench.start(), instance] {
        let mut instance = instance;
        instance.refresh_host().unwrap();
        let states: Vec<_> = instance.containers().into_iter().map(|c| (c.name, c.state)).collect();
        let (ended, running) = (ContainerState::Exited, ContainerState::Running);
        let expected =
            [("alive", running), ("ended", ended), ("id-used-again", ended), ("netns-gone", ended)];
        assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
        assert_eq!(instance.container("ended").unwrap().exit_code, Some(9), "which it has left behind");
        let tables = bench.fake.tables();
        assert_eq!((tables.veths.len(), tables.endpoints.len(), tables.netns.len()), (1, 1, 1));
    }
}

#[test]
fn after_a_reboot_networks_are_there_and_containers_have_ended() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&full()).unwrap();
    drop(instance);
    bench.fake.world().tables = Tables::default();
    fs::remove_dir_all(bench.config().run_dir).unwrap();
    let mut instance = bench.start();
    let web = instance.container("web").unwrap();
    assert!(web.state == ContainerState::Exited && web.endpoints.is_empty() && web.ports.is_empty());
    let tables = bench.fake.tables();
    assert!(tables.bridges.contains_key("rnet0") && tables.ports.is_empty());
    instance.remove_container("web", false).unwrap();
    instance.create_container(&full()).unwrap();
}

#[test]
fn changes_of_the_host_are_followed_and_nothing_is_told_twice() {
    let bench = Bench::new();
    let config = Config { uplinks: Some(vec!["uplink0".into(), "wlan0".into()]), ..bench.config() };
    let mut instance = bench.start_with(config).unwrap();
    bench.fake.world().log.clear();
    instance.refresh_host().unwrap();
    assert!(!bench.fake.world().log.iter().any(|call| call.starts_with("set_")));
    {
        let mut world = bench.fake.world();
        world.foreign.uplinks.push(Uplink { index: 8, name: "wlan0".into(), ..Uplink::default() });
        world.foreign.uplinks.push(Uplink { index: 9, name: "tun0".into(), ..Uplink::default() });
        world.foreign.addresses.push("198.51.100.7".parse().unwrap());
    }
    instance.refresh_host().unwrap();
    assert_eq!(instance.status().unwrap().uplinks, ["uplink0", "wlan0"]);
    let tables = bench.fake.tables();
    assert_eq!(tables.known_uplinks.len(), 2);
    assert!(tables.known_addresses.contains(&"198.51.100.7".parse().unwrap()));
}

#[test]
fn down_leaves_nothing_and_what_it_could_not_remove_it_removes_next_time() {
    let mut failures = 0;
    for n in 1.. {
        let bench = Bench::new();
        let mut instance = bench.start();
        instance.create_network(&network("n1")).unwrap();
        instance.create_container(&full()).unwrap();
        instance
            .create_container(&CreateContainer { networks: vec![Connect::to("n1")], ..namespace("db") })
            .unwrap();
        bench.fake.set(Fate::FailAt(n));
        let outcome = instance.down();
        bench.fake.set(Fate::Well);
        let clean = outcome.is_ok();
        if !clean {
            failures += 1;
            assert!(message(outcome).contains(&format!("call {n}, ")));
            assert!(!bench.snapshot().files.is_empty());
            instance.down().unwrap();
        }
        assert_eq!(bench.snapshot(), Snapshot { tables: Tables::default(), files: BTreeMap::new() });
        assert!(bench.fake.world().destroyed);
        let told = message(instance.create_container(&full()));
        assert_eq!(told, "instance rnet is being taken down");
        instance.refresh_host().unwrap();
        assert_eq!(bench.fake.tables(), Tables::default());
        if clean {
            break;
        }
    }
    // One for all veths, five for web, four for db, two for each network, one for the datapath.
    assert_eq!(failures, 15);
}

#[test]
fn following_the_host_asks_the_kernel_no_more_for_more_containers() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let mut asked = Vec::new();
    for (name, port) in [("a", "8080:80"), ("b", "8081:80"), ("c", "8082:80")] {
        instance.create_container(&publishing(name, &[port])).unwrap();
        instance.refresh_host().unwrap();
        bench.fake.set(Fate::Well);
        instance.refresh_host().unwrap();
        asked.push(bench.fake.set(Fate::Well));
    }
    assert!(asked.iter().all(|calls| *calls == asked[0]), "{asked:?}");
}

#[test]
fn a_container_that_cannot_be_looked_at_is_left_alone() {
    let bench = Bench::new();
    let mut instance = bench.start();
    running(&mut instance, &bench.fake, publishing("web", &["8080:80"]), 100);
    instance.create_container(&publishing("db", &["5432:5432"])).unwrap();
    let before = bench.snapshot();
    bench.fake.world().foreign.hidden = true;
    let said = message(instance.refresh_host());
    assert!(said.contains("look after container web: look at process 100"), "{said}");
    assert!(said.contains("look after container db: look at network namespace"), "{said}");
    bench.fake.world().foreign.hidden = false;
    instance.refresh_host().unwrap();
    assert!(instance.containers().iter().all(|c| c.state == ContainerState::Running));
    assert_eq!(bench.snapshot(), before);
}
