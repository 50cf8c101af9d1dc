//! `rnet trace`.

use std::{collections::BTreeSet, future, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use super::{list::ObjectFormat, print, template::Filling};
use crate::{
    api::client::Client,
    controller::{
        model::flow_filter::protocol_number,
        packets::{Ends, Packet, PacketFilter, Told},
    },
};

/// Arguments of `rnet trace`: what is set must agree, as the packet came or as it left.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Protocol: tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(short, long, value_name = "PROTO", value_parser = protocol_number)]
    proto: Option<u8>,
    /// Source address or subnet
    #[arg(short, long, value_name = "IP[/PREFIX]")]
    src: Option<IpNetwork>,
    /// Destination address or subnet
    #[arg(short, long, value_name = "IP[/PREFIX]")]
    dst: Option<IpNetwork>,
    /// Address or subnet of either
    #[arg(long, value_name = "IP[/PREFIX]")]
    host: Option<IpNetwork>,
    /// Source port
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// Port of either
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Interface of the host whose program sees the packet
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Container that it comes from or goes to
    #[arg(short, long, value_name = "CONTAINER")]
    container: Option<String>,
    /// Reasons, as `rnet stats` names them
    #[arg(short, long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// What becomes of it
    #[arg(long, value_enum)]
    verdict: Option<VerdictArg>,
    /// Stop after so many
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    duration: Option<u64>,
    /// Say below the first packet of each reason what it means
    #[arg(long)]
    explain: bool,
    /// json, or a template as '{{.Time}} {{.Reason}} {{.Src}} {{.Dst}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<ObjectFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerdictArg {
    Carried,
    Passed,
    Dropped,
}

impl TraceArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let zone = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
        let mut explained = BTreeSet::new();
        let limit = self.duration.map(Duration::from_secs);
        let header = self.format.is_none().then(|| columns(HEADS));
        follow(client, &self.filter(), header, self.count, limit, |told| match (&self.format, told) {
            (Some(ObjectFormat::Json), told) => serde_json::to_string(told).context("write JSON"),
            (Some(ObjectFormat::Template(template)), Told::Packet(packet)) => {
                template.fill(Filling { data: &fields(packet, zone), labels: None })
            }
            (_, Told::Lost(lost)) => Ok(lost_line(*lost)),
            (None, Told::Packet(packet)) => {
                let mut line = line(packet, zone);
                if self.explain && explained.insert(packet.reason.clone()) {
                    line += &format!("\n{:16}{}: {}", "", packet.reason, packet.meaning);
                }
                Ok(line)
            }
        })
        .await
    }

    fn filter(&self) -> PacketFilter {
        let verdict = self.verdict.map(|verdict| match verdict {
            VerdictArg::Carried => "carried",
            VerdictArg::Passed => "passed",
            VerdictArg::Dropped => "dropped",
        });
        PacketFilter {
            protocol: self.proto,
            src: self.src,
            dst: self.dst,
            host: self.host,
            sport: self.sport,
            dport: self.dport,
            port: self.port,
            interface: self.interface.clone(),
            container: self.container.clone(),
            reason: (!self.reason.is_empty()).then(|| self.reason.join(",")),
            verdict: verdict.map(str::to_owned),
        }
    }
}

/// Shows packets as they pass, each as `show` has it, below a header: until there were so many, the time is over, nobody
/// reads any more or it is interrupted.
pub(super) async fn follow(
    client: &Client,
    filter: &PacketFilter,
    header: Option<String>,
    count: Option<u64>,
    limit: Option<Duration>,
    mut show: impl FnMut(&Told) -> Result<String>,
) -> Result<()> {
    let all = async {
        let mut told = client.trace(filter).await?;
        let mut shown = 0;
        if let Some(header) = header
            && !print::streamed(&header)?
        {
            return Ok(());
        }
        while count.is_none_or(|count| shown < count)
            && let Some(told) = told.next().await?
        {
            if !print::streamed(&show(&told)?)? {
                break;
            }
            shown += u64::from(matches!(told, Told::Packet(_)));
        }
        Ok(())
    };
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        done = all => done,
        () = over => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for SIGINT"),
    }
}

/// What is said of packets that were too many.
pub(super) fn lost_line(lost: u64) -> String {
    format!("({lost} more were too many to be shown)")
}

/// What a template can show.
fn fields(packet: &Packet, zone: UtcOffset) -> Value {
    let ends = |ends: &Option<Ends>| {
        ends.as_ref().map_or_else(Default::default, |ends| (end(ends.src), end(ends.dst)))
    };
    let ((src, dst), (to_src, to_dst)) = (ends(&packet.came), ends(&packet.left));
    json!({
        "Time": time_of(packet, zone),
        "TimeNano": packet.time_nano,
        "Program": packet.program,
        "Process": packet.process.as_ref().map(|p| p.name.as_str()).unwrap_or_default(),
        "ProcessID": packet.process.as_ref().map_or(0, |p| p.id),
        "Interface": packet.interface,
        "Container": packet.container.as_deref().unwrap_or_default(),
        "Network": packet.network.as_deref().unwrap_or_default(),
        "Protocol": packet.protocol,
        "Detail": packet.detail,
        "Length": packet.length,
        "Src": src,
        "Dst": dst,
        "ToSrc": to_src,
        "ToDst": to_dst,
        "Opened": packet.opened,
        "Matched": packet.matched,
        "Verdict": packet.verdict,
        "Reason": packet.reason,
        "Meaning": packet.meaning,
    })
}

/// `15:04:05.000000 from_uplink eth0 web carried published tcp 198.51.100.7:5000 > 192.0.2.1:8080 [S] 74 bytes => …`
fn line(packet: &Packet, zone: UtcOffset) -> String {
    let mut way = way(packet);
    if let Some(left) = &packet.left {
        let left = if packet.process.is_some() { end(left.dst) } else { arrow(left) };
        way += &format!(" => {left}");
    }
    way += match (packet.opened, packet.matched.as_str()) {
        (true, "port") => " (new flow, published port)",
        (true, _) => " (new flow)",
        (false, "flow") => " (known flow)",
        (false, "port") => " (published port)",
        (false, "endpoint") => " (container)",
        (false, _) => "",
    };
    let container = packet.container.as_deref().unwrap_or("-");
    let time = time_of(packet, zone);
    columns([&time, &packet.program, interface(packet), container, &packet.verdict, &packet.reason, &way])
}

/// Where it was seen; a call is at no interface.
pub(super) fn interface(packet: &Packet) -> &str {
    if packet.interface.is_empty() { "-" } else { &packet.interface }
}

/// The time of day, with the zone's.
pub(super) fn time_of(packet: &Packet, zone: UtcOffset) -> String {
    const TIME: &[BorrowedFormatItem<'_>] =
        format_description!("[hour]:[minute]:[second].[subsecond digits:6]");
    let time = OffsetDateTime::from_unix_timestamp_nanos(packet.time_nano.into())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Only a year beyond 9999 cannot be written so.
    time.to_offset(zone).format(TIME).unwrap_or_default()
}

/// A packet as it came: `tcp 198.51.100.7:5000 > 192.0.2.1:8080 [S] 74 bytes`; a call as `tcp 127.0.0.1:8080 by curl[77]`.
pub(super) fn way(packet: &Packet) -> String {
    let mut way = packet.protocol.clone();
    if let (Some(process), Some(ends)) = (&packet.process, &packet.came) {
        let asked = if ends.dst.port() == 0 { ends.src } else { ends.dst };
        return way + &format!(" {} by {}[{}]", end(asked), process.name, process.id);
    }
    if let Some(came) = &packet.came {
        way += &format!(" {}", arrow(came));
    }
    if !packet.detail.is_empty() {
        way += &format!(" [{}]", packet.detail);
    }
    way + &format!(" {} bytes", packet.length)
}

fn arrow(ends: &Ends) -> String {
    format!("{} > {}", end(ends.src), end(ends.dst))
}

/// An address with its port, if there is one.
fn end(end: SocketAddr) -> String {
    if end.port() == 0 { end.ip().to_string() } else { end.to_string() }
}

const HEADS: [&str; 7] = ["TIME", "PROGRAM", "INTERFACE", "CONTAINER", "VERDICT", "REASON", "PACKET"];

/// A line of a table whose later lines are not known.
fn columns([time, program, interface, container, verdict, reason, packet]: [&str; 7]) -> String {
    format!("{time:<15} {program:<14} {interface:<15} {container:<12} {verdict:<7} {reason:<17} {packet}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::packets::Process;

    fn packet() -> Packet {
        let ends = |src: &str, dst: &str| Some(Ends { src: src.parse().unwrap(), dst: dst.parse().unwrap() });
        Packet {
            time_nano: 3_600_000_000_000 + 1_500_000,
            program: "from_uplink".into(),
            interface: "eth0".into(),
            process: None,
            container: Some("web".into()),
            network: Some("front".into()),
            protocol: "tcp".into(),
            detail: "S".into(),
            length: 74,
            came: ends("198.51.100.7:5000", "192.0.2.1:8080"),
            left: ends("198.51.100.7:5000", "172.17.0.2:80"),
            opened: true,
            matched: "port".into(),
            verdict: "carried".into(),
            reason: "published".into(),
            meaning: "Meant.".into(),
        }
    }

    #[test]
    fn a_packet_is_a_line() {
        let line = line(&packet(), UtcOffset::UTC);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "01:00:00.001500 from_uplink eth0 web carried published tcp 198.51.100.7:5000 > 192.0.2.1:8080 [S] 74 bytes \
             => 198.51.100.7:5000 > 172.17.0.2:80 (new flow, published port)"
        );
    }

    #[test]
    fn a_call_is_told_with_who_called() {
        let ends = |dst: &str| Some(Ends { src: "0.0.0.0:0".parse().unwrap(), dst: dst.parse().unwrap() });
        let connect = Packet {
            program: "sock_connect4".into(),
            interface: String::new(),
            process: Some(Process { id: 77, name: "curl".into() }),
            detail: String::new(),
            length: 0,
            came: ends("127.0.0.1:8080"),
            left: ends("172.17.0.2:80"),
            opened: false,
            ..packet()
        };
        let told = line(&connect, UtcOffset::UTC);
        let end = " tcp 127.0.0.1:8080 by curl[77] => 172.17.0.2:80 (published port)";
        assert!(told.contains(" sock_connect4  -  ") && told.ends_with(end), "{told}");
        let src = "0.0.0.0:8080".parse().unwrap();
        let bind =
            Packet { came: Some(Ends { src, dst: "0.0.0.0:0".parse().unwrap() }), left: None, ..connect };
        assert_eq!(way(&bind), "tcp 0.0.0.0:8080 by curl[77]");
    }

    #[test]
    fn what_is_not_ip_has_no_ends() {
        let arp = Packet {
            protocol: "arp".into(),
            detail: String::new(),
            came: None,
            left: None,
            opened: false,
            matched: "none".into(),
            container: None,
            ..packet()
        };
        assert!(line(&arp, UtcOffset::UTC).ends_with(" arp 74 bytes"));
    }

    #[test]
    fn a_template_shows_every_part() {
        let ObjectFormat::Template(template) =
            "{{.Container}}/{{.Network}} {{.Src}} {{.ToDst}} {{.Matched}} {{.Reason}}".parse().unwrap()
        else {
            panic!("this is a template")
        };
        let text = template.fill(Filling { data: &fields(&packet(), UtcOffset::UTC), labels: None }).unwrap();
        assert_eq!(text, "web/front 198.51.100.7:5000 172.17.0.2:80 port published");
    }
}
