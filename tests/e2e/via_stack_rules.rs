//! What the host's filter rules see and do on networks that are delivered via its stack, and that they see nothing of
//! others. Both address families, by the same tests.

use std::net::IpAddr;

use testbed::{
    Host, Rnet,
    capture::Capture,
    packet,
    topology::{Checksums, UPLINK},
    traffic::{Failure, Server, icmp, tcp, udp},
};

use crate::policy::{CLIENT, HOST, Peer, create, run, start};

with_and_without_offload!(a_stateful_set_of_rules_holds_both_ways, refusals_reach_whom_they_are_for);

/// A host that forwards both families.
fn forwarding(host: &Host) -> Rnet<'_> {
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    host.ns.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    start(host)
}

/// Replaces the rules of the chain that packets are forwarded through.
fn set_rules(host: &Host, policy: &str, rules: &str) {
    let chain = format!("chain c {{ type filter hook forward priority 0; policy {policy}; {rules} }};");
    host.ns.output_of("nft", &["flush ruleset"]).expect("nft is there");
    host.ns.output_of("nft", &[&format!("add table inet own {{ {chain} }}")]).expect("nft takes the rules");
}

fn edge<'h>(rnet: &Rnet<'h>, args: &[&str]) -> Peer {
    create(rnet, "edge", 88, &["-o", "rnet.via_stack=true"]);
    run(rnet, "web", "edge", args)
}

fn servers(ns: &testbed::Netns, port: u16) -> [Server; 2] {
    let addr = format!("[::]:{port}");
    [tcp::echo(ns, &addr), udp::echo(ns, &addr)]
}

fn ask(ns: &testbed::Netns, to: IpAddr, port: u16) {
    tcp::exchange(&tcp::connect(ns, (to, port).into()).unwrap(), 300_000, 1);
    assert_eq!(udp::ask_unconnected(ns, (to, port).into()), Ok((to, port).into()));
}

#[test]
fn a_rule_that_drops_closes_a_port_of_such_a_network_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = forwarding(&host);
    let web = edge(&rnet, &["-p", "8080:80", "-p", "8080:80/udp"]);
    create(&rnet, "plain", 89, &[]);
    let other = run(&rnet, "other", "plain", &["-p", "9090:80", "-p", "9090:80/udp"]);
    let (inside, _plain, outside) =
        (servers(&web.ns, 80), servers(&other.ns, 80), servers(&host.client, 9000));
    for addr in HOST {
        ask(&host.client, addr, 8080);
    }
    let before = inside.each_ref().map(|server| server.peers().len());
    set_rules(&host, "drop", "");
    for (at_host, at_client) in HOST.into_iter().zip(CLIENT) {
        assert_eq!(tcp::connect(&host.client, (at_host, 8080).into()).unwrap_err(), Failure::TimedOut);
        udp::assert_silent(&host.client, (at_host, 8080).into());
        assert_eq!(tcp::connect(&web.ns, (at_client, 9000).into()).unwrap_err(), Failure::TimedOut);
        assert!(outside.iter().all(|server| server.peers().is_empty()));
        // Other networks' packets never come here, and neither do containers' that use a port of the host.
        ask(&host.client, at_host, 9090);
        ask(&other.ns, at_host, 8080);
        ask(&web.ns, at_host, 9090);
    }
    // By the host's own output.
    tcp::ask(&host.ns, "127.0.0.1:8080".parse().unwrap());
    let own = 2 * 2 + 1;
    let after: usize = inside.iter().map(|server| server.peers().len()).sum();
    assert_eq!(after, before.iter().sum::<usize>() + own, "what the rule dropped did not arrive");

    // By what packets have there: the client's address, the container's own address and port.
    let (client, own) = (CLIENT[0], web.addrs[0]);
    set_rules(&host, "accept", &format!("ip saddr {client} ip daddr {own} tcp dport 80 drop;"));
    assert_eq!(tcp::connect(&host.client, (HOST[0], 8080).into()).unwrap_err(), Failure::TimedOut);
    tcp::ask(&host.client, (HOST[1], 8080).into());
    assert_eq!(udp::ask_unconnected(&host.client, (HOST[0], 8080).into()), Ok((HOST[0], 8080).into()));
}

fn a_stateful_set_of_rules_holds_both_ways(host: &Host) {
    let rnet = forwarding(host);
    let web = edge(&rnet, &["-p", "8080:80", "-p", "8080:80/udp", "-p", "8081:81"]);
    let inside = servers(&web.ns, 80);
    let (closed, outside) = (tcp::echo(&web.ns, "[::]:81"), servers(&host.client, 9000));
    let capture = Capture::start(&host.client, UPLINK);
    // Were one pair seen translated in one direction and not in the other, an answer would be new or invalid.
    let stateful = "ct state established,related accept; ct state invalid counter drop;";
    let inwards = "iifname eth0 oifname edge meta l4proto { tcp, udp } th dport 80 ct state new accept;";
    set_rules(host, "drop", &format!("{stateful} {inwards}"));
    for (at_host, at_client) in HOST.into_iter().zip(CLIENT) {
        ask(&host.client, at_host, 8080);
        assert_eq!(tcp::connect(&host.client, (at_host, 8081).into()).unwrap_err(), Failure::TimedOut);
        assert_eq!(tcp::connect(&web.ns, (at_client, 9000).into()).unwrap_err(), Failure::TimedOut);
    }
    assert_none_invalid(host);
    set_rules(host, "drop", &format!("{stateful} iifname edge oifname eth0 ct state new accept;"));
    for (at_host, at_client) in HOST.into_iter().zip(CLIENT) {
        ask(&web.ns, at_client, 9000);
        if let IpAddr::V4(at_client) = at_client {
            icmp::ping(&web.ns, at_client).expect("an answer");
        }
        assert_eq!(tcp::connect(&host.client, (at_host, 8080).into()).unwrap_err(), Failure::TimedOut);
        // An error about a datagram that left is related to it.
        let socket = udp::connect(&web.ns, (at_client, 9999).into());
        assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused));
    }
    assert_none_invalid(host);
    assert_eq!(closed.peers(), []);
    let addrs = |server: &Server| -> Vec<IpAddr> {
        server.peers().iter().map(|peer| peer.ip().to_canonical()).collect()
    };
    assert!(inside.iter().all(|server| addrs(server).iter().all(|addr| CLIENT.contains(addr))));
    assert!(outside.iter().all(|server| addrs(server).iter().all(|addr| HOST.contains(addr))));
    let tuples = capture.stop();
    let seen: Vec<_> = tuples.iter().filter_map(|frame| packet::tuple(frame)).collect();
    let is_private = |addr: IpAddr| web.addrs.contains(&addr);
    assert!(!seen.is_empty() && !seen.iter().any(|t| is_private(t.src.ip()) || is_private(t.dst.ip())));
}

/// Of the rule that counts what connection tracking can make nothing of.
fn assert_none_invalid(host: &Host) {
    let listed = host.ns.output_of("nft", &["list ruleset"]).unwrap();
    assert!(listed.contains("ct state invalid counter packets 0 bytes 0 drop"), "{listed}");
}

/// Firewalls refuse aloud, too: with resets in a container's name, and with errors that quote what they saw.
fn refusals_reach_whom_they_are_for(host: &Host) {
    let rnet = forwarding(host);
    let web = edge(&rnet, &["-p", "8080:80", "-p", "8080:80/udp"]);
    let (inside, outside) = (servers(&web.ns, 80), servers(&host.client, 9000));
    set_rules(host, "accept", "meta l4proto tcp reject with tcp reset; meta l4proto udp reject;");
    for (at_host, at_client) in HOST.into_iter().zip(CLIENT) {
        for (from, to) in [(&host.client, (at_host, 8080)), (&web.ns, (at_client, 9000))] {
            assert_eq!(tcp::connect(from, to.into()).unwrap_err(), Failure::Refused, "{to:?}");
            let socket = udp::connect(from, to.into());
            assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused), "{to:?}");
        }
    }
    assert!(inside.iter().chain(&outside).all(|server| server.peers().is_empty()));
    set_rules(host, "accept", "");
    for (at_host, at_client) in HOST.into_iter().zip(CLIENT) {
        ask(&host.client, at_host, 8080);
        ask(&web.ns, at_client, 9000);
    }
}

/// Gateway modes that open a container's own address open it to the rules as well.
#[test]
fn routed_and_unprotected_networks_pass_the_rules_untranslated() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let rnet = forwarding(&host);
    let option = |mode| ["4", "6"].map(|v| format!("com.docker.network.bridge.gateway_mode_ipv{v}={mode}"));
    for (number, mode) in [(90, "routed"), (91, "nat-unprotected")] {
        let [four, six] = option(mode);
        create(&rnet, mode, number, &["-o", "rnet.via_stack=true", "-o", &four, "-o", &six]);
        let web = run(&rnet, &format!("web-{mode}"), mode, &["-p", "8080:80", "-p", "8080:80/udp"]);
        host.client.ip(&format!(
            "route add 10.{number}.0.0/24 via {}
             -6 route add fd00:{number}::/64 via {}",
            HOST[0], HOST[1]
        ));
        let (inside, outside) = (servers(&web.ns, 80), servers(&host.client, 9000));
        for (own, client) in web.addrs.into_iter().zip(CLIENT) {
            set_rules(&host, "drop", "ct state established,related accept; th dport { 80, 9000 } accept;");
            ask(&host.client, own, 80);
            ask(&web.ns, client, 9000);
            if let IpAddr::V4(own) = own {
                assert!(icmp::is_silent(&host.client, own), "no rule lets it pass");
            }
            set_rules(&host, "drop", "");
            assert_eq!(tcp::connect(&host.client, (own, 80).into()).unwrap_err(), Failure::TimedOut);
            set_rules(&host, "accept", "");
            if let IpAddr::V4(own) = own {
                icmp::ping(&host.client, own).expect("an answer");
            }
        }
        let canonical = |server: &Server| -> Vec<IpAddr> {
            server.peers().iter().map(|peer| peer.ip().to_canonical()).collect()
        };
        assert!(inside.iter().all(|server| canonical(server).iter().all(|addr| CLIENT.contains(addr))));
        let sources = if mode == "routed" { web.addrs } else { HOST };
        assert!(outside.iter().all(|server| canonical(server).iter().all(|addr| sources.contains(addr))));
    }
}
