//! Docker, with iptables and its proxy.

use std::{path::Path, thread};

use serde_json::json;
use testbed::{
    engine::{Dockerd, Machine},
    traffic::tcp,
};

#[test]
fn a_published_port_is_reached_from_outside_and_nothing_is_left() {
    testbed::require_engines!();
    let machine = Machine::new();
    let name = machine.cgroup().to_owned();
    let dockerd = Dockerd::start(&machine, &[]);
    let web = dockerd.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, web.at(80));
    tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers()[1].ip(), testbed::topology::CLIENT, "iptables keeps the source");
    assert_eq!(dockerd.line(&["port", "web", "80/tcp"]).lines().next(), Some("0.0.0.0:8080"));
    let (processes, groups) = Machine::remains(&name);
    assert!(processes >= 4 && groups >= 1, "{processes} processes and {groups} control groups");
    drop(server);
    drop(dockerd);
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn a_panic_leaves_nothing_either() {
    testbed::require_engines!();
    let (tell, told) = std::sync::mpsc::channel();
    let failing = thread::spawn(move || {
        let machine = Machine::new();
        let dockerd = Dockerd::start(&machine, &["--iptables=false", "--ip6tables=false"]);
        dockerd.run("left", &[]);
        dockerd.kill9();
        tell.send((machine.cgroup().to_owned(), Machine::remains(machine.cgroup()))).unwrap();
        panic!("on purpose");
    });
    assert!(failing.join().is_err());
    let (name, (processes, _)) = told.recv().unwrap();
    assert!(processes >= 2, "the container goes on without the daemon: {processes}");
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn containers_survive_a_crash_with_live_restore_and_not_a_restart_without() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &["--live-restore"]);
    let web = dockerd.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    dockerd.kill9();
    tcp::ask(&machine.ns, web.at(80));
    dockerd.start_daemon();
    assert_eq!(dockerd.container("web").addr, web.addr);
    tcp::ask(&machine.client, machine.at(8080));

    let plain = Machine::new();
    let dockerd = Dockerd::start(&plain, &["--userland-proxy=false"]);
    dockerd.run("web", &[]);
    dockerd.run("always", &["--restart", "always"]);
    dockerd.restart();
    assert_eq!(dockerd.line(&["ps", "--all", "--format", "{{.Names}} {{.State}}"]), "always running\nweb exited");
}

#[test]
fn plugins_are_found_where_the_machine_alone_sees_them() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &["--iptables=false", "--ip6tables=false", "--userland-proxy=false"]);
    let socket = dockerd.plugin_sockets().join("t.sock");
    let listener = machine.ns.run(|| std::os::unix::net::UnixListener::bind(&socket)).unwrap();
    dockerd.add_plugin_spec("other.spec", &format!("unix://{}", socket.display()));
    let answering = machine.ns.spawn(move |_| plugin::activate(&listener, 2));
    for driver in ["t", "other"] {
        let refused = dockerd.fails(&["network", "create", "--driver", driver, driver]);
        assert!(refused.contains("no networks here"), "{refused}");
    }
    assert_eq!(answering.stop(), [json!("/Plugin.Activate"), json!("/Plugin.Activate")]);
    assert!(!Path::new("/run/docker/plugins/t.sock").exists(), "the machine below has none of it");
}
