//! A change that fails anywhere leaves nothing; a removal that fails anywhere can be finished.

use std::num::NonZero;

use super::*;
use crate::controller::faults::Fault;

/// A container with everything that one can have.
fn full() -> CreateContainer {
    CreateContainer { networks: vec![Connect::to("n1")], ..publishing("web", &["8080:80", "53/udp"]) }
}

fn with_network() -> (Bench, Instance) {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_network(&network_in("n1", "10.1.0.0/24")).unwrap();
    (bench, instance)
}

#[test]
fn a_network_that_fails_anywhere_leaves_nothing() {
    let create = |instance: &mut Instance| instance.create_network(&network("n1"));
    let failures = fail_everywhere(
        || {
            let bench = Bench::new();
            let instance = bench.start();
            (bench, instance)
        },
        create,
        |bench, instance, before| {
            assert_eq!(bench.snapshot(), *before);
            create(instance).unwrap();
        },
    );
    // find_link, routes, addresses, create_bridge, set_addresses.
    assert_eq!(failures, 5);
}

#[test]
fn a_container_that_fails_anywhere_leaves_nothing() {
    let create = |instance: &mut Instance| instance.create_container(&full());
    let failures = fail_everywhere(with_network, create, |bench, instance, before| {
        assert_eq!(bench.snapshot(), *before);
        create(instance).unwrap();
    });
    // ephemeral_ports, hold_ports, create_netns, hold_namespaces, create_pair, find_link, find_bridge, add_endpoint,
    // publish.
    assert_eq!(failures, 9);
}

#[test]
fn every_step_can_be_made_to_fail_from_outside() {
    for n in 1.. {
        let bench = Bench::new();
        let config = Config { fault: NonZero::new(n).map(Fault::Fail), ..bench.config() };
        let mut instance = bench.start_with(config).unwrap();
        let before = bench.snapshot();
        match instance.create_container(&publishing("web", &["8080:80"])) {
            Ok(_) => {
                // Two saves, files, namespaces, veth, endpoint, ports.
                assert_eq!(n, 9);
                break;
            }
            refused => {
                assert!(message(refused).contains(&format!("fault injected at step {n} (RNET_FAIL_AT)")));
            }
        }
        assert_eq!(bench.snapshot(), before);
        instance.create_container(&publishing("web", &["8080:80"])).unwrap();
    }
}

#[test]
fn a_disk_that_refuses_leaves_nothing() {
    let (bench, mut instance) = with_network();
    let before = bench.snapshot();
    let state = bench.config().state_dir;
    let moved: Vec<_> =
        ["networks", "containers"].map(|name| (state.join(name), state.join(name.to_uppercase()))).into();
    for (directory, away) in &moved {
        fs::rename(directory, away).unwrap();
    }
    assert!(message(instance.create_container(&full())).starts_with("save container: save state "));
    assert!(message(instance.create_network(&network("n2"))).starts_with("save network: save state "));
    assert!(message(instance.remove_network("n1")).starts_with("save network: save state "));
    for (directory, away) in &moved {
        fs::rename(away, directory).unwrap();
    }
    assert_eq!(bench.snapshot(), before);
    instance.create_container(&full()).unwrap();
}

#[test]
fn files_that_cannot_be_written_leave_nothing() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let dir = bench.config().run_dir.join("containers");
    fs::remove_dir(&dir).unwrap();
    fs::write(&dir, "in the way").unwrap();
    let before = bench.snapshot();
    let told = message(instance.create_container(&namespace("web")));
    assert!(
        told.starts_with("write container files: create directory ")
            && told.contains("undoing it failed too"),
        "{told}"
    );
    fs::remove_file(&dir).unwrap();
    // Nobody knows what is there, so the record stays until the container is removed.
    instance.remove_container("web", false).unwrap();
    fs::write(&dir, "in the way").unwrap();
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn when_undoing_fails_too_both_are_told_and_removing_finishes_it() {
    // From the making of the veth on, nothing works any more.
    for finish in [
        |_: &Bench, instance: &mut Instance| drop(instance.remove_container("web", false).unwrap()),
        |bench: &Bench, instance: &mut Instance| *instance = bench.start(),
    ] {
        let (bench, mut instance) = with_network();
        let before = bench.snapshot();
        bench.fake.set(Fate::FailFrom(5));
        let told = message(instance.create_container(&full()));
        bench.fake.set(Fate::Well);
        assert!(told.starts_with("create veth ") && told.contains("call 5, create_pair, fails"), "{told}");
        assert!(told.contains("undoing it failed too") && told.contains("delete_netns"), "{told}");
        assert_ne!(bench.snapshot(), before);
        finish(&bench, &mut instance);
        assert_eq!(bench.snapshot(), before);
    }
}

#[test]
fn a_removal_that_fails_anywhere_goes_on_and_can_be_finished() {
    let prepare = || {
        let (bench, mut instance) = with_network();
        instance.create_container(&full()).unwrap();
        (bench, instance)
    };
    let remove = |instance: &mut Instance| instance.remove_container("web", true);
    let failures = fail_everywhere(prepare, remove, |bench, instance, _| {
        assert!(bench.fake.tables().veths.is_empty(), "what could be removed is there");
        // It does not run any more, so that force is not needed.
        instance.remove_container("web", false).unwrap();
        let (empty, _) = (bench.snapshot(), instance.remove_network("n1").unwrap());
        assert!(
            empty.tables.netns.is_empty()
                && empty.tables.ports.is_empty()
                && empty.tables.endpoints.is_empty()
        );
        assert!(
            !empty.files.keys().any(|file| file.starts_with("state/containers/") && file.ends_with(".json"))
        );
    });
    // unpublish, remove_endpoint, delete_link, release_namespaces, delete_netns.
    assert_eq!(failures, 5);

    let failures = fail_everywhere(
        with_network,
        |instance| instance.remove_network("n1"),
        |bench, instance, _| {
            let told = instance.create_container(&full());
            assert!(message(told).contains("network n1 is being removed"));
            instance.remove_network("n1").unwrap();
            assert_eq!(bench.fake.tables().bridges.keys().collect::<Vec<_>>(), ["rnet0"]);
        },
    );
    // set_addresses, delete_link.
    assert_eq!(failures, 2);
}

#[test]
fn an_exit_whose_clean_up_fails_is_cleaned_up_later() {
    let prepare = || {
        let (bench, mut instance) = with_network();
        running(&mut instance, &bench.fake, full(), 100);
        (bench, instance)
    };
    let failures = fail_everywhere(
        prepare,
        |instance| instance.mark_exited("web", Some(1)),
        |bench, instance, _| {
            instance.refresh_host().unwrap();
            let web = instance.container("web").unwrap();
            assert!(web.endpoints.is_empty() && web.ports.is_empty() && web.exit_code == Some(1));
            let tables = bench.fake.tables();
            assert!(tables.netns.is_empty() && tables.ports.is_empty() && tables.endpoints.is_empty());
        },
    );
    assert_eq!(failures, 5);
}
