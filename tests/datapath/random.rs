//! Packets at random: whatever comes out has right checksums, and its payload.

use std::net::Ipv4Addr;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use testbed::packet::verify_checksums;

use crate::{
    frames::{Kind, Way, frame},
    lab::{From, HOST, Lab, REDIRECT},
};

const PACKETS: usize = 4_000;

#[test]
fn what_is_carried_has_right_checksums_and_its_payload() {
    testbed::require_root!();
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    for proto in [6, 17] {
        lab.publish(Ipv4Addr::UNSPECIFIED, 8080, proto, web.addr, 80);
    }
    let mut carried = 0;
    for _ in 0..PACKETS {
        let payload: Vec<u8> = (0..random.random_range(0..1400)).map(|_| random.random()).collect();
        let remote = Ipv4Addr::from(random.random_range(0x0b00_0000..0x7e00_0000u32));
        let kind = match random.random_range(0..3) {
            0 => {
                let mut header = testbed::packet::syn(random.random());
                header.window_size = random.random();
                Kind::Tcp(Box::new(header), payload.clone())
            }
            1 => Kind::Udp(payload.clone()),
            _ => Kind::Ping,
        };
        let (from, way) = match random.random_range(0..3) {
            0 => {
                let src = (remote, random.random_range(1..=u16::MAX));
                (From::Uplink, Way { link: lab.client_link(), src, dst: (HOST, 8080) })
            }
            n => {
                let container = if n == 1 { web } else { app };
                let src = (container.addr, random.random_range(1..=u16::MAX));
                let dst = (remote, random.random_range(1..=u16::MAX));
                (container.from(), Way { link: container.to_gateway(), src, dst })
            }
        };
        let packet = frame(way, &kind);
        let outcome = lab.run(from, &packet);
        if outcome.action == REDIRECT {
            carried += 1;
            verify_checksums(&outcome.frame).unwrap_or_else(|e| panic!("seed {seed}: {way:?}: {e}"));
            assert_eq!(outcome.frame.len(), packet.len());
            if !matches!(kind, Kind::Ping) {
                assert!(outcome.frame.ends_with(&payload), "seed {seed}: {way:?}");
            }
        } else {
            assert_eq!(outcome.frame, packet, "seed {seed}: {way:?}");
        }
    }
    assert!(carried > PACKETS / 2, "{carried} of {PACKETS}");
}
