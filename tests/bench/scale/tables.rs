//! What was found, as people read it.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{FEW, Found, NAME, Rates, Runs, WORKLOADS, collector::Cost, lookup};
use crate::{
    report::{Bar, Chart, Group, Part, Spread, Table},
    traffic::{figure, spread},
};

/// The part.
///
/// # Errors
/// When something has no figures.
pub(super) fn part(found: &Found) -> Result<Part> {
    let many = found.amounts.flows;
    let mut chart = Chart::ratios(NAME, format!("{many} flows"), format!("ratio to {FEW} flows"));
    let tables = vec![
        memory(found),
        lookups(found)?,
        traffic(found, &mut chart)?,
        collector(found),
        under_sweep(found, &mut chart)?,
        lists(found),
    ];
    Ok(Part {
        name: NAME,
        title: "A million flows",
        about: format!(
            "Two instances whose tables hold as much, with {FEW} and {many} established TCP flows. The flows are \
             written into the pinned tables as the programs would write them; traffic goes beside them. While \
             packets are measured the daemons are stopped, except where the collector is the subject."
        ),
        tables,
        charts: vec![chart],
        figures: json!({
            "amounts": found.amounts,
            "memory": found.memory,
            "lookups": found.lookups.iter().map(figures_of_runs).collect::<Vec<_>>(),
            "traffic": found.traffic,
            "collector": {"all_alive": found.alive, "all_over": found.ended},
            "under_collector": found.under_sweep,
            "lists": found.lists.iter().map(|(format, cost)| json!({"format": format, "cost": cost})).collect::<Vec<_>>(),
        }),
    })
}

fn figures_of_runs(runs: &Runs) -> serde_json::Value {
    json!({
        "packets": name(runs),
        "flows": runs.flows,
        "runs": runs.series_ns.iter().map(Vec::len).sum::<usize>(),
        "mean_between_quartiles_ns": lookup::typical(&runs.series_ns),
    })
}

fn name(runs: &Runs) -> &'static str {
    match runs.packets {
        lookup::Packets::Foreign => "not IP: the clock, and a program that only counts",
        lookup::Packets::OneFlow => "all of one flow",
        lookup::Packets::AnyFlow => "each of any flow",
    }
}

fn memory(found: &Found) -> Table {
    let mut table = Table::new(
        "Memory of the flow table (IPv4)",
        &["flows", "by the kernel's count", "less memory available", "more in slabs", "bytes a flow"],
    );
    let memory = &found.memory;
    let more = found.amounts.flows - FEW;
    let mega = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    // Exact: far below 2^53.
    let (few, many) = (memory.few_memlock_bytes as f64, memory.many_memlock_bytes as f64);
    table.row([FEW.to_string(), mega(few), String::new(), String::new(), String::new()]);
    table.row([
        found.amounts.flows.to_string(),
        mega(many),
        mega(memory.available_less_bytes as f64),
        mega(memory.slab_more_bytes as f64),
        format!("{:.0}", (many - few) / f64::from(more)),
    ]);
    table
}

fn lookups(found: &Found) -> Result<Table> {
    let mut table = Table::new(
        "from_uplink, ns a packet: median of the rounds (least–most)",
        &["packets", "flows", "ns"],
    );
    for runs in &found.lookups {
        let Spread { median, min, max } =
            lookup::typical(&runs.series_ns).context("a program without runs")?;
        let ns = format!("{median:.0} ({min:.0}–{max:.0})");
        table.row([name(runs).to_owned(), runs.flows.to_string(), ns]);
    }
    Ok(table)
}

fn traffic(found: &Found, chart: &mut Chart) -> Result<Table> {
    let many = found.amounts.flows;
    let mut table = Table::new(
        format!("Traffic with {many} flows, ratio to {FEW}: median (least–most)"),
        &["workload", &format!("rate with {FEW}"), &format!("rate with {many}"), "ratio", "noise"],
    );
    for workload in WORKLOADS {
        let rates: Vec<&Rates> = found.traffic.iter().filter(|r| r.workload == workload.name()).collect();
        let of = |value: fn(&Rates) -> f64| {
            Spread::of(&rates.iter().map(|r| value(r)).collect::<Vec<_>>())
                .context("a workload without rates")
        };
        let ratio = of(|r| r.many_per_second / r.few_per_second)?;
        let noise = of(|r| r.again_per_second / r.few_per_second)?;
        table.row([
            format!("{}, {}", workload.name(), workload.unit().name()),
            figure(of(|r| r.few_per_second)?.median),
            figure(of(|r| r.many_per_second)?.median),
            spread(ratio),
            spread(noise),
        ]);
        chart.groups.push(bar(workload.name(), format!("rnet {many}"), ratio, noise));
    }
    Ok(table)
}

fn bar(label: String, series: String, value: Spread, noise: Spread) -> Group {
    Group { label, bars: vec![Bar { series, value }], noise: Some(noise) }
}

fn collector(found: &Found) -> Table {
    let mut table = Table::new(
        format!("One round of the collector over {} flows", found.amounts.flows),
        &[
            "flows",
            "took, ms",
            "daemon's CPU, ms",
            "longest request, ms",
            "median request, ms",
            "daemon's peak",
        ],
    );
    for (name, cost) in [("all alive", &found.alive), ("all over: removed", &found.ended)] {
        table.row([
            name.to_owned(),
            figure(longest(cost)),
            figure(cost.cpu_ms),
            figure(cost.request_max_ms),
            figure(cost.request_median_ms),
            peak(cost.daemon_peak_bytes),
        ]);
    }
    table
}

fn longest(cost: &Cost) -> f64 {
    cost.took_ms.iter().copied().fold(0.0, f64::max)
}

fn peak(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

fn under_sweep(found: &Found, chart: &mut Chart) -> Result<Table> {
    let mut table = Table::new(
        format!("udp with {} flows, ratio to the daemon stopped: median (least–most)", found.amounts.flows),
        &["the collector", "ratio", "noise"],
    );
    let of = |value: &dyn Fn(&super::UnderSweep) -> f64| {
        let ratios: Vec<f64> = found.under_sweep.iter().map(|r| value(r) / r.stopped_per_second).collect();
        Spread::of(&ratios).context("no round while the collector goes round")
    };
    let noise = of(&|r| r.again_per_second)?;
    for (name, ratio) in [
        ("goes round", of(&|r| r.sweeping_per_second)?),
        ("removes all that is written", of(&|r| r.removing_per_second)?),
    ] {
        table.row([name.to_owned(), spread(ratio), spread(noise)]);
        chart.groups.push(bar(format!("udp, collector {name}"), "rnet".to_owned(), ratio, noise));
    }
    Ok(table)
}

fn lists(found: &Found) -> Table {
    let mut table = Table::new(
        format!("rnet conntrack ls of {} flows", found.amounts.flows),
        &["format", "took, ms", "its peak", "daemon's peak", "longest request, ms"],
    );
    for (format, cost) in &found.lists {
        table.row([
            (*format).to_owned(),
            figure(cost.took_ms),
            peak(cost.client_peak_bytes),
            peak(cost.daemon_peak_bytes),
            figure(cost.request_max_ms),
        ]);
    }
    table
}
