//! What a container claims to be and is not: nobody sees it, and it is counted. And IPv6 of a container whose network
//! has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use testbed::{
    Host, Rnet,
    capture::{self, Capture},
    topology::UPLINK,
    traffic::tcp,
    wait_until,
};

use crate::{
    attack::{self, BROADCAST, MARK},
    policy::{CLIENT, EXPERIMENT, HOST, Peer, create, drops, gateways, pings, run, start},
};

const ALL_NODES: ([u8; 6], Ipv6Addr) = ([0x33, 0x33, 0, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const OTHER_MAC: [u8; 6] = [2, 0x42, 9, 9, 9, 9];
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// A container that lies, its neighbour, and who watches.
pub(crate) struct Stage<'h> {
    pub(crate) host: &'h Host,
    pub(crate) rnet: Rnet<'h>,
    pub(crate) liar: Peer,
    pub(crate) neighbour: Peer,
    pub(crate) gateway_mac: [u8; 6],
}

impl<'h> Stage<'h> {
    pub(crate) fn new(host: &'h Host) -> Self {
        Self::on(host, &[])
    }

    /// On a network that is created with these arguments.
    pub(crate) fn on(host: &'h Host, args: &[&str]) -> Self {
        let rnet = start(host);
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            host.ns.set_sysctl(key, "1");
        }
        create(&rnet, "n1", 88, args);
        let (liar, neighbour) = (run(&rnet, "liar", "n1", &[]), run(&rnet, "neighbour", "n1", &[]));
        Self { gateway_mac: host.ns.mac("n1"), host, rnet, liar, neighbour }
    }

    /// Sends frames from the liar, of which neither neighbour nor uplink may see anything, nor the host's own side of
    /// the bridge.
    fn assert_dropped(&self, reason: &str, frames: &[Vec<u8>]) {
        self.assert_dropped_as(reason, 0, frames);
    }

    /// The same from a socket that says they are of this EtherType.
    pub(crate) fn assert_dropped_as(&self, reason: &str, protocol: u16, frames: &[Vec<u8>]) {
        let (inside, outside) =
            (tcp::echo(&self.neighbour.ns, "[::]:80"), tcp::echo(&self.host.client, "[::]:90"));
        let before = drops(&self.rnet, reason);
        let captures = [
            Capture::start(&self.neighbour.ns, "eth0"),
            Capture::start(&self.host.client, UPLINK),
            Capture::start(&self.host.ns, "n1"),
        ];
        capture::send_as(&self.liar.ns, "eth0", protocol, frames);
        // Behind them, on the same ways.
        tcp::ask(&self.liar.ns, (self.neighbour.addrs[0], 80).into());
        tcp::ask(&self.liar.ns, (CLIENT[0], 90).into());
        assert!(pings(&self.liar.ns, gateways(88)[0]));
        assert!(!inside.peers().is_empty() && !outside.peers().is_empty());
        for capture in captures {
            let seen = capture.stop();
            assert!(!seen.is_empty());
            let leaked: Vec<_> = seen.iter().filter(|f| is_forged(f, frames)).collect();
            assert!(leaked.is_empty(), "{leaked:02x?}");
        }
        assert_eq!(drops(&self.rnet, reason) - before, frames.len() as u64, "{reason}");
    }
}

fn is_forged(frame: &[u8], forged: &[Vec<u8>]) -> bool {
    frame.windows(MARK.len()).any(|part| part == MARK) || forged.iter().any(|f| f[14..] == frame[14..])
}

fn udp(macs: ([u8; 6], [u8; 6]), from: IpAddr, to: IpAddr) -> Vec<u8> {
    attack::udp(macs, from, (to, 4001).into(), MARK)
}

/// An ARP reply (RFC 826) by which `addr` is at `claimed`.
pub(crate) fn arp(from: [u8; 6], to: [u8; 6], claimed: [u8; 6], addr: IpAddr) -> Vec<u8> {
    let IpAddr::V4(addr) = addr else { panic!("{addr} is not resolved by ARP") };
    let addr = addr.octets();
    [&to[..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &claimed, &addr, &to, &addr].concat()
}

fn icmp6(from: ([u8; 6], Ipv6Addr), kind: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.0, ALL_NODES.0)
        .ipv6(from.1.octets(), ALL_NODES.1.octets(), 255)
        .icmpv6_raw(kind, 0, word);
    let mut frame = Vec::new();
    packet.write(&mut frame, body).unwrap();
    frame
}

/// A neighbour advertisement that overrides (RFC 4861 §4.4): `target` is at the sender's.
fn advertisement(from: ([u8; 6], Ipv6Addr), target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else { panic!("{target} is not resolved by neighbour discovery") };
    let body = [&target.octets()[..], &[2, 1], &from.0].concat();
    icmp6(from, NEIGHBOUR_ADVERTISEMENT, [0x20, 0, 0, 0], &body)
}

fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

#[test]
fn addresses_of_others_are_not_sent_from() {
    testbed::require_root!();
    send_from_others(&Stage::new(&Host::new()));
}

pub(crate) fn send_from_others(stage: &Stage<'_>) {
    let (own, gateway) = (stage.liar.mac, stage.gateway_mac);
    let foreign: [IpAddr; 2] =
        [Ipv4Addr::new(198, 51, 100, 7).into(), Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7).into()];
    let mut frames = Vec::new();
    for family in 0..2 {
        let (liar, neighbour) = (stage.liar.addrs[family], stage.neighbour.addrs[family]);
        for from in [neighbour, foreign[family], HOST[family], gateways(88)[family]] {
            frames.push(udp((own, gateway), from, CLIENT[family]));
            frames.push(udp((own, stage.neighbour.mac), from, neighbour));
        }
        // The right address, from a wrong Ethernet address: another's, the gateway's, nobody's.
        for mac in [stage.neighbour.mac, gateway, OTHER_MAC] {
            frames.push(udp((mac, gateway), liar, CLIENT[family]));
            frames.push(udp((mac, stage.neighbour.mac), liar, neighbour));
        }
    }
    stage.assert_dropped("spoofed", &frames);
}

#[test]
fn nobody_answers_for_another_in_arp() {
    testbed::require_root!();
    answer_for_others_in_arp(&Stage::new(&Host::new()));
}

pub(crate) fn answer_for_others_in_arp(stage: &Stage<'_>) {
    let own = stage.liar.mac;
    let mut frames = Vec::new();
    for to in [BROADCAST, stage.neighbour.mac] {
        for addr in [gateways(88)[0], stage.neighbour.addrs[0], CLIENT[0]] {
            frames.push(arp(own, to, own, addr));
        }
        // Its own address, at another's interface: traffic would be sent there.
        frames.push(arp(own, to, stage.neighbour.mac, stage.liar.addrs[0]));
        frames.push(arp(OTHER_MAC, to, OTHER_MAC, stage.liar.addrs[0]));
    }
    stage.assert_dropped("spoofed", &frames);
}

#[test]
fn nobody_answers_for_another_in_neighbour_discovery() {
    testbed::require_root!();
    answer_for_others_in_neighbour_discovery(&Stage::new(&Host::new()));
}

pub(crate) fn answer_for_others_in_neighbour_discovery(stage: &Stage<'_>) {
    let from = (stage.liar.mac, link_local(stage.liar.mac));
    let neighbour = stage.neighbour.addrs[1];
    let mut frames: Vec<_> = [gateways(88)[1], neighbour, CLIENT[1]].map(|a| advertisement(from, a)).into();
    frames.push(advertisement((OTHER_MAC, from.1), stage.liar.addrs[1]));
    stage.assert_dropped("spoofed", &frames);
}

/// A veth reads from the frame what it is.
#[test]
fn what_a_socket_says_of_a_frame_does_not_count() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let (own, gateway) = (stage.liar.mac, stage.gateway_mac);
    let mut frames = Vec::new();
    for family in 0..2 {
        for from in [stage.neighbour.addrs[family], HOST[family]] {
            frames.push(udp((own, gateway), from, CLIENT[family]));
        }
    }
    frames.push(arp(own, BROADCAST, own, gateways(88)[0]));
    stage.assert_dropped_as("spoofed", u16::from_be_bytes(EXPERIMENT), &frames);
}

#[test]
fn no_container_is_a_router() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let from = (stage.liar.mac, link_local(stage.liar.mac));
    // RFC 4861 §4.2: hop limit 64, a lifetime of half an hour, 8 bytes of timers. §4.5: a redirect of the client.
    let advertisement = icmp6(from, 134, [64, 0, 7, 8], &[0; 8]);
    let IpAddr::V6(client) = CLIENT[1] else { panic!("the second is IPv6") };
    let redirect = icmp6(from, 137, [0; 4], &[from.1.octets(), client.octets()].concat());
    stage.assert_dropped("rogue-router", &[advertisement, redirect]);
}

#[test]
fn an_interface_with_more_addresses_has_but_its_own() {
    testbed::require_root!();
    let host = Host::new();
    let stage = Stage::new(&host);
    let Stage { rnet, liar, neighbour, .. } = &stage;
    // The gateways are known: asking for them on behalf of a false address is dropped, too, and takes seconds.
    assert!(gateways(88).iter().all(|gateway| pings(&liar.ns, *gateway)));
    let server = tcp::echo(&host.client, "[::]:90");
    liar.ns.ip("addr add 10.88.0.77/24 dev eth0
                addr add fd00:88::77/64 dev eth0 nodad");
    let uplink = Capture::start(&host.client, UPLINK);
    for (from, to) in ["10.88.0.77", "fd00:88::77"].into_iter().zip(CLIENT) {
        let before = drops(rnet, "spoofed");
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        assert!(tcp::connect_from(&liar.ns, from, (to, 90).into()).is_err(), "{from}");
        assert!(drops(rnet, "spoofed") > before, "{from}");
    }
    assert!(server.peers().is_empty());
    tcp::ask(&liar.ns, (CLIENT[0], 90).into());
    assert!(uplink.has(|t| t.src.ip() == HOST[0]) && !uplink.has(|t| t.src.ip() == liar.addrs[0]));

    liar.ns.ip("link set eth0 address 02:42:09:09:09:09");
    let before = drops(rnet, "spoofed");
    for to in [neighbour.addrs, gateways(88), CLIENT].concat() {
        assert!(liar.ns.output_of("ping", &["-c1", "-W1", &to.to_string()]).is_none(), "{to}");
    }
    assert!(drops(rnet, "spoofed") > before);
}

#[test]
fn a_network_without_ipv6_lets_none_out() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = start(&host);
    host.ns.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let (app, web) = (rnet.run("app", &[]), rnet.run("web", &[]));
    let gateway = host.ns.mac("rnet0");
    let own = app.ns.mac("eth0");
    let uplink = Capture::start(&host.client, UPLINK);
    let neighbour = Capture::start(&web.ns, "eth0");
    // Whoever is root in a container can switch it on.
    app.ns.set_sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
    let mac = gateway.map(|b| format!("{b:02x}")).join(":");
    app.ns.ip(&format!(
        "addr add fd00:99::2/64 dev eth0 nodad
         neigh add fd00:99::1 lladdr {mac} dev eth0 nud permanent
         -6 route add default via fd00:99::1"
    ));
    wait_until("its packets are counted", std::time::Duration::from_secs(20), || {
        assert!(!uplink.has(|t| t.dst.ip() == CLIENT[1] && t.dst.port() == 90));
        let sent = SocketAddr::new(CLIENT[1], 90);
        assert!(tcp::connect(&app.ns, sent).is_err(), "IPv6 gets out");
        (drops(&rnet, "no-ipv6") + drops(&rnet, "spoofed") > 0).then_some(())
    });
    let from = "fd00:99::2".parse().unwrap();
    let before = drops(&rnet, "spoofed") + drops(&rnet, "no-ipv6");
    let frames = [
        udp((own, gateway), from, CLIENT[1]),
        udp((own, gateway), link_local(own).into(), CLIENT[1]),
        udp((own, ALL_NODES.0), link_local(own).into(), ALL_NODES.1.into()),
        udp((own, ALL_NODES.0), from, ALL_NODES.1.into()),
    ];
    capture::send(&app.ns, "eth0", &frames);
    let _servers = (tcp::echo(&host.client, "0.0.0.0:91"), tcp::echo(&web.ns, "0.0.0.0:80"));
    tcp::ask(&app.ns, (CLIENT[0], 91).into());
    tcp::ask(&app.ns, web.at(80));
    assert!(drops(&rnet, "spoofed") + drops(&rnet, "no-ipv6") >= before + 4);
    for capture in [uplink, neighbour] {
        let seen = capture.stop();
        assert!(!seen.iter().any(|f| is_forged(f, &frames)));
        let six = seen.iter().filter(|f| f[12..14] == [0x86, 0xdd] && f[6..12] == own);
        assert_eq!(six.count(), 0, "IPv6 of the container is seen");
    }
}
