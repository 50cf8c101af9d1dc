//! A second opinion: the same packets through a host whose NAT is iptables as Docker sets it up, and through rnet.
//! What client and container see of each is compared, but for what [`KNOWN`] lists.
//!
//! Client and container have no addresses while packets are sent, so that their kernels answer nothing themselves.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Ipv4Header, TcpHeader, icmpv4};
use testbed::{
    Checksums, Host, Netns, Rnet,
    capture::{self, Capture},
    docker,
    packet::{self, Ethernet},
    topology::{CLIENT, HOST, UPLINK},
    traffic::icmp,
    wait_until,
};

/// Protocol, port of the host, port of the container. The last is for [`Site::settle`].
const PORTS: [(&str, u16, u16); 3] = [("tcp", 8080, 80), ("udp", 5300, 53), ("udp", 7, 7)];
/// From here on a port of the host is the free choice of its NAT.
const FREE: u16 = 10_000;
const FLOW: u16 = 20_000;
/// What a kernel tells about its own memberships, whenever it likes.
const IGMP: u8 = 2;

/// A step that is seen differently, and by design. The reasons are in `docs/datapath.md`.
struct Known {
    step: &'static str,
    iptables: &'static [&'static str],
    rnet: &'static [&'static str],
}

const KNOWN: &[Known] = &[];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Container,
}
use Side::{Client, Container};

#[test]
fn iptables_and_rnet_agree_but_for_what_is_listed() {
    testbed::require_root!();
    let theirs = {
        let host = Host::with(Checksums::Finalised);
        let Some(container) = docker::container(&host, &PORTS) else {
            return testbed::skip("no iptables works in a namespace");
        };
        script(Site::new(&host, &container))
    };
    let ours = {
        let host = Host::with(Checksums::Finalised);
        let rnet = Rnet::start(&host);
        let ports: Vec<_> = PORTS.iter().map(|(p, outer, inner)| format!("{outer}:{inner}/{p}")).collect();
        let args: Vec<_> = ports.iter().flat_map(|p| ["-p", p]).collect();
        let web = rnet.run("web", &args);
        assert_eq!(web.addr, docker::CONTAINER);
        script(Site::new(&host, &web.ns))
    };
    eprintln!("DUMP {theirs:#?}");
    let mut report = String::new();
    for (step, theirs) in &theirs {
        let ours = &ours[step];
        let known = KNOWN.iter().find(|k| k.step == *step);
        let (want_theirs, want_ours) = known.map_or_else(
            || (theirs.clone(), theirs.clone()),
            |k| (k.iptables.iter().map(ToString::to_string).collect(), k.rnet.iter().map(ToString::to_string).collect()),
        );
        if *theirs != want_theirs || *ours != want_ours {
            let _ = writeln!(report, "{step}\n  iptables: {theirs:#?}\n  rnet: {ours:#?}");
        }
    }
    assert!(report.is_empty(), "seen differently, or not as listed:\n{report}");
    let listed = include_str!("../../docs/datapath.md");
    for Known { step, iptables, rnet } in KNOWN {
        assert!(theirs.contains_key(step), "no step is called {step:?}");
        assert_ne!(iptables, rnet, "{step}");
        assert!(listed.contains(&format!("| {step} |")), "docs/datapath.md does not explain {step:?}");
    }
}

/// What was seen after each step, by its name.
type Seen = BTreeMap<&'static str, Vec<String>>;

fn script(mut site: Site<'_>) -> Seen {
    published_tcp(&mut site);
    published_udp(&mut site);
    masqueraded_tcp(&mut site);
    masqueraded_udp(&mut site);
    masqueraded_ping(&mut site);
    errors(&mut site);
    hops(&mut site);
    hairpin(&mut site);
    strays(&mut site);
    site.seen
}

fn published_tcp(site: &mut Site<'_>) {
    let (from, to) = (client(40_000), HOST_TCP);
    let (inner, back) = (container(80), client(40_000));
    site.tcp("published tcp: syn", Client, from, to, "S", (100, 0), b"");
    site.tcp("published tcp: syn-ack", Container, inner, back, "SA", (500, 101), b"");
    site.tcp("published tcp: ack", Client, from, to, "A", (101, 501), b"");
    site.tcp("published tcp: request", Client, from, to, "PA", (101, 501), b"request");
    site.tcp("published tcp: response", Container, inner, back, "PA", (501, 108), b"response");
    site.tcp("published tcp: client's fin", Client, from, to, "FA", (108, 509), b"");
    site.tcp("published tcp: container's fin", Container, inner, back, "FA", (509, 109), b"");
    site.tcp("published tcp: last ack", Client, from, to, "A", (109, 510), b"");
    site.tcp("published tcp: ack again", Client, from, to, "A", (109, 510), b"");
    let (from, back) = (client(40_001), client(40_001));
    site.tcp("published tcp: syn to be reset", Client, from, to, "S", (100, 0), b"");
    site.tcp("published tcp: reset", Container, inner, back, "RA", (0, 101), b"");
    site.tcp("published tcp: late data from client", Client, from, to, "PA", (101, 1), b"late");
    site.tcp("published tcp: late data from container", Container, inner, back, "PA", (1, 101), b"late");
}

fn published_udp(site: &mut Site<'_>) {
    site.udp("published udp: request", Client, client(40_000), HOST_UDP, b"request");
    site.udp("published udp: response", Container, container(53), client(40_000), b"response");
    site.udp("published udp: second request", Client, client(40_000), HOST_UDP, b"");
    site.udp("unpublished udp", Client, client(40_000), SocketAddrV4::new(HOST, 5301), b"anybody");
}

fn masqueraded_tcp(site: &mut Site<'_>) {
    let (from, to) = (container(FLOW), client(9000));
    site.tcp("masqueraded tcp: syn", Container, from, to, "S", (100, 0), b"");
    let nat = site.nat();
    site.tcp("masqueraded tcp: syn-ack", Client, to, nat, "SA", (500, 101), b"");
    site.tcp("masqueraded tcp: ack", Container, from, to, "A", (101, 501), b"");
    site.tcp("masqueraded tcp: data", Container, from, to, "PA", (101, 501), b"data");
    site.tcp("masqueraded tcp: answer", Client, to, nat, "PA", (501, 105), b"answer");
    site.tcp("masqueraded tcp: reset", Client, to, nat, "R", (507, 0), b"");
    site.tcp("masqueraded tcp: late data from outside", Client, to, nat, "PA", (507, 105), b"late");
    site.tcp("masqueraded tcp: late data from container", Container, from, to, "PA", (105, 507), b"late");
}

fn masqueraded_udp(site: &mut Site<'_>) {
    site.udp("masqueraded udp: request", Container, container(FLOW), client(9000), b"request");
    let nat = site.nat();
    site.udp("masqueraded udp: answer", Client, client(9000), nat, b"answer");
    site.udp("masqueraded udp: from another port", Client, client(9001), nat, b"unasked");
}

fn masqueraded_ping(site: &mut Site<'_>) {
    let ping = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: FLOW, seq: 1 });
    site.icmp("ping", Container, docker::CONTAINER, CLIENT, ping, b"payload");
    let id = site.nat().port();
    let pong = |id| Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq: 1 });
    site.icmp("ping: reply", Client, CLIENT, HOST, pong(id), b"payload");
    site.icmp("ping: reply of another id", Client, CLIENT, HOST, pong(id + 1), b"payload");
    site.icmp("ping: reply that nobody asked for", Container, docker::CONTAINER, CLIENT, pong(9), b"payload");
}

fn errors(site: &mut Site<'_>) {
    use icmpv4::{DestUnreachableHeader as Unreachable, TimeExceededCode};
    let kinds = || {
        [
            Icmpv4Type::DestinationUnreachable(Unreachable::Port),
            Icmpv4Type::DestinationUnreachable(Unreachable::FragmentationNeeded { next_hop_mtu: 1200 }),
            Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        ]
    };
    site.udp("errors: udp outwards", Container, container(FLOW + 1), client(9002), b"a payload to be quoted");
    let quote = site.last(Client);
    let names = ["errors: port unreachable", "errors: fragmentation needed", "errors: time exceeded"];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Client, CLIENT, HOST, kind, &quote);
    }
    let router = Ipv4Addr::new(10, 202, 0, 1);
    let [.., exceeded] = kinds();
    site.icmp("errors: time exceeded from a router", Client, router, HOST, exceeded, &quote[..28]);
    site.tcp("errors: tcp outwards", Container, container(FLOW + 1), client(9002), "S", (1, 0), b"");
    let quote = site.last(Client);
    let names = ["errors: port unreachable, tcp", "errors: fragmentation needed, tcp", "errors: time exceeded, tcp"];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Client, CLIENT, HOST, kind, &quote[..28]);
    }
    site.udp("errors: udp inwards", Client, client(40_100), HOST_UDP, b"a payload to be quoted");
    let quote = site.last(Container);
    let names = ["errors: container's port unreachable", "errors: container's fragmentation needed", "errors: container's time exceeded"];
    for (name, kind) in names.into_iter().zip(kinds()) {
        site.icmp(name, Container, docker::CONTAINER, CLIENT, kind, &quote);
    }
    let mut unknown = quote;
    // The port that the client sent from.
    unknown[20..22].copy_from_slice(&999_u16.to_be_bytes());
    let [unreachable, ..] = kinds();
    site.icmp("errors: container's, about no flow", Container, docker::CONTAINER, CLIENT, unreachable, &unknown);
}

fn hops(site: &mut Site<'_>) {
    let inwards = ["hops: ttl 1 inwards", "hops: ttl 2 inwards"];
    let outwards = ["hops: ttl 1 outwards", "hops: ttl 2 outwards"];
    for (ttl, (inwards, outwards)) in (1..).zip(inwards.into_iter().zip(outwards)) {
        let link = site.link(Client);
        site.step(inwards, Client, with_ttl(packet::udp(link, client(40_200), HOST_UDP, b"probe"), ttl));
        let link = site.link(Container);
        let probe = packet::udp(link, container(FLOW + 2), client(33_434), b"probe");
        site.step(outwards, Container, with_ttl(probe, ttl));
    }
}

/// A container to its own published port: it is asked by the host, from a port of the host's choice.
fn hairpin(site: &mut Site<'_>) {
    let (from, to, own) = (container(FLOW + 3), HOST_TCP, container(80));
    site.tcp("hairpin: syn", Container, from, to, "S", (100, 0), b"");
    let asker = site.sender(Container);
    site.tcp("hairpin: syn-ack", Container, own, asker, "SA", (500, 101), b"");
    site.tcp("hairpin: data", Container, from, to, "PA", (101, 501), b"data");
    site.tcp("hairpin: reset", Container, own, asker, "RA", (501, 105), b"");
}

fn strays(site: &mut Site<'_>) {
    let flags = ["A", "R", "FA", "SA"];
    let inwards = ["stray ack to a published port", "stray reset to a published port", "stray fin to a published port", "stray syn-ack to a published port"];
    let outwards = ["stray ack outwards", "stray reset outwards", "stray fin outwards", "stray syn-ack outwards"];
    // A port for each: what one leaves behind must not change what becomes of the next.
    for (n, (flags, (inwards, outwards))) in (0..).zip(flags.into_iter().zip(inwards.into_iter().zip(outwards))) {
        site.tcp(inwards, Client, client(40_300 + n), HOST_TCP, flags, (7, 9), b"");
        site.tcp(outwards, Container, container(FLOW + 10 + n), client(9003), flags, (7, 9), b"");
    }
}

const HOST_TCP: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const HOST_UDP: SocketAddrV4 = SocketAddrV4::new(HOST, 5300);

fn client(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(CLIENT, port)
}

fn container(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(docker::CONTAINER, port)
}

/// A host with a container, to which packets are fed one by one.
struct Site<'h> {
    ends: [(&'h Netns, &'static str, Ethernet); 2],
    captures: [Capture; 2],
    /// How many frames of each capture were looked at.
    looked: [usize; 2],
    last: [Vec<u8>; 2],
    markers: u32,
    seen: Seen,
}

impl<'h> Site<'h> {
    fn new(host: &'h Host, inside: &'h Netns) -> Self {
        // On one processor packets stay in the order they were sent in.
        let mut first = nix::sched::CpuSet::new();
        first.set(0).unwrap();
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first).unwrap();
        host.ns.set_sysctl("net/ipv4/icmp_ratelimit", "0");
        icmp::ping(inside, GATEWAY).expect("the gateway answers");
        let outer = Ethernet { src: host.client.mac(UPLINK), dst: host.ns.mac(UPLINK) };
        let inner = Ethernet { src: inside.mac("eth0"), dst: neighbour(inside, GATEWAY) };
        let route = host.ns.output_of("ip", &["route", "get", &docker::CONTAINER.to_string()]).unwrap();
        let bridge = route.split_whitespace().skip_while(|w| *w != "dev").nth(1).unwrap();
        host.ns.ip(&format!(
            "neigh replace {CLIENT} dev {UPLINK} lladdr {} nud permanent
             neigh replace {} dev {bridge} lladdr {} nud permanent",
            colons(outer.src),
            docker::CONTAINER,
            colons(inner.src)
        ));
        host.client.ip(&format!("addr flush dev {UPLINK}"));
        inside.ip("addr flush dev eth0");
        Self {
            ends: [(&host.client, UPLINK, outer), (inside, "eth0", inner)],
            captures: [Capture::start(&host.client, UPLINK), Capture::start(inside, "eth0")],
            looked: [0; 2],
            last: [Vec::new(), Vec::new()],
            markers: 0,
            seen: Seen::new(),
        }
    }

    fn link(&self, side: Side) -> Ethernet {
        self.ends[side as usize].2
    }

    fn tcp(&mut self, step: &'static str, by: Side, src: SocketAddrV4, dst: SocketAddrV4, flags: &str, (seq, ack): (u32, u32), payload: &[u8]) {
        let is = |f| flags.contains(f);
        let header = TcpHeader {
            syn: is('S'), ack: is('A'), fin: is('F'), rst: is('R'), psh: is('P'),
            acknowledgment_number: ack,
            ..TcpHeader::new(0, 0, seq, 64_000)
        };
        self.step(step, by, packet::tcp(self.link(by), src, dst, header, payload));
    }

    fn udp(&mut self, step: &'static str, by: Side, src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) {
        self.step(step, by, packet::udp(self.link(by), src, dst, payload));
    }

    fn icmp(&mut self, step: &'static str, by: Side, src: Ipv4Addr, dst: Ipv4Addr, message: Icmpv4Type, payload: &[u8]) {
        self.step(step, by, packet::icmp(self.link(by), src, dst, message, payload));
    }

    /// Sends a frame, and notes what both ends received until everything that came of it is there.
    fn step(&mut self, step: &'static str, by: Side, frame: Vec<u8>) {
        self.settle();
        self.look();
        self.send(by, frame);
        self.settle();
        let seen = self.look();
        assert!(self.seen.insert(step, seen).is_none(), "two steps are called {step:?}");
    }

    fn send(&self, by: Side, frame: Vec<u8>) {
        let (ns, interface, _) = self.ends[by as usize];
        capture::send(ns, interface, &[frame]);
    }

    /// A datagram to the container and one back, behind all others.
    fn settle(&mut self) {
        self.markers += 1;
        let payload = format!("marker {:08}", self.markers).into_bytes();
        let there = packet::udp(self.link(Client), client(7000), SocketAddrV4::new(HOST, 7), &payload);
        self.send(Client, there);
        self.arrived(Container, &payload);
        let back = packet::udp(self.link(Container), container(7), client(7000), &payload);
        self.send(Container, back);
        self.arrived(Client, &payload);
    }

    fn arrived(&self, at: Side, payload: &[u8]) {
        let (capture, own) = (&self.captures[at as usize], self.link(at).src);
        wait_until(&format!("a marker is seen by {at:?}"), Duration::from_secs(10), || {
            capture.frames().iter().any(|f| f[6..12] != own && f.ends_with(payload)).then_some(())
        });
    }

    /// What both ends received since the last look.
    fn look(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for side in [Client, Container] {
            let frames = self.captures[side as usize].frames();
            let new = &frames[self.looked[side as usize]..];
            self.looked[side as usize] = frames.len();
            let own = self.link(side).src;
            for frame in new.iter().filter(|f| f[6..12] != own && f[12..14] == [8, 0] && !is_marker(f) && f[23] != IGMP) {
                packet::verify_checksums(frame).unwrap();
                lines.push(format!("{side:?}: {}", show(&frame[14..])));
                self.last[side as usize] = frame[14..].to_vec();
            }
        }
        lines
    }

    /// The last IP packet that an end received.
    fn last(&self, side: Side) -> Vec<u8> {
        self.last[side as usize].clone()
    }

    /// Where the client's last packet came from: what masquerading chose.
    fn nat(&self) -> SocketAddrV4 {
        let nat = self.sender(Client);
        assert_eq!(*nat.ip(), HOST, "{}", show(&self.last(Client)));
        nat
    }

    /// Where the last packet came from; the identifier of an echo request for its port.
    fn sender(&self, side: Side) -> SocketAddrV4 {
        let packet = &self.last[side as usize];
        let at = if packet[9] == 1 { 24 } else { 20 };
        SocketAddrV4::new(address(packet, 12), u16::from_be_bytes([packet[at], packet[at + 1]]))
    }
}

fn is_marker(frame: &[u8]) -> bool {
    frame.len() >= 15 && frame[frame.len() - 15..].starts_with(b"marker ")
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|o| format!("{o:02x}")).join(":")
}

fn neighbour(ns: &Netns, addr: Ipv4Addr) -> [u8; 6] {
    let line = ns.output_of("ip", &["neigh", "show", &addr.to_string()]).unwrap();
    let mac = line.split_whitespace().skip_while(|w| *w != "lladdr").nth(1).unwrap();
    let octets: Vec<_> = mac.split(':').map(|o| u8::from_str_radix(o, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    let mut header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.time_to_live = ttl;
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
    frame
}

/// An IPv4 packet without options, or the beginning of one, in words: all but identification and checksums.
fn show(packet: &[u8]) -> String {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (src, dst) = (address(packet, 12), address(packet, 16));
    let port = |addr: Ipv4Addr, port: u16| if [HOST, GATEWAY].contains(&addr) && port >= FREE { "free".to_owned() } else { port.to_string() };
    let mut line = format!("ttl {} tos {} fragment {:x} ", packet[8], packet[1], word(6));
    let body = &packet[20..];
    match (packet[9], body[0]) {
        (1, kind @ (0 | 8)) => {
            let id = port(if kind == 8 { src } else { dst }, word(24));
            let _ = write!(line, "{src} > {dst} icmp {kind} id {id} seq {} {:?}", word(26), text(&body[8..]));
        }
        (1, kind) => {
            let _ = write!(line, "{src} > {dst} icmp {kind}/{} {} [{}]", body[1], word(26), show(&body[8..]));
        }
        (protocol, _) => {
            let ends = format!("{src}:{} > {dst}:{}", port(src, word(20)), port(dst, word(22)));
            let rest = if protocol == 17 { &body[8..] } else { &body[8.min(body.len())..] };
            let _ = match rest {
                [a, b, c, d, offset, flags, _, _, _, _, _, _, payload @ ..] if protocol == 6 => {
                    let seq = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
                    let ack = u32::from_be_bytes([*a, *b, *c, *d]);
                    write!(line, "tcp {ends} {offset:x}/{flags:02x} seq {seq} ack {ack} {:?}", text(payload))
                }
                rest => write!(line, "protocol {protocol} {ends} {:?}", text(rest)),
            };
        }
    }
    line
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
