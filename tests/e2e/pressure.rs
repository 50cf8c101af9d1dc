//! One container, or one source outside, that opens flows without end: what others have goes on, and they get new ones.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use testbed::{
    Container, Host, Rnet, capture, packet,
    packet::Ethernet,
    topology::{CLIENT, HOST, UPLINK},
    traffic::{tcp, udp},
    wait_until,
};

const SOON: Duration = Duration::from_secs(60);
/// Where metrics are served.
const METRICS: u16 = 9323;

/// A daemon with this configuration, which serves metrics.
fn start(rnet: &Rnet<'_>, own: &Value) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    write(&file, own);
    rnet.start_daemon_with(&["--config", file.path().to_str().unwrap()]);
    file
}

fn write(file: &NamedTempFile, own: &Value) {
    let content = json!({"metrics-addr": format!("127.0.0.1:{METRICS}"), "rnet": own});
    fs::write(file.path(), content.to_string()).unwrap();
}

/// What the metrics say, by the name of the series and something that is among its labels.
fn metric(host: &Host, name: &str, label: &str) -> Option<f64> {
    let text = host.ns.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", METRICS)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let mut lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.next()?.rsplit_once(' ')?.1.parse().ok()
}

/// Waits until the collector has seen a container, and with it told the programs to count. Returns its quota.
fn quota(host: &Host, container: &str) -> Option<f64> {
    let label = format!("container=\"{container}\"");
    wait_until("a round has seen the container", SOON, || {
        metric(host, "rnet_endpoint_opened_flows", &label).map(drop)
    });
    metric(host, "rnet_endpoint_flow_quota", &label)
}

/// Datagrams from a container to so many ports of the client, each of which is a flow.
fn scatter(container: &Container, flows: u16) {
    container.ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in 20_000..20_000 + flows {
            socket.send_to(b"anybody there", (CLIENT, port)).unwrap();
        }
    });
}

/// How many flows there are that a container has opened.
fn flows_of(rnet: &Rnet<'_>, container: &Container) -> usize {
    let own = format!("{}:", container.addr);
    let is_own = |row: &Value| row["src"].as_str().unwrap().starts_with(&own);
    rnet.json(&["conntrack", "ls"]).iter().filter(|row| is_own(row)).count()
}

#[test]
fn a_container_has_its_quota_of_flows_and_its_neighbours_have_theirs() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let file = start(&rnet, &json!({"max-flows-per-container": 40}));
    rnet.ok(&["network", "create", "-o", "rnet.max_flows=5", "few"]);
    let app = rnet.run("app", &[]);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let few = rnet.run("few", &["--network", "few"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), tcp::echo(&host.client, "0.0.0.0:9000"));
    let outside = (CLIENT, 9000).into();
    assert_eq!((quota(&host, "app"), quota(&host, "few")), (Some(40.0), Some(5.0)));
    assert_eq!(rnet.json(&["status"])[0]["flow_quota"], json!(40));
    let connection = tcp::connect(&app.ns, outside).unwrap();
    tcp::exchange(&connection, 1000, 1);

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                scatter(&app, 300);
                thread::sleep(Duration::from_millis(20));
            }
        });
        wait_until("it is held to its quota", SOON, || (rnet.packets_for("flow-quota") > 1000).then_some(()));
        for seed in 0..20 {
            tcp::ask(&web.ns, outside);
            tcp::ask(&host.client, host.at(8080));
            tcp::exchange(&connection, 100_000, seed);
            let flows = flows_of(&rnet, &app);
            assert!((1..=40).contains(&flows), "{flows}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    wait_until("it may open flows again", SOON, || tcp::connect(&app.ns, outside).ok());
    tcp::exchange(&connection, 100_000, 99);

    let before = rnet.packets_for("flow-quota");
    scatter(&few, 50);
    assert!((1..=5).contains(&flows_of(&rnet, &few)), "its network's own quota");
    assert!(rnet.packets_for("flow-quota") > before);

    write(&file, &json!({"max-flows-per-container": 0}));
    rnet.reload();
    wait_until("the quota is gone", SOON, || quota(&host, "app").is_none().then_some(()));
    assert_eq!(quota(&host, "few"), Some(5.0));
    scatter(&app, 300);
    wait_until("all of them are let through", SOON, || (flows_of(&rnet, &app) >= 300).then_some(()));
}

/// Sends frames that `make` numbers from the client, some thousand a second, until `is_over`. Returns how many.
fn flood(host: &Host, is_over: &AtomicBool, make: impl Fn(u32) -> Vec<u8>) -> u32 {
    const AT_ONCE: u32 = 100;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let frames: Vec<_> = (sent..sent + AT_ONCE).map(&make).collect();
        capture::send(&host.client, UPLINK, &frames);
        sent += AT_ONCE;
        thread::sleep(Duration::from_millis(10));
    }
    sent
}

fn link(host: &Host) -> Ethernet {
    Ethernet { src: host.client.mac(UPLINK), dst: host.ns.mac(UPLINK) }
}

/// Sources of 198.18.0.0/15, which nobody has (RFC 2544), in an order that looks random, none twice among 2^17.
fn forged(number: u32) -> Ipv4Addr {
    const ALL: u32 = 1 << 17;
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number.wrapping_mul(48_271) % ALL)
}

#[test]
fn a_flood_of_syn_from_forged_sources_costs_no_connection_and_keeps_nobody_out() {
    testbed::require_root!();
    const TABLE: u64 = 1000;
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let _file = start(&rnet, &json!({"max-flows": TABLE}));
    let web = rnet.run("web", &["-p", "8080:80"]);
    web.ns.set_sysctl("net/ipv4/tcp_syncookies", "1");
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    quota(&host, "web");
    let connection = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&connection, 1000, 1);

    let (link, is_over) = (link(&host), AtomicBool::new(false));
    let syn = |number: u32| {
        let from = SocketAddrV4::new(forged(number), 1024 + (number % 60_000) as u16);
        packet::tcp(link, from, SocketAddrV4::new(HOST, 8080), packet::syn(number), b"")
    };
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&host, &is_over, syn));
        let flows = |rnet: &Rnet<'_>| rnet.json(&["status"])[0]["flows"].as_u64().unwrap();
        wait_until("the flood fills the table", SOON, || (flows(&rnet) > TABLE * 9 / 10).then_some(()));
        for seed in 0..20 {
            tcp::exchange(&connection, 200_000, seed);
            // A lost segment is repeated, as on any way.
            let new = wait_until("a new connection", SOON, || tcp::connect(&host.client, host.at(8080)).ok());
            tcp::exchange(&new, 10_000, seed);
        }
        assert!(flows(&rnet) > TABLE * 9 / 10, "it is full still");
        is_over.store(true, Ordering::Relaxed);
        let sent = u64::from(flood.join().unwrap());
        assert!(sent > TABLE, "{sent}");
    });
    assert_eq!(rnet.packets_for("source-rate"), 0, "none of the sources opens many");
    tcp::exchange(&connection, 200_000, 99);
}

#[test]
fn a_flood_from_one_source_leaves_room_for_the_others() {
    testbed::require_root!();
    const TABLE: u64 = 4000;
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let _file = start(&rnet, &json!({"max-flows": TABLE, "source-rate": 10}));
    let web = rnet.run("web", &["-p", "5300:53/udp", "-p", "8080:80"]);
    // Answered flows are complete: none of them gives way to others.
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    quota(&host, "web");
    let connection = tcp::connect(&host.client, host.at(8080)).unwrap();
    let socket = udp::connect(&host.client, host.at(5300));
    tcp::exchange(&connection, 1000, 1);
    udp::exchange(&socket, 1000, 1);

    let (link, is_over) = (link(&host), AtomicBool::new(false));
    let datagram = |number: u32| {
        let from = SocketAddrV4::new(forged(1), 1024 + (number % 60_000) as u16);
        packet::udp(link, from, SocketAddrV4::new(HOST, 5300), b"again")
    };
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&host, &is_over, datagram));
        wait_until("the source is held to its rate", SOON, || {
            (rnet.packets_for("source-rate") > 100).then_some(())
        });
        for seed in 0..4 {
            tcp::exchange(&connection, 200_000, seed);
            udp::exchange(&socket, 100_000, seed);
            // Others, few as they are, are within the rate.
            tcp::ask(&host.client, host.at(8080));
            udp::exchange(&udp::connect(&host.client, host.at(5300)), 1000, seed);
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = u64::from(flood.join().unwrap());
        let refused = rnet.packets_for("source-rate");
        assert!(refused > 100 && refused < sent, "{refused} of {sent}");
    });
    assert_eq!(rnet.packets_for("table-full"), 0, "there was room all the while");
    tcp::exchange(&connection, 200_000, 99);
}
