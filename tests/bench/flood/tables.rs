//! What was found, as people read it.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    Amounts, Filter, NAME, Outcome, Room,
    probe::{Phase, Probe},
};
use crate::{
    report::{Bar, Chart, Group, Part, Spread, Table},
    traffic::{figure, spread},
};

/// The part.
///
/// # Errors
/// When something has no figures.
pub(super) fn part(amounts: Amounts, outcomes: &[Outcome]) -> Result<Part> {
    let Amounts { rate, small, large, phase, .. } = amounts;
    let mut chart =
        Chart::ratios(NAME, "What a flood of SYN leaves", "answers a second: during the flood / before it");
    let holds = format!("Tables for {large} flows, which hold the flood");
    let fills = if amounts.fill {
        format!(
            "The flood fills the table: rnet's is for {small} flows, conntrack's has as many entries free"
        )
    } else {
        format!(
            "rnet's table is for {small} flows, and the flood fills it; conntrack's is not filled ({large})"
        )
    };
    let mut tables = Vec::new();
    for (room, title, short) in [(Room::Holds, holds, "holds"), (Room::Fills, fills, "full")] {
        tables.push(effects(outcomes, room, title, short, &mut chart)?);
    }
    tables.push(fates(outcomes)?);
    Ok(Part {
        name: NAME,
        title: "A flood of SYN",
        about: format!(
            "{rate} segments a second that open connections, from sources of 198.18.0.0/15 that do not answer, go to \
             a published port for {} s. A request every millisecond on a connection that was there before, a datagram \
             every millisecond of a flow that was there before, and 200 new connections a second go to another \
             published port of the same container. An answer that takes longer than 0.9 s (a datagram's: 0.1 s) counts as \
             none. Conntrack forgets half-open connections early when its table is full.",
            phase.as_secs_f64()
        ),
        tables,
        charts: vec![chart],
        figures: json!({"amounts": amounts, "floods": outcomes}),
    })
}

fn effects(outcomes: &[Outcome], room: Room, title: String, short: &str, chart: &mut Chart) -> Result<Table> {
    let columns = [
        "path",
        "what",
        "answers/s before",
        "during / before",
        "after / before",
        "unanswered during",
        "p99 before, µs",
        "p99 during, µs",
    ];
    let mut table = Table::new(title, &columns);
    for probe in Probe::ALL {
        let mut bars = Vec::new();
        for filter in [Filter::Iptables, Filter::Rnet] {
            let effects: Vec<_> = outcomes
                .iter()
                .filter(|outcome| outcome.filter == filter && outcome.room == room)
                .flat_map(|outcome| outcome.effects.iter().filter(|effect| effect.probe == probe))
                .collect();
            if effects.is_empty() {
                continue;
            }
            let of = |value: &dyn Fn(&super::Effect) -> f64| {
                let values: Vec<f64> = effects.iter().map(|effect| value(effect)).collect();
                Spread::of(&values).context("a flood without figures")
            };
            let during = of(&|e| e.during.answered_per_second / e.before.answered_per_second)?;
            table.row([
                filter.name().to_owned(),
                probe.name().to_owned(),
                figure(of(&|e| e.before.answered_per_second)?.median),
                spread(during),
                spread(of(&|e| e.after.answered_per_second / e.before.answered_per_second)?),
                format!("{:.1} %", of(&|e| unanswered(&e.during) * 100.0)?.median),
                figure(of(&|e| e.before.p99_us)?.median),
                figure(of(&|e| e.during.p99_us)?.median),
            ]);
            bars.push(Bar { series: filter.name().to_owned(), value: during });
        }
        if !bars.is_empty() {
            chart.groups.push(Group { label: format!("{}, table {short}", probe.name()), bars, noise: None });
        }
    }
    Ok(table)
}

/// Which share of a phase's attempts was not answered.
fn unanswered(phase: &Phase) -> f64 {
    // Exact: far below 2^53.
    if phase.attempts == 0 { 0.0 } else { 1.0 - phase.answered as f64 / phase.attempts as f64 }
}

fn fates(outcomes: &[Outcome]) -> Result<Table> {
    let columns =
        ["path", "table", "filled with", "sent", "flows after", "found the table full", "beyond a rate"];
    let mut table = Table::new("The floods: median", &columns);
    for filter in [Filter::Iptables, Filter::Rnet] {
        for (room, name) in [(Room::Holds, "holds"), (Room::Fills, "full")] {
            let of: Vec<&Outcome> =
                outcomes.iter().filter(|o| o.filter == filter && o.room == room).collect();
            if of.is_empty() {
                continue;
            }
            let median = |value: &dyn Fn(&Outcome) -> f64| {
                let values: Vec<f64> = of.iter().map(|outcome| value(outcome)).collect();
                Spread::of(&values).map(|spread| format!("{:.0}", spread.median)).context("no flood")
            };
            // Exact: far below 2^53.
            let [full, refused] = match filter {
                Filter::Iptables => ["not told".to_owned(), "-".to_owned()],
                Filter::Rnet => [
                    median(&|o| o.table_full_packets.unwrap_or_default() as f64)?,
                    median(&|o| o.source_rate_packets.unwrap_or_default() as f64)?,
                ],
            };
            table.row([
                filter.name().to_owned(),
                name.to_owned(),
                median(&|o| f64::from(o.filled_segments))?,
                median(&|o| f64::from(o.sent_segments))?,
                median(&|o| o.flows_after as f64)?,
                full,
                refused,
            ]);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_was_not_lost() {
        let phase = |attempts, answered| Phase { attempts, answered, ..Phase::default() };
        assert!((unanswered(&phase(0, 0)) - 0.0).abs() < 1e-9);
        assert!((unanswered(&phase(4, 1)) - 0.75).abs() < 1e-9);
    }
}
