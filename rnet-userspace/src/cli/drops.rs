//! `rnet drops`: how many packets were dropped and why, or each of them as it is.

use anyhow::{Context as _, Result};
use clap::Args;
use time::UtcOffset;

use super::{
    Format, FormatArgs,
    observe::{counter_table, dropped},
    print,
    trace::{follow, interface, lost_line, time_of, way},
};
use crate::{
    api::client::Client,
    controller::packets::{Packet, PacketFilter, Told},
};

/// Arguments of `rnet drops`.
#[derive(Debug, Args)]
pub(super) struct DropsArgs {
    /// Go on, and show each packet that is dropped: `rnet trace --verdict dropped` shows more of it
    #[arg(short, long)]
    watch: bool,
    /// Only of this container
    #[arg(short, long, value_name = "CONTAINER", requires = "watch")]
    container: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

impl DropsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        if self.watch {
            return self.watch(client).await;
        }
        let counters = dropped(client).await?;
        match self.format.format {
            Format::Json => counters.iter().try_for_each(print::json),
            Format::Table => print::line(&counter_table(counters)),
        }
    }

    async fn watch(self, client: &Client) -> Result<()> {
        let zone = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
        let filter = PacketFilter {
            verdict: Some("dropped".to_owned()),
            container: self.container,
            ..PacketFilter::default()
        };
        let format = self.format.format;
        let header = (format == Format::Table).then(|| columns(HEADS));
        follow(client, &filter, header, None, None, |told| match (format, told) {
            (Format::Json, told) => serde_json::to_string(told).context("write JSON"),
            (Format::Table, Told::Lost(lost)) => Ok(lost_line(*lost)),
            (Format::Table, Told::Packet(packet)) => Ok(line(packet, zone)),
        })
        .await
    }
}

const HEADS: [&str; 6] = ["TIME", "INTERFACE", "CONTAINER", "REASON", "PACKET", "MEANING"];

fn line(packet: &Packet, zone: UtcOffset) -> String {
    let container = packet.container.as_deref().unwrap_or("-");
    let meaning = match remedy(&packet.reason) {
        Some(remedy) => format!("{} {remedy}", packet.meaning),
        None => packet.meaning.clone(),
    };
    let time = time_of(packet, zone);
    columns([&time, interface(packet), container, &packet.reason, &way(packet), &meaning])
}

/// What is to be done, where it is plain.
fn remedy(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "spoofed" => "It may use its own addresses alone, see `rnet inspect`.",
        "no-flow-out" => "Mostly the rest of a connection that is over.",
        "other-network" => "Put both on one network with `rnet network connect`, or publish the port.",
        "unpublished" => "Publish the port, and ask for the host's address.",
        "ports-exhausted" => "Widen --snat-port-range.",
        "table-full" => "Raise --max-flows.",
        "icc-disabled" => "Its option is com.docker.network.bridge.enable_icc.",
        "internal" => "It was created with --internal.",
        "no-ipv6" => "Create it with --ipv6.",
        "no-source-address" => "Give the uplink an address.",
        "source" => "Allow it with `rnet publish --from`.",
        "flow-quota" => "Raise rnet.max-flows-per-container, or its network's option rnet.max_flows.",
        "source-rate" => "Raise --max-flows, or rnet.source-rate.",
        "held" => "See whose it is with `rnet ps`.",
        "unserved" => "See `rnet status` for what is not served, and why.",
        _ => return None,
    })
}

/// A line of a table whose later lines are not known: as wide as what there is to say.
fn columns([time, interface, container, reason, packet, meaning]: [&str; 6]) -> String {
    format!("{time:<15} {interface:<15} {container:<12} {reason:<17} {packet:<60} {meaning}")
}

#[cfg(test)]
mod tests {
    use rnet_common::{Reason, TraceRecord, counter::Verdict};

    use super::*;
    use crate::controller::packets::Names;

    fn dropped(reason: Reason) -> Packet {
        let record = TraceRecord { reason: reason as u8, length: 60, ..TraceRecord::default() };
        Names::default().show(&record, "vethc1".to_owned(), 0)
    }

    #[test]
    fn lines_stand_under_their_heads() {
        let (header, line) = (columns(HEADS), line(&dropped(Reason::Internal), UtcOffset::UTC));
        let at = |text: &str, part: &str| text.find(part).unwrap();
        assert_eq!(at(&header, "REASON"), at(&line, "internal"));
        assert_eq!(
            at(&header, "MEANING"),
            at(&line, "The network has no way out. It was created with --internal.")
        );
    }

    #[test]
    fn there_are_remedies_for_what_is_dropped_alone() {
        let known = |reason: &&Reason| remedy(reason.name()).is_some();
        let all: Vec<_> = Reason::ALL.iter().filter(known).collect();
        assert_eq!(all.len(), 15, "each is of a reason that there is");
        assert!(all.iter().all(|reason| reason.verdict() == Verdict::Dropped), "{all:?}");
    }
}
