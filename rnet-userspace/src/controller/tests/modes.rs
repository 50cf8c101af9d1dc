//! Containers without a network of their own, and those in somebody else's namespace.

use super::*;
use crate::controller::{
    request::Namespace,
    view::{ContainerState, Namespaces},
};

const THEIRS: &str = "/run/netns/theirs";

fn in_mode(name: &str, mode: &str) -> CreateContainer {
    CreateContainer { command: vec!["server".into()], ..joining(name, Connect::to(mode)) }
}

fn attached(name: &str, network: &str) -> CreateContainer {
    CreateContainer { namespace: Some(Namespace::Path(THEIRS.into())), ..joining(name, Connect::to(network)) }
}

#[test]
fn a_container_in_the_hosts_network_has_nothing_of_its_own() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let before = bench.fake.tables();
    let made = instance.create_container(&in_mode("a", "host")).unwrap();
    assert_eq!((made.network_mode.as_str(), made.hostname.as_str(), made.netns), ("host", "host", None));
    assert_eq!((made.namespaces, made.endpoints.len()), (Namespaces::Host, 0));
    assert_eq!(bench.fake.tables(), before);
    bench.fake.world().foreign.processes.insert(100, 1);
    instance.mark_started("a", 100).unwrap();
    instance.refresh_host().unwrap();
    assert_eq!(instance.container("a").unwrap().state, ContainerState::Running);
    instance.mark_exited("a", Some(0)).unwrap();
    instance.remove_container("a", false).unwrap();
    assert_eq!(bench.fake.tables(), before);
}

#[test]
fn a_container_shares_the_network_of_another_for_as_long_as_it_runs() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let web = instance.create_container(&publishing("web", &["8080:80"])).unwrap();
    let before = bench.fake.tables();
    let made = instance.create_container(&in_mode("side", "container:web")).unwrap();
    assert_eq!(made.network_mode, format!("container:{}", web.id));
    assert_eq!((made.netns, made.hostname), (web.netns, web.hostname));
    assert_eq!(made.namespaces, Namespaces::Held(web.dir.clone()));
    let shared = fs::read_to_string(made.dir.join("hosts")).unwrap();
    assert_eq!(shared, fs::read_to_string(web.dir.join("hosts")).unwrap());
    assert_eq!(bench.fake.tables(), before);

    bench.fake.world().foreign.processes.insert(100, 1);
    instance.mark_started("side", 100).unwrap();
    // What shares stays in the namespace that it is in.
    instance.remove_container("web", true).unwrap();
    instance.refresh_host().unwrap();
    let side = instance.container("side").unwrap();
    assert_eq!((side.state, side.netns), (ContainerState::Running, Some("/proc/100/ns/net".into())));
    drop(instance);
    let mut instance = bench.start();
    assert_eq!(instance.container("side").unwrap().state, ContainerState::Running);
    instance.mark_exited("side", Some(0)).unwrap();
    instance.remove_container("side", false).unwrap();
    assert!(bench.fake.tables().netns.is_empty());
}

#[test]
fn one_that_has_not_started_is_never_led_into_the_hosts_network() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&namespace("web")).unwrap();
    instance.create_container(&in_mode("side", "container:web")).unwrap();
    instance.remove_container("web", true).unwrap();
    let side = instance.container("side").unwrap();
    assert!(side.netns.is_some_and(|path| !path.exists()));
}

#[test]
fn options_that_contradict_a_mode_are_refused() {
    let bench = Bench::new();
    let mut instance = bench.start();
    running(&mut instance, &bench.fake, namespace("web"), 100);
    running(&mut instance, &bench.fake, joining("side", Connect::to("container:web")), 101);
    running(&mut instance, &bench.fake, joining("onhost", Connect::to("host")), 102);
    running(&mut instance, &bench.fake, namespace("ended"), 103);
    instance.mark_exited("ended", None).unwrap();
    let before = bench.snapshot();
    let shared = || in_mode("b", "container:web");
    let with_port = |mode| CreateContainer { publish: vec!["80".into()], ..in_mode("b", mode) };
    let second = |mode: &str| CreateContainer {
        networks: vec![Connect::to(mode), Connect::to("bridge")],
        ..in_mode("b", mode)
    };
    for (request, expected) in [
        (in_mode("b", "container:nobody"), "No such container: nobody"),
        (in_mode("b", "container:ended"), "cannot join network of a non running container"),
        (in_mode("b", "container:side"), "container side shares the network of another container itself"),
        (in_mode("b", "container:onhost"), "container onhost has no network of its own: use --network host"),
        (CreateContainer { hostname: Some("h".into()), ..shared() }, "hostname and the network mode"),
        (CreateContainer { dns: vec!["1.1.1.1".parse().unwrap()], ..shared() }, "dns and the network mode"),
        (CreateContainer { extra_hosts: vec!["a:1.1.1.1".into()], ..shared() }, "custom host-to-IP mapping"),
        (with_port("container:web"), "port publishing and the container type network mode"),
        (CreateContainer { expose: vec!["80".into()], ..shared() }, "port exposing and the container type"),
        (with_port("host"), "port publishing and the host's network"),
        (second("host"), "cannot be combined with another network"),
        (second("none"), "cannot be combined with another network"),
        (
            joining("b", Connect { ip: "10.0.0.2".parse().ok(), ..Connect::to("none") }),
            "no interface of its own",
        ),
        (CreateContainer { command: Vec::new(), ..shared() }, "needs a command"),
        (
            CreateContainer {
                networks: vec![Connect::to("bridge"), Connect::to("bridge")],
                ..namespace("b")
            },
            "named twice",
        ),
    ] {
        let told = message(instance.create_container(&request));
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_namespace_that_somebody_else_made_is_given_interfaces_and_is_left_as_it_was() {
    let bench = Bench::new();
    bench.fake.world().foreign.namespaces = [(THEIRS.into(), 7), ("/proc/self/ns/net".into(), 3)].into();
    let mut instance = bench.start();
    instance.create_network(&network_in("n1", "10.1.0.0/24")).unwrap();
    let before = bench.snapshot();
    let made = instance.create_container(&attached("x", "n1")).unwrap();
    assert!(made.attached && made.remove && made.state == ContainerState::Running);
    assert_eq!(
        (made.netns.as_deref(), addr_of(&instance, "x").as_str()),
        (Some(Path::new(THEIRS)), "10.1.0.2/24")
    );
    instance.connect("x", &Connect::to("bridge")).unwrap();
    let told = message(instance.create_container(&attached("y", "bridge")));
    assert!(told.contains("it is container x's"), "{told}");
    instance.refresh_host().unwrap();
    instance.remove_container("x", true).unwrap();
    assert_eq!(bench.snapshot(), before);

    for (namespace, expected) in [
        (Namespace::Path("/nothing".into()), "attach namespace: /nothing is not a network namespace"),
        (Namespace::Pid(5), "attach namespace of process 5: "),
        (Namespace::Path("/proc/self/ns/net".into()), "it is the host's own"),
    ] {
        let told = message(
            instance.create_container(&CreateContainer { namespace: Some(namespace), ..attached("x", "n1") }),
        );
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn when_their_namespace_goes_so_does_all_that_was_given_to_it() {
    for replaced in [false, true] {
        let bench = Bench::new();
        bench.fake.world().foreign.namespaces = [(THEIRS.into(), 7)].into();
        let mut instance = bench.start();
        let before = bench.snapshot();
        let request = CreateContainer { publish: vec!["8080:80".into()], ..attached("x", "bridge") };
        instance.create_container(&request).unwrap();
        if replaced {
            bench.fake.world().foreign.namespaces.insert(THEIRS.into(), 8);
        } else {
            bench.fake.world().foreign.namespaces.clear();
        }
        bench.fake.world().tables.veths.clear();
        instance.refresh_host().unwrap();
        assert!(instance.containers().is_empty());
        bench.fake.world().tables.default_routes.clear();
        assert_eq!(bench.snapshot(), before);
    }
}
