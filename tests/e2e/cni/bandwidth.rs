//! Limits of what a container sends and is sent, whichever way packets take.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use testbed::{
    Host, Netns, Rnet,
    topology::CLIENT,
    traffic::{Server, tcp, udp},
    wait_until,
};

use super::{Plugin, addr_in, network, path_of, with};

/// Datagrams that are sent at once, of 442 bytes each on the wire. As many fit into a socket's buffer.
const SENT: usize = 100;
const PAYLOAD: [u8; 400] = [7; 400];
/// In bits a second: four or five datagrams.
const RATE: u64 = 16_000;
/// In bits: the bucket holds six datagrams, and as many wait in the queue.
const BURST: u64 = 24_000;
/// What passes with a connection behind it, however slow the machine is.
const FEW: std::ops::Range<usize> = 4..80;
const SOON: Duration = Duration::from_secs(20);

fn limited(direction: &str) -> Value {
    let limits = json!({ format!("{direction}Rate"): RATE, format!("{direction}Burst"): BURST });
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
    ]);
    with(&network("n1"), &json!({ "runtimeConfig": { "bandwidth": limits, "portMappings": ports } }))
}

/// Sends datagrams, of which all are to come or few.
fn send(from: &Netns, to: SocketAddr, server: &Server, is_limited: bool) {
    let socket = udp::connect(from, to);
    for _ in 0..SENT {
        socket.send(&PAYLOAD).unwrap();
    }
    if !is_limited {
        wait_until("all have come", SOON, || (server.peers().len() == SENT).then_some(()));
        return;
    }
    // It waits behind those that are not dropped, and is dropped itself while the queue is full.
    wait_until("a connection is made after them", SOON, || tcp::connect(from, to).ok());
    let count = server.peers().len();
    assert!(FEW.contains(&count), "{count} of {SENT} to {to}");
}

#[test]
fn what_a_container_is_sent_is_limited() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let mut plugin = Plugin::new(&host, &rnet);
    let neighbour = Netns::new("neighbour");
    plugin.add("c0", &neighbour, &network("n1"));
    // From outside, from a neighbour and from the host: each time a bucket that is full.
    for (number, from) in [&host.client, &neighbour, &host.ns].into_iter().enumerate() {
        for (config, is_limited) in [(limited("ingress"), true), (limited("egress"), false)] {
            let ns = Netns::new("limited");
            // Nobody remembers somebody else at this address.
            plugin.args = format!("IP=10.66.0.{}", 10 + 2 * number + usize::from(is_limited));
            let result = plugin.add("c1", &ns, &config);
            let (server, _answers) = (udp::echo(&ns, "0.0.0.0:80"), tcp::echo(&ns, "0.0.0.0:80"));
            let to = if number == 0 { host.at(8080) } else { (addr_in(&result), 80).into() };
            send(from, to, &server, is_limited);
            plugin.check("c1", &ns, &config, &result).unwrap();
            plugin.del("c1", path_of(&ns), &config);
            let left = ns.output_of("ip", &["-o", "link", "show"]).unwrap();
            assert_eq!(left.lines().count(), 1, "{left}");
        }
    }
}

#[test]
fn what_a_container_sends_is_limited() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let neighbour = Netns::new("neighbour");
    let addr = addr_in(&plugin.add("c0", &neighbour, &network("n1")));
    for (place, to) in [(&host.client, CLIENT), (&neighbour, addr), (&host.ns, testbed::topology::HOST)] {
        for (config, is_limited) in [(limited("egress"), true), (limited("ingress"), false)] {
            let (server, _answers) = (udp::echo(place, "0.0.0.0:9000"), tcp::echo(place, "0.0.0.0:9000"));
            let ns = Netns::new("limited");
            plugin.add("c1", &ns, &config);
            send(&ns, (to, 9000).into(), &server, is_limited);
            plugin.del("c1", "", &config);
        }
    }
}

#[test]
fn check_sees_that_a_limit_is_gone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    for (direction, tamper) in [
        ("egress", &["qdisc", "del", "dev", "eth0", "root"][..]),
        ("ingress", &["qdisc", "del", "dev", "eth0", "ingress"][..]),
    ] {
        let ns = Netns::new("limited");
        let config = limited(direction);
        let result = plugin.add("c1", &ns, &config);
        plugin.check("c1", &ns, &config, &result).unwrap();
        ns.output_of("tc", tamper).unwrap();
        let refused = plugin.check("c1", &ns, &config, &result).unwrap_err();
        assert!(refused.code == 102 && refused.message.contains("nothing limits"), "{refused:?}");
        plugin.del("c1", "", &config);
    }
}
