//! What rnet says where Docker is not as it should be.

use testbed::{
    Rnet,
    engine::{Dockerd, Machine},
    traffic::tcp,
    wait_until,
};

use super::{FLAGS, LIMIT};

#[test]
fn rnet_waits_for_a_dockerd_that_is_not_there_yet_and_serves_the_rest() {
    testbed::require_engines!();
    let machine = Machine::new();
    let rnet = Rnet::new(&machine);
    // Where the next directory for a dockerd will be is not known: it is led there.
    let link = machine.directory("link").join("docker.sock");
    rnet.start_daemon_with(&[&format!("--docker={}", link.display())]);
    let own = rnet.run("own", &["-p", "8080:80"]);
    let _own = tcp::echo(&own.ns, "0.0.0.0:80");
    tcp::ask(&machine.client, machine.at(8080));
    let status = rnet.ok(&["status"]);
    assert!(status.contains("does not answer"), "{status}");
    assert!(rnet.log().contains("waiting for dockerd"), "{}", rnet.log());

    let dockerd = Dockerd::start(&machine, &FLAGS);
    let socket = dockerd.socket();
    machine.ns.run(|| std::os::unix::fs::symlink(socket, &link)).unwrap();
    let web = dockerd.run("web", &["-p", "8081:80"]);
    let _web = tcp::echo(&web.ns, "0.0.0.0:80");
    let is_published = || rnet.cmd(&["port", "web"]).stdout.contains("8081").then_some(());
    wait_until("the port is published", LIMIT, is_published);
    tcp::ask(&machine.client, machine.at(8081));
    // Its containers and Docker's have nothing to do with one another, and one another's published ports.
    assert!(tcp::connect(&own.ns, web.at(80)).is_err());
    tcp::ask(&own.ns, machine.at(8081));
    tcp::ask(&web.ns, machine.at(8080));
    let status = rnet.ok(&["status"]);
    assert!(status.contains("version 20.10") && !status.contains("! "), "{status}");
    // A name that is taken gets another.
    dockerd.ok(&["run", "-d", "--name", "own", testbed::engine::IMAGE]);
    wait_until("rnet has both", LIMIT, || {
        (rnet.ok(&["ps"]).matches("own").count() == 1 && rnet.ok(&["ps"]).contains("docker-")).then_some(())
    });
}

#[test]
fn a_dockerd_that_does_it_itself_is_told_of_with_what_to_set() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &[]);
    dockerd.run("web", &["-p", "8080:80"]);
    machine.ns.set_sysctl("net/ipv4/ip_forward", "0");
    let rnet = Rnet::new(&machine);
    rnet.start_daemon_with(&[&format!("--docker=unix://{}", dockerd.socket().display())]);
    wait_until("rnet follows dockerd", LIMIT, || {
        rnet.ok(&["status"]).contains("version 20.10").then_some(())
    });
    let status = rnet.ok(&["status"]);
    for said in [
        "Docker's rules are in the firewall",
        "docker-proxy runs",
        "\"iptables\": false, \"ip6tables\": false, \"userland-proxy\": false",
        "net.ipv4.conf.docker0.forwarding=1",
    ] {
        assert!(status.contains(said), "{said}:\n{status}");
        assert!(rnet.log().contains(said), "{said}:\n{}", rnet.log());
    }
}
