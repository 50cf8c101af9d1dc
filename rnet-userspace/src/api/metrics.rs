//! `GET /metrics`: what Prometheus reads, as OpenMetrics text.
//!
//! A scrape reads no table as a whole: of the flow table it tells what the collector's last round has seen, of all else
//! what the controller knows. Labels take their values from what there is on this host, never from packets.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::anyhow;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{activity::Activity, error::ApiResult, supervisor::Supervisor};
use crate::controller::{
    Error,
    backend::ReasonCount,
    view::{ContainerState, OpenedFlows, Traffic, Usage},
};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Containers with series of their own; those behind them, by name, are in the sums only.
const MOST_CONTAINERS: usize = 1000;

/// Answers a scrape that came by the API.
pub(super) async fn get(State(daemon): State<Arc<Supervisor>>) -> ApiResult<Response> {
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text_of(&daemon).await?).into_response())
}

/// The text.
///
/// # Errors
/// When the datapath cannot be asked.
pub(super) async fn text_of(daemon: &Arc<Supervisor>) -> Result<String, Error> {
    let (usage, counters) = daemon.ask(|c| Ok((c.usage()?, c.counters()?))).await?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { usage, counters, activity: daemon.activity() }));
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|e| Error::Failed(anyhow!(e).context("write metrics")))?;
    Ok(text)
}

/// What is told, at one moment.
#[derive(Debug)]
struct Snapshot {
    usage: Usage,
    counters: Vec<ReasonCount>,
    activity: Arc<Activity>,
}

/// One series of a family: its labels and its value.
type Series<V, const N: usize> = ([(&'static str, String); N], V);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.datapath(&mut encoder)?;
        self.tables(&mut encoder)?;
        self.containers(&mut encoder)?;
        self.daemon(&mut encoder)
    }
}

impl Snapshot {
    fn datapath(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = |c: &ReasonCount| {
            [("program", c.program.clone()), ("verdict", c.verdict.clone()), ("reason", c.reason.clone())]
        };
        let packets = self.counters.iter().map(|c| (labels(c), c.packets));
        counters(to, "rnet_packets", "Packets that a program carried, passed or dropped", None, packets)?;
        let bytes = self.counters.iter().map(|c| (labels(c), c.bytes));
        counters(to, "rnet", "Bytes of these packets, from the Ethernet header on", Some(&Unit::Bytes), bytes)
    }

    fn tables(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Usage { flows, tables, networks, ports, containers, .. } = &self.usage;
        let flows = flows.iter().map(|flows| ([], *flows));
        gauges(to, "rnet_flows", "Tracked flows, as the collector saw them last", flows)?;
        // FLOWS4 is the table "flows" of the family "ipv4".
        let labels = |name: &str| {
            let (table, version) = name.split_at(name.len().saturating_sub(1));
            [("table", table.to_ascii_lowercase()), ("family", format!("ipv{version}"))]
        };
        let entries = tables.iter().filter_map(|table| Some((labels(&table.name), table.entries?)));
        gauges(to, "rnet_table_entries", "Entries in use of a table; a flow has two", entries)?;
        let capacity = tables.iter().map(|table| (labels(&table.name), table.capacity));
        gauges(to, "rnet_table_capacity_entries", "Entries that a table has room for", capacity)?;
        gauges(to, "rnet_published_ports", "Published ports", [([], *ports as u64)])?;
        gauges(to, "rnet_networks", "Networks", [([], *networks as u64)])?;
        let states = [
            ("created", ContainerState::Created),
            ("running", ContainerState::Running),
            ("exited", ContainerState::Exited),
        ];
        let count = |(name, state): (&str, ContainerState)| {
            let many = containers.iter().filter(|c| c.state == state).count();
            ([("state", name.to_owned())], many as u64)
        };
        gauges(to, "rnet_containers", "Containers by what they are doing", states.map(count))
    }

    fn containers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let containers = || self.usage.containers.iter().take(MOST_CONTAINERS);
        let name = |name: &String| [("container", name.clone())];
        let flows = containers().map(|c| (name(&c.name), c.flows));
        gauges(to, "rnet_container_flows", "Flows of a container, as the collector saw them last", flows)?;
        let opened = containers().filter(|c| c.ports > 0).map(|c| (name(&c.name), c.opened));
        let help = "Flows that the published ports of a container have opened";
        counters(to, "rnet_published_port_connections", help, None, opened)?;
        let quotas = |read: fn(&OpenedFlows) -> Option<u64>| {
            containers().flat_map(move |c| {
                c.interfaces.iter().flat_map(move |interface| {
                    interface.opened.iter().filter_map(move |opened| {
                        let labels = [
                            ("container", c.name.clone()),
                            ("network", interface.network.clone()),
                            ("interface", interface.name.clone()),
                            ("family", opened.family.clone()),
                        ];
                        Some((labels, read(opened)?))
                    })
                })
            })
        };
        let help = "Flows that a container has opened, as the collector saw them last";
        gauges(to, "rnet_endpoint_opened_flows", help, quotas(|opened| Some(opened.flows)))?;
        let help = "Flows that a container may have opened";
        gauges(to, "rnet_endpoint_flow_quota", help, quotas(|opened| opened.quota))?;
        let traffic = |read: fn(&Traffic) -> u64| {
            containers().flat_map(move |c| {
                c.interfaces.iter().filter_map(move |interface| {
                    let labels = [
                        ("container", c.name.clone()),
                        ("network", interface.network.clone()),
                        ("interface", interface.name.clone()),
                    ];
                    Some((labels, read(interface.traffic.as_ref()?)))
                })
            })
        };
        let bytes = Some(&Unit::Bytes);
        counters(to, "rnet_endpoint_receive", "Received by a container", bytes, traffic(|t| t.rx_bytes))?;
        counters(to, "rnet_endpoint_transmit", "Sent by a container", bytes, traffic(|t| t.tx_bytes))?;
        let help = "Packets received by a container";
        counters(to, "rnet_endpoint_receive_packets", help, None, traffic(|t| t.rx_packets))?;
        let help = "Packets sent by a container";
        counters(to, "rnet_endpoint_transmit_packets", help, None, traffic(|t| t.tx_packets))
    }

    fn daemon(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Activity { started, sweeps, refreshes, .. } = &*self.activity;
        let version = [([("version", crate::version::full().to_owned())], 1)];
        gauges(to, "rnet_daemon_build_info", "The daemon's version", version)?;
        let started = started.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "When the daemon was started, in seconds since 1970";
        let seconds = Some(&Unit::Seconds);
        let metric = to.encode_descriptor("rnet_daemon_start_time", help, seconds, MetricType::Gauge)?;
        ConstGauge::new(started).encode(metric)?;
        let rounds = [
            ("rnet_daemon_sweeps", "Rounds of the collector through the flow table", sweeps),
            ("rnet_daemon_reconciles", "Changes of links and addresses that were followed", refreshes),
        ];
        for (name, help, rounds) in rounds {
            counters(to, name, help, None, [([], rounds.done())])?;
            let errors = format!("{name}_errors");
            counters(to, &errors, &format!("{help}: those that failed"), None, [([], rounds.failed())])?;
            let duration = format!("{name}_duration");
            let help = format!("{help}: time that all of them took");
            let metric = to.encode_descriptor(&duration, &help, seconds, MetricType::Counter)?;
            ConstCounter::new(Duration::as_secs_f64(&rounds.took())).encode(metric)?;
        }
        if let Some(connections) = self.activity.connections() {
            let help = "Connections to the API that are open";
            gauges(to, "rnet_daemon_api_connections", help, [([], connections.open() as u64)])?;
            let help = "Connections to the API that were refused, as there were too many";
            let refused = [([], connections.refused())];
            counters(to, "rnet_daemon_api_refused_connections", help, None, refused)?;
        }
        let requests = self
            .activity
            .requests()
            .into_iter()
            .map(|((route, code), many)| ([("route", route), ("code", code.to_string())], many));
        counters(to, "rnet_daemon_api_requests", "Requests by route and status", None, requests)
    }
}

fn counters<const N: usize>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = Series<u64, N>>,
) -> fmt::Result {
    let metric = |value| ConstCounter::new(value);
    family(to.encode_descriptor(name, help, unit, MetricType::Counter)?, metric, series)
}

fn gauges<const N: usize>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = Series<u64, N>>,
) -> fmt::Result {
    let metric = |value| ConstGauge::new(value);
    family(to.encode_descriptor(name, help, None, MetricType::Gauge)?, metric, series)
}

fn family<M: EncodeMetric, const N: usize>(
    mut family: MetricEncoder<'_>,
    metric: impl Fn(u64) -> M,
    series: impl IntoIterator<Item = Series<u64, N>>,
) -> fmt::Result {
    for (labels, value) in series {
        // An empty pair of braces is allowed, and nobody's custom.
        if labels.is_empty() {
            return metric(value).encode(family);
        }
        metric(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
