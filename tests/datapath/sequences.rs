//! Packets at random one after the other over one state, with ports published and withdrawn between them: what each
//! program may do with a packet, whatever came before it.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use etherparse::PacketBuilder;
use rand::{Rng as _, seq::IndexedRandom as _};
use rnet_common::{Be16, EndpointFlags, Ip4, PortKey, Program, Reason};
use testbed::packet::{Ethernet, TTL, Tuple, tuple, verify_checksums};

use crate::{
    lab::{Container, From, HOST, HOST6, Lab, Outcome, REDIRECT, SHOT, UNSPEC},
    random::{Source, packets},
    stack,
};

const PORT: u16 = 8080;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Flows that are gone back to; few, so that none is idle for long.
const REMEMBERED: usize = 64;

/// A packet that was carried, and what it had become.
#[derive(Clone, Copy, Debug)]
struct Carried {
    sent: Tuple,
    came: Tuple,
    /// It came from outside; else from a container.
    inward: bool,
}

struct Sequence {
    lab: Lab,
    source: Source,
    flows: VecDeque<Carried>,
    /// Who has the port, by protocol; of IPv6 it is always `web`.
    published: [Option<Container>; 2],
    /// Packets that each program has been given.
    given: [u64; Program::ALL.len()],
    /// The first network is delivered via the stack.
    via_stack: bool,
}

fn protocol(proto: u8) -> usize {
    usize::from(proto == UDP)
}

/// Whether an address is a container's own.
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_private(),
        IpAddr::V6(addr) => addr.is_unique_local(),
    }
}

/// A packet with right checksums.
fn build(link: Ethernet, proto: u8, (src, dst): (SocketAddr, SocketAddr), syn: bool, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(link.src, link.dst);
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), TTL),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), TTL),
        mixed => panic!("{mixed:?}"),
    };
    let mut frame = Vec::new();
    if proto == UDP {
        ip.udp(src.port(), dst.port()).write(&mut frame, data).unwrap();
    } else {
        let tcp = ip.tcp(src.port(), dst.port(), 7, 4096);
        let tcp = if syn { tcp.syn() } else { tcp.ack(8) };
        tcp.write(&mut frame, data).unwrap();
    }
    frame
}

impl Sequence {
    fn new(via_stack: bool) -> Self {
        let mut lab = if via_stack { stack::lab() } else { Lab::new() };
        for proto in [TCP, UDP] {
            lab.publish(Ipv4Addr::UNSPECIFIED, PORT, proto, lab.web.addr, 80);
            lab.publish6(PORT, proto, lab.web.addr6(), 80);
        }
        let published = [Some(lab.web); 2];
        Self {
            lab,
            source: Source::new(),
            flows: VecDeque::new(),
            published,
            given: [0; Program::ALL.len()],
            via_stack,
        }
    }

    /// Whether a frame is from an address of a container of the first network.
    fn is_own(&self, frame: &[u8]) -> bool {
        let own = [self.lab.web, self.lab.app].map(|c| [IpAddr::from(c.addr), IpAddr::from(c.addr6())]);
        tuple(frame).is_some_and(|tuple| own.iter().flatten().any(|addr| *addr == tuple.src.ip()))
    }

    /// Runs a packet, and holds the outcome to what is true of every packet.
    fn run(&mut self, from: From, frame: &[u8]) -> Outcome {
        let program = from.program();
        self.given[program as usize] += 1;
        let outcome = self.lab.run(from, frame);
        let is_right = verify_checksums(frame).is_ok();
        let is_same_length = outcome.frame.len() == frame.len();
        if matches!(program, Program::FromBridge | Program::ToBridge) || outcome.action == SHOT {
            assert_eq!(outcome.frame, frame, "{program:?} changes what it does not carry");
        } else if is_right || !is_same_length {
            // The answer to a broken packet, too, is right.
            verify_checksums(&outcome.frame).unwrap();
        }
        if program == Program::FromContainer && outcome.action == UNSPEC {
            assert_eq!(outcome.frame, frame, "left to the host by {program:?}");
        }
        // What is put back into the queue is as it came; what leaves is not.
        let leaves = match program {
            Program::FromContainer => outcome.action == REDIRECT && outcome.frame != frame && is_same_length,
            // Of others than containers delivered via the stack, it knows nothing: they never come this way.
            Program::ToUplink => self.via_stack && outcome.action != SHOT && self.is_own(&outcome.frame),
            Program::FromUplink | Program::XdpUplink | Program::FromBridge | Program::ToBridge => false,
        };
        if leaves && let Some(Tuple { src, dst, .. }) = tuple(&outcome.frame) {
            let stays_inside = is_private(dst.ip());
            assert!(stays_inside || !is_private(src.ip()), "{src} leaves for {dst}");
        }
        outcome
    }

    /// Runs a packet that was built right, and remembers it if it was carried.
    fn send(&mut self, from: From, frame: &[u8], payload: usize) -> Option<Carried> {
        let outcome = self.run(from, frame);
        let carried = outcome.action == REDIRECT;
        assert_eq!(outcome.frame.len(), frame.len());
        let data = frame.len() - payload;
        assert_eq!(outcome.frame[data..], frame[data..], "the payload");
        let (sent, came) = (tuple(frame)?, tuple(&outcome.frame)?);
        assert_eq!(sent.protocol, came.protocol);
        let inward = matches!(from, From::Uplink);
        if !carried {
            assert_eq!(outcome.frame, frame);
            return None;
        }
        let carried = Carried { sent, came, inward };
        let to_port = sent.dst.port() == PORT && [HOST.into(), HOST6.into()].contains(&sent.dst.ip());
        if inward && to_port && sent.dst.is_ipv4() {
            let has_it =
                self.published[protocol(sent.protocol)].map(|container| IpAddr::from(container.addr));
            assert_eq!(Some(came.dst.ip()), has_it, "{sent} has become {came}");
        }
        if !inward && came.src == SocketAddr::new(HOST.into(), PORT) {
            let has_it = self.published[protocol(sent.protocol)].map(|container| container.addr);
            assert_eq!(Some(sent.src.ip()), has_it.map(IpAddr::from), "{sent} has become {came}");
        }
        Some(carried)
    }

    fn open(&mut self) {
        let random = &mut self.source.random;
        let (proto, inward, v6) =
            (if random.random() { TCP } else { UDP }, random.random(), random.random_ratio(1, 3));
        let container = if v6 || random.random() { self.lab.web } else { self.lab.app };
        let remote: IpAddr = match v6 {
            false => Ipv4Addr::from(random.random_range(0x0b00_0000..0x0b00_0010u32)).into(),
            true => format!("2a00::{:x}", random.random_range(1..16u16)).parse().unwrap(),
        };
        let (far, near) = (random.random_range(40_000..40_100u16), random.random_range(5000..5100u16));
        let data: Vec<u8> = (0..random.random_range(0..64usize)).map(|_| random.random()).collect();
        let own: IpAddr = if v6 { container.addr6().into() } else { container.addr.into() };
        let host: IpAddr = if v6 { HOST6.into() } else { HOST.into() };
        let (from, link, ends) = match inward {
            true => (From::Uplink, self.lab.client_link(), ((remote, far), (host, PORT))),
            false => (container.from(), container.to_gateway(), ((own, near), (remote, 443))),
        };
        let frame = build(link, proto, (ends.0.into(), ends.1.into()), true, &data);
        if let Some(carried) = self.send(from, &frame, data.len()) {
            self.flows.push_back(carried);
            if self.flows.len() > REMEMBERED {
                self.flows.pop_front();
            }
        }
    }

    /// The other end answers, and whoever opened gets the answer from where it sent to.
    fn reply(&mut self) {
        let Some(index) =
            (!self.flows.is_empty()).then(|| self.source.random.random_range(0..self.flows.len()))
        else {
            return;
        };
        let Carried { sent, came, inward } = self.flows[index];
        let owner = [self.lab.web, self.lab.app].into_iter().find(|c| {
            let inside = if inward { came.dst.ip() } else { sent.src.ip() };
            inside == IpAddr::from(c.addr) || inside == IpAddr::from(c.addr6())
        });
        let owner = owner.unwrap();
        let (from, link) = match inward {
            true => (owner.from(), owner.to_gateway()),
            false => (From::Uplink, self.lab.client_link()),
        };
        let frame = build(link, came.protocol, (came.dst, came.src), false, b"answer");
        let back = self.send(from, &frame, 6);
        let back = back.unwrap_or_else(|| panic!("no way back for {came}, which was {sent}"));
        assert_eq!(
            (back.came.src, back.came.dst),
            (sent.dst, sent.src),
            "the way back of {sent}, which is {came}"
        );
    }

    /// Withdraws the port of a protocol, or publishes it anew.
    fn republish(&mut self) {
        let proto = if self.source.random.random() { TCP } else { UDP };
        let to = *[None, Some(self.lab.web), Some(self.lab.app)].choose(&mut self.source.random).unwrap();
        match to {
            Some(container) => drop(self.lab.publish(Ipv4Addr::UNSPECIFIED, PORT, proto, container.addr, 80)),
            None => {
                let mapping = 10 + u32::from(proto);
                let generation = self.lab.mapping(mapping).generation;
                self.lab.set_mapping(mapping, generation + 1);
                let key = PortKey::new(Ip4::default(), Be16::new(PORT), proto);
                let _ = self.lab.table::<_, rnet_common::Backend<Ip4>>("PORTS4").remove(&key);
            }
        }
        self.published[protocol(proto)] = to;
        self.flows.retain(|flow| !flow.inward || flow.sent.protocol != proto || flow.sent.dst.is_ipv6());
    }

    /// A packet with bytes of its headers changed, given to any program.
    fn broken(&mut self) {
        let (_, mut frame) = self.source.packet(&self.lab);
        if self.source.random.random_ratio(3, 4) {
            self.source.spoil(&mut frame);
        }
        let Lab { web, app, uplink, .. } = self.lab;
        let ways = [
            From::Uplink,
            web.from(),
            app.from(),
            From::Stack(0),
            From::Stack(uplink),
            web.via_stack(),
            From::Bridge(web.bridge),
            From::ToBridge(0, web.bridge),
            From::ToBridge(uplink, web.bridge),
            From::ToBridge(web.bridge, web.bridge),
        ];
        let from = *ways.choose(&mut self.source.random).unwrap();
        self.run(from, &frame);
    }

    /// Every packet was counted once.
    fn check_counters(&self) {
        for program in Program::ALL {
            let counted: u64 =
                Reason::ALL.iter().map(|reason| self.lab.counter(program, *reason).packets).sum();
            assert_eq!(counted, self.given[program as usize], "{program:?}");
        }
    }
}

fn sequence(via_stack: bool) {
    testbed::require_root!();
    let mut sequence = Sequence::new(via_stack);
    sequence.source.longest = 200;
    let packets = packets();
    for n in 0..packets {
        let seed = sequence.source.seed;
        let step = std::panic::AssertUnwindSafe(|| match sequence.source.random.random_range(0..16u8) {
            0..6 if !via_stack => sequence.open(),
            6..11 if !via_stack => sequence.reply(),
            11 => sequence.republish(),
            _ => sequence.broken(),
        });
        assert!(std::panic::catch_unwind(step).is_ok(), "RNET_RANDOM_SEED={seed}, packet {n}");
    }
    sequence.check_counters();
    assert!(via_stack || !sequence.flows.is_empty());
}

#[test]
fn any_sequence_keeps_to_the_rules() {
    sequence(false);
}

#[test]
fn any_sequence_keeps_to_the_rules_via_the_stack() {
    sequence(true);
}

/// That the masquerade check sees what leaves: a network that does not masquerade breaks it.
#[test]
#[should_panic = "leaves for"]
fn a_private_source_that_leaves_is_noticed() {
    if !nix::unistd::geteuid().is_root() {
        panic!("as root an address leaves for somewhere");
    }
    let mut sequence = Sequence::new(false);
    let web = sequence.lab.web;
    sequence.lab.set_endpoint(&web, EndpointFlags::ICC);
    let ends = ((web.addr, 5000).into(), (Ipv4Addr::new(11, 0, 0, 1), 443).into());
    let frame = build(web.to_gateway(), UDP, ends, true, b"data");
    sequence.run(web.from(), &frame);
}
