//! What `from_uplink` takes for a packet of an established connection, by `BPF_PROG_TEST_RUN`.
//!
//! Each packet is a run of its own: translating it changes it, so that the same one again would be another's. The
//! time is the kernel's, from before the program to after it, without the call; what reading the clock adds to it
//! shows with a frame that the program leaves alone at once.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{
    SchedClassifier, TestRun as _, TestRunOptions,
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use etherparse::TcpHeader;
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use testbed::{
    Netns,
    packet::{self, Ethernet},
    topology::UPLINK,
};

use super::site::{Site, opening};
use crate::{interrupt, report::Spread};

/// TC actions (linux/pkt_cls.h), as a program returns them.
const UNSPEC: u32 = u32::MAX;
const REDIRECT: u32 = 7;
/// `__sk_buff` in bytes, and where in it `ifindex` is (linux/bpf.h).
const CONTEXT: usize = 192;
const IFINDEX: std::ops::Range<usize> = 40..44;
/// How many runs there are between looks at whether somebody asked for the end.
const AT_ONCE: u32 = 4096;

/// Which packets are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packets {
    /// No IP packets: the clock, and a program that does nothing but count.
    Foreign,
    /// All of one flow.
    OneFlow,
    /// Each of a flow that is chosen at random.
    AnyFlow,
}

/// The program that is attached to a site's uplink.
pub(super) struct Program {
    program: SchedClassifier,
    context: [u8; CONTEXT],
    link: Ethernet,
}

impl Program {
    /// The one of this site. To be called in the host's namespace.
    ///
    /// # Errors
    /// When it cannot be found.
    pub(super) fn of(site: &Site<'_>, host: &Netns) -> Result<Self> {
        let ifindex = host.run(|| if_nametoindex(UPLINK)).context("look for the uplink")?;
        let pin = site.pins.join(format!("links/from_uplink-{ifindex}"));
        let link = PinnedLink::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        let id = FdLink::from(link).info().context("ask a link for its program")?.program_id();
        let info = loaded_programs().find(|info| info.as_ref().is_ok_and(|info| info.id() == id));
        let info = info.context("the program of a link is not loaded")?.context("list programs")?;
        let program = SchedClassifier::from_program_info(info, "from_uplink".into())
            .context("open the program of the uplink")?;
        let mut context = [0; CONTEXT];
        context[IFINDEX].copy_from_slice(&ifindex.to_ne_bytes());
        let link = Ethernet { src: [2, 0, 0, 0, 1, 0], dst: host.mac(UPLINK) };
        Ok(Self { program, context, link })
    }

    /// Runs it on so many packets, in `host`, and returns the nanoseconds that each took.
    ///
    /// # Errors
    /// When a run fails, or a packet is not carried as one of its flow.
    pub(super) fn time(
        &self,
        host: &Netns,
        (packets, flows): (Packets, u32),
        runs: u32,
        seed: u64,
    ) -> Result<Vec<u32>> {
        host.run(|| {
            // Where the machine has no more than one there is nothing to choose.
            let mut one = CpuSet::new();
            if one.set(0).is_ok() {
                let _ = sched_setaffinity(Pid::from_raw(0), &one);
            }
            let mut random = SmallRng::seed_from_u64(seed);
            let mut times = Vec::with_capacity(runs as usize);
            for run in 0..runs {
                if run % AT_ONCE == 0 {
                    interrupt::check()?;
                }
                let number = match packets {
                    Packets::Foreign | Packets::OneFlow => 0,
                    Packets::AnyFlow => random.random_range(0..flows),
                };
                times.push(self.run(packets, number)?);
            }
            Ok(times)
        })
    }

    fn run(&self, packets: Packets, number: u32) -> Result<u32> {
        let mut frame = self.frame(number);
        let expected = if packets == Packets::Foreign {
            // An EtherType for experiments (IEEE 802).
            frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
            UNSPEC
        } else {
            REDIRECT
        };
        let mut out = [0; 256];
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&self.context),
            ..TestRunOptions::new()
        };
        let result = self.program.test_run(options).context("run from_uplink")?;
        ensure!(
            result.return_value == expected,
            "from_uplink returned {} and not {expected} for a packet of flow {number}",
            result.return_value
        );
        Ok(result.duration.as_nanos().try_into().unwrap_or(u32::MAX))
    }

    /// A segment without data of a connection that is written.
    fn frame(&self, number: u32) -> Vec<u8> {
        let tuple = opening(number);
        let end = |addr, port: rnet_common::Be16| SocketAddrV4::new(Ipv4Addr::from(addr), port.get());
        let header = TcpHeader { ack: true, ..TcpHeader::new(0, 0, 1, u16::MAX) };
        packet::tcp(self.link, end(tuple.src, tuple.sport), end(tuple.dst, tuple.dport), header, &[])
    }
}

/// The middle half's mean of each of several series, as a spread: what interrupts a run now and then is not its cost.
pub(super) fn typical(series: &[Vec<u32>]) -> Option<Spread> {
    Spread::of(&series.iter().map(|times| middle(times)).collect::<Option<Vec<_>>>()?)
}

/// The mean of what lies between the quartiles.
fn middle(times: &[u32]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let half = sorted.get(sorted.len() / 4..sorted.len() - sorted.len() / 4)?;
    // Exact: far below 2^53.
    (!half.is_empty()).then(|| half.iter().copied().map(f64::from).sum::<f64>() / half.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interrupts_some_runs_is_left_out() {
        assert_eq!(middle(&[100, 102, 98, 100, 5_000_000, 100, 1, 100]), Some(100.0));
        assert_eq!(middle(&[7]), Some(7.0));
        assert_eq!(middle(&[]), None);
        let spread = typical(&[vec![10, 10, 10, 10], vec![30, 30, 30, 30], vec![20]]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (20.0, 10.0, 30.0));
    }
}
