//! dockerd, the plugin and rnet's daemon end and come back, in good order and otherwise.

use testbed::{
    engine::{IMAGE, Machine},
    traffic::tcp,
    wait_until,
};

use super::{LIMIT, Site};

#[test]
fn driver_networks_outlive_dockerd_and_its_containers_come_back() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start(&machine, &[]);
    let docker = &site.dockerd;
    let before = site.made();
    site.network("n1", &["--subnet", "10.91.0.0/24"]);
    docker.run("always", &["--network", "n1", "--restart", "always", "-p", "8080:80", "-p", "90"]);
    docker.run("once", &["--network", "n1", "-p", "8081:80"]);
    docker.run("other", &["--network", "n1"]);
    for what in ["an orderly end", "a crash"] {
        docker.ok(&["start", "once", "other"]);
        match what {
            "a crash" => docker.kill9(),
            _ => docker.stop(),
        }
        docker.start_daemon();
        wait_until(&format!("the container runs again after {what}"), LIMIT, || {
            let state = docker.line(&["ps", "--filter", "name=always", "--format", "{{.State}}"]);
            (state == "running").then_some(())
        });
        let always = docker.container("always");
        let _servers = [tcp::echo(&always.ns, "0.0.0.0:80"), tcp::echo(&always.ns, "0.0.0.0:90")];
        tcp::ask(&machine.client, machine.at(8080));
        tcp::ask(&machine.client, machine.at(site.port("always", "n1", "90")[0].port()));
        assert_eq!((site.veths().len(), site.endpoints().len()), (1, 1), "after {what}");
        let once = docker.line(&["ps", "--all", "--filter", "name=once", "--format", "{{.State}}"]);
        assert_eq!(once, "exited", "after {what}");
    }
    docker.ok(&["start", "once"]);
    let once = docker.container("once");
    let _server = tcp::echo(&once.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8081));
    docker.ok(&["rm", "-f", "once", "other", "always"]);
    docker.ok(&["network", "rm", "n1"]);
    assert_eq!(site.made(), before, "everything is removed");
}

#[test]
fn driver_connections_outlive_everything_that_manages_them() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start(&machine, &["--live-restore"]);
    let docker = &site.dockerd;
    let before = site.made();
    site.network("n1", &["--subnet", "10.91.0.0/24"]);
    site.network("n2", &["--subnet", "10.92.0.0/24"]);
    let web = docker.run("web", &["--network", "n1", "-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let open = tcp::connect(&machine.client, machine.at(8080)).unwrap();
    let goes_on = |seed| {
        tcp::exchange(&open, 100_000, seed);
        tcp::ask(&machine.client, machine.at(8080));
        assert_eq!(site.veths().len(), site.endpoints().len());
    };
    goes_on(1);
    site.stop_plugin();
    goes_on(2);
    site.start_plugin();
    docker.ok(&["run", "--rm", "--network", "n1", IMAGE, "true"]);
    site.rnet.terminate();
    site.rnet.start_daemon();
    docker.ok(&["run", "--rm", "--network", "n1", IMAGE, "true"]);
    goes_on(3);
    site.rnet.kill9();
    site.kill_plugin();
    docker.kill9();
    site.rnet.start_daemon();
    site.start_plugin();
    docker.start_daemon();
    goes_on(4);
    assert_eq!(site.endpoints().len(), 1);
    docker.run("more", &["--network", "n1", "-p", "8081:80"]);

    // Whatever is asked for without rnet's daemon is refused, and what is removed is removed later.
    site.rnet.terminate();
    let refused = docker.refused(&["run", "-d", "--name", "late", "--network", "n1", IMAGE]);
    let words = ["no rnet daemon answers at", "start one with 'rnet --instance"];
    assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    docker.ok(&["rm", "late"]);
    docker.ok(&["rm", "-f", "more"]);
    docker.ok(&["network", "rm", "n2"]);
    // It does not matter which plugin it is.
    site.stop_plugin();
    site.start_plugin();
    site.rnet.start_daemon();
    wait_until("what was removed is gone", LIMIT, || (site.endpoints().len() == 1).then_some(()));
    let networks = || site.rnet.json(&["network", "ls", "--filter", "driver=bridge"]).len();
    wait_until("so is the network", LIMIT, || (networks() == 2).then_some(()));
    goes_on(5);
    drop((open, server));
    docker.ok(&["rm", "-f", "web"]);
    docker.ok(&["network", "rm", "n1"]);
    assert_eq!(site.made(), before, "everything is removed");
}
