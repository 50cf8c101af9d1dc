//! Containers that change their networks.

use std::{collections::BTreeSet, process::Stdio};

use testbed::{
    Snapshot,
    engine::{IMAGE, Machine},
    process::Process,
    traffic::tcp,
};

use super::{LIMIT, Site};

#[test]
fn driver_ports_follow_connect_disconnect_and_restart() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start(&machine, &[]);
    let docker = &site.dockerd;
    let before = Snapshot::take(&machine.ns, site.rnet.instance());
    for (name, subnet, internal) in
        [("a", "10.91.0.0/24", false), ("b", "10.92.0.0/24", false), ("i", "10.93.0.0/24", true)]
    {
        site.network(
            name,
            &[&["--subnet", subnet][..], if internal { &["--internal"][..] } else { &[] }].concat(),
        );
    }
    let web = docker.run("web", &["--network", "b", "-p", "8080:80", "-p", "90"]);
    let servers = [tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&web.ns, "0.0.0.0:90")];
    let reach = |network: &str| {
        for port in ["80", "90"] {
            let host = site.port("web", network, port)[0].port();
            // First by the host's stack, which remembers Ethernet addresses until it hears otherwise.
            tcp::ask(&machine.ns, machine.at(host));
            tcp::ask(&machine.client, machine.at(host));
        }
        assert_eq!(site.port("web", network, "80")[0].port(), 8080);
    };
    let has_none = |network: &str| assert_eq!(site.rnet.ok(&["port", &site.endpoint("web", network)]), "");
    reach("b");
    let random = site.port("web", "b", "90");

    // The default route and the ports go to the first by name.
    docker.ok(&["network", "connect", "--ip", "10.91.0.77", "a", "web"]);
    assert!(web.ns.output_of("ip", &["route"]).unwrap().starts_with("default via 10.91.0.1"));
    reach("a");
    has_none("b");
    docker.ok(&["network", "connect", "i", "web"]);
    reach("a");
    has_none("i");
    assert_eq!((site.veths().len(), site.endpoints().len()), (3, 3));
    docker.ok(&["network", "disconnect", "a", "web"]);
    reach("b");
    let again = site.port("web", "b", "90");
    assert!(!random.is_empty() && !again.is_empty());

    // Only the internal one is left: nothing leads to the container, and its ports are anybody's.
    docker.ok(&["network", "disconnect", "b", "web"]);
    has_none("i");
    assert!(tcp::connect(&machine.client, machine.at(8080)).is_err());
    let heir = docker.run("heir", &["--network", "a", "-p", "8080:80"]);
    let heir_server = tcp::echo(&heir.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));
    drop(heir_server);
    docker.ok(&["rm", "-f", "heir"]);
    docker.ok(&["network", "connect", "b", "web"]);
    reach("b");
    docker.ok(&["network", "disconnect", "i", "web"]);
    drop(servers);

    // Twice, as with a container that is restarted while it stops.
    for _ in 0..2 {
        docker.ok(&["restart", "--time", "1", "web"]);
        let web = docker.container("web");
        let _servers = [tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&web.ns, "0.0.0.0:90")];
        reach("b");
        assert_eq!((site.veths().len(), site.endpoints().len()), (1, 1));
    }
    docker.ok(&["stop", "--time", "1", "web"]);
    assert_eq!((site.veths().len(), site.endpoints().len()), (0, 0), "a stopped container has nothing");
    docker.ok(&["start", "web"]);
    docker.ok(&["rm", "-f", "web"]);

    // Many at once, of which each takes the next free port and address.
    let names: Vec<_> = (0..6).map(|n| format!("c{n}")).collect();
    let run = |name: &String| {
        let mut command = docker.command(&["run", "-d", "--name", name, "--network", "a", "-p", "90", IMAGE]);
        command.stdout(Stdio::null());
        Process::start(command)
    };
    for mut run in names.iter().map(run).collect::<Vec<_>>() {
        assert!(run.wait(LIMIT).unwrap().success());
    }
    let ports: BTreeSet<_> = names.iter().map(|name| site.port(name, "a", "90")[0].port()).collect();
    assert_eq!((ports.len(), site.endpoints().len(), site.veths().len()), (6, 6, 6));
    let remove: Vec<_> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
    docker.ok(&remove);
    docker.ok(&["network", "rm", "a", "b", "i"]);
    before.assert_restored(&machine.ns, site.rnet.instance(), "everything is removed");
}
