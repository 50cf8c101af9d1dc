//! What engines run on: its files are its own, and rnet runs on it as elsewhere.

use std::{fs, path::Path};

use testbed::{
    Docker, Rnet, Snapshot,
    engine::{Dockerd, Machine},
    traffic::tcp,
};

#[test]
fn files_that_are_written_inside_are_not_seen_outside() {
    testbed::require_root!();
    let machine = Machine::new();
    let files = ["/run", "/etc", "/var/lib", "/opt"].map(|dir| Path::new(dir).join(machine.cgroup()));
    let hosts = fs::read_to_string("/etc/passwd").unwrap();
    machine.ns.run(|| {
        assert_eq!(fs::read_to_string("/etc/passwd").unwrap(), hosts, "what is there is seen");
        assert!(Path::new("/sys/class/net").join(testbed::topology::UPLINK).exists());
        assert!(!Path::new("/sys/kernel/security/apparmor").exists());
        files.iter().for_each(|file| fs::write(file.with_extension("t"), "").unwrap());
    });
    for file in files {
        assert!(!file.with_extension("t").exists(), "{}", file.display());
    }
}

#[test]
fn rnet_and_docker_share_a_machine() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &["--iptables=false", "--ip6tables=false", "--bip=172.31.0.1/16"]);
    dockerd.run("theirs", &[]);
    let before = Snapshot::take(&machine.ns, "nobody");
    let rnet = Rnet::start(&machine);
    let ours = rnet.run("ours", &["-p", "8080:80"]);
    let _server = tcp::echo(&ours.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));
    let client = Docker::of(&rnet).unwrap();
    assert_eq!(client.line(&["ps", "--format", "{{.Names}}"]), "ours");
    assert_eq!(dockerd.line(&["ps", "--format", "{{.Names}}"]), "theirs");
    let socket = dockerd.socket().to_owned();
    assert!(machine.ns.run(|| socket.exists()), "rnet could open it");
    rnet.down();
    before.assert_restored(&machine.ns, "nobody", "rnet down");
}
