//! Real traffic through paths that do the same by different means, all of them up at once.
//!
//! A round measures every workload on every path once, in random order, and the reference twice. A path's figure is
//! the median over the rounds of its ratio to the reference in the same round, so that what the machine does meanwhile
//! falls on both; the reference's second measurement shows how much of a ratio is noise.

mod groups;
pub(crate) mod netfilter;
mod path;
pub(crate) mod sites;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use rand::seq::SliceRandom as _;
use serde::Serialize;
use testbed::Host;

pub(crate) use self::{
    groups::{GROUPS, Group, iptables},
    path::{PORT, Path},
};
use crate::{
    Bench,
    busy::{self, CpuTime},
    interrupt,
    load::{Latency, Workload},
    report::{self, Bar, Chart, Part, Spread, Table},
};

/// How long the machine may take to become quiet before a cell is measured nevertheless.
pub(crate) const QUIET_LIMIT: Duration = Duration::from_secs(5);
/// What a cell takes besides its load: processes that start, and the wait for a quiet machine.
const OVERHEAD: Duration = Duration::from_millis(450);

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    round: u32,
    path: &'static str,
    workload: String,
    unit: &'static str,
    /// The reference's second measurement of the round.
    again: bool,
    /// Units a second.
    rate: f64,
    /// Busy processor time of the whole machine, in microseconds a unit.
    cpu_us: f64,
    latency_us: Option<Latency>,
    failures: u64,
    /// The machine was busy with something else when it began.
    disturbed: bool,
}

/// Measures one group.
///
/// # Errors
/// When a path cannot be made, or nothing passes through it.
pub(crate) fn run(bench: &Bench, group: &Group) -> Result<Part> {
    let workloads: Vec<Workload> =
        group.workloads.iter().copied().filter(|w| bench.only.wants_workload(&w.name())).collect();
    let builds: Vec<_> = group
        .paths
        .iter()
        .filter(|(name, _)| *name == group.reference || bench.only.wants_path(name))
        .collect();
    let hosts: Vec<Host> = builds.iter().map(|_| Host::new()).collect();
    let mut paths = Vec::new();
    for ((name, build), host) in builds.iter().zip(&hosts) {
        bench.progress.doing(format!("making {name}"));
        paths.push(build(name, host).with_context(|| format!("make the path {name}"))?);
    }
    let reference =
        paths.iter().position(|p| p.name == group.reference).context("a group without its reference")?;
    let duration = bench.cell();
    let mut order: Vec<(usize, bool, Workload)> = workloads
        .iter()
        .flat_map(|w| {
            let again = std::iter::once((reference, true, *w));
            (0..paths.len()).map(|path| (path, false, *w)).chain(again)
        })
        .collect();
    let each = duration + OVERHEAD;
    bench.progress.expect(each * u32::try_from(order.len()).unwrap_or(u32::MAX) * bench.rounds);
    let mut cells = Vec::new();
    for round in 1..=bench.rounds {
        order.shuffle(&mut *bench.random.borrow_mut());
        for (path, again, workload) in &order {
            let path = &mut paths[*path];
            bench.progress.doing(format!("round {round}: {} through {}", workload.name(), path.name));
            interrupt::check()?;
            let disturbed = !busy::wait_quiet(QUIET_LIMIT);
            bench.disturbed.update(|count| count + u32::from(disturbed));
            let before = CpuTime::now();
            let measured = path.run(*workload, duration)?;
            let busy = CpuTime::now().since(before);
            cells.push(Cell {
                round,
                path: path.name,
                workload: workload.name(),
                unit: workload.unit().name(),
                again: *again,
                rate: measured.units / measured.seconds,
                cpu_us: busy * 1e6 / measured.units,
                latency_us: measured.latency,
                failures: measured.failures,
                disturbed,
            });
            bench.progress.done(each);
        }
    }
    let names: Vec<&'static str> = paths.iter().map(|p| p.name).collect();
    summarise(group, &workloads, &names, &cells)
}

fn summarise(group: &Group, workloads: &[Workload], paths: &[&'static str], cells: &[Cell]) -> Result<Part> {
    let mut tables = vec![
        Table::new(format!("Ratio to {}: median (least to most)", group.reference), &["workload"]),
        Table::new("Rate: median over the rounds", &["workload"]),
        Table::new("Latency in µs: median of p50 / p99", &["workload"]),
        Table::new("Busy processor time in µs a unit: median", &["workload"]),
    ];
    for table in &mut tables {
        table.columns.extend(paths.iter().map(|p| (*p).to_owned()));
    }
    tables[0].columns.push("noise".to_owned());
    let mut chart = Chart::ratios(group.name, group.title, format!("ratio to {}", group.reference));
    let mut figures = BTreeMap::new();
    for workload in workloads {
        let of_workload: Vec<&Cell> = cells.iter().filter(|c| c.workload == workload.name()).collect();
        let ratios = |path: &str, again: bool| -> Option<Spread> {
            let rate = |cell: &&&Cell| cell.path == path && cell.again == again;
            let ratios: Vec<f64> = of_workload
                .iter()
                .filter(rate)
                .filter_map(|cell| {
                    let of_round =
                        |c: &&&Cell| c.path == group.reference && !c.again && c.round == cell.round;
                    of_workload.iter().find(of_round).map(|reference| cell.rate / reference.rate)
                })
                .collect();
            Spread::of(&ratios)
        };
        let noise = ratios(group.reference, true).context("a reference without measurements")?;
        let mut rows = vec![vec![workload.name()]; tables.len()];
        rows[1][0] = format!("{}, {}", workload.name(), workload.unit().name());
        let mut bars = Vec::new();
        for path in paths {
            let all = |value: &dyn Fn(&Cell) -> Option<f64>| {
                let of_path = of_workload.iter().filter(|c| c.path == *path);
                Spread::of(&of_path.filter_map(|c| value(c)).collect::<Vec<_>>())
            };
            let ratio = ratios(path, false).context("a path without measurements")?;
            rows[0].push(spread(ratio));
            rows[1].push(all(&|c| Some(c.rate)).map_or_else(String::new, |s| figure(s.median)));
            let latency = |of: fn(&Latency) -> f64| all(&|c: &Cell| c.latency_us.as_ref().map(of));
            rows[2].push(match (latency(|l| l.p50), latency(|l| l.p99)) {
                (Some(p50), Some(p99)) => format!("{} / {}", figure(p50.median), figure(p99.median)),
                _ => String::new(),
            });
            rows[3].push(all(&|c| Some(c.cpu_us)).map_or_else(String::new, |s| figure(s.median)));
            if *path != group.reference {
                bars.push(Bar { series: (*path).to_owned(), value: ratio });
            }
            figures.insert(format!("{}/{path}", workload.name()), ratio);
        }
        rows[0].push(spread(noise));
        chart.groups.push(report::Group { label: workload.name(), noise: Some(noise), bars });
        for (table, row) in tables.iter_mut().zip(rows) {
            // Not every workload has latencies.
            if row[1..].iter().any(|cell| !cell.is_empty()) {
                table.row(row);
            }
        }
    }
    let disturbed = cells.iter().filter(|c| c.disturbed).count();
    let failures: u64 = cells.iter().map(|c| c.failures).sum();
    let about = format!(
        "{} {} cells, {failures} failed attempts, {disturbed} cells began while the machine was busy otherwise.",
        group.about,
        cells.len(),
    );
    tables.retain(|table| !table.rows.is_empty());
    Ok(Part {
        name: group.name,
        title: group.title,
        about,
        tables,
        charts: vec![chart],
        figures: serde_json::json!({"reference": group.reference, "ratios": figures, "cells": cells}),
    })
}

/// A ratio, with the least and the most.
pub(crate) fn spread(of: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", of.median, of.min, of.max)
}

/// A figure to three digits.
pub(crate) fn figure(value: f64) -> String {
    match value {
        v if v >= 1e5 => format!("{:.0}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(round: u32, path: &'static str, again: bool, rate: f64) -> Cell {
        let workload = Workload::Connect;
        Cell {
            round,
            path,
            workload: workload.name(),
            unit: workload.unit().name(),
            again,
            rate,
            cpu_us: 1.0,
            latency_us: None,
            failures: 0,
            disturbed: false,
        }
    }

    /// A machine that is twice as fast in one round does not change what a path is worth.
    #[test]
    fn ratios_are_within_a_round() {
        let group = &GROUPS[0];
        let mut cells = Vec::new();
        for (round, speed) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
            cells.push(cell(round, "iptables", false, 100.0 * speed));
            cells.push(cell(round, "iptables", true, 101.0 * speed));
            cells.push(cell(round, "rnet", false, 150.0 * speed));
        }
        let part = summarise(group, &[Workload::Connect], &["iptables", "rnet"], &cells).unwrap();
        assert_eq!(part.figures["ratios"]["connect/rnet"]["median"], 1.5);
        assert_eq!(
            part.tables[0].rows[0],
            ["connect", "1.00 (1.00–1.00)", "1.50 (1.50–1.50)", "1.01 (1.01–1.01)"]
        );
    }
}
