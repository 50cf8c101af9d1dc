//! Networks that are delivered via the host's stack: what they carry, and how they come and go. What rules make of it
//! is in `via_stack_rules.rs`.

use std::{path::PathBuf, time::Duration};

use testbed::{
    Host, Rnet, Snapshot, TEN_MIB,
    capture::Capture,
    packet::{self, verify_checksums},
    topology::{CLIENT, FAR, HOST, UPLINK},
    traffic::{Failure, icmp, random_bytes, tcp, udp},
    wait_until,
};

with_and_without_offload!(
    published_ports_carry_10_mib_each_way,
    what_leaves_has_the_hosts_address,
    large_datagrams_pass_both_ways,
    both_ways_find_the_path_s_mtu,
    a_closed_port_refuses_on_either_side,
);

const LIMIT: Duration = Duration::from_secs(10);
const BULK: usize = 2 << 20;

/// Makes network `edge` on a bridge of that name, on a host that forwards what its uplink receives.
pub(super) fn start(host: &Host) -> Rnet<'_> {
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    let rnet = Rnet::start(host);
    create(&rnet, &[]);
    rnet
}

fn create(rnet: &Rnet<'_>, args: &[&str]) {
    let bridge = ["-o", "com.docker.network.bridge.name=edge", "--subnet", "10.88.0.0/24"];
    rnet.ok(&[&["network", "create", "-o", "rnet.via_stack=true"], &bridge[..], args, &["edge"]].concat());
}

/// That a capture of the uplink shows no container's address.
fn assert_translated(frames: &[Vec<u8>]) {
    let private = |addr: &[u8]| addr[..3] == [10, 88, 0];
    for frame in frames.iter().filter(|frame| frame[12..14] == [8, 0]) {
        assert!(!private(&frame[26..30]) && !private(&frame[30..34]), "{}", packet::describe(frame));
    }
}

fn published_ports_carry_10_mib_each_way(host: &Host) {
    let rnet = start(host);
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80", "-p", "5300:53/udp"]);
    let servers = [tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53")];
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, TEN_MIB, 1);
    let socket = udp::connect(&host.client, host.at(5300));
    udp::exchange(&socket, TEN_MIB / 4, 2);
    let clients = [stream.local_addr().unwrap(), socket.local_addr().unwrap()];
    for (server, client) in servers.iter().zip(clients) {
        assert!(server.peers().iter().all(|peer| *peer == client), "the client's own address and port");
    }
    assert_eq!(udp::ask_unconnected(&host.client, host.at(5300)), Ok(host.at(5300)));
    tcp::ask(&host.ns, "127.0.0.1:8080".parse().unwrap());
    assert!(rnet.packets_for("via-stack") > 0 && rnet.packets_for("published-reply") > 0);
    assert_eq!(rnet.packets_for("no-flow-out"), 0);
}

fn what_leaves_has_the_hosts_address(host: &Host) {
    let rnet = start(host);
    let app = rnet.run("app", &["--network", "edge"]);
    let uplink = Capture::start(&host.client, UPLINK);
    let outside = [tcp::echo(&host.client, "0.0.0.0:9000"), udp::echo(&host.client, "0.0.0.0:9000")];
    let stream = tcp::connect(&app.ns, (CLIENT, 9000).into()).unwrap();
    tcp::exchange(&stream, BULK, 1);
    udp::exchange(&udp::connect(&app.ns, (CLIENT, 9000).into()), 100_000, 2);
    icmp::ping(&app.ns, CLIENT).expect("an answer");
    // What belongs to no flow: a connection that the datapath has forgotten.
    rnet.ok(&["conntrack", "flush"]);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    wait_until("what is left of it is dropped", LIMIT, || {
        (rnet.packets_for("no-flow-out") > 0).then_some(())
    });
    for server in &outside {
        assert!(server.peers().iter().all(|peer| peer.ip() == HOST));
    }
    assert_translated(&uplink.stop());
}

fn large_datagrams_pass_both_ways(host: &Host) {
    let rnet = start(host);
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80/udp"]);
    let servers = [udp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&host.client, "0.0.0.0:9000")];
    let uplink = Capture::start(&host.client, UPLINK);
    // Without and with connection tracking, which puts datagrams together and cuts them again.
    for rules in [
        None,
        Some("add table inet own { chain c { type filter hook forward priority 0; ct state new accept; }; }"),
    ] {
        if let Some(rules) = rules {
            host.ns.output_of("nft", &[rules]).expect("nft takes the rules");
        }
        let inwards = udp::connect(&host.client, host.at(8080));
        let outwards = udp::connect(&web.ns, (CLIENT, 9000).into());
        for (seed, size) in [1473, 4000, 20_001, 60_000].into_iter().enumerate() {
            udp::ask(&inwards, &random_bytes(seed as u64, size)).unwrap();
            udp::ask(&outwards, &random_bytes(seed as u64, size)).unwrap();
        }
    }
    assert!(servers[0].peers().iter().all(|peer| peer.ip() == CLIENT));
    assert!(servers[1].peers().iter().all(|peer| peer.ip() == HOST));
    assert_translated(&uplink.stop());
}

/// The client in between takes 1300 bytes only towards the far machine.
fn both_ways_find_the_path_s_mtu(host: &Host) {
    let far = host.far();
    let rnet = start(host);
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80", "-p", "8080:80/udp"]);
    let _tcp = [tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(far, "0.0.0.0:9000")];
    let _udp = [udp::echo(&web.ns, "0.0.0.0:80"), udp::echo(far, "0.0.0.0:9000")];
    let payload = random_bytes(3, 1400);
    // TCP is told by its peer. A datagram that is too large is answered by the client, and lost; from then on the
    // container's kernel cuts what it sends.
    let answers = udp::connect(far, host.at(8080));
    let _ = udp::ask(&answers, &payload);
    wait_until("an error about an answer is translated", LIMIT, || {
        (rnet.packets_for("related") > 0).then_some(())
    });
    udp::ask(&answers, &payload).unwrap();
    web.ns.ip("route flush cache");
    let asks = udp::connect(&web.ns, (FAR, 9000).into());
    wait_until("the container is told", LIMIT, || {
        let error = asks.send(&payload).err()?;
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        Some(())
    });
    udp::ask(&asks, &payload).unwrap();
    tcp::exchange(&tcp::connect(far, host.at(8080)).unwrap(), BULK, 1);
    tcp::exchange(&tcp::connect(&web.ns, (FAR, 9000).into()).unwrap(), BULK, 2);
}

fn a_closed_port_refuses_on_either_side(host: &Host) {
    let rnet = start(host);
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80", "-p", "8080:80/udp"]);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    let socket = udp::connect(&host.client, host.at(8080));
    assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused));
    let socket = udp::connect(&web.ns, (CLIENT, 9999).into());
    assert_eq!(udp::ask(&socket, b"anybody there"), Err(Failure::Refused));
}

/// The stack answers for the network, and shows the client its own packets.
#[test]
fn what_cannot_be_delivered_is_answered_with_what_the_client_sent() {
    testbed::require_root!();
    let host = Host::new();
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    let rnet = Rnet::start(&host);
    create(&rnet, &["-o", "com.docker.network.driver.mtu=1280"]);
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80/udp", "-p", "8080:80"]);
    let (server, _tcp) = (udp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&web.ns, "0.0.0.0:80"));
    let capture = Capture::start(&host.client, UPLINK);
    let probe = udp::connect(&host.client, host.at(8080));
    probe.set_ttl(1).unwrap();
    probe.send(b"probe").unwrap();
    wait_until("the host answers", LIMIT, || {
        let frames = capture.frames();
        let answer = frames.iter().find(|f| f[12..14] == [8, 0] && f[23] == 1 && f[34..36] == [11, 0])?;
        verify_checksums(answer).unwrap();
        assert_eq!((&answer[26..30], &answer[58..62]), (&HOST.octets()[..], &HOST.octets()[..]));
        assert_eq!(answer[64..66], 8080u16.to_be_bytes());
        Some(())
    });
    assert_eq!(server.peers(), [], "the container saw nothing of it");
    probe.set_ttl(2).unwrap();
    udp::ask(&probe, b"a hop more").unwrap();

    let payload = vec![7; 1400];
    let socket = udp::connect(&host.client, host.at(8080));
    wait_until("the client is told the network's MTU", LIMIT, || {
        let error = socket.send(&payload).err()?;
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        Some(())
    });
    udp::ask(&socket, &payload).unwrap();
    tcp::exchange(&tcp::connect(&host.client, host.at(8080)).unwrap(), BULK, 3);
    assert_translated(&capture.stop());
}

fn egress_pins(rnet: &Rnet<'_>) -> Vec<PathBuf> {
    let layouts = std::fs::read_dir(PathBuf::from("/sys/fs/bpf").join(rnet.instance())).unwrap();
    let links = layouts.flat_map(|layout| std::fs::read_dir(layout.unwrap().path().join("links")).unwrap());
    let paths = links.map(|link| link.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("to_uplink-")).collect()
}

#[test]
fn it_outlives_the_daemon_and_down_leaves_nothing() {
    testbed::require_root!();
    let host = Host::new();
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    rnet.start_daemon();
    create(&rnet, &[]);
    let shown = rnet.json(&["network", "inspect", "edge"]);
    assert!(shown[0].to_string().contains(r#""rnet.via_stack":"true""#), "{}", shown[0]);
    assert!(egress_pins(&rnet).is_empty(), "nothing to be looked at yet");
    let web = rnet.run("web", &["--network", "edge", "-p", "8080:80"]);
    assert_eq!(egress_pins(&rnet).len(), 1);
    let _servers = [tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000")];
    let inwards = tcp::connect(&host.client, host.at(8080)).unwrap();
    let outwards = tcp::connect(&web.ns, (CLIENT, 9000).into()).unwrap();
    let goes_on = |seed| {
        for stream in [&inwards, &outwards] {
            tcp::exchange(stream, 100_000, seed);
        }
        tcp::ask(&host.client, host.at(8080));
        tcp::ask(&web.ns, (CLIENT, 9000).into());
    };
    goes_on(1);
    rnet.kill9();
    goes_on(2);
    rnet.start_daemon();
    goes_on(3);
    assert_eq!(egress_pins(&rnet).len(), 1);
    assert!(!rnet.log().contains("does not forward"));

    rnet.terminate();
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "0");
    rnet.start_daemon();
    let told = "set net.ipv4.conf.eth0.forwarding=1";
    assert!(rnet.log().lines().any(|line| line.contains("WARN") && line.contains(told)), "{}", rnet.log());
    host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1");
    goes_on(4);

    // An uplink that comes later is served as well.
    host.ns.ip("link add up1 type veth peer name up1p
                link set up1 up");
    wait_until("it is", LIMIT, || (egress_pins(&rnet).len() == 2).then_some(()));
    host.ns.ip("link del up1");
    wait_until("it is not", LIMIT, || (egress_pins(&rnet).len() == 1).then_some(()));
    rnet.ok(&["rm", "-f", "web"]);
    assert!(egress_pins(&rnet).is_empty());
    rnet.run("web", &["--network", "edge", "-p", "8080:80"]);
    assert_eq!(egress_pins(&rnet).len(), 1);
    rnet.down();
    before.assert_restored(&host.ns, rnet.instance(), "rnet down");
}

#[test]
fn without_forwarding_it_is_refused_and_the_message_says_what_to_do() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = crate::policy::start(&host);
    let create = ["network", "create", "--ipv6", "-o", "rnet.via_stack=true", "edge"];
    let told = rnet.fails(&create);
    let (_, settings) = told.split_once(": set ").expect("it names settings");
    let settings: Vec<_> = settings.trim().split(", ").collect();
    assert_eq!(settings.len(), 2, "one of each family: {told}");
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap();
        host.ns.set_sysctl(&name.replace('.', "/"), value);
    }
    rnet.ok(&create);
    let web = crate::policy::run(&rnet, "web", "edge", &["-p", "8080:80"]);
    let _servers = [tcp::echo(&web.ns, "[::]:80"), tcp::echo(&host.client, "[::]:9000")];
    for (at_host, at_client) in crate::policy::HOST.into_iter().zip(crate::policy::CLIENT) {
        tcp::exchange(&tcp::connect(&host.client, (at_host, 8080).into()).unwrap(), BULK, 1);
        tcp::exchange(&tcp::connect(&web.ns, (at_client, 9000).into()).unwrap(), BULK, 2);
    }
    assert!(rnet.packets_for("via-stack") > 0);

    let option = |value: &str| format!("rnet.via_stack={value}");
    let told = rnet.fails(&["network", "create", "-o", &option("perhaps"), "n2"]);
    assert!(told.contains("true or false is allowed"), "{told}");
    let told = rnet.fails(&["network", "create", "--internal", "-o", &option("true"), "n2"]);
    assert!(told.contains("internal network"), "{told}");
}
