//! `rnet stats`: what the datapath has counted, or what each container sends and receives.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::{self, Instant, Interval, MissedTickBehavior};

use super::{Format, FormatArgs, observe, print, table};
use crate::{
    api::client::Client,
    controller::view::{ContainerUsage, Usage},
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Moves the cursor to the first place and clears what is behind it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Arguments of `rnet stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Containers whose traffic is shown, by name, id or its beginning; without any, the datapath's counters are
    names: Vec<String>,
    /// Show the traffic of all containers
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Show the containers' traffic once instead of going on
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// A container's traffic, in both directions and seen from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// Its name.
    pub(super) name: String,
    /// Its id.
    id: String,
    /// Received since its interfaces were made.
    pub(super) rx_bytes: u64,
    /// Sent.
    pub(super) tx_bytes: u64,
    /// Packets received.
    rx_packets: u64,
    /// Packets sent.
    tx_packets: u64,
    /// Received in the last second.
    pub(super) rx_bytes_per_second: u64,
    /// Sent.
    pub(super) tx_bytes_per_second: u64,
    /// Packets in both directions in the last second.
    pub(super) packets_per_second: u64,
    /// Packets that its interfaces have dropped.
    dropped: u64,
    /// Flows that are open.
    pub(super) flows: u64,
    /// Flows that its published ports have opened.
    opened: u64,
}

impl StatsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let format = self.format.format;
        if self.names.is_empty() && !self.all && !self.no_stream {
            return observe::stats(client, format).await;
        }
        let mut looks = Looks::default();
        looks.look(client).await?;
        let mut ticks = ticks().await;
        loop {
            ticks.tick().await;
            let rows = chosen(looks.look(client).await?.1, &self.names)?;
            let text = match format {
                Format::Json => {
                    let lines: Result<Vec<_>, _> = rows.iter().map(serde_json::to_string).collect();
                    lines?.join("\n")
                }
                Format::Table if self.no_stream => shown(&rows),
                Format::Table => format!("{CLEAR}{}", shown(&rows)),
            };
            // Without containers there is no line of JSON.
            if !text.is_empty() && !print::streamed(&text)? || self.no_stream {
                return Ok(());
            }
        }
    }
}

/// Ticks for looks, of which the first comes [`LOOK_EVERY`] from here on.
pub(super) async fn ticks() -> Interval {
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    ticks
}

/// Looks at the usage again and again.
#[derive(Default)]
pub(super) struct Looks(Option<(Instant, BTreeMap<String, Row>)>);

impl Looks {
    /// Looks, and compares with the look before.
    pub(super) async fn look(&mut self, client: &Client) -> Result<(Usage, Vec<Row>)> {
        let usage = client.usage().await?;
        let now = Instant::now();
        let before = self.0.take();
        let took = before.as_ref().map_or(Duration::ZERO, |(at, _)| now - *at);
        let rows: Vec<Row> = usage
            .containers
            .iter()
            .map(|c| row(c, before.as_ref().and_then(|(_, rows)| rows.get(&c.id)), took))
            .collect();
        self.0 = Some((now, rows.iter().map(|row| (row.id.clone(), row.clone())).collect()));
        Ok((usage, rows))
    }
}

/// What has come since, for each second. Counters that are smaller than before have begun anew.
pub(super) fn per_second(before: Option<u64>, now: u64, took: Duration) -> u64 {
    let Some(more) = before.and_then(|before| now.checked_sub(before)).filter(|_| !took.is_zero()) else {
        return 0;
    };
    (more as f64 / took.as_secs_f64()).round() as u64
}

fn row(container: &ContainerUsage, before: Option<&Row>, took: Duration) -> Row {
    let traffic = || container.interfaces.iter().filter_map(|interface| interface.traffic.as_ref());
    let rx_bytes = traffic().map(|t| t.rx_bytes).sum();
    let tx_bytes = traffic().map(|t| t.tx_bytes).sum();
    let rx_packets: u64 = traffic().map(|t| t.rx_packets).sum();
    let tx_packets: u64 = traffic().map(|t| t.tx_packets).sum();
    Row {
        name: container.name.clone(),
        id: container.id.clone(),
        rx_bytes,
        tx_bytes,
        rx_packets,
        tx_packets,
        rx_bytes_per_second: per_second(before.map(|b| b.rx_bytes), rx_bytes, took),
        tx_bytes_per_second: per_second(before.map(|b| b.tx_bytes), tx_bytes, took),
        packets_per_second: per_second(
            before.map(|b| b.rx_packets + b.tx_packets),
            rx_packets + tx_packets,
            took,
        ),
        dropped: traffic().map(|t| t.rx_dropped + t.tx_dropped).sum(),
        flows: container.flows,
        opened: container.opened,
    }
}

/// The containers that are meant; all when none is named.
fn chosen(rows: Vec<Row>, names: &[String]) -> Result<Vec<Row>> {
    if names.is_empty() {
        return Ok(rows);
    }
    let find = |name: &String| {
        let by_name = rows.iter().find(|row| row.name == *name);
        match by_name.or_else(|| rows.iter().find(|row| row.id.starts_with(name.as_str()))) {
            Some(row) => Ok(row.clone()),
            None => bail!("no such container: {name}"),
        }
    };
    names.iter().map(find).collect()
}

pub(super) fn shown(rows: &[Row]) -> String {
    let header =
        ["NAME", "RX / TX", "RX/s", "TX/s", "PACKETS/s", "PACKETS RX / TX", "FLOWS", "OPENED", "DROPPED"];
    table::render(
        header,
        rows.iter().map(|row| {
            [
                row.name.clone(),
                format!("{} / {}", size(row.rx_bytes), size(row.tx_bytes)),
                size(row.rx_bytes_per_second),
                size(row.tx_bytes_per_second),
                row.packets_per_second.to_string(),
                format!("{} / {}", row.rx_packets, row.tx_packets),
                row.flows.to_string(),
                row.opened.to_string(),
                row.dropped.to_string(),
            ]
        }),
    )
}

/// A number of bytes in three or four digits and powers of 1000, as Docker shows traffic.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::view::{ContainerState, InterfaceUsage, Traffic};

    fn container(rx_bytes: u64) -> ContainerUsage {
        let traffic = Traffic { rx_bytes, rx_packets: rx_bytes / 100, tx_dropped: 2, ..Traffic::default() };
        let interface = |name: &str| InterfaceUsage {
            name: name.into(),
            network: "bridge".into(),
            traffic: Some(traffic),
            opened: Vec::new(),
        };
        ContainerUsage {
            id: "0123456789ab".into(),
            name: "web".into(),
            state: ContainerState::Running,
            netns: None,
            ports: 1,
            opened: 7,
            flows: 3,
            interfaces: vec![interface("eth0"), interface("eth1")],
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let first = row(&container(1000), None, Duration::ZERO);
        assert_eq!((first.rx_bytes, first.rx_bytes_per_second, first.dropped), (2000, 0, 4));
        let second = row(&container(5000), Some(&first), Duration::from_secs(2));
        assert_eq!((second.rx_bytes_per_second, second.packets_per_second), (4000, 40));
        let anew = row(&container(10), Some(&second), Duration::from_secs(1));
        assert_eq!(anew.rx_bytes_per_second, 0);
    }

    #[test]
    fn containers_are_named_as_everywhere() {
        let rows = vec![row(&container(0), None, Duration::ZERO)];
        for name in ["web", "0123456789ab", "0123"] {
            assert_eq!(chosen(rows.clone(), &[name.to_owned()]).unwrap(), rows);
        }
        assert!(chosen(rows, &["other".to_owned()]).unwrap_err().to_string().contains("other"));
    }

    #[test]
    fn sizes_have_few_digits() {
        let sizes = [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (12_345, "12.3kB"), (999_900, "1.00MB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18.4EB");
    }
}
