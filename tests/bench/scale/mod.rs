//! A million flows at once: their memory, what a packet's look-up costs among them, and what it costs to go through
//! all of them.
//!
//! Two instances with tables of one size are up at once, one with a thousand flows and one with all. Their daemons
//! are stopped while packets are measured, so that the table's size is seen apart from the collector's work.

mod collector;
mod lookup;
mod proc;
mod site;
mod tables;

use std::{rc::Rc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, seq::SliceRandom as _};
use serde::Serialize;
use testbed::Host;

use self::{
    collector::{Cost, Following, ListCost},
    lookup::{Packets, Program},
    proc::{Memory, Paused},
    site::{Site, Sweep},
};
use crate::{
    Bench, interrupt,
    load::{Measured, Workload},
    report::Part,
};

/// The part's name on the command line.
pub(crate) const NAME: &str = "scale";

/// The fewer flows, which all of a processor's caches hold.
const FEW: u32 = 1000;
const WORKLOADS: [Workload; 2] = [Workload::Connect, Workload::Udp];

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Amounts {
    /// The more flows.
    flows: u32,
    /// Runs of the program for each kind of packets, all rounds together.
    runs: u32,
    /// Rounds of the collector that find nothing.
    sweeps: usize,
    /// How long datagrams are sent while the collector goes round: it does so every five seconds.
    under_sweep: Duration,
}

impl Amounts {
    fn of(bench: &Bench) -> Self {
        if bench.quick {
            Self { flows: 20_000, runs: 20_000, sweeps: 1, under_sweep: Duration::from_millis(500) }
        } else {
            Self { flows: 1_000_000, runs: 1_000_000, sweeps: 3, under_sweep: Duration::from_secs(6) }
        }
    }
}

/// What the kernel takes for flows, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
struct MemoryCost {
    few_memlock_bytes: u64,
    many_memlock_bytes: u64,
    /// How much less could be given out once the difference in flows was there.
    available_less_bytes: i64,
    slab_more_bytes: i64,
}

/// Times of one kind of packets, a series for each round.
struct Runs {
    packets: Packets,
    flows: u32,
    series_ns: Vec<Vec<u32>>,
}

/// Rates of one workload in one round.
#[derive(Clone, Debug, Serialize)]
struct Rates {
    round: u32,
    workload: String,
    few_per_second: f64,
    again_per_second: f64,
    many_per_second: f64,
}

/// Datagrams a second in one round.
#[derive(Clone, Debug, Default, Serialize)]
struct UnderSweep {
    stopped_per_second: f64,
    again_per_second: f64,
    /// The collector goes round.
    sweeping_per_second: f64,
    /// It removes every flow that is written.
    removing_per_second: f64,
}

/// Everything that was found.
struct Found {
    amounts: Amounts,
    memory: MemoryCost,
    lookups: Vec<Runs>,
    traffic: Vec<Rates>,
    alive: Cost,
    ended: Cost,
    under_sweep: Vec<UnderSweep>,
    lists: Vec<(&'static str, ListCost)>,
}

/// Measures the part.
///
/// # Errors
/// When an instance cannot be made or does not do its work.
pub(crate) fn run(bench: &Bench) -> Result<Part> {
    let amounts = Amounts::of(bench);
    let cells = u32::try_from(WORKLOADS.len() * 3).unwrap_or(u32::MAX);
    let each = bench.cell() + Duration::from_millis(450);
    let flows = Duration::from_micros(u64::from(amounts.flows) * 3);
    let lookups = Duration::from_micros(u64::from(amounts.runs) * 5 * 3);
    let collecting = Duration::from_secs(if bench.quick { 3 } else { 45 });
    let under_sweep = (amounts.under_sweep + Duration::from_millis(450)) * 4 + flows;
    bench.progress.expect(flows + lookups + each * cells * bench.rounds + collecting);
    bench.progress.expect(under_sweep * bench.rounds);

    let hosts = [Host::new(), Host::new()];
    bench.progress.doing(format!("making {FEW} and {} flows", amounts.flows));
    let mut few = Site::new("rnet-few", &hosts[0], amounts.flows, FEW)?;
    let few_paused = Paused::new(few.pid)?;
    few.fill().context("write the fewer flows")?;
    let mut many = Site::new("rnet-many", &hosts[1], amounts.flows, amounts.flows)?;
    let paused = Paused::new(many.pid)?;
    let before = Memory::now()?;
    many.fill().context("write the flows")?;
    let after = Memory::now()?;
    let memory = MemoryCost {
        few_memlock_bytes: few.memlock()?,
        many_memlock_bytes: many.memlock()?,
        available_less_bytes: before.available.cast_signed() - after.available.cast_signed(),
        slab_more_bytes: after.slab.cast_signed() - before.slab.cast_signed(),
    };
    bench.progress.done(flows);

    let lookups_found = time_lookups(bench, amounts, [(&few, &hosts[0]), (&many, &hosts[1])])?;
    bench.progress.done(lookups);
    let traffic = time_traffic(bench, [&mut few, &mut many], each)?;
    many.ensure_filled()?;

    bench.progress.doing("the collector, all flows alive");
    // Its first round is long due.
    let from = many.rnet()?.log().len();
    drop(paused);
    let alive = Following::start(&many, from)?
        .until(&many, &|sweeps| sweeps.len() >= amounts.sweeps)
        .context("follow the collector")?;
    ensure!(alive.removed_flows.iter().sum::<u32>() < amounts.flows / 2, "flows that live were removed");
    many.ensure_filled()?;
    let mut lists = Vec::new();
    for format in ["table", "json"] {
        bench.progress.doing(format!("rnet conntrack ls --format {format}"));
        lists.push((format, collector::list(&many, format).context("list the flows")?));
    }
    // In a quick run that is looked at only while there is traffic.
    let mut ended = if bench.quick {
        None
    } else {
        bench.progress.doing("the collector, all flows over");
        Some(end_all(&many)?)
    };
    bench.progress.done(collecting);

    let mut under = Vec::new();
    for round in 1..=bench.rounds {
        bench.progress.doing(format!("round {round}: datagrams while the collector goes round"));
        let (rates, cost) = under_sweep_round(bench, &mut many, amounts)?;
        under.push(rates);
        ended.get_or_insert(cost);
        bench.progress.done(under_sweep);
    }
    drop(few_paused);
    let ended = ended.context("no round in which all flows are over")?;
    let found =
        Found { amounts, memory, lookups: lookups_found, traffic, alive, ended, under_sweep: under, lists };
    tables::part(&found)
}

fn time_lookups(bench: &Bench, amounts: Amounts, sites: [(&Site<'_>, &Host); 2]) -> Result<Vec<Runs>> {
    let programs = sites.map(|(site, host)| Program::of(site, &host.ns));
    let mut found = Vec::new();
    for ((site, host), program) in sites.iter().zip(programs) {
        let program = Rc::new(program?);
        for packets in [Packets::Foreign, Packets::OneFlow, Packets::AnyFlow] {
            let runs = Runs { packets, flows: site.flows, series_ns: Vec::new() };
            // What every site has alike is measured once.
            if packets != Packets::Foreign || site.flows == FEW {
                found.push((runs, Rc::clone(&program), *host));
            }
        }
    }
    let mut order: Vec<usize> = (0..found.len()).collect();
    for round in 1..=bench.rounds {
        bench.progress.doing(format!("round {round}: runs of from_uplink"));
        order.shuffle(&mut *bench.random.borrow_mut());
        for index in &order {
            let (runs, program, host) = &mut found[*index];
            bench.settle();
            let seed = bench.random.borrow_mut().random();
            let wanted = (runs.packets, runs.flows);
            runs.series_ns.push(program.time(&host.ns, wanted, amounts.runs.div_ceil(bench.rounds), seed)?);
        }
    }
    Ok(found.into_iter().map(|(runs, ..)| runs).collect())
}

/// Every workload through both sites, and through the one with fewer flows again.
fn time_traffic(bench: &Bench, sites: [&mut Site<'_>; 2], each: Duration) -> Result<Vec<Rates>> {
    let [few, many] = sites;
    let mut found = Vec::new();
    for round in 1..=bench.rounds {
        let mut workloads = WORKLOADS;
        workloads.shuffle(&mut *bench.random.borrow_mut());
        for workload in workloads {
            let mut order = [0, 1, 2];
            order.shuffle(&mut *bench.random.borrow_mut());
            let mut rates = [0.0; 3];
            for which in order {
                let site = if which == 2 { &mut *many } else { &mut *few };
                bench.progress.doing(format!("round {round}: {} with {} flows", workload.name(), site.flows));
                rates[which] = cell(bench, site, workload, bench.cell())?;
                bench.progress.done(each);
            }
            let [few_per_second, again_per_second, many_per_second] = rates;
            let workload = workload.name();
            found.push(Rates { round, workload, few_per_second, again_per_second, many_per_second });
        }
    }
    Ok(found)
}

/// Units of a workload a second.
fn cell(bench: &Bench, site: &mut Site<'_>, workload: Workload, duration: Duration) -> Result<f64> {
    interrupt::check()?;
    bench.settle();
    rate(&site.path.run(workload, duration)?)
}

fn rate(measured: &Measured) -> Result<f64> {
    ensure!(measured.seconds > 0.0 && measured.units > 0.0, "nothing was measured");
    Ok(measured.units / measured.seconds)
}

/// Has every flow that is written expire, and follows the collector until it has removed them.
fn end_all(many: &Site<'_>) -> Result<Cost> {
    let following = Following::start(many, many.rnet()?.log().len())?;
    expire(many, true)?;
    let cost = following.until(many, &|sweeps| is_empty(many, sweeps));
    expire(many, false)?;
    cost.context("have all flows collected")
}

/// Whether flows that are written count as over at once.
fn expire(many: &Site<'_>, at_once: bool) -> Result<()> {
    let change = if at_once { "tcp-established=1s" } else { "tcp-established=7440s" };
    many.rnet()?.ok(&["conntrack", "timeouts", change]);
    Ok(())
}

/// Whether these rounds have removed what is written, but for what a load's own segments have kept.
fn is_empty(many: &Site<'_>, sweeps: &[Sweep]) -> bool {
    sweeps.iter().map(|sweep| sweep.removed).sum::<u32>() >= many.flows - many.flows / 10
}

/// Datagrams with the daemon stopped, twice; while it goes round; while it removes every flow.
fn under_sweep_round(bench: &Bench, many: &mut Site<'_>, amounts: Amounts) -> Result<(UnderSweep, Cost)> {
    let mut found = UnderSweep::default();
    let mut order = [0, 1, 2];
    order.shuffle(&mut *bench.random.borrow_mut());
    {
        let _paused = Paused::new(many.pid)?;
        many.fill().context("write the flows")?;
    }
    for which in order {
        let paused = (which != 2).then(|| Paused::new(many.pid)).transpose()?;
        let rate = cell(bench, many, Workload::Udp, amounts.under_sweep)?;
        drop(paused);
        match which {
            0 => found.stopped_per_second = rate,
            1 => found.again_per_second = rate,
            _ => found.sweeping_per_second = rate,
        }
    }
    many.ensure_filled()?;
    let following = Following::start(many, many.rnet()?.log().len())?;
    expire(many, true)?;
    found.removing_per_second = rate(&many.path.run(Workload::Udp, amounts.under_sweep)?)?;
    let cost = following.until(many, &|sweeps| is_empty(many, sweeps)).context("have all flows collected")?;
    expire(many, false)?;
    Ok((found, cost))
}
