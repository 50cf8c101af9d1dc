//! What was found, as tables and figures.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{AT_ONCE, Amounts, By, Findings, Kept, Load, NAME, Timing, What, charts};
use crate::report::{Part, Spread, Table};

/// What publishing ten thousand ports may take, in seconds.
const WANTED_SECONDS: f64 = 0.5;
/// How many times faster than single calls of iptables that is to be.
const WANTED_RATIO: f64 = 100.0;
/// How many ports these are about.
const WANTED_PORTS: u32 = 10_000;

/// Maps that have a row of their own.
const LARGEST: usize = 10;

const MIB: f64 = 1024.0 * 1024.0;

/// Who a figure is of.
pub(super) fn name_of(by: By) -> &'static str {
    match by {
        By::Rnet => "rnet",
        By::IptablesCalls => "iptables, a call a rule",
        By::IptablesRestore => "iptables-restore",
        By::Nft => "nft",
    }
}

/// The part of the report.
///
/// # Errors
/// When something was not measured.
pub(super) fn of(amounts: &Amounts, findings: &Findings) -> Result<Part> {
    let ports = Load::Ports(amounts.ports);
    let mut tables = containers(amounts, findings)?;
    tables.push(publishing(ports, findings)?);
    if amounts.ports == WANTED_PORTS {
        tables.push(targets(ports, findings)?);
    }
    tables.push(starting(findings)?);
    tables.extend(memory(findings)?);
    Ok(Part {
        name: NAME,
        title: "The controller",
        about: about(amounts, findings),
        tables,
        charts: charts::of(amounts, findings)?,
        figures: json!({
            "containers": amounts.containers,
            "ports": amounts.ports,
            "clients_at_once": AT_ONCE,
            "timings": findings.timings,
            "iptables_calls": findings.samples,
            "memory": findings.memory,
        }),
    })
}

fn about(amounts: &Amounts, findings: &Findings) -> String {
    let calls: u32 = findings.samples.iter().map(|sample| sample.ports * 3).sum();
    let levels: BTreeSet<u32> = findings.samples.iter().map(|sample| sample.filled_ports).collect();
    let levels = levels.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "Commands are timed from the start of their process to its end. A container is a namespace with one published \
         port. The ports are {} of one container, in one command; `{}` is an **estimate**: {calls} calls of it each way \
         were timed while {levels} ports were published, and what a port costs was integrated over these levels. Docker \
         asks before each rule whether it is there, which is another call and is left out. {} cells, of which {} began \
         while the machine was busy otherwise.",
        amounts.ports,
        name_of(By::IptablesCalls),
        findings.cells,
        findings.disturbed,
    )
}

fn containers(amounts: &Amounts, findings: &Findings) -> Result<Vec<Table>> {
    let columns = [
        (What::Run, "run, one at a time".to_owned()),
        (What::RunAtOnce, format!("run, {AT_ONCE} at once")),
        (What::Remove, "rm, one at a time".to_owned()),
        (What::Down, "down".to_owned()),
    ];
    let mut each = Table::new("Milliseconds a container: median (least to most)", &["containers"]);
    let mut all = Table::new("Seconds for all containers: median (least to most)", &["containers"]);
    for table in [&mut each, &mut all] {
        table.columns.extend(columns.iter().map(|(_, heading)| heading.clone()));
    }
    for count in amounts.containers {
        let row = |factor: f64| -> Result<Vec<String>> {
            let cells = columns.iter().map(|(what, _)| {
                Ok(show(scaled(findings.seconds(By::Rnet, *what, Load::Containers(*count))?, factor)))
            });
            std::iter::once(Ok(count.to_string())).chain(cells).collect()
        };
        each.row(row(1000.0 / f64::from(*count))?);
        all.row(row(1.0)?);
    }
    Ok(vec![each, all])
}

fn publishing(ports: Load, findings: &Findings) -> Result<Table> {
    let columns = ["by", "publish, s", "unpublish, s", "publish, ratio", "unpublish, ratio"];
    let title = format!("{ports} of one container, ratio to rnet's time: median (least to most)");
    let mut table = Table::new(title, &columns);
    for by in [By::Rnet, By::Nft, By::IptablesRestore, By::IptablesCalls] {
        let mut row = vec![name_of(by).to_owned()];
        for what in [What::Publish, What::Unpublish] {
            row.push(show(findings.seconds(by, what, ports)?));
        }
        for what in [What::Publish, What::Unpublish] {
            row.push(show(findings.ratio(by, what, ports)?));
        }
        table.row(row);
    }
    Ok(table)
}

fn targets(ports: Load, findings: &Findings) -> Result<Table> {
    let mut table = Table::new("Targets", &["target", "wanted", "measured", "reached"]);
    let seconds = findings.seconds(By::Rnet, What::Publish, ports)?.median;
    let ratio = findings.ratio(By::IptablesCalls, What::Publish, ports)?.median;
    for (target, wanted, measured, is_reached) in [
        (
            format!("{ports} in one `rnet publish`, in seconds"),
            format!("<= {WANTED_SECONDS}"),
            seconds,
            seconds <= WANTED_SECONDS,
        ),
        (
            format!("times faster than {}", name_of(By::IptablesCalls)),
            format!(">= {WANTED_RATIO}"),
            ratio,
            ratio >= WANTED_RATIO,
        ),
    ] {
        let reached = if is_reached { "yes" } else { "no" };
        table.row([target, wanted, figure(measured), reached.to_owned()]);
    }
    Ok(table)
}

fn starting(findings: &Findings) -> Result<Table> {
    let title = "From the daemon's start to its first answer: median (least to most)";
    let mut table = Table::new(title, &["what it finds", "seconds"]);
    let is_start = |timing: &&Timing| timing.what == What::Start;
    let loads: BTreeSet<Load> = findings.timings.iter().filter(is_start).map(|t| t.load).collect();
    for load in loads {
        table.row([load.to_string(), show(findings.seconds(By::Rnet, What::Start, load)?)]);
    }
    Ok(table)
}

fn memory(findings: &Findings) -> Result<[Table; 2]> {
    let loads: BTreeSet<Load> = findings.memory.iter().map(|kept| kept.load).collect();
    let spread = |load: Load, value: &dyn Fn(&Kept) -> u64| {
        let of_load = findings.memory.iter().filter(|kept| kept.load == load);
        let values: Vec<f64> = of_load.map(|kept| float(value(kept))).collect();
        Spread::of(&values).with_context(|| format!("no memory was looked at with {load}"))
    };
    let mut all = Table::new(
        "Memory in MiB: median (least to most)",
        &["with", "daemon's RSS", "daemon's PSS", "BPF maps", "BPF programs"],
    );
    for load in &loads {
        let cells = [
            spread(*load, &|kept| kept.memory.process.rss_kib * 1024),
            spread(*load, &|kept| kept.memory.process.pss_kib * 1024),
            spread(*load, &|kept| kept.memory.all_maps_bytes()),
            spread(*load, &|kept| kept.memory.programs_bytes),
        ];
        let cells = cells.map(|bytes| bytes.map(|bytes| show(scaled(bytes, 1.0 / MIB))));
        all.row(std::iter::once(Ok(load.to_string())).chain(cells).collect::<Result<Vec<_>>>()?);
    }
    let mut maps = Table::new("The largest BPF maps, in KiB: median", &["map"]);
    maps.columns.extend(loads.iter().map(Load::to_string));
    let names: BTreeSet<&String> =
        findings.memory.iter().flat_map(|kept| kept.memory.maps_bytes.keys()).collect();
    let bytes_of = |name: &str, kept: &Kept| kept.memory.maps_bytes.get(name).copied().unwrap_or_default();
    let most = |name: &&String| findings.memory.iter().map(|kept| bytes_of(name, kept)).max();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(most(name)));
    let (largest, others) = names.split_at(names.len().min(LARGEST));
    let rows = largest.iter().map(|name| ((*name).clone(), std::slice::from_ref(name)));
    for (heading, names) in rows.chain([(format!("{} others", others.len()), others)]) {
        let cells = loads.iter().map(|load| {
            let sum = |kept: &Kept| names.iter().map(|name| bytes_of(name, kept)).sum();
            Ok(figure(spread(*load, &sum)?.median / 1024.0))
        });
        maps.row(std::iter::once(Ok(heading)).chain(cells).collect::<Result<Vec<_>>>()?);
    }
    Ok([all, maps])
}

impl Findings {
    fn of(&self, by: By, what: What, load: Load) -> impl Iterator<Item = &Timing> {
        self.timings.iter().filter(move |t| t.by == by && t.what == what && t.load == load)
    }

    pub(super) fn seconds(&self, by: By, what: What, load: Load) -> Result<Spread> {
        let seconds: Vec<f64> = self.of(by, what, load).map(|timing| timing.seconds).collect();
        Spread::of(&seconds)
            .with_context(|| format!("{what:?} of {load} by {} was not measured", name_of(by)))
    }

    /// The time that it takes, divided by rnet's in the same round.
    fn ratio(&self, by: By, what: What, load: Load) -> Result<Spread> {
        let ratios = self.of(by, what, load).filter_map(|timing| {
            let ours = self.of(By::Rnet, what, load).find(|ours| ours.round == timing.round)?;
            Some(timing.seconds / ours.seconds)
        });
        Spread::of(&ratios.collect::<Vec<_>>())
            .with_context(|| format!("{what:?} of {load} by {} was not measured", name_of(by)))
    }
}

/// A spread in another unit.
pub(super) fn scaled(spread: Spread, factor: f64) -> Spread {
    Spread { median: spread.median * factor, min: spread.min * factor, max: spread.max * factor }
}

/// Where all are the same, as with one round, once.
fn show(spread: Spread) -> String {
    if figure(spread.min) == figure(spread.max) {
        return figure(spread.median);
    }
    format!("{} ({}–{})", figure(spread.median), figure(spread.min), figure(spread.max))
}

/// A figure to three digits, or to a thousandth.
fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes, which no machine has")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            QUICK, Sample,
            memory::{Memory, Resident},
        },
        *,
    };

    const AMOUNTS: Amounts = Amounts { containers: &[10], ports: WANTED_PORTS, sample: 2 };

    /// Two rounds, of which all takes twice as long in the second.
    fn findings() -> Findings {
        let mut findings = Findings { cells: 12, disturbed: 1, ..Findings::default() };
        for (round, factor) in [(1, 1.0), (2, 2.0)] {
            let mut time = |by, what, load, seconds: f64| {
                let seconds = seconds * factor;
                findings.timings.push(Timing { round, by, what, load, seconds, disturbed: false });
            };
            for what in [What::Run, What::RunAtOnce, What::Remove, What::Down, What::Start] {
                time(By::Rnet, what, Load::Containers(10), 0.5);
            }
            time(By::Rnet, What::Start, Load::Nothing, 0.25);
            for (by, seconds) in
                [(By::Rnet, 0.25), (By::Nft, 0.125), (By::IptablesRestore, 0.5), (By::IptablesCalls, 50.0)]
            {
                time(by, What::Publish, Load::Ports(WANTED_PORTS), seconds);
                time(by, What::Unpublish, Load::Ports(WANTED_PORTS), seconds);
            }
            for filled_ports in [0, WANTED_PORTS] {
                let (publish_seconds, unpublish_seconds) = (0.5, 0.25);
                findings.samples.push(Sample {
                    round,
                    filled_ports,
                    ports: 2,
                    publish_seconds,
                    unpublish_seconds,
                });
            }
            for (load, bytes) in [(Load::Nothing, 2048), (Load::Ports(WANTED_PORTS), 3 * 1024 * 1024)] {
                let maps = (0..12).map(|n| (format!("MAP{n:02}"), bytes + n));
                let memory = Memory {
                    process: Resident { rss_kib: 2048, pss_kib: 1024 },
                    maps_bytes: maps.collect(),
                    programs_bytes: 512 * 1024,
                };
                findings.memory.push(Kept { round, load, memory });
            }
        }
        findings
    }

    fn table<'p>(part: &'p Part, title: &str) -> &'p Table {
        part.tables.iter().find(|table| table.title.starts_with(title)).unwrap()
    }

    #[test]
    fn times_are_medians_and_ratios_are_within_a_round() {
        let part = of(&AMOUNTS, &findings()).unwrap();
        let each = table(&part, "Milliseconds a container");
        assert_eq!(each.rows[0][..2], ["10", "75.0 (50.0–100)"]);
        assert_eq!(table(&part, "Seconds for all").rows[0][4], "0.750 (0.500–1.00)");
        let ports = table(&part, "10000 ports of one container");
        assert_eq!(ports.rows[0], ["rnet", "0.375 (0.250–0.500)", "0.375 (0.250–0.500)", "1.00", "1.00"]);
        assert_eq!(ports.rows[3][0], "iptables, a call a rule");
        assert_eq!(ports.rows[3][3], "200");
        let starts = table(&part, "From the daemon's start");
        assert_eq!(
            starts.rows,
            [["nothing", "0.375 (0.250–0.500)"], ["10 containers", "0.750 (0.500–1.00)"]]
        );
        assert_eq!(part.charts[0].groups[0].bars[0].value.median, 75.0);
    }

    #[test]
    fn targets_are_judged_by_what_was_measured_and_only_of_as_many_ports() {
        let mut findings = findings();
        let part = of(&AMOUNTS, &findings).unwrap();
        let reached =
            |part: &Part| table(part, "Targets").rows.iter().map(|row| row[3].clone()).collect::<Vec<_>>();
        assert_eq!(reached(&part), ["yes", "yes"]);
        for timing in findings.timings.iter_mut().filter(|t| t.by == By::Rnet) {
            timing.seconds *= 3.0;
        }
        assert_eq!(reached(&of(&AMOUNTS, &findings).unwrap()), ["no", "no"]);
        for timing in &mut findings.timings {
            if let Load::Ports(ports) = &mut timing.load {
                *ports = QUICK.ports;
            }
        }
        let few = Amounts { ports: QUICK.ports, ..AMOUNTS };
        let part = of(&few, &findings).unwrap();
        assert!(part.tables.iter().all(|table| table.title != "Targets"));
    }

    #[test]
    fn the_largest_maps_have_rows_and_the_others_a_sum() {
        let part = of(&AMOUNTS, &findings()).unwrap();
        let all = table(&part, "Memory in MiB");
        assert_eq!(all.rows[1][1..], ["2.00", "1.00", "36.0", "0.500"]);
        let maps = table(&part, "The largest BPF maps");
        assert_eq!(maps.columns, ["map", "nothing", "10000 ports"]);
        assert_eq!(maps.rows.len(), LARGEST + 1);
        assert_eq!(maps.rows[0], ["MAP11", "2.01", "3072"]);
        assert_eq!(maps.rows[LARGEST], ["2 others", "4.00", "6144"]);
    }

    #[test]
    fn an_estimate_is_said_to_be_one() {
        let part = of(&AMOUNTS, &findings()).unwrap();
        assert!(
            part.about
                .contains("is an **estimate**: 24 calls of it each way were timed while 0, 10000 ports"),
            "{}",
            part.about
        );
        assert_eq!(part.figures["iptables_calls"][0]["publish_seconds"], 0.5);
        assert_eq!(part.figures["memory"][0]["rss_kib"], 2048);
        assert_eq!(part.figures["timings"][0]["load"], "10 containers");
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        let mut findings = findings();
        findings.timings.retain(|timing| timing.what != What::Down);
        let error = of(&AMOUNTS, &findings).unwrap_err().to_string();
        assert_eq!(error, "Down of 10 containers by rnet was not measured");
    }
}
