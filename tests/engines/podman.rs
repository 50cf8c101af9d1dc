//! Podman, with CNI's own plugins.

use serde_json::json;
use testbed::{
    engine::{Machine, Podman},
    traffic::tcp,
};

#[test]
fn a_published_port_is_reached_from_outside_and_nothing_is_left() {
    testbed::require_engines!();
    let machine = Machine::new();
    let name = machine.cgroup().to_owned();
    let podman = Podman::start(&machine);
    assert!(podman.line(&["version", "--format", "{{.Client.Version}}"]).starts_with("4."));
    let web = podman.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, web.at(80));
    tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers().len(), 2);
    assert_eq!(podman.line(&["port", "web"]), "80/tcp -> 0.0.0.0:8080");

    let list = json!({ "cniVersion": "0.4.0", "name": "n1", "plugins": [
        { "type": "bridge", "bridge": "n1", "isDefaultGateway": true, "ipam": { "type": "host-local", "subnet": "10.90.0.0/24" } },
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ] });
    podman.add_network("n1.conflist", &list.to_string());
    let other = podman.run("other", &["--network", "n1", "-p", "8081:80"]);
    let _other_server = tcp::echo(&other.ns, "0.0.0.0:80");
    assert_eq!(other.addr.octets()[..3], [10, 90, 0]);
    tcp::ask(&machine.ns, other.at(80));
    tcp::ask(&machine.client, machine.at(8081));
    podman.ok(&["rm", "--force", "other"]);

    let (processes, groups) = Machine::remains(&name);
    assert!(processes >= 2 && groups >= 1, "{processes} processes and {groups} control groups");
    drop(server);
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}
