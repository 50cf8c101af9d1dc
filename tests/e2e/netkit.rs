//! Containers that are joined to their bridge by netkits instead of veths: all that holds with veths holds. On a kernel
//! without netkits each test checks that such a network is refused.

use std::{fs, net::IpAddr, time::Duration};

use serde_json::Value;
use testbed::{
    Host, Netns, Rnet, Snapshot,
    capture::{self, Capture},
    traffic::tcp,
    wait_until,
};

use crate::{
    attack::{self, MARK},
    lifecycle::be_killed_and_restarted,
    policy::{
        self, CLIENT, EXPERIMENT, HOST, assert_open, create, gateways, peer_addrs, pings, run, servers, start,
    },
    spoof::{self, Stage},
};

const NETKIT: [&str; 2] = ["-o", "rnet.link=netkit"];
/// Netkits of older kernels are not used.
const OLDEST: (u32, u32) = (6, 12);

/// Whether the kernel has none that could be used. Then it is checked that rnet says so in one line, and makes nothing.
fn is_refused(host: &Host) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    let is_new = (numbers.next().unwrap(), numbers.next().unwrap()) >= OLDEST;
    // The kernel calls the other end `nk0`.
    let makes_one =
        || Netns::new("probe").output_of("ip", &["link", "add", "one", "type", "netkit"]).is_some();
    if is_new && makes_one() {
        return false;
    }
    assert!(std::env::var_os("RNET_REQUIRE_NETKIT").is_none(), "Linux {} has no netkits", release.trim_end());
    let rnet = Rnet::start(host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let refusal = rnet.fails(&[&["network", "create"], &NETKIT[..], &["n1"]].concat());
    let why = if is_new { "is built without netkits (CONFIG_NETKIT)" } else { "is too old for netkits" };
    assert!(refusal.contains(&format!("kernel {} {why}", release.trim_end())), "{refusal}");
    assert!(refusal.contains("rnet.link=veth works"), "{refusal}");
    before.assert_restored(&host.ns, rnet.instance(), "a refused network");
    assert!(rnet.cmd(&["network", "inspect", "n1"]).status.code() == Some(1), "there is no such network");
    true
}

/// A host to try them on.
fn host_with_netkits() -> Option<Host> {
    if !testbed::can_run() {
        return None;
    }
    let host = Host::new();
    (!is_refused(&host)).then_some(host)
}

/// The kind and the MTU of an interface.
fn link(ns: &Netns, name: &str) -> (String, u64) {
    let shown = ns.output_of("ip", &["-d", "-j", "link", "show", "dev", name]).unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let kind = shown[0]["linkinfo"]["info_kind"].as_str().unwrap().to_owned();
    (kind, shown[0]["mtu"].as_u64().unwrap())
}

/// The host's ends of the containers on a bridge.
fn ports_of(ns: &Netns, bridge: &str) -> Vec<String> {
    let shown = ns.output_of("ip", &["-j", "link", "show", "master", bridge]).unwrap();
    let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
    shown.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_way_is_open_that_veths_have() {
    let Some(host) = host_with_netkits() else { return };
    let rnet = start(&host);
    create(&rnet, "n1", 88, &NETKIT);
    let web = run(&rnet, "web", "n1", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let app = run(&rnet, "app", "n1", &[]);
    let ends = ports_of(&host.ns, "n1");
    assert!(ends.len() == 2 && ends.iter().all(|name| name.starts_with("netkit")), "{ends:?}");
    let netkit = ("netkit".to_owned(), 1500);
    assert!(ends.iter().all(|name| link(&host.ns, name) == netkit));
    assert!([&web, &app].iter().all(|peer| link(&peer.ns, "eth0") == netkit));
    let shown: Vec<Value> = serde_json::from_str(&rnet.ok(&["network", "inspect", "n1"])).unwrap();
    assert_eq!(shown[0]["Options"]["rnet.link"], "netkit");

    let (inside, outside, hosts) =
        (servers(&web.ns, 80), servers(&host.client, 9000), servers(&host.ns, 7000));
    for (family, gateway) in gateways(88).into_iter().enumerate() {
        let (client, own) = (CLIENT[family], HOST[family]);
        // Out, in by a published port, to the neighbour, and between the host and a container.
        assert_open(&app.ns, client, 9000);
        assert_open(&host.client, own, 8080);
        assert_open(&app.ns, web.addrs[family], 80);
        assert_open(&host.ns, web.addrs[family], 80);
        assert_open(&app.ns, gateway, 7000);
        // A container's published port from itself, from its neighbour and from the host.
        assert_open(&web.ns, own, 8080);
        assert_open(&app.ns, own, 8080);
        assert_open(&host.ns, own, 8080);
        let pinged = [
            (&app.ns, client),
            (&app.ns, web.addrs[family]),
            (&app.ns, gateway),
            (&host.ns, app.addrs[family]),
        ];
        for (from, to) in pinged {
            assert!(pings(from, to), "{to}");
        }
    }
    assert!(outside.iter().all(|server| peer_addrs(server) == HOST), "the host's addresses");
    assert!(hosts.iter().all(|server| peer_addrs(server) == app.addrs), "the container's own addresses");
    for server in &inside {
        let seen = peer_addrs(server);
        assert!(CLIENT.iter().chain(&app.addrs).all(|addr| seen.contains(addr)), "{seen:?}");
    }
    // It was rnet's datapath that carried all that.
    for reason in ["published", "masqueraded", "switched", "hairpin"] {
        assert!(rnet.packets_for(reason) > 0, "{reason}");
    }
    // Segments that are merged on their way.
    for (from, to) in
        [(&host.client, (HOST[0], 8080)), (&app.ns, (web.addrs[0], 80)), (&host.ns, (web.addrs[1], 80))]
    {
        tcp::exchange(&tcp::connect(from, to.into()).unwrap(), 1 << 20, 1);
    }
}

#[test]
fn the_mtu_holds_on_both_ends() {
    let Some(host) = host_with_netkits() else { return };
    let rnet = start(&host);
    create(&rnet, "n1", 88, &[&NETKIT[..], &["-o", "com.docker.network.driver.mtu=1400"]].concat());
    let web = run(&rnet, "web", "n1", &["-p", "8080:80"]);
    let app = run(&rnet, "app", "n1", &[]);
    for name in ports_of(&host.ns, "n1") {
        assert_eq!(link(&host.ns, &name).1, 1400);
    }
    assert_eq!(link(&web.ns, "eth0").1, 1400);
    let _server = tcp::echo(&web.ns, "[::]:80");
    for to in HOST {
        tcp::exchange(&tcp::connect(&host.client, (to, 8080).into()).unwrap(), 1 << 20, 1);
    }
    // Headers of IPv4 and ICMP are 28 bytes of the 1400.
    let ping = |length: &str| {
        let args = ["-c1", "-W2", "-Mdo", "-s", length, &web.addrs[0].to_string()];
        app.ns.output_of("ping", &args).is_some()
    };
    assert!(ping("1372") && !ping("1373"));
}

#[test]
fn nothing_is_sent_in_anothers_name() {
    let Some(host) = host_with_netkits() else { return };
    let stage = Stage::on(&host, &NETKIT);
    spoof::send_from_others(&stage);
    spoof::answer_for_others_in_arp(&stage);
    spoof::answer_for_others_in_neighbour_discovery(&stage);
}

/// Through a netkit the kernel goes on taking a frame for what its sender's socket has said that it is.
#[test]
fn a_frame_is_what_is_written_in_it_whatever_its_socket_says() {
    let Some(host) = host_with_netkits() else { return };
    let stage = Stage::on(&host, &NETKIT);
    let Stage { liar, neighbour, gateway_mac, .. } = &stage;
    let to = |to: IpAddr| std::net::SocketAddr::new(to, 4001);
    let udp = |mac, from, dst| attack::udp((liar.mac, mac), from, to(dst), MARK);
    let foreign: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8:7::7".parse().unwrap()];
    let mut forged = Vec::new();
    for family in 0..2 {
        for from in [neighbour.addrs[family], foreign[family], HOST[family]] {
            forged.push(udp(*gateway_mac, from, CLIENT[family]));
            forged.push(udp(neighbour.mac, from, neighbour.addrs[family]));
        }
    }
    forged.push(spoof::arp(liar.mac, attack::BROADCAST, liar.mac, gateways(88)[0]));
    // A frame of its own, with a VLAN's tag in the place of the type: the rest of the tag is the packet's first bytes.
    let mut hidden = udp(*gateway_mac, liar.addrs[0], CLIENT[0]);
    hidden[12..14].copy_from_slice(&[0x81, 0x00]);
    let experiment = u16::from_be_bytes(EXPERIMENT);
    stage.assert_dropped_as("malformed", experiment, &forged);
    stage.assert_dropped_as("malformed", 0x0800, &[hidden]);

    // What says the same twice passes, and so does a length in the type's place (IEEE 802.3).
    let inside = Capture::start(&neighbour.ns, "eth0");
    let body = b"to whom it may concern, at least 46 bytes of it";
    let frame = |kind: [u8; 2]| [&neighbour.mac[..], &liar.mac, &kind, body].concat();
    let honest = [frame(EXPERIMENT), frame([0, u8::try_from(body.len()).unwrap()])];
    capture::send(&liar.ns, "eth0", &honest);
    capture::send_as(&liar.ns, "eth0", experiment, &honest);
    wait_until("both arrive, twice", Duration::from_secs(10), || {
        let seen = inside.frames();
        let twice = |frame| seen.iter().filter(|seen| *seen == frame).count() == 2;
        honest.iter().all(twice).then_some(())
    });
}

#[test]
fn without_icc_neighbours_meet_at_published_ports_only() {
    let Some(host) = host_with_netkits() else { return };
    policy::meet_at_published_ports_only(&host, &NETKIT);
}

#[test]
fn without_icc_a_bridge_carries_nothing_between_neighbours() {
    let Some(host) = host_with_netkits() else { return };
    policy::carry_nothing_between_neighbours(&host, &NETKIT);
}

#[test]
fn a_killed_daemon_is_not_missed_and_a_restarted_one_takes_over() {
    let Some(host) = host_with_netkits() else { return };
    let rnet = start(&host);
    create(&rnet, "n1", 88, &NETKIT);
    be_killed_and_restarted(&host, &rnet, "n1");
    assert!(ports_of(&host.ns, "n1").iter().all(|name| link(&host.ns, name).0 == "netkit"));
}

#[test]
fn what_is_removed_leaves_nothing_and_what_goes_by_itself_comes_again() {
    let Some(host) = host_with_netkits() else { return };
    let rnet = Rnet::new(&host);
    let at_first = Snapshot::take(&host.ns, rnet.instance());
    rnet.start_daemon();
    let without_network = Snapshot::take(&host.ns, rnet.instance());
    rnet.ok(&[&["network", "create", "--subnet", "10.88.0.0/24"], &NETKIT[..], &["n1"]].concat());
    let without_container = Snapshot::take(&host.ns, rnet.instance());
    let web = rnet.run("web", &["--network", "n1", "-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));

    // Both ends go together, be it from within, and are made again.
    let mac = web.ns.mac("eth0");
    web.ns.ip("link del eth0");
    wait_until("the link is made again", Duration::from_secs(20), || {
        web.ns.output_of("ip", &["link", "show", "dev", "eth0", "up"]).filter(|shown| shown.contains("eth0"))
    });
    assert_eq!((web.ns.mac("eth0"), link(&web.ns, "eth0").0.as_str()), (mac, "netkit"));
    wait_until("the port leads there again", Duration::from_secs(20), || {
        tcp::connect(&host.client, host.at(8080)).is_ok().then_some(())
    });

    rnet.ok(&["rm", "-f", "web"]);
    without_container.assert_restored(&host.ns, rnet.instance(), "rnet rm");
    rnet.ok(&["network", "rm", "n1"]);
    without_network.assert_restored(&host.ns, rnet.instance(), "rnet network rm");
    rnet.ok(&[&["network", "create"], &NETKIT[..], &["n1"]].concat());
    rnet.run("web", &["--network", "n1", "-p", "8080:80"]);
    rnet.down();
    at_first.assert_restored(&host.ns, rnet.instance(), "rnet down");
}
