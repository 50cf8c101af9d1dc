//! Attacks: what is forged is seen by nobody and counted, and the honest packet next to it passes. `docs/security.md`
//! lists them all.

mod container;
mod neighbour;
mod user;

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use testbed::{Host, Rnet};

use crate::{
    policy::{Peer, create, drops, run},
    spoof,
};

/// What every forged packet carries, whatever becomes of its headers.
pub(crate) const MARK: &[u8] = b"forged by hand";
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// A host that would forward whatever it is left, with a container to attack from and others to attack.
struct Stage<'h> {
    host: &'h Host,
    rnet: Rnet<'h>,
    liar: Peer,
    neighbour: Peer,
    /// On another network.
    other: Peer,
    gateway_mac: [u8; 6],
}

impl<'h> Stage<'h> {
    fn new(host: &'h Host) -> Self {
        let spoof::Stage { host, rnet, liar, neighbour, gateway_mac } = spoof::Stage::new(host);
        create(&rnet, "n2", 89, &[]);
        let other = run(&rnet, "other", "n2", &["-p", "8080:80/udp"]);
        Self { host, rnet, liar, neighbour, other, gateway_mac }
    }

    /// How many packets were dropped for these reasons while something was done.
    fn dropped<const N: usize>(&self, reasons: [&str; N], done: impl FnOnce()) -> [u64; N] {
        let before = reasons.map(|reason| drops(&self.rnet, reason));
        done();
        let after = reasons.map(|reason| drops(&self.rnet, reason));
        std::array::from_fn(|i| after[i] - before[i])
    }
}

/// A UDP frame from port 4000 to port 4001, or to that of `to`, that carries `payload`.
pub(crate) fn udp(macs: ([u8; 6], [u8; 6]), from: IpAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(macs.0, macs.1);
    let packet = match (from, to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to} are of two families"),
    };
    let mut frame = Vec::new();
    packet.udp(4000, to.port()).write(&mut frame, payload).unwrap();
    frame
}

/// An ARP reply (RFC 826) to all by which `addr` is at the sender's.
fn gratuitous_arp(from: [u8; 6], addr: IpAddr) -> Vec<u8> {
    let IpAddr::V4(addr) = addr else { panic!("{addr} is not resolved by ARP") };
    let addr = addr.octets();
    [&BROADCAST[..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &from, &addr, &BROADCAST, &addr].concat()
}

/// The frame with a tag (IEEE 802.1Q) below its Ethernet addresses.
fn tagged(frame: &[u8], kind: [u8; 2], vlan: u16) -> Vec<u8> {
    const PRIORITY: u16 = 5 << 13;
    [&frame[..12], &kind, &(PRIORITY | vlan).to_be_bytes(), &frame[12..]].concat()
}

const CUSTOMER: [u8; 2] = [0x81, 0x00];
const PROVIDER: [u8; 2] = [0x88, 0xa8];

fn carries(frame: &[u8], payload: &[u8]) -> bool {
    frame.windows(payload.len()).any(|part| part == payload)
}

/// Checks that no captured frame is one of those that were sent, translated or not.
fn assert_unseen(what: &str, seen: &[Vec<u8>], sent: &[Vec<u8>]) {
    assert!(!seen.is_empty(), "{what}: what came behind is seen");
    let leaked: Vec<_> = seen
        .iter()
        .filter(|frame| carries(frame, MARK) || sent.iter().any(|sent| frame.ends_with(&sent[14..])))
        .collect();
    assert!(leaked.is_empty(), "{what}: {leaked:02x?}");
}
