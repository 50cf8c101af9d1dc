//! A host with a container between two ends that only send what they are given.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use etherparse::{Icmpv4Type, TcpHeader};
use testbed::{
    Host, Netns,
    capture::{self, Capture},
    docker,
    packet::{self, Ethernet},
    topology::{CLIENT, HOST, UPLINK},
    traffic::icmp,
    wait_until,
};

use Side::{Client, Container};

/// From here on a port of the host is the free choice of its NAT.
const FREE: u16 = 10_000;
/// What a kernel tells about its own memberships, whenever it likes.
const IGMP: u8 = 2;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Container,
}

/// What was seen after each step, by its name.
pub(super) type Seen = BTreeMap<&'static str, Vec<String>>;

pub(super) fn client(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(CLIENT, port)
}

pub(super) fn container(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(docker::CONTAINER, port)
}

/// A host with a container, to which packets are fed one by one.
pub(super) struct Site<'h> {
    ends: [(&'h Netns, &'static str, Ethernet); 2],
    captures: [Capture; 2],
    /// How many frames of each capture were looked at.
    looked: [usize; 2],
    last: [Vec<u8>; 2],
    markers: u32,
    pub(super) seen: Seen,
}

impl<'h> Site<'h> {
    pub(super) fn new(host: &'h Host, inside: &'h Netns) -> Self {
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

    pub(super) fn link(&self, side: Side) -> Ethernet {
        self.ends[side as usize].2
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a step of the script is one line, and all of these differ"
    )]
    pub(super) fn tcp(
        &mut self,
        step: &'static str,
        by: Side,
        src: SocketAddrV4,
        dst: SocketAddrV4,
        flags: &str,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) {
        let is = |f| flags.contains(f);
        let header = TcpHeader {
            syn: is('S'),
            ack: is('A'),
            fin: is('F'),
            rst: is('R'),
            psh: is('P'),
            acknowledgment_number: ack,
            ..TcpHeader::new(0, 0, seq, 64_000)
        };
        self.step(step, by, packet::tcp(self.link(by), src, dst, header, payload));
    }

    pub(super) fn udp(
        &mut self,
        step: &'static str,
        by: Side,
        src: SocketAddrV4,
        dst: SocketAddrV4,
        payload: &[u8],
    ) {
        self.step(step, by, packet::udp(self.link(by), src, dst, payload));
    }

    pub(super) fn icmp(
        &mut self,
        step: &'static str,
        by: Side,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        message: Icmpv4Type,
        payload: &[u8],
    ) {
        self.step(step, by, packet::icmp(self.link(by), src, dst, message, payload));
    }

    /// Sends a frame, and notes what both ends received until everything that came of it is there.
    pub(super) fn step(&mut self, step: &'static str, by: Side, frame: Vec<u8>) {
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
            for frame in new
                .iter()
                .filter(|f| f[6..12] != own && f[12..14] == [8, 0] && !is_marker(f) && f[23] != IGMP)
            {
                packet::verify_checksums(frame).unwrap();
                lines.push(format!("{side:?}: {}", show(&frame[14..])));
                self.last[side as usize] = frame[14..].to_vec();
            }
        }
        lines
    }

    /// The last IP packet that an end received.
    pub(super) fn last(&self, side: Side) -> Vec<u8> {
        self.last[side as usize].clone()
    }

    /// Where the client's last packet came from: what masquerading chose.
    pub(super) fn nat(&self) -> SocketAddrV4 {
        let nat = self.sender(Client);
        assert_eq!(*nat.ip(), HOST, "{}", show(&self.last(Client)));
        nat
    }

    /// Where the last packet came from; the identifier of an echo request for its port.
    pub(super) fn sender(&self, side: Side) -> SocketAddrV4 {
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

/// An IPv4 packet without options, or the beginning of one, in words: all but identification and checksums.
fn show(packet: &[u8]) -> String {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (src, dst) = (address(packet, 12), address(packet, 16));
    let port = |addr: Ipv4Addr, port: u16| {
        if [HOST, GATEWAY].contains(&addr) && port >= FREE { "free".to_owned() } else { port.to_string() }
    };
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
            let ends = if protocol == 17 && word(26) == 0 { ends + " no checksum" } else { ends };
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
