//! What the instance and its datapath are doing.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::{Format, FormatArgs, print, table};
use crate::{
    api::client::Client,
    controller::{
        backend::{FlowInfo, ReasonCount},
        view::PublishedPort,
    },
};

/// Commands of `rnet conntrack`.
#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// List tracked connections
    Ls(FormatArgs),
}

#[derive(Serialize)]
struct Stats {
    counters: Vec<ReasonCount>,
    ports: Vec<PublishedPort>,
}

pub(super) async fn status(client: &Client, format: Format) -> Result<()> {
    let status = client.status().await?;
    if format == Format::Json {
        return print::json(&status);
    }
    let (first, last) = status.snat_ports;
    let uplinks = if status.uplinks.is_empty() { "none".to_owned() } else { status.uplinks.join(", ") };
    let lines = [
        ("instance", status.instance),
        ("version", status.version),
        ("daemon", format!("pid {}", status.pid)),
        ("socket", client.socket().display().to_string()),
        ("state", status.state.display().to_string()),
        ("pins", status.pins.display().to_string()),
        ("uplinks", uplinks),
        ("networks", status.networks.to_string()),
        ("containers", format!("{}, {} running", status.containers, status.running)),
        ("ports", format!("{} published", status.ports)),
        ("flows", status.flows.to_string()),
        ("snat ports", format!("{first}-{last}")),
    ];
    lines.iter().try_for_each(|(what, value)| print::line(&format!("{what:<12}{value}")))
}

pub(super) async fn stats(client: &Client, format: Format) -> Result<()> {
    let Stats { counters, ports } =
        Stats { counters: client.counters().await?, ports: client.ports().await? };
    if format == Format::Json {
        return print::json(&Stats { counters, ports });
    }
    print::line(&counter_table(counters))?;
    print::line("")?;
    let header = ["CONTAINER", "PORT", "PUBLISHED AS", "FLOWS", "PACKETS", "BYTES"];
    let rows = ports.into_iter().map(|PublishedPort { container, binding, count }| {
        let host = SocketAddr::new(binding.host.addr, binding.host.port).to_string();
        let port = format!("{}/{}", binding.port, binding.host.protocol);
        [container, port, host, count.flows.to_string(), count.packets.to_string(), count.bytes.to_string()]
    });
    print::line(&table::render(header, rows))
}

pub(super) async fn drops(client: &Client, format: Format) -> Result<()> {
    let mut counters = client.counters().await?;
    counters.retain(|counter| counter.verdict == "dropped");
    match format {
        Format::Json => counters.iter().try_for_each(|counter| print::json(counter)),
        Format::Table => print::line(&counter_table(counters)),
    }
}

impl ConntrackCommand {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let Self::Ls(FormatArgs { format }) = self;
        let flows = client.flows().await?;
        match format {
            Format::Json => flows.iter().try_for_each(|flow| print::json(flow)),
            Format::Table => print::line(&flow_table(flows)),
        }
    }
}

fn counter_table(counters: Vec<ReasonCount>) -> String {
    let header = ["PROGRAM", "VERDICT", "REASON", "PACKETS", "BYTES", "MEANING"];
    let cells = |c: ReasonCount| {
        [c.program, c.verdict, c.reason, c.packets.to_string(), c.bytes.to_string(), c.meaning]
    };
    table::render(header, counters.into_iter().map(cells))
}

fn flow_table(flows: Vec<FlowInfo>) -> String {
    let header = [
        "PROTO",
        "KIND",
        "STATE",
        "FROM",
        "TO",
        "FROM AFTER",
        "TO AFTER",
        "PACKETS",
        "BYTES",
        "IDLE",
        "TIMEOUT",
    ];
    let cells = |flow: FlowInfo| {
        let [src, dst, to_src, to_dst] =
            [flow.src, flow.dst, flow.to_src, flow.to_dst].map(|addr| addr.to_string());
        let [packets, bytes] = [flow.packets, flow.bytes].map(|count| count.to_string());
        let [idle, timeout] = [flow.idle, flow.timeout].map(|seconds| format!("{seconds}s"));
        [flow.protocol, flow.kind, flow.state, src, dst, to_src, to_dst, packets, bytes, idle, timeout]
    };
    table::render(header, flows.into_iter().map(cells))
}
