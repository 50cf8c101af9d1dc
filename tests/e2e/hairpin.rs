//! Containers that reach published ports through addresses of their own host.

use testbed::{
    Host, Rnet,
    topology::{HOST, HOST_SECOND},
    traffic::{random_bytes, tcp, udp},
};

with_and_without_offload!(
    a_container_reaches_its_own_published_port,
    a_neighbour_reaches_a_published_port,
    another_network_reaches_a_published_port,
);

const BULK: usize = 1 << 20;

/// Exchanges data over TCP and UDP with what is published as 8080, through every address of the host.
fn exchange(rnet: &Rnet<'_>, from: &str, gateway: std::net::Ipv4Addr) {
    let client = rnet.container(from);
    for addr in [HOST, HOST_SECOND, gateway] {
        let stream = tcp::connect(&client.ns, (addr, 8080).into()).unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), addr);
        tcp::exchange(&stream, BULK, 1);
        let socket = udp::connect(&client.ns, (addr, 8080).into());
        udp::exchange(&socket, 100_000, 2);
        udp::ask(&socket, &random_bytes(3, 9000)).unwrap();
        assert_eq!(udp::ask_unconnected(&client.ns, (addr, 8080).into()), Ok((addr, 8080).into()));
    }
}

fn published(rnet: &Rnet<'_>) -> (testbed::traffic::Server, testbed::traffic::Server) {
    let web = rnet.run("web", &["-p", "8080:80", "-p", "8080:80/udp"]);
    (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"))
}

fn a_container_reaches_its_own_published_port(host: &Host) {
    let rnet = Rnet::start(host);
    let (over_tcp, over_udp) = published(&rnet);
    let gateway = [172, 17, 0, 1].into();
    exchange(&rnet, "web", gateway);
    let peers = [over_tcp.peers(), over_udp.peers()].concat();
    assert!(peers.iter().all(|peer| peer.ip() == gateway), "{peers:?}");
}

fn a_neighbour_reaches_a_published_port(host: &Host) {
    let rnet = Rnet::start(host);
    let (over_tcp, over_udp) = published(&rnet);
    let app = rnet.run("app", &[]);
    exchange(&rnet, "app", [172, 17, 0, 1].into());
    let peers = [over_tcp.peers(), over_udp.peers()].concat();
    assert!(peers.iter().all(|peer| peer.ip() == app.addr), "{peers:?}");
}

fn another_network_reaches_a_published_port(host: &Host) {
    let rnet = Rnet::start(host);
    let (over_tcp, _over_udp) = published(&rnet);
    rnet.ok(&["network", "create", "--subnet", "10.77.0.0/24", "other"]);
    rnet.run("far", &["--network", "other"]);
    exchange(&rnet, "far", [10, 77, 0, 1].into());
    assert!(
        over_tcp.peers().iter().all(|peer| peer.ip().to_string() == "172.17.0.1"),
        "the server's own gateway"
    );
}
