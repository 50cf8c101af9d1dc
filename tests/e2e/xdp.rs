//! XDP on uplinks: small packets of known flows are delivered without a packet buffer, and nothing else changes.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use aya::programs::{Xdp, XdpMode};
use testbed::{
    Checksums, Container, Host, Netns, Rnet,
    bpf::{self, BPFFS},
    capture::Capture,
    packet,
    snapshot::Snapshot,
    topology::{self, UPLINK},
    traffic::{Server, tcp, udp},
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Exchanges of a few bytes in a test.
const EXCHANGES: u64 = 200;

/// Starts an instance in this mode, with a container that publishes 8080/tcp and 5300/udp.
fn start<'h>(host: &'h Host, mode: &str) -> (Rnet<'h>, Container, (Server, Server)) {
    let rnet = Rnet::new(host);
    rnet.start_daemon_with(&["--xdp", mode]);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    (rnet, web, servers)
}

/// Packets that the XDP program has delivered.
fn early(rnet: &Rnet<'_>) -> u64 {
    let counters = rnet.json(&["stats"]);
    let early = counters.iter().filter(|counter| counter["program"] == "xdp_uplink");
    early.filter_map(|counter| counter["packets"].as_u64()).sum()
}

/// A few bytes there and back, again and again, over TCP and UDP; then many.
fn exchange(host: &Host) {
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    let socket = udp::connect(&host.client, host.at(5300));
    for n in 0..EXCHANGES {
        tcp::exchange(&stream, 50 + usize::try_from(n % 7).unwrap(), n);
        assert_eq!(udp::ask(&socket, &vec![7; usize::try_from(n % 50).unwrap()]), Ok(()), "datagram {n}");
    }
    tcp::exchange(&stream, 1 << 20, 1);
    udp::exchange(&socket, 1 << 20, 2);
}

/// Whether an interface's driver runs an XDP program.
fn runs_xdp(ns: &Netns, interface: &str) -> bool {
    let link = ns.output_of("ip", &["-o", "link", "show", "dev", interface]).unwrap();
    link.split_whitespace().any(|word| word == "xdp" || word.starts_with("xdp/"))
}

/// Names of the instance's pinned links to XDP programs.
fn pins(rnet: &Rnet<'_>) -> Vec<String> {
    let version = format!("v{}", rnet_common::LAYOUT_VERSION);
    let dir = Path::new(BPFFS).join(rnet.instance()).join(version).join("links");
    let names = fs::read_dir(dir).unwrap().map(|pin| pin.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("xdp_")).collect()
}

#[test]
fn small_packets_are_delivered() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let (rnet, _web, _servers) = start(&host, "native");
    assert!(runs_xdp(&host.ns, UPLINK));
    assert!(rnet.ok(&["status"]).contains("eth0 (XDP native)"));
    exchange(&host);
    // One packet of each exchange, and acknowledgements; what opens a flow is left to the other program.
    assert!(early(&rnet) > 2 * EXCHANGES - 10, "{} packets", early(&rnet));
    // They are counted in their flows, whoever carried them.
    let flows = rnet.json(&["conntrack", "ls"]);
    let udp = flows.iter().find(|flow| flow["protocol"] == "udp").unwrap();
    assert!(udp["packets"].as_u64().unwrap() >= 2 * EXCHANGES);
    assert_eq!(udp["state"], "replied");
}

/// A sender on the other end of a veth leaves checksums to be computed, which is not said in the frame. Nothing is lost.
#[test]
fn unfinished_checksums_take_the_other_way() {
    testbed::require_root!();
    let host = Host::with(Checksums::Offloaded);
    let (rnet, _web, _servers) = start(&host, "native");
    exchange(&host);
    assert!(early(&rnet) < EXCHANGES / 10, "{} packets", early(&rnet));
    // From one that finishes them they are delivered early.
    host.set_tx_checksum(&host.client, UPLINK, false);
    let before = early(&rnet);
    exchange(&host);
    assert!(early(&rnet) > before + 2 * EXCHANGES - 10);
}

#[test]
fn checksums_are_right_in_the_container() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let (rnet, web, _servers) = start(&host, "native");
    host.set_tx_checksum(&web.ns, "eth0", false);
    let capture = Capture::start(&web.ns, "eth0");
    exchange(&host);
    let frames = capture.stop();
    assert!(early(&rnet) > EXCHANGES);
    let small: Vec<_> = frames.iter().filter(|frame| frame.len() <= 256 && packet::is_ip(frame)).collect();
    // A capture on a busy machine misses some.
    assert!(small.len() > 100, "{}", small.len());
    for frame in small {
        packet::verify_checksums(frame).unwrap();
    }
}

#[test]
fn answers_to_a_container_are_delivered() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let (rnet, web, _servers) = start(&host, "native");
    let _outside = (tcp::echo(&host.client, "0.0.0.0:9000"), udp::echo(&host.client, "0.0.0.0:53"));
    let outside = |port| SocketAddr::from((topology::CLIENT, port));
    let socket = udp::connect(&web.ns, outside(53));
    let stream = tcp::connect(&web.ns, outside(9000)).unwrap();
    for n in 0..EXCHANGES {
        assert_eq!(udp::ask(&socket, b"who"), Ok(()), "{n}");
        tcp::exchange(&stream, 50, n);
    }
    assert!(early(&rnet) > 2 * EXCHANGES - 10, "{} packets", early(&rnet));
}

/// Containers that were made without it are delivered to once it is on, and each daemon takes over from the one before:
/// no datagram is lost and no connection broken.
#[test]
fn daemons_come_and_go_under_traffic_and_switch_it_on_and_off() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let (rnet, _web, _servers) = start(&host, "off");
    assert!(!runs_xdp(&host.ns, UPLINK));
    let socket = udp::connect(&host.client, host.at(5300));
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    let traffic = host.client.spawn(move |stop| {
        let mut n = 0;
        while !stop.requested() {
            n += 1;
            assert_eq!(udp::ask(&socket, b"question"), Ok(()), "datagram {n}");
            tcp::exchange(&stream, 100, n);
            std::thread::sleep(Duration::from_millis(1));
        }
        n
    });
    let grows = || {
        let before = early(&rnet);
        wait_until("packets are delivered early", LIMIT, || (early(&rnet) > before + 20).then_some(()));
    };
    for mode in ["native", "native", "off", "native"] {
        rnet.terminate();
        rnet.start_daemon_with(&["--xdp", mode]);
        assert_eq!(runs_xdp(&host.ns, UPLINK), mode == "native");
        assert_eq!(pins(&rnet).len(), usize::from(mode == "native"));
        if mode == "native" {
            grows();
            let before = early(&rnet);
            rnet.kill9();
            assert!(runs_xdp(&host.ns, UPLINK));
            rnet.start_daemon_with(&["--xdp", mode]);
            assert!(early(&rnet) > before, "it went on without the daemon");
            grows();
        }
    }
    assert!(traffic.stop() > 100);
}

#[test]
fn down_leaves_nothing() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    rnet.start_daemon_with(&["--xdp", "native"]);
    rnet.run("web", &["-p", "8080:80"]);
    assert!(runs_xdp(&host.ns, UPLINK));
    rnet.down();
    before.assert_restored(&host.ns, rnet.instance(), "down");
    assert!(!runs_xdp(&host.ns, UPLINK));
}

#[test]
fn auto_leaves_interfaces_of_software_alone() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--xdp", "auto", "--uplink", UPLINK]);
    assert!(!runs_xdp(&host.ns, UPLINK));
    assert_eq!(pins(&rnet), Vec::<String>::new());
    assert!(rnet.ok(&["status"]).contains("uplinks     eth0\n"));
}

#[test]
fn uplinks_that_come_run_it_and_those_that_go_leave_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--xdp", "native"]);
    host.ns.ip("link add eth1 type veth peer name eth1p
                link set eth1p up
                link set eth1 up");
    wait_until("the new uplinks run it", LIMIT, || (pins(&rnet).len() == 3).then_some(()));
    assert!(runs_xdp(&host.ns, "eth1"));
    host.ns.ip("link del eth1");
    wait_until("their pins are gone", LIMIT, || (pins(&rnet).len() == 1).then_some(()));
}

/// The datapath's own object stands in for a program of somebody else's.
fn foreign() -> aya::Ebpf {
    let mut ebpf = bpf::loader().load(&bpf::object()).unwrap();
    let program: &mut Xdp = ebpf.program_mut("xdp_uplink").unwrap().try_into().unwrap();
    bpf::verify("xdp_uplink", || program.load());
    ebpf
}

#[test]
fn an_uplink_with_another_s_program_is_left_alone() {
    testbed::require_root!();
    for driver in [XdpMode::Driver, XdpMode::Skb] {
        let host = Host::with(Checksums::Finalised);
        let mut ebpf = foreign();
        let program: &mut Xdp = ebpf.program_mut("xdp_uplink").unwrap().try_into().unwrap();
        let id = program.info().unwrap().id();
        host.ns.run(|| program.attach(UPLINK, driver).unwrap());
        let is_there = || {
            let link = host.ns.output_of("ip", &["-o", "-d", "link", "show", "dev", UPLINK]).unwrap();
            link.contains(&format!("prog/xdp id {id} "))
        };
        assert!(is_there());
        let rnet = Rnet::new(&host);
        rnet.start_daemon_with(&["--xdp", "native"]);
        let told = rnet.log().lines().filter(|line| line.contains("another XDP program is on it")).count();
        assert_eq!(told, 1, "{}", rnet.log());
        if driver == XdpMode::Driver {
            let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
            let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
            exchange(&host);
            assert_eq!(early(&rnet), 0);
        }
        rnet.down();
        assert!(is_there());
    }
}

#[test]
fn what_a_named_uplink_cannot_is_refused_and_what_others_cannot_is_told() {
    testbed::require_root!();
    let host = Host::with(Checksums::Finalised);
    // Its driver has none.
    host.ns.ip("link add mv0 link eth0 type macvlan mode bridge
                link set mv0 up");
    let rnet = Rnet::new(&host);
    let refused = rnet.cmd(&["daemon", "--uplink", "mv0", "--xdp", "native"]);
    assert_eq!(refused.status.code(), Some(1));
    let why = "no XDP on mv0: its driver has none; --xdp auto leaves out what cannot";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert!(!runs_xdp(&host.ns, UPLINK));

    rnet.start_daemon_with(&["--xdp", "native"]);
    assert!(rnet.log().contains("no XDP on mv0: its driver has none"), "{}", rnet.log());
    assert!(runs_xdp(&host.ns, UPLINK));
    rnet.terminate();
    rnet.start_daemon_with(&["--xdp", "native", "--uplink", UPLINK]);
    assert!(runs_xdp(&host.ns, UPLINK));
}

#[test]
fn the_file_says_the_mode_and_a_wrong_one_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let wrong = rnet.cmd(&["daemon", "--validate", "--xdp", "on"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("auto, native and off are allowed"), "{}", wrong.stderr);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), r#"{"rnet": {"xdp": "native"}}"#).unwrap();
    let path = file.path().to_str().unwrap();
    let twice = rnet.cmd(&["daemon", "--validate", "--config", path, "--xdp", "off"]);
    assert!(twice.stderr.contains("rnet.xdp: (from flag: off, from file: native)"), "{}", twice.stderr);
    rnet.start_daemon_with(&["--config", path]);
    assert!(runs_xdp(&host.ns, UPLINK));
}
