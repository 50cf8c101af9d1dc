//! `rnet trace`: packets as they pass, for as long as somebody looks.

use std::time::Duration;

use serde_json::Value;
use testbed::{
    Host, Rnet,
    topology::CLIENT,
    traffic::{tcp, udp},
    wait_until,
};

use crate::watching::Watch;

const LIMIT: Duration = Duration::from_secs(20);

/// Asks again and again until what is looked for is told, as who looks may not look yet.
fn told(watch: &Watch, ask: impl Fn(), is_it: impl Fn(&str) -> bool) -> String {
    wait_until("the packet is told", LIMIT, || {
        ask();
        watch.lines().into_iter().find(|line| is_it(line))
    })
}

#[test]
fn a_packet_is_told_at_each_program_with_what_became_of_it() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _echo = tcp::echo(&web.ns, "0.0.0.0:80");
    let by_port = Watch::start(&rnet, &["trace", "--port", "8080", "--explain"]);
    let by_container = Watch::start(&rnet, &["trace", "--container", "web", "--format", "json"]);
    let ask = || drop(tcp::ask(&host.client, host.at(8080)));

    let syn = told(&by_port, ask, |line| line.contains("[S]"));
    for part in [" from_uplink ", " web ", " carried ", " published ", ":8080 [S]", ":80 (new flow)"] {
        assert!(syn.contains(part), "{part} in {syn}");
    }
    told(&by_port, ask, |line| line.contains("published: To a published port"));
    let reply = told(&by_container, ask, |line| line.contains("published-reply"));
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let packet = &reply["packet"];
    assert_eq!((&packet["container"], &packet["program"]), (&"web".into(), &"from_container".into()));
    assert!(packet["left"]["src"].as_str().unwrap().ends_with(":8080"), "{packet}");

    // Of a port that nobody looks for nothing is told, though the other looks for all of the container's.
    assert!(by_port.lines().iter().skip(1).all(|line| line.contains("8080") || line.contains(": ")));
}

#[test]
fn what_is_dropped_is_told_with_the_reason() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "--internal", "--subnet", "10.88.0.0/24", "inside"]);
    let c1 = rnet.run("c1", &["--network", "inside"]);
    c1.ns.ip("route add default via 10.88.0.1");
    let watch = Watch::start(&rnet, &["trace", "--verdict", "dropped", "-n", "1"]);
    let socket = udp::connect(&c1.ns, (CLIENT, 9).into());
    // Out of an internal network there is no way: an error of an earlier packet may be told here.
    let line = told(&watch, || drop(socket.send(b"x")), |line| line.contains("udp"));
    assert!(line.contains(" c1 ") && line.contains(" dropped internal "), "{line}");
}

#[test]
fn who_is_gone_looks_no_more() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _echo = tcp::echo(&web.ns, "0.0.0.0:80");
    // More than there are filters for, one after the other.
    for _ in 0..10 {
        let watch = Watch::start(&rnet, &["trace"]);
        told(&watch, || drop(tcp::ask(&host.client, host.at(8080))), |line| line.contains("published"));
        watch.kill();
    }
    for (args, error) in [
        (["--reason", "bad-luck"], "no reason \"bad-luck\": there are "),
        (["--container", "nobody"], "nobody"),
        (["--interface", "eth99"], "no interface eth99"),
    ] {
        let refused = rnet.fails(&[&["trace"], &args[..]].concat());
        assert!(refused.contains(error) && refused.trim().lines().count() == 1, "{refused}");
    }
}
