//! dockerd's end and rnet's, in good order and not, in any order.

use std::net::{Ipv4Addr, SocketAddr};

use testbed::{
    Snapshot,
    engine::{Dockerd, IMAGE, Machine},
    topology::CLIENT,
    traffic::tcp,
    wait_until,
};

use super::{LIMIT, Site};

fn outside() -> SocketAddr {
    (CLIENT, 9000).into()
}

#[test]
fn rnet_restarts_under_connections_and_finds_what_has_changed() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let _outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    let web = site.run("web", &["-p", "8080:80"]);
    let _web = tcp::echo(&web.ns, "0.0.0.0:80");
    let moved = site.run("moved", &["-p", "8081:80"]);
    let gone = site.run("gone", &["-p", "8082:80"]);
    let inwards = tcp::connect(&machine.client, machine.at(8080)).unwrap();
    let outwards = tcp::connect(&web.ns, outside()).unwrap();
    let still_there = |seed| {
        tcp::exchange(&inwards, 10_000, seed);
        tcp::exchange(&outwards, 10_000, seed);
    };
    still_there(1);

    site.rnet.terminate();
    still_there(2);
    site.start_rnet();
    still_there(3);

    // Meanwhile one has gone, one has been started again, one is new, and has the port of the one that has gone.
    site.rnet.kill9();
    drop((moved, gone));
    site.ok(&["rm", "-f", "gone"]);
    site.ok(&["restart", "-t", "0", "moved"]);
    let new = site.dockerd.run("new", &["-p", "8082:80"]);
    site.ok(&["network", "create", "later"]);
    let later = site.dockerd.run("later", &["--network", "later", "-p", "8083:80"]);
    still_there(4);
    site.start_rnet();
    for name in ["web", "moved", "new", "later"] {
        site.await_served(name);
    }
    still_there(5);
    site.await_forgotten("gone");
    let moved = site.dockerd.container("moved");
    for (container, port) in [(&moved, 8081), (&new, 8082), (&later, 8083)] {
        let server = tcp::echo(&container.ns, "0.0.0.0:80");
        tcp::ask(&machine.client, machine.at(port));
        tcp::ask(&machine.ns, (Ipv4Addr::LOCALHOST, port).into());
        assert_eq!(server.peers().len(), 2, "{port}");
        tcp::ask(&container.ns, outside());
    }
    site.assert_nothing_private();
}

#[test]
fn dockerd_restarts_and_crashes_and_containers_that_live_on_lose_nothing() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::with(&machine, &["--live-restore"]);
    let _outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    site.ok(&["network", "create", "user"]);
    let web = site.run("web", &["--network", "user", "-p", "8080:80"]);
    let _web = tcp::echo(&web.ns, "0.0.0.0:80");
    let inwards = tcp::connect(&machine.client, machine.at(8080)).unwrap();
    let outwards = tcp::connect(&web.ns, outside()).unwrap();
    let works = |seed| {
        tcp::exchange(&inwards, 10_000, seed);
        tcp::exchange(&outwards, 10_000, seed);
        tcp::ask(&machine.client, machine.at(8080));
        tcp::ask(&machine.ns, (Ipv4Addr::LOCALHOST, 8080).into());
        tcp::ask(&web.ns, outside());
    };
    works(1);
    site.stop();
    works(2);
    assert!(site.rnet.ok(&["status"]).contains("does not answer"), "{}", site.rnet.ok(&["status"]));
    site.dockerd.start_daemon();
    site.await_docker();
    works(3);
    site.kill9();
    works(4);
    // rnet comes back while dockerd is away.
    site.rnet.kill9();
    site.rnet.start_daemon_with(&[&format!("--docker=unix://{}", site.dockerd.socket().display())]);
    works(5);
    site.dockerd.start_daemon();
    site.await_docker();
    works(6);
    site.await_served("web");
    // And it goes on as before.
    let more = site.run("more", &["--network", "user", "-p", "8081:80"]);
    let _more = tcp::echo(&more.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8081));
    site.ok(&["rm", "-f", "web"]);
    site.await_forgotten("web");
    assert!(tcp::connect(&machine.client, machine.at(8080)).is_err());
    site.assert_nothing_private();
}

#[test]
fn without_live_restore_containers_end_and_come_again() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let _outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    site.run("once", &["-p", "8080:80"]);
    site.run("always", &["--restart", "always", "-p", "8081:80"]);
    site.dockerd.restart();
    site.await_docker();
    site.await_forgotten("once");
    site.await_served("always");
    let always = site.dockerd.container("always");
    let _echo = tcp::echo(&always.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8081));
    tcp::ask(&always.ns, outside());
    assert!(tcp::connect(&machine.client, machine.at(8080)).is_err());
    // `docker restart`, and a container that ends by itself.
    site.ok(&["restart", "-t", "0", "always"]);
    site.await_served("always");
    let always = site.dockerd.container("always");
    let _echo = tcp::echo(&always.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8081));
    site.ok(&["run", "-d", "--name", "short", "-p", "8082:80", IMAGE, "true"]);
    site.ok(&["wait", "short"]);
    site.await_forgotten("short");
    site.assert_nothing_private();
}

#[test]
fn down_leaves_what_is_dockers_and_a_later_rnet_takes_it_up() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &super::FLAGS);
    // Containers that are there before rnet is.
    dockerd.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "user"]);
    let first = dockerd.run("first", &["-p", "8080:80"]);
    let second = dockerd.run("second", &["--network", "user", "-p", "8081:80"]);
    let servers = [&first, &second].map(|c| tcp::echo(&c.ns, "0.0.0.0:80"));
    let docker = format!("--docker=unix://{}", dockerd.socket().display());
    let rnet = testbed::Rnet::new(&machine);
    let ports = |container: &testbed::Container| {
        let shown = machine.ns.output_of("bridge", &["-d", "link"]).unwrap();
        let settings = machine
            .ns
            .output_of("sysctl", &["-a", "--pattern", r"net.ipv4.conf.(br-|docker0|veth)"])
            .unwrap();
        let inside = container.ns.output_of("ip", &["addr"]).unwrap();
        // Times that addresses are still valid for.
        shown + &settings + &inside
    };
    let before = (Snapshot::take(&machine.ns, rnet.instance()), ports(&first), ports(&second));
    for _ in 0..2 {
        rnet.start_daemon_with(&[&docker]);
        for (name, port) in [("first", 8080), ("second", 8081)] {
            let is_published = || rnet.cmd(&["port", name]).stdout.contains("80/tcp").then_some(());
            wait_until("the port is published", LIMIT, is_published);
            tcp::ask(&machine.client, machine.at(port));
        }
        rnet.down();
        let after = (ports(&first), ports(&second));
        assert_eq!((&before.1, &before.2), (&after.0, &after.1));
        before.0.assert_restored(&machine.ns, rnet.instance(), "rnet down");
        // Docker's own are as they were.
        assert_eq!(dockerd.line(&["ps", "--quiet"]).lines().count(), 2);
        tcp::ask(&machine.ns, first.at(80));
        // dockerd's own socket is left at the port, which leads nowhere.
        let seen = servers[0].peers().len();
        let _nowhere = tcp::connect(&machine.client, machine.at(8080));
        assert_eq!(servers[0].peers().len(), seen);
    }
}
