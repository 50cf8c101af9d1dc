//! Debian 13's engines: newer, and Podman with netavark.

use std::{fs, os::unix::fs::PermissionsExt as _};

use testbed::{
    engine::{Dockerd, Machine, Podman},
    traffic::tcp,
};

#[test]
fn dockers_published_port_is_reached_from_outside() {
    testbed::require_engines!(trixie);
    let machine = Machine::trixie();
    let name = machine.cgroup().to_owned();
    let dockerd = Dockerd::start(&machine, &[]);
    assert!(dockerd.line(&["version", "--format", "{{.Server.Version}}"]).starts_with("26."));
    let web = dockerd.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, web.at(80));
    tcp::ask(&machine.client, machine.at(8080));
    drop(server);
    drop(dockerd);
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn podmans_published_port_is_reached_through_netavark() {
    testbed::require_engines!(trixie);
    let machine = Machine::trixie();
    let name = machine.cgroup().to_owned();
    let podman = Podman::start(&machine);
    assert!(podman.line(&["version", "--format", "{{.Client.Version}}"]).starts_with("5."));
    podman.ok(&["network", "create", "--subnet", "10.90.0.0/24", "n1"]);
    let web = podman.run("web", &["-p", "8080:80"]);
    let other = podman.run("other", &["--network", "n1", "-p", "8081:80"]);
    assert_eq!(other.addr.octets()[..3], [10, 90, 0]);
    for (container, port) in [(&web, 8080), (&other, 8081)] {
        let _server = tcp::echo(&container.ns, "0.0.0.0:80");
        tcp::ask(&machine.ns, container.at(80));
        tcp::ask(&machine.client, machine.at(port));
    }
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn netavarks_plugins_are_found_where_a_test_puts_them() {
    testbed::require_engines!(trixie);
    let machine = Machine::trixie();
    let podman = Podman::start(&machine);
    let refused = podman.refused(&["network", "create", "--driver", "echoing", "n1"]);
    assert!(refused.contains("plugin \"echoing\""), "{refused}");
    let plugin = podman.plugin_dir().join("echoing");
    let script = "#!/bin/sh\ncase $1 in create) cat ;; *) exit 1 ;; esac\n";
    machine.ns.run(|| {
        fs::write(&plugin, script).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    });
    podman.ok(&["network", "create", "--driver", "echoing", "n1"]);
    assert_eq!(podman.line(&["network", "inspect", "--format", "{{.Driver}}", "n1"]), "echoing");
}
