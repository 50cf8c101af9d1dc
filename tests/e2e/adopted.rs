//! A bridge that somebody else made, used as a network's.

use testbed::{Host, Rnet, Snapshot, traffic::tcp};

const NAME: &str = "com.docker.network.bridge.name";

#[test]
fn a_bridge_that_is_there_is_used_and_left_as_it_was() {
    testbed::require_root!();
    let host = Host::new();
    // With a port of its own: a bridge without any loses its carrier when its last one goes.
    host.ns.ip("link add br-lan type bridge
                addr add 10.77.0.9/24 dev br-lan
                link add lan0 type veth peer name lan1
                link set lan0 master br-lan up
                link set lan1 up
                link set br-lan up");
    testbed::topology::wait_for_carrier(&host.ns, "br-lan");
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    rnet.ok(&["network", "create", "-o", &format!("{NAME}=br-lan"), "lan"]);
    let web = rnet.run("web", &["--network", "lan", "-p", "8080:80"]);
    let other = rnet.run("other", &["--network", "lan"]);
    assert_eq!(web.addr.octets(), [10, 77, 0, 1], "the bridge's own address is not given away");
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&other.ns, web.at(80));
    tcp::ask(&host.ns, web.at(80));
    rnet.kill9();
    rnet.start_daemon();
    tcp::ask(&host.client, host.at(8080));
    rnet.ok(&["rm", "-f", "web", "other"]);
    rnet.ok(&["network", "rm", "lan"]);
    before.assert_restored(&host.ns, rnet.instance(), "rnet network rm");

    rnet.ok(&["network", "create", "--subnet", "10.78.0.0/24", "-o", &format!("{NAME}=br-lan"), "lan"]);
    let web = rnet.run("web", &["--network", "lan"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.ns, web.at(80));
    rnet.ok(&["rm", "-f", "web"]);
    rnet.ok(&["network", "rm", "lan"]);
    before.assert_restored(&host.ns, rnet.instance(), "rnet network rm of a network with its own subnet");
}

#[test]
fn an_interface_that_is_no_bridge_is_refused_and_left_alone() {
    testbed::require_root!();
    let host = Host::new();
    host.ns.ip("link add lan0 type veth peer name lan1");
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let told = rnet.fails(&["network", "create", "-o", &format!("{NAME}=lan0"), "n1"]);
    assert!(told.contains("existing interface lan0 is not a bridge"), "{told}");
    before.assert_restored(&host.ns, rnet.instance(), "a refused network");
}
