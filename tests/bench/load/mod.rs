//! The load generator: one for all paths, so that only what lies between its two ends differs.
//!
//! Both ends are processes of this program, each bound to a processor of its own and started inside a network
//! namespace. A server answers every workload on one TCP and one UDP port; a client runs one workload and prints what came of
//! it as JSON.

mod client;
mod epoll;
mod proxy;
mod server;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, ValueEnum};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::server::{COUNT, kind};

/// Length of requests, of answers, and of datagrams, in bytes.
pub(crate) const MESSAGE: usize = 64;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// One TCP connection, as many bytes as pass.
    Stream,
    /// Four such connections.
    #[value(name = "stream-4")]
    Stream4,
    /// One TCP connection where both ends send every segment by itself.
    StreamNoTso,
    /// A request and its answer at a time on one connection.
    #[value(name = "rr")]
    RequestResponse,
    /// The same on each of 16 connections.
    #[value(name = "rr-16")]
    RequestResponse16,
    /// Eight clients that connect, ask, are answered and see the server close.
    Connect,
    /// Datagrams one way, after one was answered.
    Udp,
    /// Datagrams one way of which none is ever answered.
    UdpFresh,
}

impl Workload {
    /// Its name on the command line and in the report.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    /// What is counted, and by how much its rate is divided for people.
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Stream | Self::Stream4 | Self::StreamNoTso => Unit::Gigabits,
            Self::RequestResponse | Self::RequestResponse16 => Unit::Requests,
            Self::Connect => Unit::Connections,
            Self::Udp | Self::UdpFresh => Unit::Packets,
        }
    }

    /// Whether the client's own count is of what it sent rather than of what arrived.
    pub(crate) fn is_counted_by_server(self) -> bool {
        matches!(self, Self::Udp | Self::UdpFresh)
    }
}

/// What a workload's rate is a rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// 10⁹ bits of payload.
    Gigabits,
    /// Requests that were answered.
    Requests,
    /// Connections that were made, used and closed.
    Connections,
    /// Datagrams that arrived.
    Packets,
}

impl Unit {
    /// For table headings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gigabits => "Gbit/s",
            Self::Requests => "requests/s",
            Self::Connections => "connections/s",
            Self::Packets => "packets/s",
        }
    }
}

/// What a client measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// How many units ([`Unit`]) passed; of datagrams, how many were sent.
    pub(crate) units: f64,
    /// In how many seconds.
    pub(crate) seconds: f64,
    /// How long each request or connection took; absent where nothing is answered.
    pub(crate) latency: Option<Latency>,
    /// How many attempts failed.
    pub(crate) failures: u64,
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of samples in nanoseconds.
    fn of(mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        // Lossless: far below 2^53.
        let at = |part: f64| samples[(part * last as f64) as usize] as f64 / 1000.0;
        Some(Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) })
    }
}

/// One end of the load generator.
#[derive(Parser)]
#[command(name = "rnet-bench load")]
enum Role {
    /// Answers every workload.
    Serve(ServeOptions),
    /// Runs one workload.
    Drive(DriveOptions),
    /// Passes connections and datagrams on, as docker-proxy does.
    Proxy(ProxyOptions),
}

#[derive(Args)]
struct ServeOptions {
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    bind: SocketAddr,
}

#[derive(Args)]
struct DriveOptions {
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    workload: Workload,
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    millis: u64,
}

#[derive(Args)]
struct ProxyOptions {
    #[arg(long)]
    bind: SocketAddr,
    #[arg(long)]
    target: SocketAddr,
}

/// Runs one end, as the command line says.
///
/// # Errors
/// When it cannot be done; a connection that fails meanwhile is counted instead.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> Result<()> {
    match Role::parse_from(arguments) {
        Role::Serve(options) => {
            bind_to(options.cpu)?;
            server::run(options.bind)
        }
        Role::Drive(options) => {
            bind_to(options.cpu)?;
            let measured =
                client::run(options.workload, options.target, Duration::from_millis(options.millis))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        Role::Proxy(options) => proxy::run(options.bind, options.target),
    }
}

/// Keeps this process on one processor, where the machine has as many.
fn bind_to(cpu: usize) -> Result<()> {
    let count = std::thread::available_parallelism().context("count the processors")?.get();
    let mut set = CpuSet::new();
    set.set(cpu % count)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .context("choose a processor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_samples() {
        let latency = Latency::of((1..=1000).rev().map(|n| n * 1000).collect()).unwrap();
        assert_eq!((latency.p50, latency.p99, latency.max), (500.0, 990.0, 1000.0));
        assert!(Latency::of(Vec::new()).is_none());
    }

    #[test]
    fn workloads_go_by_the_names_of_the_report() {
        for workload in Workload::value_variants() {
            assert_eq!(Workload::from_str(&workload.name(), false), Ok(*workload));
        }
        assert_eq!(Workload::RequestResponse16.name(), "rr-16");
    }
}
