//! `rnet trace`: packets as they pass, for as long as somebody looks.

use std::{net::TcpListener, time::Duration};

use etherparse::PacketBuilder;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use testbed::{
    Host, Rnet,
    bpf::{self, bpftool},
    capture,
    topology::CLIENT,
    traffic::{tcp, udp},
    wait_until,
};

use crate::watching::{Watch, run_inside};

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
    let ask = || {
        tcp::ask(&host.client, host.at(8080));
    };

    let syn = told(&by_port, ask, |line| line.contains("[S]"));
    for part in
        [" from_uplink ", " web ", " carried ", " published ", ":8080 [S]", ":80 (new flow, published port)"]
    {
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
    let c1 = run_inside(&rnet);
    let watch = Watch::start(&rnet, &["trace", "--verdict", "dropped", "-n", "1"]);
    let socket = udp::connect(&c1.ns, (CLIENT, 9).into());
    // Out of an internal network there is no way: an error of an earlier packet may be told here.
    let line = told(&watch, || drop(socket.send(b"x")), |line| line.contains("udp"));
    assert!(line.contains(" c1 ") && line.contains(" dropped internal "), "{line}");
}

#[test]
fn a_call_of_a_host_s_program_is_told_with_who_called() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    let own = format!("[{}]", std::process::id());
    let watch = Watch::start(&rnet, &["trace", "--port", "8080"]);
    let ask = || {
        tcp::ask(&host.ns, "127.0.0.1:8080".parse().unwrap());
    };
    let line = told(&watch, ask, |line| line.contains("sock_connect4"));
    for part in
        [" - ", " web ", " carried ", " published ", "tcp 127.0.0.1:8080 by ", &own, " => 172.17.0.2:80 "]
    {
        assert!(line.contains(part), "{part} in {line}");
    }

    let by_container = Watch::start(&rnet, &["trace", "--container", "web", "--proto", "udp"]);
    let send = || {
        let to = "127.0.0.1:5300".parse().unwrap();
        assert_eq!(udp::ask_unconnected(&host.ns, to), Ok(to));
    };
    let line = told(&by_container, send, |line| line.contains("sock_sendmsg4"));
    assert!(line.contains("udp 127.0.0.1:5300 by "), "{line}");

    let drops = Watch::start(&rnet, &["drops", "-w"]);
    let refused = |addr: &str| host.ns.run(|| assert!(TcpListener::bind(addr).is_err()));
    let line = told(&drops, || refused("0.0.0.0:8080"), |line| line.contains(" held "));
    assert!(line.contains("tcp 0.0.0.0:8080 by ") && line.contains(&own), "{line}");
    assert!(line.contains("A program of the host wanted a published port."), "{line}");
    told(&drops, || refused("[::]:8080"), |line| line.contains(" held ") && line.contains("[::]:8080 by "));
    // What is nobody's is told of nobody.
    host.ns.run(|| drop(TcpListener::bind("0.0.0.0:8081").unwrap()));
    told(&drops, || refused("10.200.0.1:8080"), |line| line.contains("10.200.0.1:8080 by "));
    assert!(drops.lines().iter().all(|line| !line.contains(":8081")), "{:?}", drops.lines());
}

#[test]
fn a_forged_packet_is_told_with_the_container_that_sent_it() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let liar = rnet.run("liar", &[]);
    let (mac, gateway) = (liar.ns.mac("eth0"), host.ns.mac("rnet0"));
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, gateway)
        .ipv4([10, 99, 99, 99], [192, 0, 2, 200], 64)
        .udp(1234, 5678)
        .write(&mut frame, b"forged")
        .unwrap();
    let watch = Watch::start(&rnet, &["drops", "-w", "--container", "liar"]);
    let forge = || capture::send(&liar.ns, "eth0", std::slice::from_ref(&frame));
    let line = told(&watch, forge, |line| line.contains(" spoofed "));
    assert!(line.contains(" liar ") && line.contains("udp 10.99.99.99:1234 > 192.0.2.200:5678"), "{line}");
}

/// Until when the programs record, by the clock that they go by, as the kernel has it.
fn recorded_until(rnet: &Rnet<'_>) -> u64 {
    let ask = |args: [&str; 4]| bpftool(&args).unwrap_or_else(|| panic!("{args:?}"));
    let pinned = bpf::pinned_by(rnet.instance());
    let uplink = pinned.iter().find(|object| object.pin.to_string_lossy().contains("/from_uplink-")).unwrap();
    let link = ask(["link", "show", "id", &uplink.id.to_string()]);
    let program = ask(["prog", "show", "id", &link["prog_id"].to_string()]);
    let maps = program["map_ids"].as_array().unwrap();
    let word = maps.iter().find(|id| ask(["map", "show", "id", &id.to_string()])["name"] == ".bss").unwrap();
    let dumped = ask(["map", "dump", "id", &word.to_string()]);
    let bytes = dumped[0]["value"].as_array().unwrap().iter();
    let bytes = bytes.map(|byte| u8::from_str_radix(&byte.as_str().unwrap()[2..], 16).unwrap());
    u64::from_ne_bytes(bytes.collect::<Vec<u8>>().try_into().unwrap())
}

#[test]
fn an_interrupted_look_ends_well_and_a_daemon_that_is_killed_records_no_more() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    if bpftool(&["version"]).is_none() {
        return testbed::skip("needs bpftool");
    }
    assert_eq!(recorded_until(&rnet), 0);
    let is_on = || (recorded_until(&rnet) > 0).then_some(());
    let watch = Watch::start(&rnet, &["trace"]);
    wait_until("it is recorded", LIMIT, is_on);
    assert!(watch.interrupt());
    wait_until("nothing is recorded", LIMIT, || (recorded_until(&rnet) == 0).then_some(()));

    let _watch = Watch::start(&rnet, &["trace"]);
    wait_until("it is recorded again", LIMIT, is_on);
    rnet.kill9();
    let until = recorded_until(&rnet);
    wait_until("the time is over", LIMIT, || {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        (now.as_nanos() > u128::from(until)).then_some(())
    });
    assert_eq!(recorded_until(&rnet), until, "nobody says so again");
    rnet.start_daemon();
    wait_until("the next daemon's programs record nothing", LIMIT, || {
        (recorded_until(&rnet) == 0).then_some(())
    });
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
        let ask = || {
            tcp::ask(&host.client, host.at(8080));
        };
        told(&watch, ask, |line| line.contains("published"));
        watch.kill();
    }
    if bpftool(&["version"]).is_some() {
        wait_until("nothing is recorded", LIMIT, || (recorded_until(&rnet) == 0).then_some(()));
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
