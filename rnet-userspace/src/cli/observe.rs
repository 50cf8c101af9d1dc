//! What the instance and its datapath are doing.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;

use super::{Format, print, table};
use crate::{
    api::client::Client,
    controller::{
        backend::ReasonCount,
        view::{EngineStatus, PublishedPort, Status},
    },
};

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

fn at_a_glance(status: Status, socket: &Path) -> String {
    let (first, last) = status.snat_ports;
    let quota = match status.flow_quota {
        Some(0) => "none".to_owned(),
        Some(flows) => format!("{flows} flows a container"),
        None => "not told".to_owned(),
    };
    let uplink = |name: &String| match status.xdp.get(name) {
        Some(mode) => format!("{name} (XDP {mode})"),
        None => name.clone(),
    };
    let uplinks: Vec<_> = status.uplinks.iter().map(uplink).collect();
    let uplinks = if uplinks.is_empty() { "none".to_owned() } else { uplinks.join(", ") };
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
        ("quota", quota),
    ];
    let engines = status.engines.iter().flat_map(engine_lines);
    let lines = lines.into_iter().chain(engines);
    lines.map(|(what, value)| format!("{what:<12}{value}")).collect::<Vec<_>>().join("\n")
}

/// An engine that is followed, and below it what of it is not served.
fn engine_lines(engine: &EngineStatus) -> Vec<(&'static str, String)> {
    let version =
        engine.version.as_ref().map_or("does not answer".to_owned(), |version| format!("version {version}"));
    let first = ("engine", format!("{} at {}, {version}", engine.engine, engine.address));
    let problems = engine.problems.iter().map(|problem| ("", format!("! {problem}")));
    std::iter::once(first).chain(problems).collect()
}

/// What was dropped, of all that was counted.
pub(super) async fn dropped(client: &Client) -> Result<Vec<ReasonCount>> {
    let mut counters = client.counters().await?;
    counters.retain(|counter| counter.verdict == "dropped");
    Ok(counters)
}

pub(super) fn counter_table(counters: Vec<ReasonCount>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        backend::PortCount,
        model::{Binding, HostPort, Protocol, engine::Engine},
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
    fn ports_line_up() {
        let host = HostPort { addr: [0, 0, 0, 0].into(), port: 8080, protocol: Protocol::Tcp };
        let binding = Binding { host, addr: [172, 17, 0, 2].into(), port: 80, sources: 0, unheld: false };
        let count = PortCount { flows: 1, packets: 10, bytes: 1000 };
        let expected = "\
CONTAINER   PORT      PUBLISHED AS   FLOWS     PACKETS   BYTES
web         80/tcp    0.0.0.0:8080   1         10        1000";
        assert_eq!(port_table(vec![PublishedPort { container: "web".into(), binding, count }]), expected);
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
            xdp: [("eth1".into(), "native".into())].into(),
            networks: 2,
            containers: 3,
            running: 1,
            ports: 4,
            flows: 5,
            snat_ports: (1024, 32767),
            flow_quota: Some(15872),
            source_rate: 500,
            engines: vec![EngineStatus {
                engine: Engine::Docker,
                address: "unix:///var/run/docker.sock".into(),
                version: Some("20.10.24".into()),
                problems: vec!["this is not served".into()],
            }],
        };
        let expected = "\
instance    lab
version     0.1.0
daemon      pid 7
socket      /run/lab/rnet.sock
state       /var/lib/lab
pins        /sys/fs/bpf/lab/v1
uplinks     eth0, eth1 (XDP native)
networks    2
containers  3, 1 running
ports       4 published
flows       5
snat ports  1024-32767
quota       15872 flows a container
engine      docker at unix:///var/run/docker.sock, version 20.10.24
            ! this is not served";
        assert_eq!(at_a_glance(status.clone(), Path::new("/run/lab/rnet.sock")), expected);
        let alone = Status { uplinks: Vec::new(), ..status };
        assert!(at_a_glance(alone, Path::new("/")).contains("\nuplinks     none\n"));
    }
}
