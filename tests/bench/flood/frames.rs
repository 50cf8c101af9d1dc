//! The flood itself: segments that open connections, with forged sources, at a given rate.
//!
//! They are sent through a raw socket in the client's namespace, from 198.18.0.0/15 (RFC 2544), to the host at its other
//! end. Answers come back to the client's namespace by the host's default route, and end there.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use testbed::{
    Stop,
    packet::{self, Ethernet},
};

use crate::interrupt;

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(1);
/// Length of an Ethernet header, which the kernel puts before what is sent.
const ETHERNET: usize = 14;
/// Addresses of 198.18.0.0/15.
const ADDRESSES: u32 = 1 << 17;
const FIRST_PORT: u32 = 10_000;

/// Where a flood leads, and which of the forged sources come next: none is used twice.
pub(super) struct Flood {
    socket: Socket,
    target: SocketAddrV4,
    next: u32,
}

impl Flood {
    /// A flood of this port. To be called in the client's namespace.
    ///
    /// # Errors
    /// When there is no raw socket to be had.
    pub(super) fn new(target: SocketAddrV4, first: u32) -> Result<Self> {
        // What is written begins with its IP header (raw(7)).
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).context("make a raw socket")?;
        Ok(Self { socket, target, next: first })
    }

    /// Sends at a rate until `duration` is over or somebody says stop. Returns how many were sent.
    ///
    /// # Errors
    /// When one cannot be sent.
    pub(super) fn run(&mut self, per_second: u32, duration: Duration, stop: &Stop) -> Result<u32> {
        let (began, mut sent) = (Instant::now(), 0);
        loop {
            let elapsed = began.elapsed();
            if elapsed >= duration || stop.requested() || interrupt::requested() {
                return Ok(sent);
            }
            let due = due(per_second, elapsed);
            while sent < due {
                self.send()?;
                sent += 1;
                // It cannot be sent as fast as that.
                if sent % 256 == 0 && began.elapsed() >= duration {
                    break;
                }
            }
            thread::sleep(TICK.saturating_sub(began.elapsed() - elapsed));
        }
    }

    fn send(&mut self) -> Result<()> {
        let source = source(self.next);
        // What stands in the Ethernet header does not matter here.
        let link = Ethernet { src: [0; 6], dst: [0; 6] };
        let frame = packet::tcp(link, source, self.target, packet::syn(self.next), &[]);
        let to = self.target.into();
        self.socket
            .send_to(&frame[ETHERNET..], &to)
            .with_context(|| format!("send a segment from {source}"))?;
        self.next += 1;
        Ok(())
    }
}

/// How many are to have been sent by then.
fn due(per_second: u32, elapsed: Duration) -> u32 {
    let due = u128::from(per_second) * elapsed.as_micros() / 1_000_000;
    due.try_into().unwrap_or(u32::MAX)
}

/// One of some billion sources, of which one behind the other has other addresses: to who forges them that costs nothing, and
/// whoever limits the rate of one finds none to limit.
fn source(number: u32) -> SocketAddrV4 {
    let addr = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number % ADDRESSES;
    // Below 2^16.
    SocketAddrV4::new(Ipv4Addr::from_bits(addr), (FIRST_PORT + number / ADDRESSES) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_is_used_twice_and_all_are_for_benchmarks() {
        let sources = [0, 1, ADDRESSES - 1, ADDRESSES, u32::MAX].map(source);
        for (index, one) in sources.iter().enumerate() {
            assert!(!sources[..index].contains(one), "{one}");
            assert!(one.ip().octets()[0] == 198 && [18, 19].contains(&one.ip().octets()[1]), "{one}");
        }
    }

    #[test]
    fn what_is_due_follows_the_clock() {
        assert_eq!(due(20_000, Duration::from_millis(1)), 20);
        assert_eq!(due(20_000, Duration::from_secs(3)), 60_000);
        assert_eq!(due(10, Duration::from_micros(99_999)), 0);
    }
}
