//! The datapath's counters, as `rnet stats --format json` tells them, and what changed between two looks.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::screen::table;

/// A way out of the datapath: which program took it, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) program: String,
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) meaning: String,
}

/// What went that way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// All counters at one moment, or the difference between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters(BTreeMap<Way, Count>);

impl Counters {
    /// From what `rnet stats --format json` printed.
    pub(super) fn parse(json: &str) -> Result<Self> {
        let entries: Vec<Value> = serde_json::from_str(json).context("read `rnet stats --format json`")?;
        let counters = entries.iter().map(|entry| {
            let text = |field: &str| entry[field].as_str().map(str::to_owned);
            let number = |field: &str| entry[field].as_u64();
            let way = Way {
                program: text("program")?,
                verdict: text("verdict")?,
                reason: text("reason")?,
                meaning: text("meaning")?,
            };
            Some((way, Count { packets: number("packets")?, bytes: number("bytes")? }))
        });
        let counters = counters.collect::<Option<_>>();
        Ok(Self(counters.context("read `rnet stats --format json`: an entry lacks a field")?))
    }

    /// What came on top of `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let difference = |(way, now): (&Way, &Count)| {
            let before = earlier.0.get(way).copied().unwrap_or_default();
            let packets = now.packets.saturating_sub(before.packets);
            let bytes = now.bytes.saturating_sub(before.bytes);
            (packets > 0).then(|| (way.clone(), Count { packets, bytes }))
        };
        Self(self.0.iter().filter_map(difference).collect())
    }

    /// Whether that program carried packets for that reason.
    pub(super) fn carried(&self, program: &str, reason: &str) -> bool {
        self.0.iter().any(|(way, count)| {
            way.program == program && way.reason == reason && way.verdict == "carried" && count.packets > 0
        })
    }

    /// Packets of a verdict.
    pub(super) fn packets(&self, verdict: &str) -> u64 {
        self.0.iter().filter(|(way, _)| way.verdict == verdict).map(|(_, count)| count.packets).sum()
    }

    /// A table of the ways of one verdict.
    pub(super) fn table(&self, verdict: &str) -> String {
        let rows: Vec<_> = self
            .0
            .iter()
            .filter(|(way, _)| way.verdict == verdict)
            .map(|(way, count)| {
                vec![
                    way.program.clone(),
                    way.reason.clone(),
                    count.packets.to_string(),
                    count.bytes.to_string(),
                    way.meaning.clone(),
                ]
            })
            .collect();
        table(&["program", "reason", "packets", "bytes", "meaning"], &rows, 2..4)
    }

    /// A table of all ways: what went them since `earlier`, which was `seconds` before, and in all.
    pub(super) fn rates(&self, earlier: &Self, seconds: f64) -> String {
        let recent = self.since(earlier);
        let rows: Vec<_> = self
            .0
            .iter()
            .filter(|(_, total)| total.packets > 0)
            .map(|(way, total)| {
                let recent = recent.0.get(way).copied().unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
                let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
                vec![
                    way.program.clone(),
                    way.verdict.clone(),
                    way.reason.clone(),
                    rate(recent.packets),
                    rate(recent.bytes),
                    total.packets.to_string(),
                ]
            })
            .collect();
        table(&["program", "verdict", "reason", "packets/s", "bytes/s", "packets in all"], &rows, 3..6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(packets: u64) -> Counters {
        Counters::parse(&format!(
            r#"[{{"program":"from_uplink","verdict":"carried","reason":"published","meaning":"To a published port.",
                 "packets":{packets},"bytes":{}}},
                {{"program":"from_uplink","verdict":"passed","reason":"bridged","meaning":"ARP.","packets":2,"bytes":84}}]"#,
            packets * 100
        ))
        .unwrap()
    }

    #[test]
    fn the_difference_names_only_what_changed() {
        let difference = counters(7).since(&counters(3));
        assert!(difference.carried("from_uplink", "published"));
        assert_eq!((difference.packets("carried"), difference.packets("passed")), (4, 0));
        assert!(
            difference
                .table("carried")
                .ends_with("from_uplink  published        4    400  To a published port.")
        );
        assert!(!counters(3).since(&counters(3)).carried("from_uplink", "published"));
    }

    #[test]
    fn rates_are_for_one_second() {
        let rates = counters(7).rates(&counters(3), 2.0);
        assert!(rates.contains("published          2      200               7"), "{rates}");
    }

    #[test]
    fn an_entry_without_its_fields_is_refused() {
        assert!(Counters::parse(r#"[{"program":"from_uplink"}]"#).is_err());
        assert!(Counters::parse("").is_err());
    }
}
