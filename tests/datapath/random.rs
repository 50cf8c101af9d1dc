//! Packets at random: whatever comes out has right checksums and its payload, and what is not carried is as it was.

use std::{
    env,
    net::{Ipv4Addr, Ipv6Addr},
};

use etherparse::PacketBuilder;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use testbed::packet::{Ethernet, verify_checksums};

use crate::{
    frames::{Kind, Way, frame},
    lab::{Container, From, HOST, HOST6, Lab, REDIRECT},
};

/// Packets of each test; more when `RNET_RANDOM_PACKETS` says so.
const PACKETS: usize = 20_000;

pub(crate) fn packets() -> usize {
    env::var("RNET_RANDOM_PACKETS").map_or(PACKETS, |packets| packets.parse().unwrap())
}

/// A source of packets, whose seed is printed.
pub(crate) struct Source {
    pub(crate) random: StdRng,
    pub(crate) seed: u64,
    /// What payloads are shorter than, in bytes.
    pub(crate) longest: usize,
}

impl Source {
    #[expect(clippy::print_stdout, reason = "a failed test shows how to repeat it")]
    pub(crate) fn new() -> Self {
        let seed = env::var("RNET_RANDOM_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        println!("RNET_RANDOM_SEED={seed}");
        Self { random: StdRng::seed_from_u64(seed), seed, longest: 1400 }
    }

    fn payload(&mut self) -> Vec<u8> {
        (0..self.random.random_range(0..self.longest)).map(|_| self.random.random()).collect()
    }

    /// A port, often one of a few so that flows meet.
    fn port(&mut self) -> u16 {
        if self.random.random() {
            self.random.random_range(5000..5010)
        } else {
            self.random.random_range(1..=u16::MAX)
        }
    }

    /// A packet with right checksums from the client or a container, with its way in.
    pub(crate) fn packet(&mut self, lab: &Lab) -> (From, Vec<u8>) {
        let payload = self.payload();
        let from = self.random.random_range(0..3);
        let (container, (sport, dport)) = match from {
            2 => (lab.app, (self.port(), self.port())),
            _ => (lab.web, (self.port(), self.port())),
        };
        let (way_in, link) = match from {
            0 => (From::Uplink, lab.client_link()),
            _ => (container.from(), container.to_gateway()),
        };
        let dport = if from == 0 && self.random.random_ratio(3, 4) { 8080 } else { dport };
        let frame = if self.random.random() {
            let remote = Ipv4Addr::from(self.random.random_range(0x0b00_0000..0x0b00_0400u32));
            let (src, dst) = if from == 0 { (remote, HOST) } else { (container.addr, remote) };
            self.packet4(Way { link, src: (src, sport), dst: (dst, dport) }, payload)
        } else {
            let remote = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, self.random.random_range(0..0x400));
            let (src, dst) = if from == 0 { (remote, HOST6) } else { (container.addr6(), remote) };
            self.packet6(link, (src, sport), (dst, dport), &payload)
        };
        (way_in, frame)
    }

    /// One from the client.
    pub(crate) fn packet_from_outside(&mut self, lab: &Lab) -> Vec<u8> {
        loop {
            if let (From::Uplink, packet) = self.packet(lab) {
                return packet;
            }
        }
    }

    fn packet4(&mut self, way: Way, payload: Vec<u8>) -> Vec<u8> {
        let kind = match self.random.random_range(0..4) {
            0 => Kind::Tcp(Box::new(testbed::packet::syn(self.random.random())), payload),
            1 => {
                let mut header = testbed::packet::syn(self.random.random());
                (header.syn, header.ack, header.fin) = (false, self.random.random(), self.random.random());
                Kind::Tcp(Box::new(header), payload)
            }
            2 => Kind::Udp(payload),
            _ => Kind::Ping,
        };
        frame(way, &kind)
    }

    /// Changes bytes of the headers.
    pub(crate) fn spoil(&mut self, packet: &mut [u8]) {
        for _ in 0..self.random.random_range(1..4) {
            let at = self.random.random_range(14..packet.len().min(74));
            packet[at] = self.random.random();
        }
    }

    fn packet6(
        &mut self,
        link: Ethernet,
        src: (Ipv6Addr, u16),
        dst: (Ipv6Addr, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2(link.src, link.dst).ipv6(src.0.octets(), dst.0.octets(), 64);
        let mut frame = Vec::new();
        if self.random.random() {
            ip.udp(src.1, dst.1).write(&mut frame, payload).unwrap();
        } else {
            let tcp = ip.tcp(src.1, dst.1, self.random.random(), 4096);
            let tcp = if self.random.random_ratio(2, 3) { tcp.syn() } else { tcp.ack(1) };
            tcp.write(&mut frame, payload).unwrap();
        }
        frame
    }
}

pub(crate) fn lab() -> Lab {
    let mut lab = Lab::new();
    let Container { addr, .. } = lab.web;
    for proto in [6, 17] {
        lab.publish(Ipv4Addr::UNSPECIFIED, 8080, proto, addr, 80);
        lab.publish6(8080, proto, lab.web.addr6(), 80);
    }
    lab
}

#[test]
fn what_is_carried_has_right_checksums_and_its_payload() {
    testbed::require_root!();
    let (lab, mut source) = (lab(), Source::new());
    let mut carried = 0;
    let packets = packets();
    for n in 0..packets {
        let (from, packet) = source.packet(&lab);
        let outcome = lab.run(from, &packet);
        let seed = source.seed;
        if outcome.action == REDIRECT {
            carried += 1;
            verify_checksums(&outcome.frame).unwrap_or_else(|e| panic!("seed {seed}, packet {n}: {e}"));
            assert_eq!(outcome.frame.len(), packet.len(), "seed {seed}, packet {n}");
            // Behind the longest headers: Ethernet, IPv6 and TCP without options.
            let payload = 74.min(packet.len());
            assert_eq!(outcome.frame[payload..], packet[payload..], "seed {seed}, packet {n}");
        } else {
            assert_eq!(outcome.frame, packet, "seed {seed}, packet {n}");
        }
    }
    println!("{carried} of {packets} carried");
    assert!(carried > packets / 3, "{carried} of {packets}");
}

/// Packets with bytes of their headers changed at random, and cut short.
#[test]
fn broken_packets_are_carried_whole_or_left_alone() {
    testbed::require_root!();
    let (lab, mut source) = (lab(), Source::new());
    let packets = packets();
    for n in 0..packets {
        let (from, mut packet) = source.packet(&lab);
        source.spoil(&mut packet);
        if source.random.random_ratio(1, 4) {
            // The kernel runs no program on less than an IP header.
            let least = if packet[12..14] == [0x86, 0xdd] { 54 } else { 34 };
            packet.truncate(source.random.random_range(least..=packet.len()));
        }
        let seed = source.seed;
        let outcome = lab.run(from, &packet);
        if outcome.action != REDIRECT {
            assert_eq!(outcome.frame, packet, "seed {seed}, packet {n}");
        } else if outcome.frame.len() == packet.len() {
            let headers = 200.min(packet.len());
            assert_eq!(outcome.frame[headers..], packet[headers..], "seed {seed}, packet {n}");
        } else {
            // An answer to one that could not be delivered.
            verify_checksums(&outcome.frame).unwrap_or_else(|e| panic!("seed {seed}, packet {n}: {e}"));
        }
    }
}
