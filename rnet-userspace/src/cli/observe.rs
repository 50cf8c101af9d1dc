//! What the instance and its datapath are doing.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use clap::Subcommand;

use super::{Format, FormatArgs, print, table};
use crate::{
    api::client::Client,
    controller::{
        backend::{FlowInfo, ReasonCount},
        view::{PublishedPort, Status},
    },
};

/// Commands of `rnet conntrack`.
#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// List tracked connections
    Ls(FormatArgs),
}

pub(super) async fn status(client: &Client, format: Format) -> Result<()> {
    let status = client.status().await?;
    match format {
        Format::Json => print::json(&status),
        Format::Table => print::line(&at_a_glance(status, client.socket())),
    }
}

pub(super) async fn stats(client: &Client, format: Format) -> Result<()> {
    let counters = client.counters().await?;
    match format {
        Format::Json => print::json(&counters),
        Format::Table => {
            let ports = client.ports().await?;
            print::line(&counter_table(counters))?;
            print::line("")?;
            print::line(&port_table(ports))
        }
    }
}

pub(super) async fn drops(client: &Client, format: Format) -> Result<()> {
    let mut counters = client.counters().await?;
    counters.retain(|counter| counter.verdict == "dropped");
    match format {
        Format::Json => counters.iter().try_for_each(print::json),
        Format::Table => print::line(&counter_table(counters)),
    }
}

impl ConntrackCommand {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let Self::Ls(FormatArgs { format }) = self;
        let flows = client.flows().await?;
        match format {
            Format::Json => flows.iter().try_for_each(print::json),
            Format::Table => print::line(&flow_table(flows)),
        }
    }
}

fn at_a_glance(status: Status, socket: &Path) -> String {
    let (first, last) = status.snat_ports;
    let uplinks = if status.uplinks.is_empty() { "none".to_owned() } else { status.uplinks.join(", ") };
    let lines = [
        ("instance", status.instance),
        ("version", status.version),
        ("daemon", format!("pid {}", status.pid)),
        ("socket", socket.display().to_string()),
        ("state", status.state.display().to_string()),
        ("pins", status.pins.display().to_string()),
        ("uplinks", uplinks),
        ("networks", status.networks.to_string()),
        ("containers", format!("{}, {} running", status.containers, status.running)),
        ("ports", format!("{} published", status.ports)),
        ("flows", status.flows.to_string()),
        ("snat ports", format!("{first}-{last}")),
    ];
    lines.map(|(what, value)| format!("{what:<12}{value}")).join("\n")
}

fn counter_table(counters: Vec<ReasonCount>) -> String {
    let header = ["PROGRAM", "VERDICT", "REASON", "PACKETS", "BYTES", "MEANING"];
    let cells = |c: ReasonCount| {
        [c.program, c.verdict, c.reason, c.packets.to_string(), c.bytes.to_string(), c.meaning]
    };
    table::render(header, counters.into_iter().map(cells))
}

fn port_table(ports: Vec<PublishedPort>) -> String {
    let header = ["CONTAINER", "PORT", "PUBLISHED AS", "FLOWS", "PACKETS", "BYTES"];
    let rows = ports.into_iter().map(|PublishedPort { container, binding, count }| {
        let host = SocketAddr::new(binding.host.addr, binding.host.port).to_string();
        let port = format!("{}/{}", binding.port, binding.host.protocol);
        [container, port, host, count.flows.to_string(), count.packets.to_string(), count.bytes.to_string()]
    });
    table::render(header, rows)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        backend::PortCount,
        model::{Binding, HostPort, Protocol},
    };

    #[test]
    fn counters_line_up() {
        let counter = |program: &str, verdict: &str, reason: &str, packets, meaning: &str| ReasonCount {
            program: program.into(),
            verdict: verdict.into(),
            reason: reason.into(),
            meaning: meaning.into(),
            packets,
            bytes: packets * 100,
        };
        let table = counter_table(vec![
            counter("from_uplink", "carried", "published", 1_234_567, "to a published port"),
            counter("from_container", "dropped", "spoofed", 1, "with another's address"),
        ]);
        let expected = "\
PROGRAM          VERDICT   REASON      PACKETS   BYTES       MEANING
from_uplink      carried   published   1234567   123456700   to a published port
from_container   dropped   spoofed     1         100         with another's address";
        assert_eq!(table, expected);
        assert_eq!(counter_table(Vec::new()).lines().count(), 1);
    }

    #[test]
    fn ports_and_flows_line_up() {
        let host = HostPort { addr: [0, 0, 0, 0].into(), port: 8080, protocol: Protocol::Tcp };
        let binding = Binding { host, addr: [172, 17, 0, 2].into(), port: 80 };
        let count = PortCount { flows: 1, packets: 10, bytes: 1000 };
        let expected = "\
CONTAINER   PORT      PUBLISHED AS   FLOWS     PACKETS   BYTES
web         80/tcp    0.0.0.0:8080   1         10        1000";
        assert_eq!(port_table(vec![PublishedPort { container: "web".into(), binding, count }]), expected);

        let flow = FlowInfo {
            protocol: "tcp".into(),
            src: ([192, 0, 2, 1], 40000).into(),
            dst: ([192, 0, 2, 2], 8080).into(),
            to_src: ([192, 0, 2, 1], 40000).into(),
            to_dst: ([172, 17, 0, 2], 80).into(),
            kind: "published".into(),
            state: "established".into(),
            packets: 10,
            bytes: 1000,
            idle: 1,
            timeout: 7439,
        };
        let table = flow_table(vec![flow]);
        let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = "tcp published established 192.0.2.1:40000 192.0.2.2:8080 192.0.2.1:40000 172.17.0.2:80 10 1000 1s 7439s";
        assert_eq!(rows[1].join(" "), expected);
        let starts = |line: &str| line.find("7439s").or(line.find("TIMEOUT"));
        let lines: Vec<_> = table.lines().map(starts).collect();
        assert!(lines[0].is_some() && lines[0] == lines[1], "{table}");
    }

    #[test]
    fn the_status_has_a_line_for_everything() {
        let status = Status {
            instance: "lab".into(),
            version: "0.1.0".into(),
            pid: 7,
            pins: "/sys/fs/bpf/lab/v1".into(),
            state: "/var/lib/lab".into(),
            uplinks: vec!["eth0".into(), "eth1".into()],
            networks: 2,
            containers: 3,
            running: 1,
            ports: 4,
            flows: 5,
            snat_ports: (1024, 32767),
        };
        let expected = "\
instance    lab
version     0.1.0
daemon      pid 7
socket      /run/lab/rnet.sock
state       /var/lib/lab
pins        /sys/fs/bpf/lab/v1
uplinks     eth0, eth1
networks    2
containers  3, 1 running
ports       4 published
flows       5
snat ports  1024-32767";
        assert_eq!(at_a_glance(status.clone(), Path::new("/run/lab/rnet.sock")), expected);
        let alone = Status { uplinks: Vec::new(), ..status };
        assert!(at_a_glance(alone, Path::new("/")).contains("\nuplinks     none\n"));
    }
}
