//! `rnet conntrack`: options as conntrack(8) has them.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;

use super::{Format, FormatArgs, print, table};
use crate::{
    api::{calls::Values, client::Client},
    controller::{
        backend::FlowInfo,
        model::{
            flow_filter::{FlowFilter, protocol_number},
            timeouts,
        },
    },
};

/// Commands of `rnet conntrack`.
#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// List tracked connections
    Ls(LsArgs),
    /// Forget tracked connections: all, or those that the options name
    Flush(FilterArgs),
    /// Show how long connections may be idle, and change it until the daemon is started again
    Timeouts(TimeoutArgs),
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Which connections are meant: all options must agree with the packet that opened it, as it came or as it went on.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Protocol: tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(short, long, visible_alias = "protonum", value_name = "PROTO", value_parser = protocol_number)]
    proto: Option<u8>,
    /// Source address or subnet
    #[arg(short, long, visible_alias = "orig-src", value_name = "IP[/PREFIX]")]
    src: Option<IpNetwork>,
    /// Destination address or subnet
    #[arg(short, long, visible_alias = "orig-dst", value_name = "IP[/PREFIX]")]
    dst: Option<IpNetwork>,
    /// Address or subnet of either
    #[arg(long, value_name = "IP[/PREFIX]")]
    addr: Option<IpNetwork>,
    /// Source port
    #[arg(long, visible_alias = "orig-port-src", value_name = "PORT")]
    sport: Option<u16>,
    /// Destination port
    #[arg(long, visible_alias = "orig-port-dst", value_name = "PORT")]
    dport: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct TimeoutArgs {
    /// A new time, as udp=30s, tcp-established=2h
    #[arg(value_name = "NAME=TIME", value_parser = timeouts::parse)]
    changes: Vec<(String, u64)>,
    #[command(flatten)]
    format: FormatArgs,
}

impl ConntrackCommand {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Ls(args) => {
                let flows = client.flows(&args.filter.into()).await?;
                list(flows, args.format.format).await
            }
            Self::Flush(filter) => {
                let flows = client.flush(&filter.into()).await?;
                print::line(&format!("{flows} flow entries have been deleted"))
            }
            Self::Timeouts(args) => args.run(client).await,
        }
    }
}

impl TimeoutArgs {
    async fn run(self, client: &Client) -> Result<()> {
        let timeouts = if self.changes.is_empty() {
            client.timeouts().await?
        } else {
            client.set_timeouts(&self.changes.into_iter().collect()).await?
        };
        match self.format.format {
            Format::Json => print::json(&timeouts),
            Format::Table => {
                let rows = timeouts.into_iter().map(|(name, seconds)| [name, format!("{seconds}s")]);
                print::line(&table::render(["NAME", "TIME"], rows))
            }
        }
    }
}

impl From<FilterArgs> for FlowFilter {
    fn from(FilterArgs { proto, src, dst, addr, sport, dport }: FilterArgs) -> Self {
        Self { protocol: proto, src, dst, addr, sport, dport }
    }
}

/// How many flows are printed at once.
const AT_ONCE: usize = 4096;
const HEADER: [&str; 11] =
    ["PROTO", "KIND", "STATE", "FROM", "TO", "FROM AFTER", "TO AFTER", "PACKETS", "BYTES", "IDLE", "TIMEOUT"];

/// Prints flows as they come: there may be more than fit into memory.
async fn list(mut flows: Values<FlowInfo>, format: Format) -> Result<()> {
    let mut table = table::Growing::new(HEADER);
    loop {
        let mut some = Vec::new();
        while some.len() < AT_ONCE
            && let Some(flow) = flows.next().await?
        {
            some.push(flow);
        }
        let is_last = some.len() < AT_ONCE;
        let text = match format {
            Format::Json => {
                let lines = some.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
                lines.context("write JSON")?.join("\n")
            }
            Format::Table => table.more(some.into_iter().map(cells)),
        };
        if !text.is_empty() && !print::streamed(&text)? || is_last {
            return Ok(());
        }
    }
}

fn cells(flow: FlowInfo) -> [String; 11] {
    let [src, dst, to_src, to_dst] =
        [flow.src, flow.dst, flow.to_src, flow.to_dst].map(|addr| addr.to_string());
    let [packets, bytes] = [flow.packets, flow.bytes].map(|count| count.to_string());
    let [idle, timeout] = [flow.idle, flow.timeout].map(|seconds| format!("{seconds}s"));
    [flow.protocol, flow.kind, flow.state, src, dst, to_src, to_dst, packets, bytes, idle, timeout]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_line_up() {
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
        let table = table::Growing::new(HEADER).more([cells(flow)]);
        let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = "tcp published established 192.0.2.1:40000 192.0.2.2:8080 192.0.2.1:40000 172.17.0.2:80 10 1000 1s 7439s";
        assert_eq!(rows[1].join(" "), expected);
        let starts = |line: &str| line.find("7439s").or(line.find("TIMEOUT"));
        let lines: Vec<_> = table.lines().map(starts).collect();
        assert!(lines[0].is_some() && lines[0] == lines[1], "{table}");
    }
}
