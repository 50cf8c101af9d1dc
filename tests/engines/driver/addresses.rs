//! Addresses that rnet manages as well.

use testbed::{Snapshot, engine::Machine, traffic::tcp};

use super::Site;

#[test]
fn driver_addresses_are_rnets_where_it_manages_them() {
    testbed::require_engines!();
    let machine = Machine::new();
    let site = Site::start_beside(&machine);
    let docker = &site.dockerd;
    let before = Snapshot::take(&machine.ns, site.rnet.instance());
    let subnet =
        |name| docker.line(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name]);
    let managed = |name, args: &[&str]| site.network(name, &[&["--ipam-driver", "rnet"], args].concat());
    for name in ["n1", "n2"] {
        managed(name, &[]);
    }
    let (n1, n2) = (subnet("n1"), subnet("n2"));
    // What dockerd and rnet have for themselves is passed over.
    let taken = machine.ns.output_of("ip", &["route", "show", "dev", "docker0"]).unwrap();
    assert!(
        n1 != n2 && n1.ends_with("/16") && !taken.contains(&n1) && !taken.contains(&n2),
        "{n1} {n2} {taken}"
    );
    // So it is where Docker chooses: it looks at the host's routes.
    site.network("plain", &[]);
    let plain = subnet("plain");
    assert!(plain != n1 && plain != n2, "{plain}");
    docker.ok(&["network", "rm", "plain"]);
    managed(
        "n3",
        &[
            "--subnet",
            "10.96.0.0/16",
            "--ip-range",
            "10.96.5.0/24",
            "--gateway",
            "10.96.0.9",
            "--aux-address",
            "x=10.96.5.0",
        ],
    );
    for overlapping in ["10.96.0.0/16", "10.96.7.0/24", "10.200.0.0/24"] {
        let refused = docker.refused(&[
            "network",
            "create",
            "-d",
            "rnet",
            "--ipam-driver",
            "rnet",
            "--subnet",
            overlapping,
            "n4",
        ]);
        assert!(refused.contains("Pool overlaps with other one on this address space"), "{refused}");
    }
    let first = docker.run("first", &["--network", "n3", "-p", "8080:80"]);
    docker.run("fixed", &["--network", "n3", "--ip", "10.96.5.2"]);
    site.stop_plugin();
    site.rnet.terminate();
    site.rnet.start_daemon();
    site.start_plugin();
    let next = docker.run("next", &["--network", "n3"]);
    assert_eq!((first.addr, next.addr), ([10, 96, 5, 1].into(), [10, 96, 5, 3].into()));
    let server = tcp::echo(&first.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));
    tcp::ask(&next.ns, first.at(80));
    drop(server);
    docker.ok(&["rm", "-f", "fixed"]);
    assert_eq!(docker.run("heir", &["--network", "n3"]).addr.octets()[3], 2, "the lowest that is free");
    docker.ok(&["rm", "-f", "first", "next", "heir"]);
    docker.ok(&["network", "rm", "n1", "n2", "n3"]);
    before.assert_restored(&machine.ns, site.rnet.instance(), "everything is removed");
}
