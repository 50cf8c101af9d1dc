//! `rnet drops`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description};
use tokio::time::{self as clock, MissedTickBehavior};

use super::{Format, FormatArgs, observe::counter_table, print};
use crate::{api::client::Client, controller::backend::ReasonCount};

/// How often is looked for packets that were dropped since.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `rnet drops`.
#[derive(Debug, Args)]
pub(super) struct DropsArgs {
    /// Go on, and show each second what was dropped in it
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// What was dropped for one reason, in one second.
#[derive(Debug, Serialize)]
struct Dropped {
    /// RFC 3339.
    time: String,
    #[serde(flatten)]
    count: ReasonCount,
}

impl DropsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let dropped = dropped(client).await?;
        if self.watch {
            return watch(client, self.format.format, dropped).await;
        }
        match self.format.format {
            Format::Json => dropped.iter().try_for_each(print::json),
            Format::Table => print::line(&counter_table(dropped)),
        }
    }
}

async fn watch(client: &Client, format: Format, mut before: Vec<ReasonCount>) -> Result<()> {
    let mut looks = clock::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    if format == Format::Table {
        print::line(&columns(["TIME", "PROGRAM", "REASON", "PACKETS", "BYTES", "MEANING"]))?;
    }
    loop {
        looks.tick().await;
        let now = OffsetDateTime::now_utc();
        let counters = dropped(client).await?;
        for count in since(&before, &counters) {
            let text = match format {
                // Only a year beyond 9999 cannot be written so.
                Format::Json => {
                    serde_json::to_string(&Dropped { time: now.format(&Rfc3339).unwrap_or_default(), count })
                        .context("write JSON")?
                }
                Format::Table => line(&count, now),
            };
            if !print::streamed(&text)? {
                return Ok(());
            }
        }
        before = counters;
    }
}

async fn dropped(client: &Client) -> Result<Vec<ReasonCount>> {
    let mut counters = client.counters().await?;
    counters.retain(|counter| counter.verdict == "dropped");
    Ok(counters)
}

/// By how much each counter has grown. One that is smaller than before has begun anew, with another instance.
fn since(before: &[ReasonCount], counters: &[ReasonCount]) -> Vec<ReasonCount> {
    let grown = |now: &ReasonCount| {
        let before = before.iter().find(|b| (&b.program, &b.reason) == (&now.program, &now.reason));
        let (packets, bytes) = before.map_or((0, 0), |b| (b.packets, b.bytes));
        let began_anew = now.packets < packets;
        ReasonCount {
            packets: if began_anew { now.packets } else { now.packets - packets },
            bytes: if began_anew { now.bytes } else { now.bytes.saturating_sub(bytes) },
            ..now.clone()
        }
    };
    counters.iter().map(grown).filter(|count| count.packets > 0).collect()
}

fn line(count: &ReasonCount, now: OffsetDateTime) -> String {
    let zone = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
    let time = now.to_offset(zone).format(format_description!("[hour]:[minute]:[second]"));
    let (packets, bytes) = (count.packets.to_string(), count.bytes.to_string());
    columns([&time.unwrap_or_default(), &count.program, &count.reason, &packets, &bytes, &count.meaning])
}

/// A line of a table whose later lines are not known: as wide as what there is to say.
fn columns([time, program, reason, packets, bytes, meaning]: [&str; 6]) -> String {
    format!("{time:<10} {program:<16} {reason:<20} {packets:>10} {bytes:>12}   {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(reason: &str, packets: u64) -> ReasonCount {
        ReasonCount {
            program: "from_uplink".into(),
            verdict: "dropped".into(),
            reason: reason.into(),
            meaning: "Meant.".into(),
            packets,
            bytes: packets * 100,
        }
    }

    #[test]
    fn only_what_was_dropped_since_is_told() {
        let before = [count("spoofed", 5), count("unpublished", 7), count("internal", 9)];
        let counters = [count("spoofed", 5), count("unpublished", 10), count("internal", 2), count("icc", 1)];
        let told = [count("unpublished", 3), count("internal", 2), count("icc", 1)];
        assert_eq!(since(&before, &counters), told);
    }

    #[test]
    fn lines_stand_under_their_heads() {
        let header = columns(["TIME", "PROGRAM", "REASON", "PACKETS", "BYTES", "MEANING"]);
        let line = line(&count("unpublished", 3), OffsetDateTime::UNIX_EPOCH);
        let at = |text: &str, part: &str| text.find(part).unwrap();
        assert_eq!(at(&header, "REASON"), at(&line, "unpublished"));
        assert_eq!(at(&header, "MEANING"), at(&line, "Meant."));
        assert_eq!(at(&header, "BYTES") + 5, at(&line, "300") + 3);
    }
}
