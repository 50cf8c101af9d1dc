//! From the first packet on: containers are served before their processes run.

use std::{collections::BTreeSet, net::SocketAddr, thread};

use testbed::{
    engine::{IMAGE, Machine},
    topology::{CLIENT, HOST},
    traffic::tcp,
    wait_until,
};

use super::{LIMIT, Site};

/// Connects once, as the first thing that a container does.
const CONNECT: &str = "exec nc -w 20 10.200.0.2 9000 </dev/null";

#[test]
fn the_first_syn_of_a_new_container_is_masqueraded() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    site.ok(&["network", "create", "user"]);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    for network in ["bridge", "user", "bridge", "user", "bridge", "user"] {
        let ran = site.cmd(&["run", "--rm", "--network", network, IMAGE, "sh", "-c", CONNECT]);
        assert!(ran.status.success(), "on {network}: {}\n{}", ran.stderr, site.rnet.ok(&["stats"]));
    }
    assert_eq!(outside.peers().len(), 6);
    assert!(outside.peers().iter().all(|peer| peer.ip() == std::net::IpAddr::from(HOST)));
    // Started again, it is another interface at the same address.
    site.ok(&["run", "--detach", "--name", "again", IMAGE, "sh", "-c", CONNECT]);
    for _ in 0..2 {
        site.ok(&["wait", "again"]);
        assert_eq!(site.line(&["inspect", "--format", "{{.State.ExitCode}}", "again"]), "0");
        site.ok(&["start", "again"]);
    }
    site.ok(&["wait", "again"]);
    assert_eq!(site.rnet.packets("dropped"), 0, "every SYN was the first: {}", site.rnet.ok(&["stats"]));
    site.assert_nothing_private();
}

#[test]
fn twenty_containers_are_started_at_once() {
    testbed::require_engines!();
    let machine = Machine::new();
    let mut site = Site::new(&machine);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    let ended = thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|i| {
                let client: &testbed::Docker = &site.dockerd;
                scope.spawn(move || {
                    let port = format!("{}:80", 8100 + i);
                    let command = "nc -w 5 10.200.0.2 9000 </dev/null && exec httpd -f -p 80";
                    client.cmd(&[
                        "run",
                        "-d",
                        "--name",
                        &format!("c{i}"),
                        "-p",
                        &port,
                        IMAGE,
                        "sh",
                        "-c",
                        command,
                    ])
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ended.iter().all(|run| run.status.success()), "{ended:?}");
    for i in 0..20 {
        site.await_served(&format!("c{i}"));
        // Its server follows what it does first.
        wait_until(&format!("c{i} answers"), LIMIT, || {
            tcp::connect(&machine.client, machine.at(8100 + i)).ok()
        });
    }
    assert_eq!(outside.peers().len(), 20);
    let from: BTreeSet<_> = outside.peers().iter().map(SocketAddr::ip).collect();
    assert_eq!(from, BTreeSet::from([HOST.into()]));
    let names: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    let remove: Vec<&str> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
    site.ok(&remove);
    names.iter().for_each(|name| site.await_forgotten(name));
    assert!(tcp::connect(&machine.client, machine.at(8100)).is_err());
    assert_eq!(site.rnet.json(&["status"])[0]["ports"], 0);
    site.assert_nothing_private();
}

#[test]
fn a_container_that_starts_while_rnet_is_away_reaches_nothing_with_its_own_address() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::new(&machine);
    let outside = tcp::echo(&machine.client, "0.0.0.0:9000");
    site.rnet.kill9();
    let app = site.dockerd.run("app", &["-p", "8080:80"]);
    let web = tcp::echo(&app.ns, "0.0.0.0:80");
    let to = SocketAddr::from((CLIENT, 9000));
    assert!(tcp::connect(&app.ns, to).is_err(), "nobody translates");
    // dockerd has a socket at the port that it never serves: what matters is that the container is not reached.
    let _unserved = tcp::connect(&machine.client, machine.at(8080));
    assert!(web.peers().is_empty() && outside.peers().is_empty());
    // The host it reaches.
    testbed::traffic::icmp::ping(&app.ns, HOST).unwrap();
    // Who has a route to it cannot use it.
    machine.client.ip("route add 172.17.0.0/16 via 10.200.0.1");
    assert!(tcp::connect(&machine.client, app.at(80)).is_err());
    machine.client.ip("route del 172.17.0.0/16");
    site.start_rnet();
    site.await_served("app");
    tcp::ask(&app.ns, to);
    tcp::ask(&machine.client, machine.at(8080));
    assert!(site.rnet.packets_for("unserved") > 0);
}
