//! containerd, with CNI's own plugins.

use serde_json::json;
use testbed::{
    engine::{
        Containerd, Machine,
        cri::{DnsConfig, PortMapping},
    },
    traffic::tcp,
};

#[test]
fn a_pods_port_is_reached_from_outside_and_nothing_is_left() {
    testbed::require_engines!();
    a_pods_port_is_reached(Machine::new());
}

#[test]
fn the_same_with_debian_13s() {
    testbed::require_engines!(trixie);
    a_pods_port_is_reached(Machine::trixie());
}

fn a_pods_port_is_reached(machine: Machine) {
    let name = machine.cgroup().to_owned();
    let list = json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [
        { "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
          "ipam": { "type": "host-local", "subnet": "10.90.0.0/24" } },
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ] });
    let containerd = Containerd::start(&machine, "10-pods.conflist", &list.to_string());
    let version = containerd.cri().version().unwrap();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("containerd", "v1"));
    let port = PortMapping { container_port: 80, host_port: 8080, ..PortMapping::default() };
    let mut config = containerd.pod("web", &[port]);
    config.dns_config = Some(DnsConfig { servers: vec!["10.200.0.2".into()], ..DnsConfig::default() });
    let web = containerd.run_pod(config);
    assert!(web.addrs[0].to_string().starts_with("10.90.0."), "{:?}", web.addrs);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, (web.addrs[0], 80).into());
    tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers().len(), 2);

    containerd.kill9();
    tcp::ask(&machine.client, machine.at(8080));
    containerd.start_daemon();
    assert_eq!(containerd.addrs(&web.id), web.addrs);
    let other = containerd.run("other", &[]);
    containerd.remove(&other);
    assert!(containerd.cri().pod_sandbox_status(&other.id).unwrap_err().contains("not found"));

    let (processes, groups) = Machine::remains(&name);
    assert!(processes >= 3 && groups >= 1, "{processes} processes and {groups} control groups");
    drop(server);
    drop(containerd);
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}
