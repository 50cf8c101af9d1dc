//! `rnet top`: who causes the traffic, redrawn each second.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use clap::Args;
use tokio::time::Instant;

use super::{
    observe::{counter_table, dropped},
    print,
    screen::{Key, Screen},
    stats::{self, Looks, per_second, size},
    table,
};
use crate::{
    api::client::Client,
    controller::{model::flow_filter::FlowFilter, view::Usage},
};

/// Rows that are kept of a view.
const MOST: usize = 200;

/// Arguments of `rnet top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print one view after the other instead of drawing, without a terminal
    #[arg(short, long)]
    batch: bool,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    #[default]
    Containers,
    Ports,
    Flows,
    Drops,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Bytes,
    Packets,
    Flows,
}

impl View {
    const ALL: [Self; 4] = [Self::Containers, Self::Ports, Self::Flows, Self::Drops];

    fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Ports => "published ports",
            Self::Flows => "flows",
            Self::Drops => "drops",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Containers => Self::Ports,
            Self::Ports => Self::Flows,
            Self::Flows => Self::Drops,
            Self::Drops => Self::Containers,
        }
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flows",
        }
    }
}

/// Something that has passed packets: what it is, in columns, its counts, and by how much they have grown.
#[derive(Clone, Debug)]
struct Moving<const N: usize> {
    cells: [String; N],
    packets: u64,
    bytes: u64,
    flows: u64,
    packets_per_second: u64,
    bytes_per_second: u64,
}

impl<const N: usize> Moving<N> {
    /// Not compared with anything yet.
    fn new(cells: [String; N], packets: u64, bytes: u64, flows: u64) -> Self {
        Self { cells, packets, bytes, flows, packets_per_second: 0, bytes_per_second: 0 }
    }
}

/// What was seen the last time, of which rates are made.
#[derive(Default)]
struct Before {
    at: Option<Instant>,
    /// Packets and bytes.
    counts: HashMap<String, (u64, u64)>,
}

impl Before {
    fn compare<const N: usize>(&mut self, rows: &mut [Moving<N>]) {
        let now = Instant::now();
        let took = self.at.map_or(Duration::ZERO, |at| now - at);
        let mut counts = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = row.cells.join(" ");
            let before = self.counts.get(&key);
            row.packets_per_second = per_second(before.map(|b| b.0), row.packets, took);
            row.bytes_per_second = per_second(before.map(|b| b.1), row.bytes, took);
            counts.insert(key, (row.packets, row.bytes));
        }
        *self = Self { at: Some(now), counts };
    }
}

/// Everything that is shown, and how.
#[derive(Default)]
struct Top {
    view: View,
    order: Order,
    is_paused: bool,
    looks: Looks,
    /// Of each view that compares for itself, so that one does not take the other's place.
    ports_before: Before,
    flows_before: Before,
}

impl TopArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let mut top = Top::default();
        let mut ticks = stats::ticks().await;
        if self.batch {
            let mut left = self.iterations;
            top.looks.look(client).await?;
            loop {
                ticks.tick().await;
                let seen = top.looks.look(client).await?;
                for view in View::ALL {
                    top.view = view;
                    if !print::streamed(&format!("{}\n", top.show(client, &seen).await?))? {
                        return Ok(());
                    }
                }
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    return Ok(());
                }
            }
        }
        // Before the terminal is another: without a daemon there is a line to be read.
        let mut picture = top.look(client).await?;
        let mut screen = Screen::open()?;
        let mut left = self.iterations;
        loop {
            screen.draw(&picture)?;
            tokio::select! {
                key = screen.key() => match key {
                    Key::End | Key::Char('q') => return Ok(()),
                    Key::Resized => continue,
                    key @ (Key::Char(_) | Key::Tab) => top.press(key),
                },
                _ = ticks.tick() => {
                    left = left.map(|left| left - 1);
                    if left == Some(0) {
                        return Ok(());
                    }
                    if top.is_paused {
                        continue;
                    }
                }
            }
            picture = top.look(client).await?;
        }
    }
}

impl Top {
    fn press(&mut self, key: Key) {
        match key {
            Key::Tab => {
                self.view = self.view.next();
                (self.ports_before, self.flows_before) = Default::default();
            }
            Key::Char('b') => self.order = Order::Bytes,
            Key::Char('k') => self.order = Order::Packets,
            Key::Char('f') => self.order = Order::Flows,
            Key::Char('p') => self.is_paused = !self.is_paused,
            Key::Char(_) | Key::End | Key::Resized => {}
        }
    }

    async fn look(&mut self, client: &Client) -> Result<String> {
        let seen = self.looks.look(client).await?;
        self.show(client, &seen).await
    }

    async fn show(&mut self, client: &Client, (usage, rows): &(Usage, Vec<stats::Row>)) -> Result<String> {
        let table = match self.view {
            View::Containers => self.containers(rows.clone()),
            View::Ports => self.ports(client).await?,
            View::Flows => self.flows(client).await?,
            View::Drops => self.drops(client).await?,
        };
        let flows = usage.flows.map_or("?".to_owned(), |flows| flows.to_string());
        let paused = if self.is_paused { " (paused)" } else { "" };
        Ok(format!(
            "{}, by {}{paused}: {} containers, {} ports, {flows} flows\n\
             Tab view   b bytes  k packets  f flows   p pause   q quit\n\n{table}",
            self.view.name(),
            self.order.name(),
            usage.containers.len(),
            usage.ports,
        ))
    }

    fn containers(&self, mut rows: Vec<stats::Row>) -> String {
        let order = self.order;
        rows.sort_by_key(|row| {
            std::cmp::Reverse(match order {
                Order::Bytes => row.rx_bytes_per_second + row.tx_bytes_per_second,
                Order::Packets => row.packets_per_second,
                Order::Flows => row.flows,
            })
        });
        rows.truncate(MOST);
        stats::shown(&rows)
    }

    async fn ports(&mut self, client: &Client) -> Result<String> {
        let rows = client.ports().await?.into_iter().map(|port| {
            let host = std::net::SocketAddr::new(port.binding.host.addr, port.binding.host.port);
            let inside = format!("{}/{}", port.binding.port, port.binding.host.protocol);
            let cells = [port.container, inside, host.to_string()];
            Moving::new(cells, port.count.packets, port.count.bytes, port.count.flows)
        });
        let header = ["CONTAINER", "PORT", "PUBLISHED AS"];
        Ok(moving(&mut self.ports_before, self.order, header, rows.collect()))
    }

    async fn flows(&mut self, client: &Client) -> Result<String> {
        let mut found = client.flows(&FlowFilter::default()).await?;
        let mut rows = Vec::new();
        while let Some(flow) = found.next().await? {
            let cells = [flow.protocol, flow.src.to_string(), flow.dst.to_string(), flow.kind, flow.state];
            rows.push(Moving::new(cells, flow.packets, flow.bytes, 1));
        }
        let header = ["PROTO", "SOURCE", "DESTINATION", "KIND", "STATE"];
        Ok(moving(&mut self.flows_before, self.order, header, rows))
    }

    async fn drops(&mut self, client: &Client) -> Result<String> {
        let mut counters = dropped(client).await?;
        let order = self.order;
        counters.sort_by_key(|c| std::cmp::Reverse(if order == Order::Bytes { c.bytes } else { c.packets }));
        Ok(counter_table(counters))
    }
}

/// A table of what moves most, with its rates.
fn moving<const N: usize>(
    before: &mut Before,
    order: Order,
    header: [&str; N],
    mut rows: Vec<Moving<N>>,
) -> String {
    before.compare(&mut rows);
    rows.sort_by_key(|row| {
        std::cmp::Reverse(match order {
            Order::Bytes => (row.bytes_per_second, row.bytes),
            Order::Packets => (row.packets_per_second, row.packets),
            Order::Flows => (row.flows, row.bytes),
        })
    });
    rows.truncate(MOST);
    let numbers = ["BYTES/s", "PACKETS/s", "BYTES", "PACKETS", "FLOWS"];
    let header = header.iter().chain(&numbers).map(|head| (*head).to_owned()).collect();
    let cells = |row: Moving<N>| {
        let numbers = [
            size(row.bytes_per_second),
            row.packets_per_second.to_string(),
            size(row.bytes),
            row.packets.to_string(),
            row.flows.to_string(),
        ];
        row.cells.into_iter().chain(numbers).collect()
    };
    table::render_rows(header, rows.into_iter().map(cells).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, packets: u64, bytes: u64, flows: u64) -> Moving<1> {
        Moving::new([name.to_owned()], packets, bytes, flows)
    }

    fn first(top: &mut Top, rows: &[Moving<1>]) -> String {
        let table = moving(&mut top.ports_before, top.order, ["PORT"], rows.to_vec());
        table.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn what_is_asked_for_comes_first() {
        let mut top = Top::default();
        let rows =
            [port("many-flows", 1, 1, 9), port("many-bytes", 2, 900, 1), port("many-packets", 90, 90, 2)];
        assert_eq!(first(&mut top, &rows), "many-bytes");
        top.press(Key::Char('k'));
        assert_eq!(first(&mut top, &rows), "many-packets");
        top.press(Key::Char('f'));
        assert_eq!(first(&mut top, &rows), "many-flows");
    }

    #[test]
    fn what_grows_comes_before_what_is_large() {
        let mut top = Top::default();
        let at = Instant::now() - Duration::from_secs(10);
        let counts = [("large".to_owned(), (100, 10_000)), ("grows".to_owned(), (1, 100))];
        top.ports_before = Before { at: Some(at), counts: counts.into() };
        assert_eq!(first(&mut top, &[port("large", 100, 10_000, 1), port("grows", 5, 500, 1)]), "grows");
    }

    #[test]
    fn a_view_is_compared_with_its_own_past() {
        let mut top = Top::default();
        first(&mut top, &[port("a", 1, 100, 1)]);
        moving(&mut top.flows_before, top.order, ["FLOW"], vec![port("b", 9, 900, 1)]);
        assert_eq!(top.ports_before.counts, [("a".to_owned(), (1, 100))].into());
    }

    #[test]
    fn the_tabulator_leads_around() {
        let mut top = Top::default();
        let seen = View::ALL.map(|_| {
            top.press(Key::Tab);
            top.view
        });
        assert_eq!(seen, [View::Ports, View::Flows, View::Drops, View::Containers]);
        top.press(Key::Char('p'));
        assert!(top.is_paused);
    }
}
