//! An instance of rnet with as many flows as asked for, none of which has a socket.
//!
//! They are written into the instance's pinned table as its programs would have written them: both halves of a TCP
//! connection through the published port, of the port's own mapping and generation, last seen when they are made.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use nix::time::{ClockId, clock_gettime};
use rnet_common::{
    Backend, Be16, Endpoint, Family, Flow, FlowKey, Ip4, PortKey, Reason, Side, Tuple,
    flow::{flow_flags, proto, seen},
};
use testbed::{Host, Rnet, topology::HOST};

use super::proc;
use crate::{
    interrupt,
    traffic::{
        PORT, Path,
        sites::{self, Family as Version, Way},
    },
};

/// Flows of the traffic that is measured, besides those that are written: the client's ephemeral ports twice over.
const ROOM: u32 = 131_072;
/// How many flows are written between looks at whether somebody asked for the end.
const AT_ONCE: u32 = 4096;
/// Source ports of one forged client.
const PORTS_OF_ONE: u32 = 50_000;
const FIRST_PORT: u32 = 10_000;

/// One way through a published port of an instance, and the instance's flow table.
pub(super) struct Site<'h> {
    pub(super) path: Path<'h>,
    /// The daemon's process.
    pub(super) pid: u32,
    /// Directory of the pinned maps and links.
    pub(super) pins: PathBuf,
    /// How many flows are written.
    pub(super) flows: u32,
    table: HashMap<MapData, FlowKey<Ip4>, Flow<Ip4>>,
    /// The configuration of the daemon, for as long as it may read it.
    _config: tempfile::NamedTempFile,
}

impl<'h> Site<'h> {
    /// Starts an instance whose table holds `room` flows besides those of the load, and writes `flows` of them.
    ///
    /// # Errors
    /// When it does not start, or the table does not take them.
    pub(super) fn new(name: &'static str, host: &'h Host, room: u32, flows: u32) -> Result<Self> {
        let config = tempfile::NamedTempFile::new().context("make a configuration")?;
        // Its collector tells at this level what it has done.
        fs::write(config.path(), r#"{"log-level": "debug"}"#).context("write a configuration")?;
        let size = (room + ROOM).to_string();
        let file = config.path().to_str().context("a configuration has a path in UTF-8")?;
        let daemon = ["--config", file, "--max-flows", &size];
        let path = sites::rnet(name, host, (Way::Published, Version::V4), &daemon, &[], 0)?;
        let rnet = path.rnet().context("a path without its instance")?;
        let status = rnet.json(&["status"]).into_iter().next().context("an instance has a status")?;
        let pid = status["pid"].as_u64().and_then(|pid| pid.try_into().ok()).context("a daemon has a pid")?;
        let pins = PathBuf::from(status["pins"].as_str().context("an instance has pins")?);
        let table = pinned(&pins, "FLOWS4")?;
        Ok(Self { path, pid, pins, flows, table, _config: config })
    }

    /// The instance.
    pub(super) fn rnet(&self) -> Result<&Rnet<'h>> {
        self.path.rnet().context("a path without its instance")
    }

    /// Writes the flows, those that are there already anew.
    ///
    /// # Errors
    /// When the table does not take them, or somebody asked for the end.
    pub(super) fn fill(&mut self) -> Result<()> {
        let ports: HashMap<MapData, PortKey<Ip4>, Backend<Ip4>> = pinned(&self.pins, "PORTS4")?;
        let key = PortKey::new(Ip4::any(), Be16::new(PORT), proto::TCP);
        let backend = ports.get(&key, 0).context("look up the published port")?;
        let endpoints: HashMap<MapData, Ip4, Endpoint<Ip4>> = pinned(&self.pins, "ENDPOINTS4")?;
        let endpoint = endpoints.get(&backend.addr, 0).context("look up the container")?;
        for number in 0..self.flows {
            if number % AT_ONCE == 0 {
                interrupt::check()?;
            }
            for (key, half) in halves(number, &backend, &endpoint, now()?) {
                self.table.insert(key, half, 0).with_context(|| format!("write flow {number}"))?;
            }
        }
        Ok(())
    }

    /// What the kernel says the table takes, in bytes.
    ///
    /// # Errors
    /// When it does not say.
    pub(super) fn memlock(&self) -> Result<u64> {
        let map = MapData::from_pin(self.pins.join("FLOWS4")).context("open the flow table")?;
        proc::memlock(map.fd().as_fd().as_raw_fd())
    }

    /// Fails unless a flow that was written is in the table.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn ensure_filled(&self) -> Result<()> {
        let key = FlowKey::new(opening(self.flows - 1), proto::TCP, Side::Uplink);
        self.table.get(&key, 0).map(drop).context("the last flow that was written is not in the table")
    }

    /// What the collector has told since `before` characters of the log: each of its rounds.
    pub(super) fn sweeps_since(&self, before: usize) -> Result<Vec<Sweep>> {
        let log = self.rnet()?.log();
        Ok(log.get(before..).unwrap_or_default().lines().filter_map(Sweep::parse).collect())
    }
}

/// One round of the collector, as the daemon's log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    /// How many flows it has removed.
    pub(super) removed: u32,
    pub(super) took: Duration,
}

impl Sweep {
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.split_once(" swept ")?;
        let number = |name: &str| -> Option<u64> {
            fields
                .split_whitespace()
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        Some(Self {
            removed: number("flows")?.try_into().ok()?,
            took: Duration::from_micros(number("took_us")?),
        })
    }
}

/// Opens a pinned map.
pub(super) fn pinned<K: Pod, V: Pod>(pins: &FilePath, name: &str) -> Result<HashMap<MapData, K, V>> {
    let data = MapData::from_pin(pins.join(name)).with_context(|| format!("open map {name}"))?;
    let info = data.info().with_context(|| format!("ask for the shape of map {name}"))?;
    let shape = (info.key_size() as usize, info.value_size() as usize);
    ensure!(shape == (size_of::<K>(), size_of::<V>()), "map {name} has another shape: {shape:?}");
    Map::HashMap(data).try_into().with_context(|| format!("use map {name}"))
}

/// The packet that opened a flow: from 198.18.0.0/15, which is for benchmarks (RFC 2544), to the published port.
pub(super) fn opening(number: u32) -> Tuple<Ip4> {
    let client = u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number / PORTS_OF_ONE;
    // Below 2^16.
    let port = (FIRST_PORT + number % PORTS_OF_ONE) as u16;
    Tuple {
        src: Ipv4Addr::from_bits(client).into(),
        dst: HOST.into(),
        sport: Be16::new(port),
        dport: Be16::new(PORT),
    }
}

/// Both halves of an established connection, as `from_uplink` makes them.
fn halves(
    number: u32,
    backend: &Backend<Ip4>,
    endpoint: &Endpoint<Ip4>,
    now: u64,
) -> [(FlowKey<Ip4>, Flow<Ip4>); 2] {
    let arrives = opening(number);
    let becomes = Tuple { dst: backend.addr, dport: backend.port, ..arrives };
    let both = Flow {
        last_seen: now,
        mapping: backend.mapping,
        generation: backend.generation,
        seen: seen::PACKET | seen::ACK,
        ..Flow::default()
    };
    let forward = Flow {
        to: becomes,
        to_ifindex: endpoint.ifindex,
        mac: endpoint.mac,
        gateway_mac: endpoint.gateway_mac,
        flags: flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER | flow_flags::TO_CONTAINER,
        carried: Reason::Published as u8,
        mtu: endpoint.mtu.try_into().unwrap_or(u16::MAX),
        ..both
    };
    let reply = Flow {
        to: arrives.reversed(),
        from_ifindex: endpoint.ifindex,
        to_ifindex: endpoint.bridge,
        carried: Reason::PublishedReply as u8,
        ..both
    };
    // The answers' half first, as the programs do.
    [(forward.twin_key(proto::TCP), reply), (FlowKey::new(arrives, proto::TCP, Side::Uplink), forward)]
}

/// The clock of [`Flow::last_seen`], in nanoseconds.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?;
    u64::try_from(Duration::from(now).as_nanos()).context("read the clock")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_flow_has_a_client_and_port_of_its_own_within_the_range_for_benchmarks() {
        let numbers = [0, 1, 49_999, 50_000, 999_999, 4_000_000];
        let tuples: HashSet<_> = numbers.map(opening).into();
        assert_eq!(tuples.len(), numbers.len());
        for tuple in tuples {
            let src = Ipv4Addr::from(tuple.src).octets();
            assert!(src[0] == 198 && (18..=19).contains(&src[1]), "{src:?}");
        }
    }

    #[test]
    fn halves_name_one_another() {
        let backend = Backend::new(Ipv4Addr::new(172, 17, 0, 2).into(), Be16::new(80), 3, 4, 0);
        let [(reply_key, reply), (key, forward)] = halves(7, &backend, &Endpoint::default(), 5);
        assert_eq!((forward.twin_key(proto::TCP), reply.twin_key(proto::TCP)), (reply_key, key));
        assert_eq!((forward.to.dst, forward.to.dport), (backend.addr, backend.port));
    }

    #[test]
    fn sweeps_are_read_from_the_log() {
        let line = "2030-01-02T03:04:05.678901Z DEBUG swept flows=12 took_us=3400";
        assert_eq!(Sweep::parse(line), Some(Sweep { removed: 12, took: Duration::from_micros(3400) }));
        assert_eq!(Sweep::parse("2030-01-02T03:04:05.678901Z  INFO ready instance=\"x\""), None);
    }
}
