//! A flood of segments that open connections to one published port: what it takes from flows that were there before, and
//! from new connections to another port.
//!
//! Once with a flow table that holds the flood and once with one that it fills. The size of conntrack's table is one
//! for the whole machine and not ours to change: rnet's is made as large, and where it is to be filled, conntrack's is
//! filled beforehand until as many entries are free as rnet's table has.

mod frames;
mod probe;
mod tables;

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand::seq::SliceRandom as _;
use serde::Serialize;
use testbed::{Host, Netns, Stop, Task};

use self::{
    frames::Flood,
    probe::{Event, Phase, Probe},
};
use crate::{
    Bench, interrupt,
    report::Part,
    traffic::{
        self, Path,
        sites::{self, Family, Way},
    },
};

/// The part's name on the command line.
pub(crate) const NAME: &str = "flood";

/// The port that is flooded; published, with a server that listens.
const FLOODED: u16 = 10_001;
/// The most entries that are filled in beforehand: a table that is larger stays as it is.
const MOST_FILLED: u32 = 600_000;
/// At which rate that is done, if the machine can.
const FILL_RATE: u32 = 150_000;
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// What a table has room for besides the flood, where it is to hold it and the kernel does not say how large its own is.
const DEFAULT_MAX: u32 = 262_144;

/// How much is sent.
#[derive(Clone, Copy, Debug, Serialize)]
struct Amounts {
    /// Segments of the flood a second.
    rate: u32,
    /// How long it lasts, and how long is looked before and after it.
    phase: Duration,
    /// Flows that the smaller table holds.
    small: u32,
    /// Flows that the larger table holds: as many as conntrack's.
    large: u32,
    /// Conntrack's table is filled until `small` entries are free, where it is to be filled.
    fill: bool,
}

impl Amounts {
    fn of(bench: &Bench) -> Self {
        let max = fs::read_to_string(CONNTRACK_MAX).ok().and_then(|max| max.trim().parse().ok());
        let large = max.unwrap_or(DEFAULT_MAX);
        if bench.quick {
            let phase = Duration::from_millis(500);
            return Self { rate: 10_000, phase, small: 2_000, large, fill: false };
        }
        let small = 16_384;
        let fill = large.saturating_sub(small) <= MOST_FILLED;
        Self { rate: 20_000, phase: Duration::from_secs(3), small, large, fill }
    }
}

/// Which filter the packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Filter {
    Iptables,
    Rnet,
}

impl Filter {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Rnet => "rnet",
        }
    }
}

/// Whether the flood fits into the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Room {
    Holds,
    Fills,
}

/// What one flood did to one probe.
#[derive(Clone, Copy, Debug, Serialize)]
struct Effect {
    probe: Probe,
    before: Phase,
    during: Phase,
    after: Phase,
}

/// One flood.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    round: u32,
    filter: Filter,
    room: Room,
    /// Segments that filled the table beforehand.
    filled_segments: u32,
    sent_segments: u32,
    /// Flows in the table once it was over.
    flows_after: u64,
    /// Packets that found the table full. Conntrack counts them for the whole machine only.
    table_full_packets: Option<u64>,
    /// Packets of sources beyond their rate, likewise of rnet only.
    source_rate_packets: Option<u64>,
    effects: Vec<Effect>,
}

/// Measures the part.
///
/// # Errors
/// When a path cannot be made, or nothing passes it before the flood.
pub(crate) fn run(bench: &Bench) -> Result<Part> {
    let amounts = Amounts::of(bench);
    let mut order: Vec<(Filter, Room)> = [Filter::Iptables, Filter::Rnet]
        .into_iter()
        .filter(|filter| bench.only.wants_path(filter.name()))
        .flat_map(|filter| [(filter, Room::Holds), (filter, Room::Fills)])
        .collect();
    let each = amounts.phase * 3 + Duration::from_millis(2500);
    bench.progress.expect(each * u32::try_from(order.len()).unwrap_or(u32::MAX) * bench.rounds);
    let mut outcomes = Vec::new();
    for round in 1..=bench.rounds {
        order.shuffle(&mut *bench.random.borrow_mut());
        for (filter, room) in &order {
            let what = if *room == Room::Holds { "that holds the flood" } else { "that the flood fills" };
            bench.progress.doing(format!("round {round}: {}, a table {what}", filter.name()));
            outcomes.push(
                flood(bench, amounts, round, *filter, *room)
                    .with_context(|| format!("flood {}, a table {what}", filter.name()))?,
            );
            bench.progress.done(each);
        }
    }
    tables::part(amounts, &outcomes)
}

/// Makes a path, and floods it.
fn flood(bench: &Bench, amounts: Amounts, round: u32, filter: Filter, room: Room) -> Result<Outcome> {
    interrupt::check()?;
    let host = Host::new();
    let mut path = make(&host, amounts, filter, room)?;
    path.also_serve(FLOODED).context("serve the port that is flooded")?;
    let SocketAddr::V4(target) = path.target() else { bail!("a path of IPv4 has a target of IPv6") };
    let flooded = SocketAddrV4::new(*target.ip(), FLOODED);
    let mut filled = 0;
    if filter == Filter::Iptables && room == Room::Fills && amounts.fill {
        filled = fill(&host, path.client(), flooded, amounts)?;
    }
    bench.settle();

    let (phase, started) = (amounts.phase, Instant::now());
    let probes: Vec<(Probe, Task<Result<Vec<Event>>>)> = Probe::ALL
        .into_iter()
        .flat_map(|probe| std::iter::repeat_n(probe, probe.threads()))
        .map(|probe| (probe, path.client().spawn(move |stop| probe.run(target.into(), started, stop))))
        .collect();
    let until = |end: Duration| -> Result<()> {
        while started.elapsed() < end {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    until(phase)?;
    let began = started.elapsed();
    let flood = send(path.client(), flooded, filled, amounts.rate, phase);
    until(began + phase)?;
    let sent = flood.stop()?;
    let ended = started.elapsed();
    until(ended + phase)?;
    let all = started.elapsed();
    // Those of the last attempts that are still under way belong to no phase.
    let mut events: Vec<(Probe, Vec<Event>)> = Vec::new();
    for (probe, task) in probes {
        events.push((probe, task.stop().with_context(|| probe.name())?));
    }
    let effects = Probe::ALL.map(|probe| {
        let of_probe = events.iter().filter(|(of, _)| *of == probe);
        let events: Vec<Event> = of_probe.flat_map(|(_, events)| events.iter().copied()).collect();
        Effect {
            probe,
            before: Phase::of(&events, Duration::ZERO, began),
            during: Phase::of(&events, began, ended),
            after: Phase::of(&events, ended, all),
        }
    });
    for effect in &effects {
        ensure!(effect.before.answered > 0, "{}: nothing was answered before the flood", effect.probe.name());
    }
    Ok(Outcome {
        round,
        filter,
        room,
        filled_segments: filled,
        sent_segments: sent,
        flows_after: count_flows(&host, &path)?,
        table_full_packets: path.rnet().map(|rnet| rnet.packets_for("table-full")),
        source_rate_packets: path.rnet().map(|rnet| rnet.packets_for("source-rate")),
        effects: effects.into(),
    })
}

fn make<'h>(host: &'h Host, amounts: Amounts, filter: Filter, room: Room) -> Result<Path<'h>> {
    if filter == Filter::Iptables {
        // The second published port is the one that is flooded.
        return traffic::iptables(filter.name(), host, 2, Way::Published, Family::V4);
    }
    let flows = if room == Room::Holds { amounts.large } else { amounts.small }.to_string();
    let way = (Way::Published, Family::V4);
    let path = sites::rnet(filter.name(), host, way, &["--max-flows", &flows], &[], 0)?;
    let rnet = path.rnet().context("a path of rnet without its instance")?;
    rnet.ok(&["publish", "server", &format!("{FLOODED}:{FLOODED}")]);
    Ok(path)
}

/// Floods in the background, from sources that no flood before has used.
fn send(
    client: &Netns,
    target: SocketAddrV4,
    first: u32,
    per_second: u32,
    duration: Duration,
) -> Task<Result<u32>> {
    client.spawn(move |stop: &Stop| Flood::new(target, first)?.run(per_second, duration, stop))
}

/// Fills conntrack's table until as many entries are free as asked for. Returns how many segments that took.
fn fill(host: &Host, client: &Netns, target: SocketAddrV4, amounts: Amounts) -> Result<u32> {
    let wanted = u64::from(amounts.large - amounts.small);
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut sent = 0;
    loop {
        interrupt::check()?;
        let missing = wanted.saturating_sub(conntrack_count(&host.ns)?);
        if missing < u64::from(amounts.small) / 64 {
            return Ok(sent);
        }
        ensure!(Instant::now() < deadline, "conntrack's table is not full, {missing} entries are missing");
        let piece =
            Duration::from_secs_f64(missing as f64 / f64::from(FILL_RATE)).min(Duration::from_millis(200));
        let flood = send(client, target, sent, FILL_RATE, piece);
        std::thread::sleep(piece);
        // It ends by itself, at the same time.
        sent += flood.stop()?;
    }
}

fn count_flows(host: &Host, path: &Path<'_>) -> Result<u64> {
    let Some(rnet) = path.rnet() else { return conntrack_count(&host.ns) };
    let status = rnet.json(&["status"]);
    status.first().and_then(|status| status["flows"].as_u64()).context("a status without flows")
}

fn conntrack_count(ns: &Netns) -> Result<u64> {
    let count = ns.output_of("cat", &[CONNTRACK_COUNT]).with_context(|| format!("read {CONNTRACK_COUNT}"))?;
    count.trim().parse().with_context(|| format!("{CONNTRACK_COUNT} says {count:?}"))
}
